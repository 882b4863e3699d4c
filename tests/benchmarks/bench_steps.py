"""134,000 step contexts out of trajectories, by the command that users run; and replay's pace.

134,000 is the paper's number of training instances. Tokens are counted by a tokenizer of Qwen's
kind. The memory is the sum over all processes of the command at its peak. The trajectories are
clones of real ones. Each clone's number stands in its issue and on the first and last line of every
observation, as equal texts would be counted once for all clones.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import cycle, islice
from math import ceil
from pathlib import Path

import psutil
from bench_table import Row, publish
from chatml_tokenizer import save_tokenizer

from srl_swe.bundled import bundled
from srl_swe.steps import StepMaker, StepSettings, load_card
from srl_swe.trajectories import load_trajectories
from srl_swe.trajectories.jsonl import render_line
from srl_swe.types import Observation, Step, Trajectory

CONTEXTS = 134_000
SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "swesmith_trajectories_hf"
"""Ten trajectories of SWE-smith; without them, the bundled ones are cloned."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One build. ``halves_s``: of the first and the second half of the trajectories."""

    seconds: float
    rss_mb: float
    halves_s: tuple[float, float]


def rows(quick: bool) -> list[Row]:
    """The build, and how fast steps are replayed."""
    from replay_rate import replay_rows

    return [*build_rows(CONTEXTS // 20 if quick else CONTEXTS), *replay_rows(quick)]


def build_rows(contexts: int) -> list[Row]:
    """At least so many contexts: the paper's window within a budget, two processes."""
    name, source = "bundled", bundled("trajectories") / "starter.jsonl"
    if SAMPLES.is_dir():
        name, source = "SWE-smith", SAMPLES
    originals = load_trajectories(source)
    making = StepMaker(StepSettings())
    per_round = sum(len(making.rows(original)) for original in originals)
    count = ceil(contexts / per_round) * len(originals)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with (folder / "clones.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(render_line(clone) for clone in islice(_clones(originals), count))
        seen = (step.observation for original in originals for step in original.steps)
        texts = [observation.text for observation in seen if observation]
        tokenizer = save_tokenizer(texts, folder / "tokenizer")
        measured = _build(folder / "clones.jsonl", folder / "steps", tokenizer)
        card = load_card(folder / "steps")
    label = f"none ({len(originals)} of {name}, x{count // len(originals)})"
    first, second = measured.halves_s
    figures = [
        ("build_134k_s", "s", measured.seconds),
        ("build_134k_rss_mb", "MB", measured.rss_mb),
        ("build_contexts", "rows", float(card.facts.rows)),
        ("build_trajectories_per_s", "1/s", count / measured.seconds),
        ("build_second_half_over_first", "ratio", second / first),
    ]
    return [Row(metric, unit, value, None, label, None, 1) for metric, unit, value in figures]


def _clones(originals: list[Trajectory]) -> Iterator[Trajectory]:
    for number, original in enumerate(cycle(originals)):
        yield replace(
            original,
            instance_id=f"{original.instance_id}.{number}",
            problem_statement=f"{original.problem_statement}\n\nSee also {number}.",
            steps=tuple(_renamed(step, number) for step in original.steps),
        )


def _renamed(step: Step, number: int) -> Step:
    if step.observation is None:
        return step
    text = f"{number}: {step.observation.text}\n{number}"
    return replace(step, observation=Observation(text, step.observation.exit_code))


def _build(source: Path, out: Path, tokenizer: Path) -> Measured:
    command = [sys.executable, "-m", "srl_swe", "steps", str(source), "--out", str(out)]
    command += ["--tokenizer", str(tokenizer), "--workers", "2", "--token-budget", "32768"]
    shards = out.with_name(f".{out.name}.partial")
    began, seen, rss = time.monotonic(), {0: 0.0}, 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        rss = max(rss, _rss(watched))
        whole = len(list(shards.glob("*-train.arrow"))) if shards.exists() else 0
        seen.setdefault(whole, time.monotonic() - began)
        time.sleep(0.2)
    assert process.returncode == 0, "the build failed"
    took_s = time.monotonic() - began
    half_s = seen[max(seen) // 2]
    return Measured(took_s, rss / 1e6, (half_s, seen[max(seen)] - half_s))


def _rss(process: psutil.Process) -> int:
    """Bytes that it and its children hold; pages that they share are counted for each."""
    total = 0
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += member.memory_info().rss
    return total


if __name__ == "__main__":
    publish("Step contexts by the 134,000, and replay", rows)
