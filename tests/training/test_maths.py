"""SFT, SRL and RLVR on mathematics, by the trainers of software."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk

from srl_swe.api import run_recipe
from srl_swe.domains import MATH, WorkedSettings
from srl_swe.engines import SandboxSettings, check_start
from srl_swe.errors import UserError
from srl_swe.reports.record import read_metrics
from srl_swe.rollout.prompting import load_prompting
from srl_swe.steps import StepMaker, save_step_contexts
from srl_swe.steps.contexts import StepContext
from srl_swe.training.recipe import DynamicSampling, RlvrRecipe, SftRecipe, SrlRecipe, Validation
from srl_swe.training.run_folder import decisive_fields
from srl_swe.training.sft_trainer import train_sft
from srl_swe.training.srl_trainer import train_srl
from srl_swe.training.tiny_policy import make_tiny_policy
from srl_swe.types import Message

from .conftest import ON_CPU, SRL_TRAINER

pytest.importorskip("math_verify", reason="needs the extra `math`")

ANSWERS = ("7", "8", "9")
"""What the policy has learnt to try; the first is right."""
WarmStart = Callable[[Sequence[tuple[Sequence[Message], str]], int], SftRecipe]


def solution(number: int) -> dict[str, str]:
    steps = (f"**Start**: {number}.", f"**Add**: {number + 1}.", f"**End**: \\boxed{{{number}}}")
    text = "\n".join(f"{place}. {step}" for place, step in enumerate(steps, start=1))
    return {"problem": f"What follows {number}?", "solution": text}


def make_steps(folder: Path, target: Any = "step") -> Path:
    settings = WorkedSettings(target=target)
    maker = StepMaker(settings, make_steps=MATH.make_steps)
    read = MATH.reader({}).read
    items = [item for n in range(4) for item in maker.make(read(solution(n), "row"))]
    contexts = [item for item in items if isinstance(item, StepContext)]
    save_step_contexts(contexts, folder, "card", dataclasses.asdict(settings))
    return folder


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps({"problem": "Six and one?", "answer": "7.0"}) + "\n")
    return path


@pytest.mark.train
def test_srl_and_sft_train_on_steps_of_mathematics_as_on_those_of_software(
    tmp_path: Path,
) -> None:
    steps, whole = make_steps(tmp_path / "steps"), make_steps(tmp_path / "whole", "solution")
    short = {**SRL_TRAINER, "max_steps": 1, "max_completion_length": 8}
    validation = Validation(every_steps=1, data=str(steps), rows=2, max_new_tokens=8)
    srl = SrlRecipe(
        str(long_policy(tmp_path)),
        str(steps),
        str(tmp_path / "srl"),
        dialect="math",
        trainer=short,
        validation=validation,
    )
    final = train_srl(srl)
    (logged,) = [
        row for row in read_metrics(tmp_path / "srl/metrics.jsonl") if "reward/mean" in row
    ]
    assert logged["reward/mean"] == -1.0, "random weights keep no format"
    prompting = load_prompting(str(final))
    assert prompting is not None
    assert (prompting.dialect, prompting.window) == ("math", None)
    assert str(prompting.system_prompt).startswith("math_system@")

    trainer = {**ON_CPU, "max_steps": 1, "save_strategy": "no", "per_device_train_batch_size": 4}
    sft = SftRecipe(
        str(long_policy(tmp_path)),
        str(whole),
        str(tmp_path / "sft"),
        dialect="math",
        strictness="lenient",
        trainer=trainer,
    )
    assert (train_sft(sft) / "model.safetensors").is_file()
    assert len(load_from_disk(str(whole))) == 4


def long_policy(tmp_path: Path) -> Path:
    folder = tmp_path / "long"
    return folder if folder.is_dir() else make_tiny_policy(["a"], folder, hidden=64, layers=1)


def rlvr_recipe(model: Path, bench: Path, output: Path) -> RlvrRecipe:
    trainer = {
        **SRL_TRAINER,
        "max_steps": 12,
        "num_generations": 16,
        "max_completion_length": 24,
        "temperature": 0.8,
    }
    sampling = DynamicSampling(epsilon=0.01, max_rounds=1)
    recipe = RlvrRecipe(str(model), str(bench), str(output), dialect="math", domain="math")
    return dataclasses.replace(recipe, trainer=trainer, dynamic_sampling=sampling)


@pytest.mark.train
def test_rlvr_teaches_the_right_answer(warm_start: WarmStart, bench: Path, tmp_path: Path) -> None:
    (problem,) = MATH.load_problems(str(bench))
    replies = [f"So \\boxed{{{answer}}}." for answer in ANSWERS]
    examples = [(MATH.prompt(problem), reply) for reply in (*replies, "I do not know.")]
    start = train_sft(warm_start(examples, 60))
    recipe = rlvr_recipe(start, bench, tmp_path / "run")
    check_start([recipe])
    final = run_recipe(recipe, SandboxSettings(), workers=2)
    rows = [row for row in read_metrics(tmp_path / "run/metrics.jsonl") if "reward/mean" in row]
    first, last = rows[0], rows[-1]
    assert 0 < first["reward/mean"] < 0.7
    assert last["reward/mean"] > first["reward/mean"] + 0.2
    assert 0 < first["ended/no_answer"] < 1
    assert {"outcome/resolved", "outcome/unresolved"} <= first.keys()
    prompting = load_prompting(str(final))
    assert prompting is not None
    assert str(prompting.system_prompt).startswith("math_answer@")
    assert run_recipe(recipe, SandboxSettings(), workers=2) == final, "a finished run returns"


def test_the_domain_of_software_is_not_in_the_config_of_a_run(bench: Path) -> None:
    software = RlvrRecipe("m", "starter", "o")
    assert "domain" not in decisive_fields(software)
    math = rlvr_recipe(Path("m"), bench, Path("o"))
    assert decisive_fields(math)["domain"] == "math"


def test_a_bench_without_answers_is_refused_before_torch_trains(
    policy: Path, bench: Path, tmp_path: Path
) -> None:
    bench.write_text(json.dumps({"problem": "Prove it."}) + "\n")
    with pytest.raises(UserError, match="holds no problem with an answer"):
        check_start([rlvr_recipe(policy, bench, tmp_path / "run")])
