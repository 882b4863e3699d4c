"""What each stage of the demo does; all of it through the functions that users call."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from srl_swe.bundled import bundled
from srl_swe.dialects import get_dialect
from srl_swe.errors import UserError
from srl_swe.evaluation.harness import Harness
from srl_swe.experiments.demo_report import CurvePoint, DemoSummary, save_html
from srl_swe.experiments.measure import Measuring, careless, load_result
from srl_swe.experiments.measure import measure as measure_policy
from srl_swe.files import damage_named, write_atomic
from srl_swe.instances import load_instances
from srl_swe.progress import say
from srl_swe.replay import as_recorded, replay_all
from srl_swe.run_folder import claim
from srl_swe.sandbox import OpenSandbox
from srl_swe.steps import Making, StepJob, StepSettings, build_step_dataset, save_step_contexts
from srl_swe.steps.contexts import StepContext, make_step_contexts
from srl_swe.steps.prompt import Window
from srl_swe.trajectories import ReadReport, load_jsonl, save_jsonl
from srl_swe.types import Instance

# How much the demo does: the full one, and a quick one with every stage for the tests.


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What decides a demo's results; a resume under another plan is refused.

    ``sft`` and ``srl`` override fields of the recipes ``sft-demo`` and ``srl-demo``.
    ``training_instances`` and ``held_out_instances`` say how many of each are rolled out.
    """

    training_instances: int
    held_out_instances: int
    sft: dict[str, str] = field(default_factory=dict)
    srl: dict[str, str] = field(default_factory=dict)
    observation_chars: int = 600
    max_steps: int = 12
    max_new_tokens: int = 96

    @property
    def window(self) -> Window:
        """The paper's last two pairs, with short observations."""
        return Window(observation_chars=self.observation_chars)


FULL = DemoPlan(training_instances=8, held_out_instances=2)
QUICK = DemoPlan(
    training_instances=1,
    held_out_instances=1,
    sft={"max_steps": "20"},
    srl={"max_steps": "2"},
    max_new_tokens=48,
)

LABELS = {"untrained": "untrained", "sft": "after SFT", "srl": "after SRL"}


@dataclass(frozen=True)
class DemoRun:
    """One demo: what it is to do, where, and in which sandboxes."""

    plan: DemoPlan
    folder: Path
    open_sandbox: OpenSandbox
    harness: Harness | None = None

    @cached_property
    def instances(self) -> Mapping[str, Instance]:
        """All of the bundled suite, by id."""
        return {i.instance_id: i for i in load_instances("starter")}

    @cached_property
    def training_ids(self) -> list[str]:
        """Instances with an expert trajectory; those that are rolled out."""
        ids = sorted(t.instance_id for t in load_jsonl(_bundled_trajectories()))
        return ids[: self.plan.training_instances]

    @cached_property
    def held_out_ids(self) -> list[str]:
        """Instances without one; those that are rolled out."""
        seen = {t.instance_id for t in load_jsonl(_bundled_trajectories())}
        return sorted(set(self.instances) - seen)[: self.plan.held_out_instances]

    def policy(self, name: str) -> Path:
        """Where the policy of that stage is."""
        return self.folder / "policy" if name == "untrained" else self.folder / name / "final"

    def measured(self, name: str) -> Path:
        """Where its rollouts and its result are."""
        return self.folder / f"measured-{name}"


def replay(demo: DemoRun) -> None:
    """Execute the bundled trajectories; later stages use what was printed now."""
    recorded = load_jsonl(_bundled_trajectories())
    replays = replay_all(recorded, demo.instances, demo.open_sandbox, demo.folder)
    drifted = [item.instance_id for item in replays if not item.faithful]
    if drifted:
        raise UserError(f"replay differs from the record for {', '.join(drifted)}.")
    pairs = zip(recorded, replays, strict=True)
    fresh = [as_recorded(t, demo.instances[t.instance_id], r) for t, r in pairs]
    save_jsonl(demo.folder / "trajectories.jsonl", fresh)
    counts = {
        "trajectories": len(replays),
        "steps": sum(len(item.steps) for item in replays),
        "as_recorded": sum(step.match.as_recorded for item in replays for step in item.steps),
    }
    _save_json(demo.folder / "replay.json", counts)


def steps(demo: DemoRun) -> None:
    """Step contexts with ``submit`` as a target too, or no rollout would ever end.

    ``steps/`` holds the experts' and ``demonstrations/`` the careless ones of the warm start.
    """
    trajectories = load_jsonl(demo.folder / "trajectories.jsonl")
    settings = StepSettings(window=demo.plan.window, include_last=True)
    job = StepJob(demo.folder / "steps", Making(settings), given={}, repeatable=False)
    build_step_dataset(trajectories, job, ReadReport(records=len(trajectories)))
    contexts = [
        item
        for trajectory in trajectories
        for item in make_step_contexts(
            trajectory, get_dialect("xml"), demo.plan.window, include_last=True
        )
        if isinstance(item, StepContext)
    ]
    save_step_contexts(
        careless(contexts), demo.folder / "demonstrations", _CARELESS_CARD, asdict(settings)
    )


_CARELESS_CARD = """\
# Demonstrations that are often wrong

Those of `steps/`, each several times, with answers that are right only some of the time: for the
warm start of the demo, and of no other use.
"""


def tiny_policy(demo: DemoRun) -> None:
    """Random weights, and a tokenizer trained on the texts of the step contexts.

    Many words and few layers: a reply is then some 30 tokens, and training takes minutes.
    """
    from srl_swe.training.data import load_step_contexts
    from srl_swe.training.tiny_policy import make_tiny_policy

    rows = load_step_contexts(str(demo.folder / "steps"))
    messages = [message for row in rows for message in row["prompt"] + row["completion"]]
    texts = (message["content"] for message in messages)
    make_tiny_policy(texts, demo.policy("untrained"), vocab_size=4096, hidden=192, layers=2)


def sft(demo: DemoRun) -> None:
    """Warm start on demonstrations that are often wrong, so that something is left for SRL."""
    _train(demo, "sft", "demonstrations", demo.policy("untrained"), demo.plan.sft)


def srl(demo: DemoRun) -> None:
    """The paper's objective on the experts' steps, from the warm start."""
    _train(demo, "srl", "steps", demo.policy("sft"), demo.plan.srl)


def _train(
    demo: DemoRun, method: str, data: str, model: Path, overrides: Mapping[str, str]
) -> None:
    from srl_swe.training.load_recipe import load_recipe
    from srl_swe.training.recipe import RlvrRecipe
    from srl_swe.training.train import recipe_path, train

    places = {
        "model": str(model),
        "data": str(demo.folder / data),
        "output": str(demo.folder / method),
    }
    recipe = load_recipe(recipe_path(f"{method}-demo"), {**overrides, **places})
    assert not isinstance(recipe, RlvrRecipe), "the demo trains by SFT and SRL"
    train(recipe)


def measure(demo: DemoRun, name: str) -> None:
    """Score greedy replies on the training steps, roll out greedily, grade what is handed in."""
    plan = demo.plan
    on = Measuring(
        data=demo.folder / "steps",
        instances=[demo.instances[i] for i in [*demo.training_ids, *demo.held_out_ids]],
        open_sandbox=demo.open_sandbox,
        grading=demo.folder / "grading",
        window=plan.window,
        max_steps=plan.max_steps,
        max_new_tokens=plan.max_new_tokens,
        harness=demo.harness,
    )
    measure_policy(demo.policy(name), name, on, demo.measured(name))


def summarise(demo: DemoRun, stage_seconds: Mapping[str, float]) -> DemoSummary:
    """What all stages left behind, as one record."""
    counts = demo.folder / "replay.json"
    with damage_named(str(counts), "run the demo again with --fresh"):
        held = json.loads(counts.read_text(encoding="utf-8"))
        replayed = {name: int(held[name]) for name in ("trajectories", "steps", "as_recorded")}
    results = [
        replace(load_result(demo.measured(name)), label=label) for name, label in LABELS.items()
    ]
    return DemoSummary(
        training_ids=tuple(demo.training_ids),
        held_out_ids=tuple(demo.held_out_ids),
        trajectories=replayed["trajectories"],
        steps_replayed=replayed["steps"],
        steps_as_recorded=replayed["as_recorded"],
        examples=results[0].steps,
        parameters=_count_parameters(demo.policy("untrained")),
        policies=tuple(results),
        curve=tuple(_curve(demo.folder / "srl" / "metrics.jsonl")),
        stage_seconds=dict(stage_seconds),
    )


def _curve(metrics: Path) -> list[CurvePoint]:
    from srl_swe.reports.record import number, read_metrics

    with damage_named(str(metrics), "run the demo again with --fresh"):
        return [
            CurvePoint(
                step=row["step"],
                reward=float(row["reward/mean"]),
                similarity=number(row.get("similarity/mean")),
                format_rate=float(row["format/ok"]),
                kept_fraction=float(row["dynamic_sampling/kept_frac"]),
            )
            for row in read_metrics(metrics)
        ]


def _count_parameters(policy: Path) -> int:
    from safetensors import safe_open

    with safe_open(policy / "model.safetensors", framework="numpy") as tensors:
        return sum(
            math.prod(tensors.get_slice(name).get_shape())
            for name in tensors.keys()  # noqa: SIM118
        )


def _bundled_trajectories() -> Path:
    return bundled("trajectories") / "starter.jsonl"


def _save_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(content, indent=2) + "\n")


# The demo's stages in their order; each leaves a file behind and is skipped if it is there.


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
    :class:`srl_swe.experiments.measure.Measuring`. Raises UserError if the folder holds
    another plan's.
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
