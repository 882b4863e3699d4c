"""As many trajectories as wanted, cloned from real ones: other ids, and other texts throughout.

Each clone's number stands in its issue and on every observation's first and last line: equal texts
would be counted once for all clones, which real ones are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

from srl_swe.bundled import bundled
from srl_swe.trajectories import Reading, load_trajectories
from srl_swe.trajectories.jsonl import render_line
from srl_swe.types import Observation, Step, Trajectory

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "swesmith_trajectories_hf"
"""Ten trajectories of SWE-smith's, where they are at hand; else the bundled ones are cloned."""


def load_originals() -> tuple[str, list[Trajectory]]:
    """What is cloned, and a name for it."""
    if SAMPLES.is_dir():
        return "SWE-smith", load_trajectories(SAMPLES, Reading())
    return "bundled", load_trajectories(bundled("trajectories") / "starter.jsonl")


def write_clones(originals: list[Trajectory], count: int, path: Path) -> None:
    """``count`` clones, a line each."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(render_line(clone) for clone in islice(_clones(originals), count))


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
