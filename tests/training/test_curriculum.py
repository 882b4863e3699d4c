from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from srl_swe.errors import PhaseStopped, UserError
from srl_swe.reports.record import read_metrics
from srl_swe.rollout.prompting import load_prompting
from srl_swe.training.curriculum import save_recipe, train_curriculum
from srl_swe.training.load_recipe import load_curriculum, load_recipe
from srl_swe.training.recipe import CurriculumRecipe, RlvrRecipe, SftRecipe, SrlRecipe
from srl_swe.training.run_folder import open_run

from ..commands import is_alive, wait_until
from .conftest import ON_CPU

PHASES: list[dict[str, Any]] = [
    {
        "name": "warm",
        "method": "sft",
        "trainer": {**ON_CPU, "max_steps": 3, "per_device_train_batch_size": 4, "save_steps": 1},
    },
    {
        "method": "srl",
        "trainer": {
            **ON_CPU,
            "max_steps": 3,
            "per_device_train_batch_size": 8,
            "num_generations": 4,
            "max_completion_length": 12,
            "save_steps": 1,
        },
    },
]

Load = Callable[..., CurriculumRecipe]


@pytest.fixture
def write(tmp_path: Path, policy: Path, data: Path) -> Callable[..., Path]:
    def write_curriculum(phases: Any = PHASES, **lines: Any) -> Path:
        path = tmp_path / "curriculum.yaml"
        content = {"method": "curriculum", "model": str(policy), "data": str(data), **lines}
        content = {"output": str(tmp_path / "out"), **content, "phases": phases}
        path.write_text(yaml.safe_dump(content))
        return path

    return write_curriculum


@pytest.fixture
def load(write: Callable[..., Path]) -> Load:
    def load_written(overrides: Any = None, **lines: Any) -> CurriculumRecipe:
        return load_curriculum(write(**lines), overrides)

    return load_written


class FakePhases:
    """Runs a phase in no time: claims its folder and leaves a ``final/``."""

    def __init__(self, **codes: int) -> None:
        self.ran: list[str] = []
        self._codes = codes

    def __call__(self, method: str, path: Path) -> int:
        self.ran.append(method)
        run = open_run(load_recipe(path))
        run.claim()
        if not self._codes.get(method):
            run.final.mkdir()
        return self._codes.get(method, 0)


def test_each_phase_starts_from_the_last_ones_final_policy(
    load: Load, policy: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    warm, srl = load().phases
    assert (warm.name, srl.name) == ("01-warm", "02-srl")
    assert isinstance(warm.recipe, SftRecipe)
    assert isinstance(srl.recipe, SrlRecipe)
    assert (warm.recipe.model, warm.recipe.output) == (str(policy), f"{out}/01-warm")
    assert (srl.recipe.model, srl.recipe.output) == (f"{out}/01-warm/final", f"{out}/02-srl")
    assert warm.recipe.data == srl.recipe.data == str(data)


def test_a_phase_may_start_from_a_recipe_that_ships_and_change_lines_of_it(load: Load) -> None:
    phases = [
        {"recipe": "srl-demo", "trainer": {"max_steps": 2}},
        {"method": "rlvr"},
    ]
    srl, rlvr = (phase.recipe for phase in load(phases=phases, bench="starter").phases)
    assert isinstance(srl, SrlRecipe)
    assert (srl.trainer["max_steps"], srl.trainer["num_generations"]) == (2, 8)
    assert isinstance(rlvr, RlvrRecipe)
    assert rlvr.bench == "starter"


def test_the_rewards_of_a_phase_replace_those_of_its_recipe(load: Load) -> None:
    phases = [{"recipe": "srl-small", "rewards": {"gated": 1.0}}]
    (phase,) = load(phases=phases).phases
    assert isinstance(phase.recipe, SrlRecipe)
    assert phase.recipe.rewards == {"gated": 1.0}


def test_overrides_reach_the_curriculum_and_the_fields_of_a_phase(load: Load) -> None:
    overrides = {
        "output": ["elsewhere"],
        "phases.srl.learning_rate": ["1e-5"],
        "phases.warm.lora_r": ["4"],
        "phases.warm.use_peft": [],
    }
    warm, srl = (phase.recipe for phase in load(overrides).phases)
    assert srl.output == "elsewhere/02-srl"
    assert srl.trainer["learning_rate"] == 1e-5
    assert warm.model_config == {"lora_r": 4, "use_peft": True}


@pytest.mark.parametrize(
    ("overrides", "lines", "said"),
    [
        ({}, {"phases": []}, "phases must have at least 1 item, not []"),
        ({}, {"phases": [{"method": "ppo"}]}, "phase 1: method is 'ppo'"),
        ({}, {"phases": [PHASES[1], PHASES[1]]}, "two phases are named 'srl'"),
        ({}, {"phases": [PHASES[1] | {"model": "m"}]}, "a phase has no model of its own"),
        ({}, {"phases": [PHASES[1] | {"name": "../x"}]}, "can't name a folder"),
        ({}, {"phases": [PHASES[1] | {"tainer": {}}]}, "Did you mean 'trainer'"),
        ({}, {"phases": [{"recipe": "srl-dmo"}]}, "Did you mean 'srl-demo'"),
        ({}, {"phase": 1}, "unknown field 'phase'. Did you mean 'phases'"),
        ({}, {"model": None}, "model is not set"),
        ({"learning_rate": ["1"]}, {}, "--phases.NAME.learning_rate"),
        ({"phases.slr.seed": ["1"]}, {}, "is 'slr'; it must be one of warm, srl"),
        ({"phases.srl.output": ["x"]}, {}, "a phase has no output of its own"),
        ({"phases.srl.learning_rat": ["1"]}, {}, "Did you mean 'learning_rate'"),
    ],
)
def test_a_mistake_in_a_curriculum_is_one_sentence(
    load: Load, overrides: dict[str, list[str]], lines: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        load(overrides, **lines)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_phases_recipe_file_says_the_same_as_the_phase(load: Load) -> None:
    phases = [*PHASES, {"method": "rlvr", "bench": "starter", "limits": {"steps": 3}}]
    for phase in load(phases=phases).phases:
        assert load_recipe(save_recipe(phase.recipe)) == phase.recipe


def test_a_phase_that_stops_stops_the_curriculum_which_goes_on_from_there(load: Load) -> None:
    stopping, going_on, idle = FakePhases(srl=3), FakePhases(), FakePhases()
    with pytest.raises(PhaseStopped) as stopped:
        train_curriculum(load(), stopping)
    assert stopped.value.code == 3
    final = train_curriculum(load(), going_on)
    assert final == Path(load().output) / "02-srl" / "final"
    assert train_curriculum(load(), idle) == final
    assert (stopping.ran, going_on.ran, idle.ran) == (["sft", "srl"], ["srl"], [])


def test_a_phase_begun_under_another_recipe_is_refused_with_the_keys_that_differ(
    load: Load,
) -> None:
    with pytest.raises(PhaseStopped):
        train_curriculum(load(), FakePhases(sft=1))
    later = FakePhases()
    with pytest.raises(UserError, match=r"trainer.max_steps: 3 -> 4"):
        train_curriculum(load({"phases.warm.max_steps": ["4"]}), later)
    assert later.ran == []
    train_curriculum(load({"phases.srl.max_steps": ["4"]}), later)
    assert later.ran == ["sft", "srl"]


def test_a_phase_begun_from_a_policy_that_is_gone_is_refused(load: Load) -> None:
    train_curriculum(load(), FakePhases())
    first, second = (Path(phase.recipe.output) for phase in load().phases)
    shutil.rmtree(first)
    later = FakePhases()
    with pytest.raises(UserError, match=r"02-srl was begun from .*01-warm/final, which is gone"):
        train_curriculum(load({"phases.warm.max_steps": ["4"]}), later)
    assert later.ran == []
    shutil.rmtree(second)
    train_curriculum(load({"phases.warm.max_steps": ["4"]}), later)
    assert later.ran == ["sft", "srl"]


@pytest.mark.parametrize(
    "lacks", [{"data": "nowhere"}, {"validation": {"data": "nowhere", "every_steps": 1}}]
)
def test_data_that_a_later_phase_lacks_is_named_before_the_first_one_runs(
    load: Load, lacks: dict[str, Any]
) -> None:
    phases = [PHASES[0], PHASES[1] | lacks]
    fake = FakePhases()
    with pytest.raises(UserError, match="nowhere holds no step contexts"):
        train_curriculum(load(phases=phases), fake)
    assert fake.ran == []


def command(path: Path, *options: str) -> list[str]:
    return ["-m", "srl_swe", "train", "curriculum", "--config", str(path), *options]


def kill_after(saved: Path, recipe: Path) -> None:
    """Run the curriculum until the file is there, then kill it; its phase ends with it."""
    process = subprocess.Popen([sys.executable, *command(recipe)])
    wait_until(lambda: saved.exists() or process.poll() is not None, 240)
    assert process.poll() is None, "it ended early"
    (phase,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    wait_until(lambda: not is_alive(phase), 30, "the phase outlived the curriculum")


@pytest.mark.train
def test_a_curriculum_killed_in_any_phase_goes_on_where_it_was(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    steps = 20  # a phase ends after the step that it was killed in, which must not be the last
    phases = [phase | {"trainer": phase["trainer"] | {"max_steps": steps}} for phase in PHASES]
    path, out = write(phases), tmp_path / "out"
    first = ("01-warm", "02-srl")
    for name in first:
        kill_after(out / name / "checkpoint-1" / "trainer_state.json", path)
        assert not (out / name / "final").exists(), "it was too fast to be killed"
    ended = subprocess.run(
        [sys.executable, *command(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout == f"{out}/02-srl/final\n", "its phases print to stderr"
    for name in first:
        rows = read_metrics(out / name / "metrics.jsonl")
        assert [row["step"] for row in rows] == list(range(1, steps + 1))
        assert load_prompting(str(out / name / "final")) is not None
    assert "phase 2 of 2" in ended.stderr
    assert "phase 1 of 2" not in ended.stderr


@pytest.mark.train
def test_the_ranks_of_a_launcher_meet_anew_in_each_phase(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run(
        [sys.executable, *launcher, *command(write())],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert (tmp_path / "out" / "02-srl" / "final" / "model.safetensors").is_file()
    assert ended.stderr.count("phase 2 of 2") == 1
