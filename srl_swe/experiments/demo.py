"""The demo: the main job once on the bundled suite, through the public functions.

FOLDER/trajectories.jsonl   the experts' trajectories with the replay's observations
FOLDER/demonstrations/      noisy ones, for the warm start
FOLDER/policy/              the untrained policy
FOLDER/sft/, FOLDER/srl/    the two trainings
FOLDER/measured-POLICY/     rollouts and result of each policy
FOLDER/family/              the same for a family of made bugs, with functions that are held out
FOLDER/stages.json          seconds of the finished stages; a resume skips them
FOLDER/report.html          the page, with links to all others
FOLDER/view.html            every episode, replay, step context and sampled reply

The other files are those of every experiment (:mod:`srl_swe.experiments.experiment`).
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from srl_swe.errors import UserError
from srl_swe.evaluation.harness import Harness
from srl_swe.experiments.demo_report import CurvePoint, DemoSummary, render_html
from srl_swe.experiments.experiment import Experiment, Plan, Stage, Suite, load_suite, run_stages
from srl_swe.experiments.made_bugs import make_bugs
from srl_swe.experiments.policy_evaluation import load_result
from srl_swe.experiments.warm_start import make_tiny_policy, save_noisy_demonstrations
from srl_swe.files import CONFIG_FILE, claim, damage_named, held_alone, write_atomic
from srl_swe.instances import load_instances
from srl_swe.replay import as_recorded, replay_all
from srl_swe.reports.page import Way
from srl_swe.reports.record import number, read_metrics
from srl_swe.reports.runs import save_report
from srl_swe.sandbox import OpenSandbox
from srl_swe.trajectories import load_jsonl, save_jsonl
from srl_swe.view.collect import Sources
from srl_swe.view.page import VIEWER_FILE, save_viewer


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan(Plan):
    """``sft`` and ``srl`` override fields of the recipes ``sft-demo`` and ``srl-demo``.

    ``training_instances`` and ``held_out_instances``: how many of each to roll out. ``family``:
    overrides of ``sft-demo`` for made bugs, of which there are ``family_training`` and
    ``family_held_out``.
    """

    training_instances: int
    held_out_instances: int
    family_training: int
    family_held_out: int
    sft: dict[str, str] = field(default_factory=dict)
    srl: dict[str, str] = field(default_factory=dict)
    family: dict[str, str] = field(default_factory=dict)
    observation_chars: int = 600


FULL = DemoPlan(
    training_instances=8,
    held_out_instances=2,
    family_training=64,
    family_held_out=12,
    family={"max_steps": "250"},
)
QUICK = DemoPlan(
    training_instances=1,
    held_out_instances=1,
    family_training=2,
    family_held_out=1,
    sft={"max_steps": "20"},
    srl={"max_steps": "2"},
    family={"max_steps": "2"},
    max_new_tokens=48,
)
"""Every stage, too short to learn anything; for tests."""

_LABELS = {"untrained": "untrained", "sft": "after SFT", "srl": "after SRL"}
_AFRESH = "run the demo again with --fresh"


def run_demo(
    plan: DemoPlan,
    folder: Path,
    open_sandbox: OpenSandbox,
    *,
    fresh: bool = False,
    harness: Harness | None = None,
) -> DemoSummary:
    """Run the stages that ``folder`` lacks, write ``report.html`` there, and return the numbers.

    ``fresh`` removes an earlier demo there first. Raises UserError if the folder holds another
    plan, or with ``fresh`` anything but a demo.
    """
    with held_alone(folder):
        if fresh:
            _remove_demo(folder)
        claim(folder, asdict(plan))
        suite = load_suite("starter", load_instances("starter"))
        training_ids = suite.training_ids[: plan.training_instances]
        held_out_ids = sorted(suite.held_out_ids)[: plan.held_out_instances]
        by_id = {instance.instance_id: instance for instance in suite.instances}
        rolled_out = [by_id[name] for name in (*training_ids, *held_out_ids)]
        suite = Suite(rolled_out, suite.trajectories, training_ids)
        demo = Demo(plan, suite, folder, open_sandbox, harness)
        times = folder / "stages.json"
        spent_s: dict[str, float] = {}
        if times.exists():
            with damage_named(str(times), "run again with --fresh, or delete it to time anew"):
                held = json.loads(times.read_text(encoding="utf-8"))
                spent_s = {title: float(held[title]) for title in held}
        run_stages("demo", demo.stages(), spent_s, lambda *_: _save_json(times, spent_s))
        summary = demo.summarise(spent_s)
        demo.save_pages(summary)
        return summary


def _remove_demo(folder: Path) -> None:
    """Remove the folder. Raises UserError if it holds anything but a demo."""
    config = folder / CONFIG_FILE
    if config.is_file():
        with damage_named(str(config), "delete the folder yourself, or name another"):
            held = json.loads(config.read_text("utf-8"))
        is_demo = {"sft", "srl", "held_out_instances"} <= {*held}
    else:
        is_demo = not folder.is_dir() or not any(folder.iterdir())
    if not is_demo:
        raise UserError(
            f"--fresh: {folder} holds no demo, and is not deleted; name another folder."
        )
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Demo(Experiment[DemoPlan]):
    """The stages of the demo; each leaves its files in the folder."""

    def stages(self) -> list[Stage[object]]:
        """All stages, in their order."""
        return [
            Stage("replay the expert trajectories in their containers", 4, self.replay),
            Stage("build step contexts", 1, self.make_data),
            Stage("make a tiny policy", 4, self.make_policy),
            self._evaluation("roll out and grade the untrained policy", 8, "untrained"),
            Stage("SFT warm start on noisy demonstrations", 130, self.sft),
            self._evaluation("roll out and grade after SFT", 14, "sft"),
            Stage("SRL: GRPO on the similarity of each step", 240, self.srl),
            self._evaluation("roll out and grade after SRL", 15, "srl"),
            Stage("made bugs: execute experts' actions in containers", 40, self.family.prepare),
            Stage("made bugs: SFT of another tiny policy", 90, self.family.sft),
            Stage("made bugs: roll out and grade on functions held out", 15, self.family.roll_out),
        ]

    @cached_property
    def family(self) -> Family:
        """The family of made bugs, in the repository of the first instance."""
        plan, host = self.plan, self.suite.instances[0]
        made = make_bugs(host, plan.family_training + plan.family_held_out)
        suite = Suite(
            [instance for instance, _ in made],
            [actions for _, actions in made[: plan.family_training]],
            tuple(instance.instance_id for instance, _ in made[: plan.family_training]),
        )
        folder = self.folder / "family"
        return Family(plan, suite, folder, self.open_sandbox, self.harness)

    def _evaluation(self, title: str, expected_s: float, name: str) -> Stage[object]:
        policy, place = self.policy(name), self.result_folder(name)
        return Stage(title, expected_s, lambda: self.evaluate(policy, name, place))

    def policy(self, name: str) -> Path:
        """The policy's folder."""
        return self.folder / "policy" if name == "untrained" else self.folder / name / "final"

    def result_folder(self, name: str) -> Path:
        """The folder of its rollouts and its result."""
        return self.folder / f"measured-{name}"

    def replay(self) -> None:
        """Execute the bundled trajectories; later stages use the fresh observations."""
        recorded = self.suite.trajectories
        instances = {item.instance_id: item for item in load_instances("starter")}
        replays = replay_all(recorded, instances, self.open_sandbox, self.folder)
        drifted = [item.instance_id for item in replays if not item.faithful]
        if drifted:
            raise UserError(f"replay differs from the record for {', '.join(drifted)}.")
        pairs = zip(recorded, replays, strict=True)
        fresh = [as_recorded(t, instances[t.instance_id], replay) for t, replay in pairs]
        save_jsonl(self.folder / "trajectories.jsonl", fresh)
        counts = {
            "trajectories": len(replays),
            "steps": sum(len(item.steps) for item in replays),
            "as_recorded": sum(step.match.as_recorded for item in replays for step in item.steps),
        }
        _save_json(self.folder / "replay.json", counts)

    def make_data(self) -> None:
        """Build step contexts of the experts, and noisy demonstrations."""
        trajectories = load_jsonl(self.folder / "trajectories.jsonl")
        self.build_steps(trajectories)
        save_noisy_demonstrations(trajectories, self.step_settings, self.folder / "demonstrations")

    def make_policy(self) -> None:
        """Make an untrained policy with a tokenizer of the data."""
        make_tiny_policy(self.steps, self.policy("untrained"))

    def sft(self) -> None:
        """Warm-start on noisy demonstrations, which leave SRL something to learn."""
        self._train("sft", self.folder / "demonstrations", "untrained", self.plan.sft)

    def srl(self) -> None:
        """Train the paper's objective on the experts' steps, from the warm start."""
        self._train("srl", self.steps, "sft", self.plan.srl)

    def _train(self, method: str, data: Path, start: str, overrides: Mapping[str, str]) -> None:
        places = {"model": self.policy(start), "data": data, "output": self.folder / method}
        train_by_recipe(f"{method}-demo", overrides, places)

    def summarise(self, stage_seconds: Mapping[str, float]) -> DemoSummary:
        """The results of all stages as one record."""
        counts, metrics = self.folder / "replay.json", self.folder / "srl" / "metrics.jsonl"
        with damage_named(str(counts), _AFRESH):
            held = json.loads(counts.read_text(encoding="utf-8"))
            trajectories, steps = int(held["trajectories"]), int(held["steps"])
            as_recorded = int(held["as_recorded"])
        with damage_named(str(metrics), _AFRESH):
            curve = [
                CurvePoint(
                    step=row["step"],
                    reward=float(row["reward/mean"]),
                    similarity=number(row.get("similarity/mean")),
                    format_rate=float(row["format/ok"]),
                    kept_fraction=float(row["dynamic_sampling/kept_frac"]),
                )
                for row in read_metrics(metrics)
            ]
        results = [
            replace(load_result(self.result_folder(name)), label=label)
            for name, label in _LABELS.items()
        ]
        return DemoSummary(
            training_ids=self.suite.training_ids,
            held_out_ids=self.suite.held_out_ids,
            trajectories=trajectories,
            steps_replayed=steps,
            steps_as_recorded=as_recorded,
            examples=results[0].steps,
            parameters=_count_parameters(self.policy("untrained")),
            policies=tuple(results),
            family_ids=self.family.suite.held_out_ids,
            family=load_result(self.family.folder / "measured-sft"),
            curve=tuple(curve),
            stage_seconds=dict(stage_seconds),
        )

    def save_pages(self, summary: DemoSummary) -> None:
        """Write ``report.html`` and the pages it leads to: ``view.html``, and the trainings'."""
        known = [*self.suite.trajectories, *self.family.suite.trajectories]
        experts = {trajectory.instance_id: trajectory for trajectory in known}
        bundled = {item.instance_id: item for item in load_instances("starter")}
        instances = bundled | {item.instance_id: item for item in self.family.suite.instances}
        place = self.folder / VIEWER_FILE
        viewer = save_viewer([self.folder], place, Sources(instances, experts), "srl-swe demo")
        run = self.folder.resolve().name
        for method in ("sft", "srl"):
            save_report(self.folder / method, viewer.group_hrefs(f"{run}/{method}", "../"))
        save_report(self.family.folder / "sft")
        rollouts = {name: f"{run}/{self.result_folder(name).name}" for name in _LABELS}
        untrained, after_sft, after_srl = map(viewer.listed, rollouts.values())
        replays, steps = viewer.listed(run), viewer.listed(f"{run}/steps")
        sft, srl, replies = "sft/report.html", "srl/report.html", viewer.listed(f"{run}/srl")
        family = (viewer.listed(f"{run}/family"), viewer.listed(f"{run}/family/measured-sft"))
        places = [replays, steps, "", untrained, sft, after_sft, srl, after_srl]
        places += [family[0], "family/sft/report.html", family[1]]
        titles = (stage.title for stage in self.stages())
        page = render_html(
            summary,
            ways=(
                Way("Everything", place.name, "Episodes, replays, step contexts and replies."),
                Way("Episodes after SRL", after_srl, "Failures first, each beside the expert."),
                Way("Replays", replays, "Recorded and fresh observations side by side."),
                Way("Step contexts", steps, "The prompts, and the expert's replies."),
                Way("SFT", sft, "Curves of the warm start."),
                Way("SRL", srl, "Curves, and the best and worst replies of a step."),
                Way("Made bugs", family[1], "Episodes in functions that are held out."),
                Way("Sampled replies", replies, "Groups with rewards, beside the expert's action."),
            ),
            stage_links={title: to for title, to in zip(titles, places, strict=True) if to},
            episodes={
                (label, instance.instance_id): viewer.href(f"{runs}/{instance.instance_id}")
                for label, runs in zip(_LABELS.values(), rollouts.values(), strict=True)
                for instance in self.suite.instances
            },
        )
        write_atomic(self.folder / "report.html", page)


@dataclass(frozen=True)
class Family(Experiment[DemoPlan]):
    """The stages of the demo on made bugs; the suite's trajectories have no observations yet."""

    def prepare(self) -> None:
        """Execute the experts' actions, build step contexts, and make a policy."""
        instances = {instance.instance_id: instance for instance in self.suite.instances}
        replays = replay_all(self.suite.trajectories, instances, self.open_sandbox, self.folder)
        pairs = zip(self.suite.trajectories, replays, strict=True)
        fresh = [as_recorded(t, instances[t.instance_id], replay) for t, replay in pairs]
        self.build_steps(fresh)
        make_tiny_policy(self.steps, self.folder / "policy", whole_numbers=True)

    def sft(self) -> None:
        """Train on the experts' steps alone: their answers are all right."""
        places = {
            "model": self.folder / "policy",
            "data": self.steps,
            "output": self.folder / "sft",
        }
        train_by_recipe("sft-demo", self.plan.family, places)

    def roll_out(self) -> None:
        """Evaluate the policy on functions that are held out."""
        policy, held_out = self.folder / "sft" / "final", self.suite.held_out_ids
        chosen = [each for each in self.suite.instances if each.instance_id in held_out]
        held = replace(self, suite=replace(self.suite, instances=chosen))
        held.evaluate(policy, "family", self.folder / "measured-sft")


def train_by_recipe(name: str, overrides: Mapping[str, str], places: Mapping[str, Path]) -> None:
    """Train by a bundled recipe of SFT or SRL, its folders given by ``places``."""
    from srl_swe.training.load_recipe import load_recipe, recipe_path
    from srl_swe.training.recipe import RlvrRecipe
    from srl_swe.training.train import train

    changes = {**overrides, **{field: str(path) for field, path in places.items()}}
    recipe = load_recipe(recipe_path(name), changes)
    assert not isinstance(recipe, RlvrRecipe), "the demo trains by SFT and SRL"
    train(recipe)


def _count_parameters(policy: Path) -> int:
    from safetensors import safe_open

    with safe_open(policy / "model.safetensors", framework="numpy") as tensors:
        return sum(
            math.prod(tensors.get_slice(name).get_shape())
            for name in tensors.keys()  # noqa: SIM118
        )


def _save_json(path: Path, content: Mapping[str, object]) -> None:
    write_atomic(path, json.dumps(content, indent=2) + "\n")
