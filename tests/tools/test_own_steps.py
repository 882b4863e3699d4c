"""Trajectories of others in our own tools and our own folder, without a replay."""

from __future__ import annotations

import time

import pytest

from srl_swe.tools.own_calls import make_own_steps
from srl_swe.tools.recorded_paths import guess_root
from srl_swe.types import Action, Observation, Step, Trajectory, Translation

ROOT = "/klieret__swe-agent-test-repo"
FILE = f"{ROOT}/tests/missing_colon.py"
BROKEN = ("def f(a)", "    return a", "")
SOUND = ("def f(a):", "    return a", "")


def window(path: str, lines: tuple[str, ...], total: int | None = None, first: int = 1) -> str:
    head = f"[File: {path} ({len(lines) if total is None else total} lines total)]"
    above = [f"({first - 1} more lines above)"] if first > 1 else []
    return "\n".join([head, *above, *(f"{n}:{line}" for n, line in enumerate(lines, first))])


def step(tool: str, answer: str, **arguments: str) -> Step:
    named = {name.replace("_all", "-all"): value for name, value in arguments.items()}
    return Step("why", Action(tool, named), Observation(answer))


def calls(*steps: Step, source: str = "swe-agent", patch: str | None = None) -> list[object]:
    """Of each step: the call that it becomes, or the reason why it becomes none."""
    trajectory = Trajectory("a__b-1", steps, "issue", source=source, patch=patch)
    _, made = make_own_steps(trajectory)
    return [
        own.problem or (own.step.action and (own.step.action.tool, dict(own.step.action.arguments)))
        for own in made
    ]


OPEN = step("open", window(FILE, BROKEN), path="tests/missing_colon.py")


@pytest.mark.parametrize(
    ("edit", "answer"),
    [
        ({"start_line": "1", "end_line": "1", "replacement_text": "def f(a):"}, SOUND),
        ({"search": "def f(a)", "replace": "def f(a):"}, SOUND),
    ],
)
def test_a_window_that_shows_the_whole_file_is_the_file(
    edit: dict[str, str], answer: tuple[str, ...]
) -> None:
    shown = f"{window(FILE, answer)}\nFile updated. Please review the changes"
    path = "/testbed/tests/missing_colon.py"
    assert calls(OPEN, step("edit", shown, **edit)) == [
        ("str_replace_editor", {"command": "view", "path": path}),
        (
            "str_replace_editor",
            {
                "command": "str_replace",
                "path": path,
                "old_str": "def f(a)",
                "new_str": "def f(a):",
            },
        ),
    ]


@pytest.mark.parametrize(
    ("steps", "patch"),
    [
        # never shown before; shown in part; not what the arguments make of it; no last newline
        ((step("edit", window(FILE, SOUND), start_line="1", end_line="1"),), None),
        (
            (
                step("open", window(FILE, BROKEN, total=300), path=FILE),
                step("edit", window(FILE, SOUND, total=300), search="(a)", replace="(a):"),
            ),
            None,
        ),
        ((OPEN, step("edit", window(FILE, SOUND), search="(a)", replace="(b):")), None),
        (
            (OPEN, step("edit", window(FILE, SOUND), search="(a)", replace="(a):")),
            "diff --git a/x b/x\n-a\n\\ No newline at end of file\n+a\n",
        ),
    ],
)
def test_what_the_record_does_not_show_waits_for_a_replay(
    steps: tuple[Step, ...], patch: str | None
) -> None:
    assert calls(*steps, patch=patch)[-1] == "file_unknown"


def test_a_new_file_is_known_from_its_making_on() -> None:
    path, made = "/testbed/reproduce.py", f"{ROOT}/reproduce.py"
    found = calls(
        step("create", window(made, ("",)), filename="reproduce.py"),
        step(
            "edit", window(made, ("a", "b")), start_line="1", end_line="1", replacement_text="a\nb"
        ),
        step("insert", window(made, ("a", "b", "c")), text="c", line="2"),
    )
    assert found == [
        ("str_replace_editor", {"command": "create", "path": path, "file_text": "\n"}),
        (
            "str_replace_editor",
            {"command": "str_replace", "path": path, "old_str": "\n", "new_str": "a\nb\n"},
        ),
        (
            "str_replace_editor",
            {"command": "insert", "path": path, "insert_line": "2", "new_str": "c"},
        ),
    ]


def test_a_command_may_have_changed_what_no_window_shows_whole() -> None:
    lines = tuple(f"line {n}" for n in range(1, 151))
    made, text = f"{ROOT}/long.txt", "\n".join(lines)
    create = step("create", window(made, ("",)), filename="long.txt")
    write = step(
        "edit",
        window(made, lines[:100], total=150),
        start_line="1",
        end_line="1",
        replacement_text=text,
    )
    changed = ("x", *lines[1:100])
    edit = step(
        "edit",
        window(made, changed, total=150),
        start_line="1",
        end_line="1",
        replacement_text="x",
    )
    command = step("bash", "", command="sed -i s/150/151/ long.txt")
    assert isinstance(calls(create, write, edit)[-1], tuple)
    assert calls(create, write, command, edit)[-1] == "file_unknown"


def test_part_of_a_file_is_viewed_by_its_lines_with_our_own_answer() -> None:
    shown = step("open", window(FILE, ("x = 1", "y = 2"), total=300, first=40), path=FILE)
    _, (own,) = make_own_steps(Trajectory("a__b-1", (shown,), "issue", source="swe-agent"))
    assert own.step.action is not None
    assert own.step.action.arguments["view_range"] == "[40, 41]"
    assert own.step.observation == Observation(
        "Here's the result of running `cat -n` on /testbed/tests/missing_colon.py:\n"
        "    40\tx = 1\n    41\ty = 2\n",
        exit_code=0,
    )


def test_searches_become_the_commands_that_print_what_they_list() -> None:
    found = f'Found 1 matches for "f(" in {ROOT}:\n{FILE}'
    lines = f'Found 1 matches for "-x" in {FILE}:\nLine 3:a -x'
    nothing = f'No matches found for "q" in {ROOT}'
    steps = (
        step("find_file", found, file_name="f("),
        step("search_file", lines, search_term="-x", file="tests/missing_colon.py"),
        step("find_file", nothing, file_name="q"),
        step("search_dir", "Found 2 matches", search_term="q"),
    )
    _, made = make_own_steps(Trajectory("a__b-1", steps, "issue", source="swe-agent"))
    shown = [
        (own.step.action.arguments.get("command"), own.step.observation.text)
        for own in made[:3]
        if own.step.action and own.step.observation
    ]
    assert shown == [
        ("find /testbed -type f -name 'f('", "/testbed/tests/missing_colon.py"),
        ("grep -n -e -x /testbed/tests/missing_colon.py", "3:a -x"),
        ("find /testbed -type f -name q", ""),
    ]
    assert made[3].problem


def test_what_a_replay_found_counts_before_what_the_record_shows() -> None:
    own = Translation(Action("bash", {"command": "ls"}), Observation("x.py"))
    none = Translation(reason="tabs")
    steps = [
        Step("t", OPEN.action, OPEN.observation, translation=translation)
        for translation in (own, none)
    ]
    assert calls(*steps) == [("bash", {"command": "ls"}), "tabs"]


@pytest.mark.parametrize("family", ["mini-swe-agent", "responses"])
def test_submitting_is_submit_for_mini_and_a_command_for_our_own(family: str) -> None:
    last = step("bash", "", command="echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && cat patch.txt")
    assert calls(last, source=family) == [("submit", {})]
    assert calls(last, source="srl-swe") != [("submit", {})]


@pytest.mark.parametrize(
    ("arguments", "answer", "root"),
    [
        ({"command": "cd /workspace/a__b__1.0 && ls"}, "", "/workspace/a__b__1.0"),
        ({"command": "ls"}, "a\n[Current working directory: /workspace]", "/workspace"),
        ({"path": "/home/user/project/x.py"}, "", "/home/user/project"),
        ({"path": "/workspace/src/x.py"}, "", "/workspace"),
        ({"path": "/workspace/x.py"}, "", "/workspace"),
        ({"path": "x.py"}, "[File: /a__b/x.py (3 lines total)]", "/a__b"),
        ({"path": "/testbed/x.py"}, "", None),
        ({"path": "/tmp/x.py"}, "", None),
        ({"path": "/a"}, "", None),
        ({"command": "grep -r '/api/users' src"}, "", None),
        ({"command": "cd /testbed && grep x /workspace/y"}, "", None),
    ],
)
def test_the_folder_that_a_record_speaks_of(
    arguments: dict[str, str], answer: str, root: str | None
) -> None:
    steps = [Step("t", Action("any", arguments), Observation(answer))]
    assert guess_root(steps, "/testbed") == root


def test_a_prompt_has_one_folder_for_the_repository() -> None:
    there = "/workspace/a__b__1.0"
    steps = (
        Step(
            f"Look into {there}/src.",
            Action("execute_bash", {"command": f"cd {there} && ls {there}/src"}),
            Observation(f"{there}/src/x.py\n[Current working directory: {there}]"),
        ),
    )
    own, (made,) = make_own_steps(Trajectory("a__b-1", steps, f"{there} fails", source="openhands"))
    assert there not in repr(own) + repr(made)
    assert made.step.action == Action("bash", {"command": "cd /testbed && ls /testbed/src"})


@pytest.mark.parametrize(
    ("tool", "arguments", "answer"),
    [
        ("bash", {"command": "\n" * 200_000}, ""),
        ("bash", {"command": "; " * 200_000}, ""),
        ("bash", {"command": "cd" + " " * 200_000}, ""),
        ("find_file", {"file_name": "x"}, "Found 1 matches for " + " in /" * 100_000),
        ("open", {"path": "x"}, "[File: " * 100_000),
        ("edit", {"start_line": "9" * 5000, "end_line": "1"}, window(FILE, SOUND)),
        ("edit", {"search": "\ud800", "replace": "\x00"}, window(FILE, ("\ud800", ""))),
        ("insert", {"line": "x"}, window(FILE, SOUND)),
        ("open", {"path": "x"}, window(FILE, ("\ud800",))),
        ("create", {"filename": "x"}, window("/testbed/\ud800", ("",))),
    ],
)
def test_hostile_records_take_no_longer_than_others(
    tool: str, arguments: dict[str, str], answer: str
) -> None:
    started = time.process_time()
    calls(OPEN, Step("t", Action(tool, arguments), Observation(answer)))
    assert time.process_time() - started < 2
