"""TRL's own trainer drives the environments: its tool schemas, its calls, its masks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer
from trl import GRPOConfig
from trl.chat_template_utils import qwen3_chat_template

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import SandboxError
from srl_swe.instances import load_instances
from srl_swe.rollout import EpisodeLimits, Rules
from srl_swe.sandbox import Sandbox
from srl_swe.training.grpo_trainer import DynamicSamplingGRPOTrainer
from srl_swe.training.recipe import DynamicSampling
from srl_swe.training.tiny_policy import make_tiny_policy
from srl_swe.types import Instance
from srl_swe_envs.adapters import OVER, TrlEnvironments, tool_dataset
from srl_swe_envs.local import open_local_sandbox

pytestmark = pytest.mark.slow


INSTANCES = load_instances("starter", ids=["starter__inikit-1", "starter__inikit-2"])
RULES = Rules(ReplyFormat(get_dialect("xml"), "lenient"), limits=EpisodeLimits(steps=5))
FIX = 'sed -i \'s/encoding="utf-8"/encoding="utf-8-sig"/\' inikit/reader.py'


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


class Counted:
    def __init__(self) -> None:
        self.open = 0

    @contextmanager
    def __call__(self, instance: Instance) -> Iterator[Sandbox]:
        with open_local_sandbox(instance) as sandbox:
            self.open += 1
            try:
                yield sandbox
            finally:
                self.open -= 1


@pytest.fixture(scope="module")
def tool_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy") / "tools"
    texts = [one.problem_statement for one in INSTANCES] + [call("bash", command=FIX)]
    make_tiny_policy(texts, folder, vocab_size=400, hidden=32, layers=1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = qwen3_chat_template
    tokenizer.save_pretrained(folder)
    return folder


class Scripted(DynamicSamplingGRPOTrainer):
    """Says what the script says, in the place of a model that can call tools."""

    script: tuple[tuple[str, ...], ...] = ()
    turns = 0

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any
    ) -> tuple[list[list[int]], None]:
        said = self.script[self.turns % len(self.script)]
        self.turns += 1
        end = [self._tokenizer.eos_token_id]
        texts = [said[index % len(said)] for index in range(len(prompt_ids))]
        return [self._tokenizer(text)["input_ids"] + end for text in texts], None


@pytest.mark.train
@pytest.mark.parametrize("sampling", [None, DynamicSampling(0.01, 1)])
def test_trl_plays_episodes_with_the_tools_and_the_tests_reward_them(
    tool_policy: Path, tmp_path: Path, sampling: DynamicSampling | None
) -> None:
    args = GRPOConfig(
        str(tmp_path),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        num_generations=2,
        per_device_train_batch_size=2,
        max_completion_length=900,
        max_steps=1,
        logging_steps=1,
        save_strategy="no",
    )
    opened = Counted()
    with TrlEnvironments(INSTANCES[:1], opened, RULES) as environments:
        trainer = Scripted(
            model=str(tool_policy),
            args=args,
            train_dataset=tool_dataset(INSTANCES[:1]),
            processing_class=AutoTokenizer.from_pretrained(tool_policy, padding_side="left"),
            reward_funcs=[],
            environment_factory=environments,
            dynamic_sampling=sampling,
        )
        fixed = call("bash", command=FIX)
        trainer.script = ((fixed, call("bash", command="ls")), (call("submit"),), ("Done.",))
        batches: list[Any] = []
        score = trainer._generate_and_score_completions
        trainer._generate_and_score_completions = lambda inputs: (  # type: ignore[method-assign]
            batches.append(score(inputs)) or batches[-1]
        )
        trainer.train()
    logged = next(row for row in trainer.state.log_history if "reward" in row)
    assert logged["rewards/SweToolEnvironment/mean"] == 0.5
    assert logged["tools/call_frequency"] == 2.0
    assert logged["tools/failure_frequency"] == 0.0
    assert opened.open == 0
    (batch,) = batches
    own = batch["tool_mask"].bool() & batch["completion_mask"].bool()
    others = ~batch["tool_mask"].bool() & batch["completion_mask"].bool()
    written, read = (
        trainer._tokenizer.decode(batch["completion_ids"][0][mask[0]]) for mask in (own, others)
    )
    assert "utf-8-sig" in written
    assert "<tool_response>" in read
    assert "<tool_response>" not in written
    assert torch.equal(batch["advantages"].sign(), torch.tensor([1.0, -1.0]))


def run(*steps: Any) -> list[Any]:
    async def all_of_them() -> list[Any]:
        return [await step for step in steps]

    return asyncio.run(all_of_them())


def test_an_environment_is_used_again_and_again_and_ends_when_submitted() -> None:
    opened = Counted()
    with TrlEnvironments(INSTANCES, opened, RULES) as environments:
        environment = environments()
        for instance, reward in ((INSTANCES[0], 1.0), (INSTANCES[1], 0.0)):
            issue = environment.reset(instance_id=instance.instance_id, prompt=[])
            assert issue == instance.problem_statement.strip()
            seen, *_, over, earned = run(
                environment.bash("cat inikit/reader.py"),
                environment.str_replace_editor("view", "/testbed", view_range=None),
                environment.bash(FIX),
                environment.submit(),
                environment.bash("ls"),
                environment.get_reward(),
            )
            assert "def load" in seen
            assert over == OVER
            assert earned == reward
        environment.reset(instance_id=INSTANCES[0].instance_id)
        assert run(environment.bash("ls"), environment.get_reward())[1] == 0.0
        environment.reset(instance_id=INSTANCES[0].instance_id)
        run(environment.bash("ls"))
        assert opened.open == 1
    assert opened.open == 0


def test_an_environment_without_a_sandbox_has_no_reward() -> None:
    def broken(instance: Instance) -> Any:
        raise SandboxError("no room")

    with TrlEnvironments(INSTANCES, broken, RULES) as environments:
        environment = environments()
        environment.reset(instance_id=INSTANCES[0].instance_id)
        assert run(environment.bash("ls"), environment.get_reward()) == [OVER, None]
