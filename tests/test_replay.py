from __future__ import annotations

import pytest

from srl_swe.replay import (
    Match,
    compare,
    normalise,
    normalise_patch,
    replay,
    with_fresh_observations,
)
from srl_swe.sandbox import ExecResult
from srl_swe.testing import FakeSandbox
from srl_swe.types import Action, Instance, Observation, Step, Trajectory

INSTANCE = Instance("a__b-1", "a/b", "HEAD", "issue", "image")


def bash(command: str, printed: str | None, *, executed: bool = True) -> Step:
    observation = None if printed is None else Observation(printed, exit_code=0)
    return Step("t", Action("bash", {"command": command}), observation, executed)


def make_sandbox(patch: str = "diff") -> FakeSandbox:
    sandbox = FakeSandbox(answer=lambda command: ExecResult(f"ran {command}", 0))
    sandbox.write_file("/tmp/.srl_swe.patch", patch.encode())
    return sandbox


@pytest.mark.parametrize(
    ("recorded", "fresh", "match"),
    [
        ("same", "same", Match.EQUAL),
        ("3 passed in 0.02s", "3 passed in 1.40s", Match.NORMALISED),
        ("==== 3 passed in 0.02s ====", "=== 3 passed in 0.12s ===", Match.NORMALISED),
        ("<A at 0x7f11aa22bb33>", "<A at 0x7f99aa22bb33>", Match.NORMALISED),
        ("wrote /tmp/tmpab12/x", "wrote /tmp/tmpcd34/x", Match.NORMALISED),
        ("\x1b[31mred\x1b[0m\r\n", "red", Match.NORMALISED),
        ("2 passed", "3 passed", Match.DIFFERENT),
        ("", "Traceback", Match.DIFFERENT),
    ],
)
def test_a_fresh_observation_is_compared_with_the_recorded_one(
    recorded: str, fresh: str, match: Match
) -> None:
    assert compare(Observation(recorded), Observation(fresh)) is match
    assert match.faithful is (match is not Match.DIFFERENT)


def test_another_exit_code_counts_only_where_both_are_known() -> None:
    assert compare(Observation("x", 0), Observation("x", 1)) is Match.EXIT_CODE
    assert compare(Observation("x", None), Observation("x", 1)) is Match.EQUAL
    assert compare(None, Observation("x")) is Match.NOT_RECORDED


def test_normalising_is_idempotent() -> None:
    text = "\x1b[1mran\x1b[0m 3 in 1.5s at 0x7f00aa11bb22 \r\n in /tmp/abc"
    assert normalise(normalise(text)) == normalise(text)


def test_a_replay_executes_every_step_that_once_ran_and_compares_the_patch() -> None:
    steps = (
        bash("a", "ran a"),
        bash("vim", "blocked", executed=False),
        Step("no action", None),
        bash("b", "something else"),
    )
    trajectory = Trajectory("a__b-1", steps, patch="diff")
    result = replay(trajectory, INSTANCE, make_sandbox())
    assert [step.match for step in result.steps] == [
        Match.EQUAL, Match.SKIPPED, Match.SKIPPED, Match.DIFFERENT,
    ]  # fmt: skip
    assert result.patch_equal is True
    assert not result.faithful


def test_a_patch_that_differs_makes_a_replay_unfaithful() -> None:
    trajectory = Trajectory("a__b-1", (bash("a", "ran a"),), patch="diff")
    assert replay(trajectory, INSTANCE, make_sandbox("diff")).faithful
    assert not replay(trajectory, INSTANCE, make_sandbox("other")).faithful
    assert replay(Trajectory("a__b-1", ()), INSTANCE, make_sandbox()).patch_equal is None


def test_hashes_and_line_ends_of_a_patch_do_not_count() -> None:
    old = "\r\ndiff --git a/x b/x\r\nindex 123..456 100644\r\n+y\r\n"
    assert normalise_patch(old) == normalise_patch("diff --git a/x b/x\nindex 1234..4567\n+y\n")


def test_until_stops_early_and_does_not_judge_the_patch() -> None:
    trajectory = Trajectory("a__b-1", (bash("a", "ran a"), bash("b", "ran b")), patch="other")
    result = replay(trajectory, INSTANCE, make_sandbox(), until=1)
    assert len(result.steps) == 1
    assert result.patch_equal is None


def test_recording_writes_down_what_is_printed_now() -> None:
    trajectory = Trajectory("a__b-1", (bash("a", None), bash("b", "old")))
    fresh = with_fresh_observations(trajectory, replay(trajectory, INSTANCE, make_sandbox()))
    printed = [step.observation.text for step in fresh.steps if step.observation]
    assert printed == ["ran a", "ran b"]
    assert fresh.patch == "diff"
