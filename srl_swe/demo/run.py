"""The demo's stages in their order; each leaves a file behind and is skipped if it is there."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from srl_swe.demo.plan import DemoPlan
from srl_swe.demo.report import save_html
from srl_swe.demo.stages import DemoRun, measure, replay, sft, srl, steps, summarise, tiny_policy
from srl_swe.demo.summary import DemoSummary
from srl_swe.evaluation.swebench_harness import Harness
from srl_swe.files import damage_named, write_atomic
from srl_swe.progress import say
from srl_swe.run_folder import claim
from srl_swe.sandbox import OpenSandbox


@dataclass(frozen=True, slots=True)
class Stage:
    """``expected_s``: seconds it took on two cores; only the time left is guessed from it."""

    title: str
    expected_s: float
    run: Callable[[], object]


def run_demo(
    plan: DemoPlan,
    folder: Path,
    open_sandbox: OpenSandbox,
    *,
    fresh: bool = False,
    harness: Harness | None = None,
) -> DemoSummary:
    """Run the stages that ``folder`` lacks, write ``report.html`` there, and return the numbers.

    ``fresh`` removes what the folder holds first; ``harness`` is that of
    :class:`srl_swe.measure.Measuring`. Raises UserError if the folder holds another plan's.
    """
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    claim(folder, asdict(plan))
    demo = DemoRun(plan, folder, open_sandbox, harness)
    stages = [
        Stage("replay the expert trajectories in their containers", 4, lambda: replay(demo)),
        Stage("build step contexts", 1, lambda: steps(demo)),
        Stage("make a tiny policy", 4, lambda: tiny_policy(demo)),
        Stage("roll out and grade the untrained policy", 8, lambda: measure(demo, "untrained")),
        Stage("SFT warm start on careless demonstrations", 130, lambda: sft(demo)),
        Stage("roll out and grade after SFT", 14, lambda: measure(demo, "sft")),
        Stage("SRL: GRPO on the similarity of each step", 240, lambda: srl(demo)),
        Stage("roll out and grade after SRL", 15, lambda: measure(demo, "srl")),
    ]
    clock = _Clock(folder / "stages.json", stages)
    for number, stage in enumerate(stages, 1):
        clock.run(number, stage)
    summary = summarise(demo, clock.seconds)
    save_html(summary, folder / "report.html")
    return summary


class _Clock:
    """Times the stages, over kills and resumes, and says how long the rest may take."""

    def __init__(self, path: Path, stages: list[Stage]) -> None:
        self._path, self._stages = path, stages
        self.seconds: dict[str, float] = {}
        if path.exists():
            with damage_named(str(path), "run again with --fresh, or delete it to time anew"):
                held = json.loads(path.read_text(encoding="utf-8"))
                self.seconds = {str(title): float(seconds) for title, seconds in held.items()}

    def run(self, number: int, stage: Stage) -> None:
        """Run one stage; the seconds of one that is already done stay what they were."""
        if stage.title in self.seconds:
            say(f"[{number}/{len(self._stages)}] {stage.title}: done before")
            return
        left = timedelta(seconds=round(self._left_s()))
        say(f"[{number}/{len(self._stages)}] {stage.title} (ETA of the demo {left})")
        started = time.monotonic()
        stage.run()
        self.seconds[stage.title] = round(time.monotonic() - started, 1)
        write_atomic(self._path, json.dumps(self.seconds, indent=2) + "\n")

    def _left_s(self) -> float:
        """The expected seconds of what is left, scaled by how this machine did so far."""
        done = [stage for stage in self._stages if stage.title in self.seconds]
        expected_s = sum(stage.expected_s for stage in done)
        pace = sum(self.seconds[stage.title] for stage in done) / expected_s if done else 1.0
        return pace * sum(s.expected_s for s in self._stages if s.title not in self.seconds)
