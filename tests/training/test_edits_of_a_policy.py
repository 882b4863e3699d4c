"""Oracle and agentless with a local model, prompted as RLVR in one turn trains it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs the extra `train`")

from srl_swe.instances import load_instances
from srl_swe.rollout import Completion
from srl_swe.rollout.agentless import Agentless
from srl_swe.rollout.agents import agent_settings, make_attempt
from srl_swe.rollout.attempts import Setting
from srl_swe.rollout.prompting import FILE, Prompting, dump_prompting, version_of_text
from srl_swe.rollout.repair import SYSTEM_PROMPT
from srl_swe.rollout.tokens import token_counter
from srl_swe.testing import ScriptedPolicy
from srl_swe.training.rlvr_patch import PatchTask, oracle_files, patch_dataset
from srl_swe.training.tiny_policy import make_tiny_policy
from srl_swe.types import Message, StopReason
from srl_swe_envs.local import open_local_sandbox

INSTANCES = load_instances("starter", ids=["starter__inikit-2"])
CONTEXT = 1500


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that was trained on patches."""
    texts = [SYSTEM_PROMPT, *(instance.problem_statement for instance in INSTANCES)]
    folder = tmp_path_factory.mktemp("policy") / "patches"
    make_tiny_policy(texts, folder, hidden=64, layers=1, max_positions=CONTEXT)
    trained = Prompting("xml", "strict", system_prompt=version_of_text(SYSTEM_PROMPT))
    (folder / FILE).write_text(dump_prompting(trained))
    return folder


@pytest.mark.slow
def test_the_oracle_asks_as_rlvr_trains(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (instance,), budget = INSTANCES, CONTEXT - 64
    settings = agent_settings(str(policy), setting=Setting.ORACLE, max_new_tokens=64)
    assert not capsys.readouterr().err, "it is prompted as it was trained"
    agent_settings(str(policy))
    assert "not prompted as it was trained: system_prompt" in capsys.readouterr().err
    attempt = make_attempt(str(policy), settings, Setting.ORACLE)
    assert isinstance(attempt, Agentless)
    assert (attempt.strictness, attempt.token_budget) == ("strict", budget)

    asked: list[list[Message]] = []

    class Asked(ScriptedPolicy):
        def reply(self, messages: Sequence[Message]) -> Completion:
            asked.append(list(messages))
            return attempt.policy.reply(messages)

        count_tokens = staticmethod(attempt.policy.count_tokens)

    replies: list[Completion] = []
    with open_local_sandbox(instance) as sandbox:
        task = PatchTask(instance, oracle_files(instance, sandbox))
        watched = Agentless(Asked([]), "strict", token_budget=budget, oracle=True)
        result = watched(instance, sandbox, replies.append)
    counter = token_counter(str(policy))
    (row,) = patch_dataset({"it": task}, counter.tokenizer, budget, {})
    assert asked == [row["prompt"]]
    assert counter(asked[0]) <= budget
    assert "(the rest of the file is left out)" in asked[0][1]["content"]
    assert (result.stop_reason, result.patch) == (StopReason.FORMAT_ERRORS, "")
    assert [reply.prompt_tokens for reply in replies] == [counter(asked[0])]
