"""A policy and eight step contexts that are small enough to train on in seconds."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the extra `train`")

import torch
from datasets import Dataset, load_from_disk
from safetensors.torch import load_file
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from trl import GRPOConfig, GRPOTrainer

from srl_swe.dialects import get_dialect
from srl_swe.steps import StepSettings, save_step_contexts
from srl_swe.steps.contexts import StepContext, make_step_contexts
from srl_swe.training.data import COLUMNS
from srl_swe.training.grpo_trainer import DynamicSamplingGRPOTrainer
from srl_swe.training.recipe import DynamicSampling, SftRecipe, SrlRecipe
from srl_swe.training.sft_trainer import train_sft
from srl_swe.training.tiny_policy import make_tiny_policy
from srl_swe.types import Action, Message, Observation, Step, Trajectory

NAMES = ("sort", "parse", "help", "cache")
ON_CPU = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "seed": 7}
MEMORISED_AFTER = 150
FOLLOWS_THE_FORMAT_AFTER = 50
"""By then about one sampled reply in three is in the format: something is left to learn."""
DEAD = {"tiny__tests-0": 0.0, "tiny__tests-1": 0.01}
"""How far the scripted rewards of an instance's samples can lie apart; others: 1."""


def make_contexts() -> list[StepContext]:
    """Two of each of four trajectories; without the system prompt, which is long."""
    contexts: list[StepContext] = []
    for number, name in enumerate(NAMES):
        steps = (
            Step("look", Action("bash", {"command": f"cat {name}.py"}), Observation(name)),
            Step("run", Action("bash", {"command": f"pytest {name}"}), Observation("1 failed")),
            Step("done", Action("submit")),
        )
        trajectory = Trajectory(f"tiny__tests-{number}", steps, name)
        for context in make_step_contexts(trajectory, get_dialect("xml")):
            if isinstance(context, StepContext):  # the last step is no target
                contexts.append(dataclasses.replace(context, prompt=context.prompt[1:]))
    return contexts


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "steps"
    save_step_contexts(make_contexts(), folder, "card", dataclasses.asdict(StepSettings()))
    return folder


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights; a token can be a line of the texts, so that a reply is some 7 tokens."""
    texts = [
        text
        for context in make_contexts()
        for text in (context.expert_reply, *(message["content"] for message in context.prompt))
    ]
    folder = tmp_path_factory.mktemp("policy") / "untrained"
    return make_tiny_policy(texts, folder, vocab_size=400, hidden=64, layers=2, max_positions=128)


@pytest.fixture(scope="session")
def tokenizer(policy: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(policy, padding_side="left")
    return loaded


@pytest.fixture(scope="session")
def sft_run(policy: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of an SFT run long enough to memorise the data."""
    trainer = {
        **ON_CPU,
        "max_steps": MEMORISED_AFTER,
        "per_device_train_batch_size": 8,
        "learning_rate": 2e-3,
        "lr_scheduler_type": "constant",
        "save_steps": FOLLOWS_THE_FORMAT_AFTER,
    }
    output = tmp_path_factory.mktemp("sft")
    train_sft(SftRecipe(str(policy), str(data), str(output), trainer=trainer))
    return output


@pytest.fixture(scope="session")
def warm_policy(sft_run: Path) -> Path:
    """Warm-started as the paper's successor of SFT would be: it knows the format, mostly."""
    return sft_run / f"checkpoint-{FOLLOWS_THE_FORMAT_AFTER}"


@pytest.fixture(scope="session")
def warm_start(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SftRecipe]:
    """Makes a recipe by which a tiny policy learns prompts with their replies, all in a batch."""

    def make(examples: Sequence[tuple[Sequence[Message], str]], max_steps: int) -> SftRecipe:
        folder = tmp_path_factory.mktemp("warm")
        blank = dict.fromkeys(COLUMNS, "") | {"step_index": 0, "n_steps": 1}
        rows: list[dict[str, Any]] = [
            {**blank, "prompt": prompt, "completion": [{"role": "assistant", "content": reply}]}
            for prompt, reply in examples
        ]
        Dataset.from_list(rows).save_to_disk(folder / "steps")
        texts = [m["content"] for row in rows for m in row["prompt"] + row["completion"]]
        policy = make_tiny_policy(texts, folder / "raw", vocab_size=1500, hidden=64, layers=2)
        trainer = {
            **ON_CPU,
            "max_steps": max_steps,
            "per_device_train_batch_size": len(rows),
            "learning_rate": 6e-3,
            "lr_scheduler_type": "constant",
            "save_strategy": "no",
        }
        return SftRecipe(str(policy), str(folder / "steps"), str(folder / "run"), trainer=trainer)

    return make


@pytest.fixture(scope="session")
def on_two_ranks() -> Callable[..., str]:
    """Runs a script, or a module after ``-m``, by torchrun; returns its standard output."""

    def run(*arguments: object) -> str:
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
        ended = subprocess.run(
            [sys.executable, *launcher, *map(str, arguments)],
            env={**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert ended.returncode == 0, ended.stderr[-3000:]
        return ended.stdout

    return run


SRL_TRAINER = {
    **ON_CPU,
    "per_device_train_batch_size": 16,
    "num_generations": 4,
    "max_completion_length": 24,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "loss_type": "grpo",
    "beta": 0.0,
    "save_strategy": "no",
}

MakeSrlRecipe = Callable[..., SrlRecipe]


@pytest.fixture(scope="session")
def srl_recipe(policy: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeSrlRecipe:
    """Makes a recipe with a small batch; keywords are fields of its ``trainer`` section."""

    def make(
        model: Path = policy,
        dynamic_sampling: DynamicSampling | None = None,
        **trainer: Any,
    ) -> SrlRecipe:
        return SrlRecipe(
            str(model),
            str(data),
            str(tmp_path_factory.mktemp("srl") / "run"),
            dynamic_sampling=dynamic_sampling,
            trainer={**SRL_TRAINER, **trainer},
        )

    return make


class ScriptedReward:
    """Differs from sample to sample, but hardly or not at all on the dead instances."""

    __name__ = "scripted"

    def __init__(self) -> None:
        self.calls: list[list[tuple[str, int, tuple[int, ...]]]] = []
        """Per round: instance, step and sampled tokens of each sample."""

    def __call__(
        self,
        *,
        completion_ids: list[list[int]],
        instance_id: list[str],
        step_index: list[int],
        **_: Any,
    ) -> list[float]:
        ids = [tuple(tokens) for tokens in completion_ids]
        self.calls.append(list(zip(instance_id, step_index, ids, strict=True)))
        return [
            sum(tokens) % 101 / 101 * DEAD.get(name, 1.0)
            for name, tokens in zip(instance_id, ids, strict=True)
        ]


@pytest.fixture
def scripted_reward() -> ScriptedReward:
    return ScriptedReward()


class RecordingTrainer(DynamicSamplingGRPOTrainer):
    """Keeps every batch that it trains on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.batches: list[dict[str, torch.Tensor]] = []

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, torch.Tensor]:
        samples = super()._generate_and_score_completions(inputs)
        self.batches.append({key: tensor.clone() for key, tensor in samples.items()})
        return samples


MakeTrainer = Callable[..., Any]


@pytest.fixture
def make_trainer(policy: Path, data: Path, tmp_path: Path) -> MakeTrainer:
    """Makes a trainer of random weights; keywords that it does not name are GRPOConfig's."""

    def make(
        reward: Any,
        trainer_type: type[GRPOTrainer] = RecordingTrainer,
        dynamic_sampling: DynamicSampling | None = None,
        model: Path = policy,
        peft_config: Any = None,
        share_prompt: bool = False,
        share_prompt_tokens: int | None = None,
        **config: Any,
    ) -> Any:
        short = {"max_completion_length": 8, "logging_steps": 1, "report_to": "none"}
        args = GRPOConfig(str(tmp_path / "run"), **{**SRL_TRAINER, **short, **config})
        ours = {
            "dynamic_sampling": dynamic_sampling,
            "share_prompt": share_prompt,
            "share_prompt_tokens": share_prompt_tokens,
        }
        extra = {} if trainer_type is GRPOTrainer else ours
        return trainer_type(
            model=str(model),
            args=args,
            reward_funcs=reward,
            train_dataset=load_from_disk(str(data)),
            processing_class=AutoTokenizer.from_pretrained(policy, padding_side="left"),
            peft_config=peft_config,
            **extra,
        )

    return make


GRADIENT_IN_WEIGHTS = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "max_steps": 1}
"""After one step, the weights have moved by the gradient."""


def unlike(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Rewards that differ from sample to sample."""
    return [sum(ids) % 101 / 101 for ids in completion_ids]


def weights(trainer: Any) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def logged(trainer: Any, name: str) -> list[float]:
    return [row[name] for row in trainer.state.log_history if "loss" in row]


def assert_same(ours: Any, plain: Any, atol: float = 1e-6) -> None:
    """Both trainers have learned the same, up to rounding."""
    torch.testing.assert_close(weights(ours), weights(plain), rtol=0, atol=atol)
    assert logged(ours, "loss") == pytest.approx(logged(plain, "loss"), abs=1e-6)


def same_weights(first: Path, second: Path) -> bool:
    """Whether two saved policies are equal to the last bit."""
    a, b = (load_file(folder / "model.safetensors") for folder in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(
    request: pytest.FixtureRequest, policy: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Random weights of a family, with attention to few heads and the tokenizer of the tests."""
    tokenizer: Any = AutoTokenizer.from_pretrained(policy)
    config_type, model_type = FAMILIES[request.param]
    config: Any = config_type(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path_factory.mktemp("family") / request.param
    torch.manual_seed(0)
    model_type(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
