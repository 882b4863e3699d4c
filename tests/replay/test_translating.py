"""Replays of foreign tools in a real shell: which calls of our own come of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from srl_swe.dialects import get_dialect
from srl_swe.replay import as_recorded, replay_trajectory
from srl_swe.replay.normalise import Cause, Match
from srl_swe.replay.run import Replay
from srl_swe.sandbox import Sandbox
from srl_swe.steps.contexts import Dropped, StepContext, make_step_contexts
from srl_swe.tools.translation import carry_out
from srl_swe.trajectories import load_jsonl, save_jsonl
from srl_swe.types import Action, Instance, Observation, Step, Trajectory, Translation
from srl_swe_envs.local import open_local_sandbox

pytestmark = pytest.mark.slow


INSTANCE = Instance("a__b-1", "a/b", "HEAD", "the row's stub", "image")
BROKEN = "def division(a: float, b: float) -> float\n    return a/b\n"
SOUND = BROKEN.replace("float\n", "float:\n")
LINES = "".join(f"line {n}\n" for n in range(1, 301))
SUBMIT = Step("Done.", Action("submit"))


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with open_local_sandbox() as sandbox:
        sandbox.write_file("/testbed/tests/colon.txt", BROKEN.encode())
        sandbox.write_file("/testbed/long.txt", LINES.encode())
        sandbox.write_file("/testbed/tabs.mk", b"a:\n\techo\n")
        ready = sandbox.exec(
            "cd /testbed && git init -q . && git add -A && "
            "git -c user.name=a -c user.email=a@b commit -qm base"
        )
        assert ready.exit_code == 0, ready.output
        yield sandbox


def call(tool: str, **arguments: str) -> Step:
    named = {name.replace("__", "-"): value for name, value in arguments.items()}
    return Step("Look.", Action(tool, named), Observation("as it was then"))


OPEN = call("open", path="tests/colon.txt")


def replayed(
    family: str, sandbox: Sandbox, *steps: Step, at_version_0: bool = False
) -> tuple[Trajectory, Replay]:
    if at_version_0:  # which the record's words tell
        mark = Observation("File updated. (correct indentation, no duplicate lines, etc).")
        steps = (*steps[:-1], Step("t", steps[-1].action, mark))
    theirs = Trajectory("a__b-1", steps, "their issue", source=family)
    result = replay_trajectory(theirs, INSTANCE, sandbox)
    return as_recorded(theirs, INSTANCE, result), result


def own(step: Step) -> dict[str, str]:
    assert step.translation is not None
    assert step.translation.action is not None, step.translation.reason
    assert step.translation.action.tool == "str_replace_editor"
    return dict(step.translation.action.arguments)


@pytest.mark.parametrize(
    ("family", "at_version_0", "steps"),
    [
        pytest.param(
            "swe-agent",
            True,
            (
                OPEN,
                call(
                    "edit",
                    start_line="1",
                    end_line="1",
                    replacement_text=SOUND.splitlines()[0],
                ),
            ),
            id="lines, SWE-agent 0.x",
        ),
        pytest.param(
            "swe-agent",
            False,
            (
                OPEN,
                call("set_cursors", start_line="1", end_line="1"),
                call("edit", replacement_text=SOUND.splitlines()[0]),
            ),
            id="between cursors, SWE-agent 0.x",
        ),
        pytest.param(
            "swe-agent",
            False,
            (
                OPEN,
                call("edit", start_line="1", end_line="2", replacement_text=SOUND.rstrip("\n")),
            ),
            id="lines, SWE-agent 1.x",
        ),
        pytest.param(
            "swe-agent",
            False,
            (
                OPEN,
                call("edit", search="-> float\n", replace="-> float:\n"),
            ),
            id="search, SWE-agent 1.x",
        ),
        pytest.param(
            "swe-agent",
            False,
            (
                OPEN,
                call("edit", search="-> float\n", replace="-> float:\n", replace__all="True"),
            ),
            id="everywhere, SWE-agent 1.x",
        ),
        pytest.param(
            "swe-agent",
            False,
            (OPEN, call("edit", text=SOUND.rstrip("\n"))),
            id="the window, SWE-agent 1.x",
        ),
        pytest.param(
            "nebius-swe-agent",
            False,
            (
                OPEN,
                call("edit", start_line="1", end_line="1", replacement_text=SOUND.splitlines()[0]),
            ),
            id="nebius",
        ),
        pytest.param(
            "atif",
            False,
            (
                call(
                    "Edit", file_path="tests/colon.txt", old_string="float\n", new_string="float:\n"
                ),
            ),
            id="Edit",
        ),
        pytest.param(
            "atif",
            False,
            (
                call(
                    "MultiEdit",
                    file_path="/testbed/tests/colon.txt",
                    edits='[{"old_string": "float\\n", "new_string": "float: #\\n"},'
                    ' {"old_string": " #", "new_string": ""}]',
                ),
            ),
            id="MultiEdit",
        ),
        pytest.param(
            "atif", False, (call("Write", file_path="tests/colon.txt", content=SOUND),), id="Write"
        ),
        pytest.param(
            "chat",
            False,
            (
                call(
                    "replace",
                    file_path="tests/colon.txt",
                    old_string="float\n",
                    new_string="float:\n",
                ),
            ),
            id="replace",
        ),
    ],
)
def test_every_kind_of_edit_becomes_a_str_replace_with_the_same_effect(
    family: str, at_version_0: bool, steps: tuple[Step, ...], sandbox: Sandbox
) -> None:
    recorded, _ = replayed(family, sandbox, *steps, SUBMIT, at_version_0=at_version_0)
    assert sandbox.read_file("/testbed/tests/colon.txt") == SOUND.encode()
    edit = recorded.steps[len(steps) - 1]
    given = own(edit)
    assert given["command"] == "str_replace"
    assert given["path"] == "/testbed/tests/colon.txt"
    assert edit.translation is not None
    assert edit.translation.action is not None
    written, answer = carry_out(edit.translation.action, given["path"], BROKEN.encode())
    assert written == SOUND.encode()
    assert edit.translation.observation == answer
    items = make_step_contexts(recorded, get_dialect("xml"))
    targets = [item for item in items if isinstance(item, StepContext)]
    assert "str_replace" in targets[-1].expert_action
    assert targets[-1].translated == steps[-1].action.tool if steps[-1].action else False


def test_windows_become_views_whose_answers_our_own_tool_gives(sandbox: Sandbox) -> None:
    recorded, _ = replayed(
        "swe-agent",
        sandbox,
        OPEN,
        call("open", path="long.txt"),
        call("goto", line_number="150"),
        call("scroll_down"),
        call("open", path="nowhere.txt"),
        SUBMIT,
    )
    ranges = [own(step).get("view_range") for step in recorded.steps[:5]]
    assert ranges == [None, "[1, 100]", "[133, 232]", "[201, 300]", None]
    shown = recorded.steps[2].translation
    assert shown is not None
    assert shown.observation is not None
    assert "   133\tline 133\n" in shown.observation.text
    assert "line 233" not in shown.observation.text
    missing = recorded.steps[4].translation
    assert missing is not None
    assert missing.observation is not None
    assert "does not exist" in missing.observation.text


def test_searches_become_commands_that_our_own_shell_answers(sandbox: Sandbox) -> None:
    recorded, _ = replayed(
        "swe-agent",
        sandbox,
        call("find_file", file_name="*.txt"),
        call("search_dir", search_term="division", dir="tests"),
        call("search_file", search_term="line 30$", file="long.txt"),
        SUBMIT,
    )
    found = [(step.translation or Translation()) for step in recorded.steps[:3]]
    commands = [one.action.arguments["command"] for one in found if one.action]
    assert commands == [
        "find /testbed -type f -name '*.txt'",
        "grep -rnI --exclude-dir='.*' --exclude='.*' division /testbed/tests",
        "grep -n 'line 30$' /testbed/long.txt",
    ]
    answers = [one.observation.text for one in found if one.observation]
    assert sorted(answers[0].split()) == ["/testbed/long.txt", "/testbed/tests/colon.txt"]
    assert answers[1].startswith("/testbed/tests/colon.txt:1:def division")
    assert answers[2] == "30:line 30"


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ((call("open", path="tabs.mk"), call("edit", search="echo", replace="ls")), "tabs"),
        ((call("edit", search="a", replace="b"),), "call_failed"),
        ((call("set_cursors", start_line="1", end_line="1"),), "no_equal_tool"),
        (
            (
                call("open", path="long.txt"),
                call("edit", search="9", replace="x", replace__all="1"),
            ),
            "several_places",
        ),
        ((call("filemap", file_path="x.py"),), "no_equal_tool"),
    ],
)
def test_what_is_not_translated_is_no_target_and_counted_by_reason(
    steps: tuple[Step, ...], reason: str, sandbox: Sandbox
) -> None:
    recorded, _ = replayed("swe-agent", sandbox, *steps, SUBMIT)
    last = recorded.steps[len(steps) - 1]
    assert last.translation == Translation(reason=reason)
    tool = last.action.tool if last.action else ""
    items = make_step_contexts(recorded, get_dialect("xml"))
    assert f"{tool}: {reason}" in [item.detail for item in items if isinstance(item, Dropped)]


def test_undo_and_ranges_beyond_the_end_become_what_our_editor_takes(sandbox: Sandbox) -> None:
    path = "/workspace/a__b__1.0/tests/colon.txt"
    change = {"old_str": "float\n", "new_str": "float:\n"}
    recorded, _ = replayed(
        "openhands",
        sandbox,
        call("str_replace_editor", command="str_replace", path=path, **change),
        call("str_replace_editor", command="undo_edit", path=path),
        call("str_replace_editor", command="view", path=path, view_range="[2, 90]"),
        call("finish", message="done"),
    )
    assert recorded.steps[0].translation is None  # as it is, it is a call of ours
    undone = own(recorded.steps[1])
    assert (undone["command"], undone["path"]) == ("str_replace", path)
    assert own(recorded.steps[2])["view_range"] == "[2, -1]"
    assert sandbox.read_file("/testbed/tests/colon.txt") == BROKEN.encode()


def test_a_call_that_no_tool_here_is_equal_to_is_skipped_and_keeps_its_answer(
    sandbox: Sandbox,
) -> None:
    steps = (
        call("apply_patch", input="*** Begin Patch"),
        call("Bash", command="touch made", run_in_background="true"),
        call("Bash", restart="true"),
        call("str_replace_editor", command="delete", path="/testbed/long.txt"),
    )
    recorded, result = replayed("atif", sandbox, *steps, SUBMIT)
    assert [(s.match, s.cause) for s in result.steps[:4]] == [
        (Match.SKIPPED, Cause.MISSING_TOOL)
    ] * 4
    assert not result.faithful
    assert [step.observation for step in recorded.steps[:4]] == [Observation("as it was then")] * 4
    assert sandbox.exec("ls /testbed/made /testbed/long.txt").output.split()[-1] != "made"


def test_a_folder_that_the_row_does_not_know_is_taken_for_the_repository(sandbox: Sandbox) -> None:
    there = "/klieret__swe-agent-test-repo"
    recorded, _ = replayed(
        "swe-agent",
        sandbox,
        call("open", path=f"{there}/tests/colon.txt"),
        call("edit", search="float\n", replace="float:\n"),
        SUBMIT,
    )
    assert own(recorded.steps[1])["path"] == f"{there}/tests/colon.txt"
    context = list(make_step_contexts(recorded, get_dialect("xml")))[1]
    assert isinstance(context, StepContext)
    assert "/testbed/tests/colon.txt" in context.expert_action
    assert there not in "".join(message["content"] for message in context.prompt)


def test_translations_are_kept_in_our_format_and_change_no_replay(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    steps = (OPEN, call("edit", search="-> float\n", replace="-> float:\n"), SUBMIT)
    recorded, result = replayed("swe-agent", sandbox, *steps)
    save_jsonl(tmp_path / "x.jsonl", [recorded])
    assert load_jsonl(tmp_path / "x.jsonl") == [recorded]
    sandbox.exec("cd /testbed && git reset -q --hard")
    again = replay_trajectory(recorded, INSTANCE, sandbox)
    assert again.faithful
    assert [step.match for step in again.steps] == [Match.EQUAL] * 3
    assert again.patch == result.patch


def test_the_issue_of_a_recorded_replay_is_the_trajectorys_own(sandbox: Sandbox) -> None:
    recorded, result = replayed("chat", sandbox, call("Bash", command="ls"))
    assert recorded.problem_statement == "their issue"
    without = Trajectory("a__b-1", recorded.steps, source="chat")
    assert as_recorded(without, INSTANCE, result).problem_statement == "the row's stub"


def test_a_pipeline_that_a_signal_ends_prints_nothing_of_the_shell(sandbox: Sandbox) -> None:
    step = Step("t", Action("bash", {"command": "seq 1 1000000 | head -2"}), Observation("1\n2"))
    _, result = replayed("swe-smith", sandbox, step)
    assert result.steps[0].match is Match.EQUAL


def test_a_mistake_in_our_own_tools_is_made_again(sandbox: Sandbox) -> None:
    steps = (call("bash"), call("str_replace_editor", command="delete", path="/testbed/long.txt"))
    _, result = replayed("srl-swe", sandbox, *steps)
    assert [step.match for step in result.steps] == [Match.DIFFERENT, Match.DIFFERENT]
