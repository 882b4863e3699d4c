from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import SandboxDied
from srl_swe.instances import load_instances
from srl_swe.rollout import EpisodeLimits, Rules
from srl_swe.sandbox import ExecResult, OpenSandbox
from srl_swe.swe_env import SweEnv
from srl_swe.testing import FakeSandbox
from srl_swe.training.rlvr_episodes import ChatTokens, EpisodeRollout, EpisodeTokens
from srl_swe.training.tiny_policy import make_tiny_policy
from srl_swe.types import Action, Outcome
from srl_swe_envs.local import open_local_sandbox

pytestmark = pytest.mark.slow


XML = get_dialect("xml")
(INSTANCE,) = load_instances("starter", ids=["starter__inikit-1"])
LOOK = XML.render_reply("look", Action("bash", {"command": "echo seen"}))
SUBMIT = XML.render_reply("done", Action("submit"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("policy") / "tiny"
    make_tiny_policy([LOOK, SUBMIT, XML.SYSTEM_PROMPT], folder, vocab_size=400, hidden=32, layers=1)
    return AutoTokenizer.from_pretrained(folder)


class ScriptedTrainer:
    """Samples the next reply of the script for every prompt; looks like TRL's on one rank."""

    use_vllm = True
    max_completion_length = 64

    def __init__(self, tokenizer: Any, replies: Sequence[str], *, masks: bool = True) -> None:
        self._tokenizer = tokenizer
        self._replies = iter(replies)
        self.mask_truncated_completions = masks
        self.accelerator = SimpleNamespace(device="cpu", gather=lambda tensor: tensor)
        self.prompts: list[list[list[int]]] = []

    def _generate_single_turn(
        self, prompts: list[list[int]], images: None, fields: dict[str, Any], num_generations: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        self.prompts.append([list(ids) for ids in prompts])
        text = next(self._replies)
        ids = list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        ids += [] if text.endswith("...") else [self._tokenizer.eos_token_id]
        return [ids] * len(prompts), [[-1.5] * len(ids)] * len(prompts)


def play(
    tokenizer: Any,
    trainer: ScriptedTrainer,
    *,
    episodes: int = 1,
    open_sandbox: OpenSandbox = open_local_sandbox,
    token_budget: int = 10_000,
    limits: EpisodeLimits | None = None,
) -> tuple[EpisodeRollout, dict[str, Any]]:
    rules = Rules(ReplyFormat(XML), limits=limits or EpisodeLimits())
    rollout = EpisodeRollout(
        {INSTANCE.instance_id: INSTANCE},
        partial(SweEnv, open_sandbox=open_sandbox, rules=rules),
        ChatTokens(tokenizer, {}),
        longest_context=token_budget - trainer.max_completion_length,
        workers=2,
    )
    return rollout, rollout.rollout([INSTANCE.instance_id] * episodes, trainer)


def test_the_tokens_of_an_episode_are_those_of_the_conversation(tokenizer: Any) -> None:
    trainer = ScriptedTrainer(tokenizer, [LOOK, "no action", SUBMIT])
    _, played = play(tokenizer, trainer)
    (prompt,), (completion,) = played["prompt_ids"], played["completion_ids"]
    conversation = tokenizer.decode([*prompt, *completion])
    messages = [
        {"role": "system", "content": XML.SYSTEM_PROMPT},
        {"role": "user", "content": INSTANCE.problem_statement.strip()},
        {"role": "assistant", "content": LOOK},
        {"role": "user", "content": "OBSERVATION:\nseen"},
        {"role": "assistant", "content": "no action"},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    assert conversation.startswith(rendered.rstrip("\n"))
    assert conversation.endswith(f"<|im_start|>assistant\n{SUBMIT}<|im_end|>")
    assert trainer.prompts[1] == [[*prompt, *completion][: len(trainer.prompts[1][0])]]


def test_only_what_the_policy_wrote_is_trained_on(tokenizer: Any) -> None:
    trainer = ScriptedTrainer(tokenizer, [LOOK, SUBMIT])
    _, played = play(tokenizer, trainer)
    (completion,), (mask,), (logprobs,) = (
        played[name] for name in ("completion_ids", "env_mask", "logprobs")
    )
    assert len(completion) == len(mask) == len(logprobs)
    written = [token for token, is_own in zip(completion, mask, strict=True) if is_own]
    assert tokenizer.decode(written) == f"{LOOK}<|im_end|>{SUBMIT}<|im_end|>"
    assert {logprob for logprob, is_own in zip(logprobs, mask, strict=True) if is_own} == {-1.5}
    assert {logprob for logprob, is_own in zip(logprobs, mask, strict=True) if not is_own} == {0.0}
    assert played["tokens_written"] == [len(written)]


@pytest.mark.parametrize(
    ("replies", "options", "ended"),
    [
        ([LOOK, LOOK], {"limits": EpisodeLimits(steps=2)}, "step_limit"),
        (["and so on ..."], {}, "token_limit"),
        ([LOOK], {"token_budget": 900}, "token_limit"),
        ([], {"token_budget": 100}, "token_limit"),
    ],
)
def test_an_episode_that_a_limit_cut_teaches_nothing_if_that_is_asked_for(
    tokenizer: Any, replies: list[str], options: dict[str, Any], ended: str
) -> None:
    if "token_budget" in options and replies:  # room for one reply and no more
        prompt = ChatTokens(tokenizer, {}).prompt(
            [
                {"role": "system", "content": XML.SYSTEM_PROMPT},
                {"role": "user", "content": INSTANCE.problem_statement.strip()},
            ]
        )
        options = {"token_budget": len(prompt) + 70}
    for masks in (True, False):
        trainer = ScriptedTrainer(tokenizer, replies, masks=masks)
        rollout, played = play(tokenizer, trainer, **options)
        (tested,) = rollout.tested
        assert tested.ended == ended
        assert tested.truncated
        assert tested.reward == 0.0
        (mask,) = played["env_mask"]
        assert len(mask) == len(played["completion_ids"][0]) > 0
        assert any(mask) is (not masks and bool(replies))
        assert (played["tokens_written"][0] > 0) is bool(replies), "it was sampled nevertheless"


def test_a_broken_sandbox_gives_no_reward_and_no_gradient_and_the_others_go_on(
    tokenizer: Any,
) -> None:
    opened = iter(range(99))

    def flaky(command: str) -> ExecResult:
        raise SandboxDied("gone")

    def open_sandbox(instance: Any) -> Any:
        match next(opened):
            case 0:
                raise SandboxDied("no room")
            case 1:
                return closing(FakeSandbox(flaky))
        return open_local_sandbox(instance)

    trainer = ScriptedTrainer(tokenizer, [LOOK, SUBMIT, LOOK, SUBMIT])
    rollout, played = play(tokenizer, trainer, episodes=3, open_sandbox=open_sandbox)
    tested = played["tested"]
    rewards = rollout(tested=tested, log_extra=lambda name, values: None)
    assert rewards == [None, None, 0.0]
    assert [one.outcome for one in tested[:2]] == [Outcome.BROKEN_SANDBOX] * 2
    assert {one.detail for one in tested[:2]} == {"no room", "gone"}
    assert [any(mask) for mask in played["env_mask"]] == [False, False, True]
    assert all(played["completion_ids"])


def test_waves_keep_the_order_of_the_prompts(tokenizer: Any) -> None:
    trainer = ScriptedTrainer(tokenizer, [SUBMIT] * 3)
    _, played = play(tokenizer, trainer, episodes=5)
    assert [len(prompts) for prompts in trainer.prompts] == [2, 2, 1]
    assert len(played["prompt_ids"]) == 5


def test_a_rank_with_fewer_episodes_samples_as_often_as_the_busiest(tokenizer: Any) -> None:
    counts = iter([3, 3, 0])
    trainer = ScriptedTrainer(tokenizer, [SUBMIT, SUBMIT])
    trainer.accelerator.gather = lambda tensor: torch.tensor([int(tensor), next(counts)])
    _, played = play(tokenizer, trainer)
    assert [len(prompts) for prompts in trainer.prompts] == [3, 3]
    assert len(played["completion_ids"]) == 1


@pytest.mark.parametrize(
    ("end", "between"),
    [
        ("<|im_end|>\\n", "\n<|im_start|>user\nseen<|im_end|>\n<|im_start|>assistant\n"),
        ("</s>\\n", "</s>\n<|im_start|>user\nseen</s>\n<|im_start|>assistant\n"),
    ],
)
def test_what_the_template_writes_between_turns_is_read_too(
    tokenizer: Any, end: str, between: str
) -> None:
    template = (
        "{%- for message in messages -%}"
        "{{ '<|im_start|>' + message.role + '\\n' + message.content + 'END' }}"
        "{%- endfor -%}{{ '<|im_start|>assistant\\n' if add_generation_prompt else '' }}"
    )
    given = {"chat_template": template.replace("END", end)}
    assert tokenizer.decode(ChatTokens(tokenizer, given).between("seen")) == between


def test_hiding_an_episode_without_tokens_leaves_one_that_is_not_trained_on() -> None:
    tokens = EpisodeTokens([1])
    tokens.hide(end=2)
    assert (tokens.completion, tokens.mask, tokens.logprobs) == ([2], [0], [0.0])
