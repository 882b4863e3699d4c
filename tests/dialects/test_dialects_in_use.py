"""A dialect decides what the policy sees of the past, what it imitates, and what is compared."""

from __future__ import annotations

import pytest

from srl_swe.dialects import Dialect, FormatReason, ReplyFormat, bash_block, get_dialect, xml
from srl_swe.rewards import step_reward
from srl_swe.rewards.structural import structural_rewards
from srl_swe.rewards.table import STEP_REWARDS, StepRewardFunction
from srl_swe.rollout import Agent, Rules, rollout
from srl_swe.sandbox import ExecResult
from srl_swe.steps.contexts import Dropped, DropReason, StepContext, make_step_contexts
from srl_swe.steps.prompt import Window
from srl_swe.testing import FakeSandbox, ScriptedPolicy
from srl_swe.types import Action, Instance, Observation, Step, StopReason, Trajectory
from srl_swe_envs.local import open_local_sandbox

INSTANCE = Instance("a__b-1", "a/b", "HEAD", "It is broken.", "image")


def bash(command: str) -> Action:
    return Action("bash", {"command": command})


def run(*actions: Action) -> Trajectory:
    steps = tuple(Step("why", action, Observation("seen\n", 0)) for action in actions)
    return Trajectory("a__b-1", steps, "It is broken.")


VIEW = Action("str_replace_editor", {"command": "view", "path": "/testbed/a.py"})


@pytest.mark.parametrize("dialect", [xml, bash_block])
def test_what_is_imitated_compared_and_shown_is_written_alike(dialect: Dialect) -> None:
    (_, context, _) = make_step_contexts(run(bash("ls"), bash("pwd"), Action("submit")), dialect)
    assert isinstance(context, StepContext)
    assert context.expert_action == dialect.render_action(bash("pwd"))
    assert context.expert_reply.endswith(context.expert_action)
    assert context.prompt[2]["content"] == dialect.render_action(bash("ls"))
    assert context.prompt[3]["content"] == dialect.render_observation(Observation("seen\n", 0))
    assert (
        step_reward(context.expert_reply, context.expert_action, ReplyFormat(dialect)).reward == 1.0
    )


@pytest.mark.parametrize("dialect", [xml, bash_block])
def test_an_action_in_a_thought_that_is_not_closed_is_not_taken(dialect: Dialect) -> None:
    text = f"<think>I might\n{dialect.render_action(bash('rm -rf x'))}\nbut"
    assert dialect.parse_reply(text, "lenient").reason is FormatReason.NO_THINK
    assert dialect.parse_reply(text[7:], "lenient", think_opened=True).action is None


@pytest.mark.parametrize("dialect", [xml, bash_block])
def test_line_ends_of_an_endpoint_are_no_part_of_a_command(dialect: Dialect) -> None:
    text = f"<think>\nwhy\n</think>\n\n{dialect.render_action(bash('ls'))}\n"
    assert dialect.parse_reply(text.replace("\n", "\r\n")).action == bash("ls")


def test_in_bash_blocks_no_prompt_shows_xml() -> None:
    window = Window(pairs=None, thoughts=True)
    *_, context, _ = make_step_contexts(
        run(bash("ls"), bash("pwd"), Action("submit")), bash_block, window
    )
    assert isinstance(context, StepContext)
    assert "<function" not in str(context)


def test_a_step_that_bash_blocks_can_not_write_is_no_example_nor_are_those_that_show_it() -> None:
    steps = [bash("1"), VIEW, bash("3"), bash("4"), bash("5"), Action("submit")]
    items = list(make_step_contexts(run(*steps), bash_block, Window(pairs=2)))
    kept = [item.expert_action for item in items if isinstance(item, StepContext)]
    assert kept == ["```bash\n1\n```", "```bash\n5\n```"]
    reasons = [item.reason for item in items if isinstance(item, Dropped)]
    assert reasons == [DropReason.NOT_WRITABLE] * 3 + [DropReason.LAST_STEP]
    assert len([i for i in make_step_contexts(run(*steps), xml) if isinstance(i, StepContext)]) == 5


@pytest.mark.parametrize("reward", STEP_REWARDS.values(), ids=STEP_REWARDS)
@pytest.mark.parametrize("dialect", [xml, bash_block])
def test_a_reward_knows_the_expert_in_every_dialect(
    reward: StepRewardFunction, dialect: Dialect
) -> None:
    expert = dialect.render_action(bash("python -m pytest tests -q"))
    other = dialect.render_action(bash("rm -rf src"))
    right, wrong = reward([expert, other], expert)
    assert right == 1.0
    assert wrong < 0.9


@pytest.mark.parametrize("dialect", [xml, bash_block])
def test_rewards_of_an_action_see_through_how_it_is_written(dialect: Dialect) -> None:
    expert, other = (dialect.render_action(bash(command)) for command in ("ls src", "ls -l src"))
    assert structural_rewards([other], expert) == [0.8]


def reply(command: str) -> str:
    return bash_block.render_reply("why", bash(command))


SUBMIT = bash_block.render_reply("done", Action("submit"))


def test_a_policy_acts_and_submits_in_bash_blocks() -> None:
    sandbox = FakeSandbox(answer=lambda command: ExecResult(f"ran {command}\n", 0))
    sandbox.write_file("/tmp/.srl_swe.patch", b"the patch")
    policy = ScriptedPolicy([reply("ls"), "hm", SUBMIT])
    result = rollout(
        Agent(policy, Rules(ReplyFormat(get_dialect("bash_block"), "lenient"))), INSTANCE, sandbox
    )
    assert result.stop_reason is StopReason.SUBMITTED
    assert result.patch == "the patch"
    assert [step.action for step in result.steps] == [bash("ls"), None, Action("submit")]
    shown = [message["content"] for message in policy.prompts[2][2:]]
    assert shown[:2] == [
        "```bash\nls\n```",
        "<returncode>0</returncode>\n<output>\nran ls\n</output>",
    ]
    assert "```bash" in shown[3]


def test_in_bash_blocks_each_command_starts_where_the_repository_is() -> None:
    commands = ["cd /tmp; export A=1; touch /testbed/x", "pwd; echo $A$PAGER; ls /testbed", "false"]
    policy = ScriptedPolicy([*map(reply, commands), SUBMIT])
    with open_local_sandbox() as sandbox:
        result = rollout(
            Agent(policy, Rules(ReplyFormat(bash_block, "lenient"))), INSTANCE, sandbox
        )
    _, second, third, _ = [step.observation for step in result.steps]
    assert second == Observation("/testbed\ncat\nx\n", exit_code=0)
    assert third == Observation("", exit_code=1)


def test_in_xml_the_shell_stays() -> None:
    policy = ScriptedPolicy(
        [xml.render_reply("why", bash(c)) for c in ("cd /tmp; export A=1", "pwd; echo $A")]
        + [xml.render_reply("done", Action("submit"))]
    )
    with open_local_sandbox() as sandbox:
        result = rollout(Agent(policy, Rules(ReplyFormat(xml, "lenient"))), INSTANCE, sandbox)
    assert result.steps[1].observation == Observation("/tmp\n1", exit_code=0)
