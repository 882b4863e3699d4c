from __future__ import annotations

import pytest

from srl_swe.dialects import get_dialect
from srl_swe.errors import UserError
from srl_swe.replay import as_recorded, fork_at, replay_trajectory
from srl_swe.replay.normalise import Cause, Match
from srl_swe.replay.run import checkpoints_at, replay_steps, with_fresh_observations
from srl_swe.sandbox import ExecResult
from srl_swe.steps.contexts import StepContext, make_step_contexts
from srl_swe.testing import FakeSandbox
from srl_swe.types import Action, Instance, Observation, Step, StopReason, Trajectory

INSTANCE = Instance("a__b-1", "a/b", "HEAD", "issue", "image")
PATCH = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"
OTHER = PATCH.replace("+b", "+c")


def bash(command: str, printed: str | None, *, executed: bool = True, code: int = 0) -> Step:
    observation = None if printed is None else Observation(printed, exit_code=code)
    return Step("t", Action("bash", {"command": command}), observation, executed)


def edit(answer: str) -> Step:
    arguments = {"command": "str_replace", "path": "/testbed/x.py", "old_str": "a", "new_str": "b"}
    return Step("t", Action("str_replace_editor", arguments), Observation(answer))


def make_sandbox(patch: str | None = PATCH, file: str | None = None) -> FakeSandbox:
    def answer(command: str) -> ExecResult:
        ruined = patch is None and command.startswith("command git")
        return ExecResult(f"ran {command}", 128 if ruined else 0)

    sandbox = FakeSandbox(answer)
    sandbox.write_file("/tmp/.srl_swe.patch", (patch or "").encode())
    if file is not None:
        sandbox.write_file("/testbed/x.py", file.encode())
    return sandbox


def faithful(steps: tuple[Step, ...], patch: str | None, sandbox: FakeSandbox) -> bool:
    return replay_trajectory(Trajectory("a__b-1", steps, patch=patch), INSTANCE, sandbox).faithful


def test_a_replay_executes_every_step_that_once_ran_and_compares_the_patch() -> None:
    steps = (
        bash("a", "ran a"),
        bash("vim", "blocked", executed=False),
        Step("no action", None),
        bash("b", "something else"),
    )
    result = replay_trajectory(Trajectory("a__b-1", steps, patch=PATCH), INSTANCE, make_sandbox())
    assert [step.match for step in result.steps] == [
        Match.EQUAL, Match.SKIPPED, Match.SKIPPED, Match.DIFFERENT,
    ]  # fmt: skip
    assert result.patch_equal is True
    assert result.first_drift == 3


def test_a_text_that_drifts_makes_no_replay_unfaithful() -> None:
    assert faithful((bash("a", "something else"),), PATCH, make_sandbox())
    assert faithful((bash("a", "something else"),), None, make_sandbox())


def test_another_patch_does_whatever_was_printed() -> None:
    assert not faithful((bash("a", "ran a"),), PATCH, make_sandbox(OTHER))
    assert not faithful((bash("a", "ran a"),), "", make_sandbox(OTHER))
    assert not faithful((bash("a", "ran a"),), PATCH, make_sandbox(None))
    assert faithful((bash("a", "ran a", code=1),), PATCH, make_sandbox())


def test_without_a_recorded_patch_exit_codes_and_edits_decide() -> None:
    assert faithful((bash("a", "other", code=0),), None, make_sandbox())
    assert not faithful((bash("a", "ran a", code=1),), None, make_sandbox())
    done = edit("The file /testbed/x.py has been edited. Here's the result of running `cat -n`")
    refused = edit("No replacement was performed, old_str `a` did not appear verbatim in x.py.")
    assert faithful((done,), None, make_sandbox(file="a\n"))
    assert not faithful((done,), None, make_sandbox(file="b\n"))
    assert faithful((refused,), None, make_sandbox(file="b\n"))
    assert not faithful((refused,), None, make_sandbox(file="a\n"))
    assert faithful((edit("in words unheard of"),), None, make_sandbox(file="a\n"))


def test_a_patch_that_was_cut_leaves_the_rest_to_the_steps() -> None:
    cut = f"{PATCH}\n[9000 characters elided]\n"
    shown = cut + "\n"
    assert faithful((bash("a", "other"),), shown, make_sandbox())
    assert not faithful((bash("a", "ran a", code=1),), shown, make_sandbox())


def test_a_new_timeout_is_another_effect_and_an_old_one_is_not_waited_for() -> None:
    def slow(command: str) -> ExecResult:
        return ExecResult("", None, timed_out=True)

    assert not faithful((bash("a", "ran a"),), None, FakeSandbox(slow))
    timed_out = Observation("EXECUTION TIMED OUT", timed_out=True)
    step = Step("t", Action("bash", {"command": "sleep 1000"}), timed_out)
    sandbox = make_sandbox()
    result = replay_trajectory(Trajectory("a__b-1", (step,)), INSTANCE, sandbox)
    assert (result.steps[0].match, result.steps[0].cause) == (Match.SKIPPED, Cause.TIMED_OUT)
    assert "sleep 1000" not in sandbox.commands
    assert with_fresh_observations(Trajectory("a__b-1", (step,)), result).steps == (step,)


def test_a_tool_that_is_not_known_here_has_no_effect() -> None:
    step = Step("t", Action("bash_command", {"keystrokes": "rm -r src"}), Observation(""))
    assert not faithful((step,), None, make_sandbox())
    assert faithful((step,), PATCH, make_sandbox())


def test_until_stops_early_and_does_not_judge_the_patch() -> None:
    trajectory = Trajectory("a__b-1", (bash("a", "ran a"), bash("b", "ran b")), patch=OTHER)
    result = replay_trajectory(trajectory, INSTANCE, make_sandbox(), until=1)
    assert len(result.steps) == 1
    assert result.patch_equal is None
    assert result.faithful


def test_recording_writes_down_what_is_printed_now_and_keeps_what_did_not_run() -> None:
    refused = bash("vim", "Operation 'vim' is not supported", executed=False)
    trajectory = Trajectory("a__b-1", (bash("a", None), refused, bash("b", "old")))
    fresh = with_fresh_observations(
        trajectory, replay_trajectory(trajectory, INSTANCE, make_sandbox())
    )
    printed = [step.observation.text for step in fresh.steps if step.observation]
    assert printed == ["ran a", "Operation 'vim' is not supported", "ran b"]
    assert fresh.patch == PATCH


def test_a_recorded_replay_says_that_a_container_of_ours_printed_it() -> None:
    trajectory = Trajectory("a__b-1", (bash("a", "old"), bash("b", "old")), "issue")
    fresh = with_fresh_observations(
        trajectory, replay_trajectory(trajectory, INSTANCE, make_sandbox())
    )
    for made, observations in ((trajectory, "recorded"), (fresh, "replayed")):
        context, _ = make_step_contexts(made, get_dialect("xml"))
        assert isinstance(context, StepContext)
        assert context.observations == observations


def test_what_the_record_says_of_the_end_is_not_said_of_another_end() -> None:
    steps = (bash("a", "ran a"), bash("b", "ran b"), Step("t", Action("submit")))
    trajectory = Trajectory(
        "a__b-1", steps, "issue", StopReason.SUBMITTED, PATCH, resolved=True, exit_status="done"
    )

    def recorded(patch: str, until: int | None) -> Trajectory:
        replayed = replay_trajectory(trajectory, INSTANCE, make_sandbox(patch), until=until)
        return as_recorded(trajectory, INSTANCE, replayed)

    whole, part, other = recorded(PATCH, None), recorded(PATCH, 2), recorded(OTHER, None)
    assert (whole.stop_reason, whole.exit_status, whole.resolved) == ("submitted", "done", True)
    assert (part.stop_reason, part.exit_status, part.resolved) == (None, None, None)
    assert (other.stop_reason, other.resolved) == ("submitted", None)


@pytest.mark.parametrize(
    "text", ["\ud800", "\x00", "\x1b[", "<function=bash>", "[red]", "<script>", "'; rm -rf /"]
)
def test_hostile_texts_are_texts(text: str) -> None:
    steps = (
        bash(text, text),
        edit(text),
        Step(text, Action(text, {text: text}), Observation(text)),
    )
    trajectory = Trajectory("a__b-1", steps, patch=text)
    result = replay_trajectory(
        trajectory, INSTANCE, make_sandbox(file=text.encode(errors="replace").decode())
    )
    assert len(result.steps) == 3


def test_steps_alone_leave_the_index_of_the_repository_as_it_was() -> None:
    sandbox = make_sandbox()
    replay_steps(Trajectory("a__b-1", (bash("a", "ran a"),)), INSTANCE, sandbox)
    assert sandbox.commands == ["a"]


class ForkableFake(FakeSandbox):
    """Its snapshots are lists of the commands that ran before."""

    def checkpoint(self) -> str:
        return "+".join(self.commands)

    def fork(self, snapshot_id: str) -> ForkableFake:
        fork = ForkableFake()
        fork.commands = snapshot_id.split("+")
        forks.append(fork)
        return fork


forks: list[ForkableFake] = []


def test_one_replay_gives_sandboxes_at_several_steps() -> None:
    trajectory = Trajectory("a__b-1", tuple(bash(name, None) for name in "abcd"))
    sandbox = ForkableFake()
    with fork_at(trajectory, INSTANCE, sandbox, (1, 3)) as at:
        commands = {step: fork.commands for step, fork in zip(at, forks, strict=True)}
        assert commands == {1: ["a"], 3: ["a", "b", "c"]}
        assert not any(fork.closed for fork in forks)
    assert all(fork.closed for fork in forks)
    assert sandbox.commands == ["a", "b", "c"]


def test_a_step_that_is_not_there_is_a_mistake() -> None:
    trajectory = Trajectory("a__b-1", (bash("a", None),))
    assert checkpoints_at(trajectory, INSTANCE, ForkableFake(), (0, 1)) == {0: "", 1: "a"}
    with pytest.raises(UserError, match=r"has 1 steps.* step 2"):
        checkpoints_at(trajectory, INSTANCE, ForkableFake(), (2,))
