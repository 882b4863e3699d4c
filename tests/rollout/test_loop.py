from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import ClassVar

import pytest

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import ImageMissing, PolicyError, SandboxDied, SandboxError
from srl_swe.rollout import (
    Agent,
    Completion,
    EpisodeLimits,
    PromptTooLong,
    Rules,
    rollout,
    rollout_all,
)
from srl_swe.rollout.batch import load_rollouts, predictions
from srl_swe.rollout.episode import OnReply
from srl_swe.rollout.usage import load_rollout_usage
from srl_swe.sandbox import ExecResult, Sandbox
from srl_swe.steps.prompt import Window
from srl_swe.testing import FakeSandbox, ScriptedPolicy
from srl_swe.types import Instance, Message, StopReason, Trajectory

LOOK = "<think>\nlook\n</think>\n\n<function=bash>\n<parameter=command>ls</parameter>\n</function>"
SUBMIT = "<think>\ndone\n</think>\n\n<function=submit>\n</function>"
XML = ReplyFormat(get_dialect("xml"), "lenient")
INSTANCE = Instance("a__b-1", "a/b", "HEAD", "It is broken.", "image")


def make_agent(*replies: str, **limits: int) -> Agent:
    return Agent(ScriptedPolicy(replies), Rules(XML, limits=EpisodeLimits(**limits)))


def make_sandbox(patch: str = "the patch") -> FakeSandbox:
    sandbox = FakeSandbox(answer=lambda command: ExecResult(f"ran {command}", 0))
    sandbox.write_file("/tmp/.srl_swe.patch", patch.encode())
    return sandbox


def test_a_rollout_ends_when_the_policy_submits_and_hands_in_its_diff() -> None:
    result = rollout(make_agent(LOOK, SUBMIT, LOOK), INSTANCE, make_sandbox())
    assert result.stop_reason is StopReason.SUBMITTED
    assert [step.thought for step in result.steps] == ["look", "done"]
    assert result.steps[0].observation is not None
    assert result.steps[0].observation.text == "ran ls"
    assert result.patch == "the patch"
    assert result.problem_statement == INSTANCE.problem_statement


def test_the_policy_reads_what_its_action_printed() -> None:
    policy = ScriptedPolicy([LOOK, SUBMIT])
    rollout(Agent(policy, Rules(XML)), INSTANCE, make_sandbox())
    assert [message["content"] for message in policy.prompts[1][2:]] == [
        LOOK.partition("\n\n")[2],
        "OBSERVATION:\nran ls",
    ]


def test_the_step_limit_ends_it_and_the_patch_is_kept() -> None:
    result = rollout(make_agent(*[LOOK] * 9, steps=4), INSTANCE, make_sandbox())
    assert result.stop_reason is StopReason.STEP_LIMIT
    assert result.stop_reason.truncated
    assert len(result.steps) == 4
    assert result.patch == "the patch"


class Overflowing(ScriptedPolicy):
    """Replies by the script; the prompt after it is too long."""

    def reply(self, messages: Sequence[Message]) -> Completion:
        try:
            return super().reply(messages)
        except AssertionError:
            raise PromptTooLong("full") from None


@pytest.mark.parametrize(
    ("replies", "limits", "reason"),
    [
        ([LOOK] * 3, {"steps": 2}, StopReason.STEP_LIMIT),
        ([LOOK], {"seconds": 0}, StopReason.TIME_LIMIT),
        ([LOOK, "hm", "hm"], {"format_errors": 2}, StopReason.FORMAT_ERRORS),
        ([LOOK], {}, StopReason.TOKEN_LIMIT),
    ],
)
def test_at_any_limit_the_patch_so_far_is_submitted(
    replies: list[str], limits: dict[str, int], reason: StopReason
) -> None:
    agent = Agent(Overflowing(replies), Rules(XML, limits=EpisodeLimits(**limits)))
    result = rollout(agent, INSTANCE, make_sandbox("half a fix"))
    assert (result.stop_reason, result.patch) == (reason, "half a fix")
    assert [p.model_patch for p in predictions([result], "p")] == ["half a fix"]


def test_an_attempt_of_any_kind_is_rolled_out_under_its_name(tmp_path: Path) -> None:
    class Fixed:
        name = "fixed"

        def __call__(
            self, instance: Instance, sandbox: Sandbox, on_reply: OnReply = print
        ) -> Trajectory:
            on_reply(Completion("here", 1, 2))
            if instance.instance_id == "a__b-1":
                raise PolicyError("no answer")
            return Trajectory(instance.instance_id, (), patch="fixed", model=self.name)

    fixed, failed = rollout_all(Fixed(), instances(2), opened, tmp_path)
    assert (fixed.patch, failed.stop_reason) == ("fixed", StopReason.POLICY_ERROR)
    assert failed.model == "fixed"
    assert set(load_rollouts(tmp_path / "rollouts.jsonl", "fixed")) == {"a__b-0"}
    kept = (tmp_path / "replies.jsonl").read_text().splitlines()
    assert len(kept) == 2, "tokens of a failed attempt were spent too"


def test_a_reply_without_an_action_is_answered_with_the_reason_and_three_in_a_row_end_it() -> None:
    result = rollout(make_agent("hm", LOOK, *["hm"] * 9), INSTANCE, make_sandbox())
    assert result.stop_reason is StopReason.FORMAT_ERRORS
    assert [step.executed for step in result.steps] == [False, True, False, False, False]
    assert result.steps[0].observation is not None
    assert "not executed" in result.steps[0].observation.text


def test_a_prompt_that_is_too_long_ends_it_with_the_token_limit() -> None:
    class Full(ScriptedPolicy):
        def reply(self, messages: Sequence[Message]) -> Completion:
            raise PromptTooLong("full")

    agent = Agent(Full([]), Rules(XML))
    assert rollout(agent, INSTANCE, make_sandbox()).stop_reason is StopReason.TOKEN_LIMIT
    budget = Agent(ScriptedPolicy([LOOK]), Rules(XML, Window(token_budget=1)))
    assert rollout(budget, INSTANCE, make_sandbox()).stop_reason is StopReason.TOKEN_LIMIT


def test_a_broken_sandbox_is_nobodys_wrong_answer() -> None:
    def die(command: str) -> ExecResult:
        raise SandboxDied("gone")

    result = rollout(make_agent(LOOK), INSTANCE, FakeSandbox(answer=die))
    assert result.stop_reason is StopReason.SANDBOX_ERROR
    assert result.patch is None
    assert predictions([result], "p") == []


def test_a_repository_that_the_policy_ruined_is_an_empty_prediction() -> None:
    sandbox = FakeSandbox(answer=lambda command: ExecResult("", 1 if "git" in command else 0))
    result = rollout(make_agent(SUBMIT), INSTANCE, sandbox)
    assert result.stop_reason is StopReason.SUBMITTED
    assert [p.model_patch for p in predictions([result], "p")] == [""]


def instances(count: int) -> list[Instance]:
    return [Instance(f"a__b-{n}", "a/b", "HEAD", "broken", "image") for n in range(count)]


def opened(instance: Instance) -> AbstractContextManager[Sandbox]:
    return closing(make_sandbox(f"patch of {instance.instance_id}"))


def test_a_batch_that_was_killed_continues_where_it_was(tmp_path: Path) -> None:
    rollout_all(make_agent(*[SUBMIT] * 2), instances(2), opened, tmp_path)
    with (tmp_path / "rollouts.jsonl").open("a") as file:
        file.write('{"format": "srl-swe-traj')
    agent = make_agent(*[SUBMIT] * 3)
    results = rollout_all(agent, instances(3), opened, tmp_path)
    assert [r.patch for r in results] == ["patch of a__b-0", "patch of a__b-1", "patch of a__b-2"]
    assert isinstance(agent.policy, ScriptedPolicy)
    assert len(agent.policy.prompts) == 1
    assert len(load_rollouts(tmp_path / "rollouts.jsonl")) == 3


@pytest.mark.parametrize("error", [SandboxDied("no room"), ImageMissing("no room for the image")])
def test_what_a_broken_sandbox_ended_is_tried_again(error: Exception, tmp_path: Path) -> None:
    def broken(instance: Instance) -> AbstractContextManager[Sandbox]:
        raise error

    (first,) = rollout_all(make_agent(), instances(1), broken, tmp_path)
    assert first.stop_reason is StopReason.SANDBOX_ERROR
    assert first.steps[-1].observation is not None
    assert "no room" in first.steps[-1].observation.text
    (second,) = rollout_all(make_agent(SUBMIT), instances(1), opened, tmp_path)
    assert second.stop_reason is StopReason.SUBMITTED


def test_a_bug_of_ours_is_not_taken_for_a_broken_sandbox(tmp_path: Path) -> None:
    def buggy(instance: Instance) -> AbstractContextManager[Sandbox]:
        return nullcontext(None)  # type: ignore[arg-type]

    with pytest.raises(AttributeError):
        rollout_all(make_agent(LOOK), instances(1), buggy, tmp_path)


def test_a_sandbox_that_can_not_be_closed_costs_no_result(tmp_path: Path) -> None:
    @contextmanager
    def stubborn(instance: Instance) -> Iterator[Sandbox]:
        with opened(instance) as sandbox:
            yield sandbox
        raise SandboxError("it would not go")

    (result,) = rollout_all(make_agent(SUBMIT), instances(1), stubborn, tmp_path)
    assert result.stop_reason is StopReason.SUBMITTED
    assert result.patch == "patch of a__b-0"


def test_what_the_sandbox_was_held_to_is_on_record(tmp_path: Path) -> None:
    class Held(FakeSandbox):
        enforced: ClassVar = {"network": "none", "image_digest": "sha256:1", "cpus": None}

    rollout_all(make_agent(SUBMIT), instances(1), lambda _: closing(Held()), tmp_path)
    (read,) = load_rollouts(tmp_path / "rollouts.jsonl").values()
    assert read.enforced == Held.enforced


def test_a_sandbox_that_says_nothing_of_what_it_is_held_to_leaves_no_record(
    tmp_path: Path,
) -> None:
    rollout_all(make_agent(SUBMIT), instances(1), opened, tmp_path)
    assert "enforced" not in (tmp_path / "rollouts.jsonl").read_text()
    (read,) = load_rollouts(tmp_path / "rollouts.jsonl").values()
    assert read.enforced is None


class SlowPolicy(ScriptedPolicy):
    """Replies late, as behind the queue of other workers."""

    def reply(self, messages: Sequence[Message]) -> Completion:
        time.sleep(0.15)
        return super().reply(messages)


def slow(command: str) -> ExecResult:
    time.sleep(0.15)
    return ExecResult("", 0)


def test_a_reply_and_the_wait_for_it_count_nothing_to_the_time_limit() -> None:
    policy = SlowPolicy([LOOK, LOOK, SUBMIT])
    agent = Agent(policy, Rules(XML, limits=EpisodeLimits(seconds=0.1)))
    assert rollout(agent, INSTANCE, make_sandbox()).stop_reason is StopReason.SUBMITTED


def test_the_sandboxs_own_time_does() -> None:
    agent = Agent(ScriptedPolicy([LOOK] * 9), Rules(XML, limits=EpisodeLimits(seconds=0.4)))
    result = rollout(agent, INSTANCE, FakeSandbox(answer=slow))
    assert result.stop_reason is StopReason.TIME_LIMIT
    assert len(result.steps) == 3


class Named(ScriptedPolicy):
    def __init__(self, name: str, replies: Sequence[str]) -> None:
        super().__init__(replies)
        self.name = name


def test_rollouts_of_other_weights_under_the_same_path_are_not_reused(tmp_path: Path) -> None:
    def roll_out(name: str, *replies: str) -> list[str | None]:
        agent = Agent(Named(name, replies), Rules(XML))
        opened = lambda _: nullcontext(make_sandbox())  # noqa: E731
        found = rollout_all(agent, instances(2), opened, tmp_path, workers=1)
        return [one.model for one in found]

    assert roll_out("srl/final@1", SUBMIT, SUBMIT) == ["srl/final@1"] * 2
    assert roll_out("srl/final@1") == ["srl/final@1"] * 2
    assert roll_out("srl/final@2", SUBMIT, SUBMIT) == ["srl/final@2"] * 2
    assert set(load_rollouts(tmp_path / "rollouts.jsonl", "srl/final@1")) == {
        one.instance_id for one in instances(2)
    }


def test_the_usage_of_a_rollout_is_that_of_its_last_attempt(tmp_path: Path) -> None:
    def die(command: str) -> ExecResult:
        raise SandboxDied("gone")

    opened = [FakeSandbox(answer=die), make_sandbox()]
    agent = make_agent(LOOK, LOOK, SUBMIT)
    for sandbox in opened:
        rollout_all(agent, instances(1), lambda _, held=sandbox: nullcontext(held), tmp_path)
    usage = load_rollout_usage(tmp_path)["a__b-0"]
    assert len((tmp_path / "replies.jsonl").read_text().splitlines()) == 3
    assert (usage.replies, usage.completion_tokens) == (2, len(LOOK + SUBMIT))
    assert usage.open_s is not None
    assert 0 <= usage.open_s < 60
    (tmp_path / "timings.jsonl").unlink()
    older = load_rollout_usage(tmp_path)["a__b-0"]
    assert (older.replies, older.act_s) == (2, None)
