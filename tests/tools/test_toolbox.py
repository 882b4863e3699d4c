from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srl_swe.errors import UserError
from srl_swe.sandbox import ExecResult, Sandbox
from srl_swe.testing import FakeSandbox
from srl_swe.tools import open_recorded_toolbox, open_toolbox
from srl_swe.tools.toolsets import TOOLSETS
from srl_swe.types import Action, Instance, Observation, Step, Trajectory

INSTANCE = Instance("a__b-1", "a/b", "HEAD", "issue", "image")


def act(name: str, sandbox: Sandbox, tool: str, **arguments: str) -> Observation:
    return open_toolbox(name).perform(Action(tool, arguments), sandbox)


def trajectory(source: str, *steps: Step) -> Trajectory:
    return Trajectory("a__b-1", steps, source=source)


def step(tool: str, seen: str = "", **arguments: str) -> Step:
    return Step("thought", Action(tool, arguments), Observation(seen))


def test_an_unknown_family_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UserError, match=r"unknown tool set 'x'.*mini-swe-agent"):
        open_toolbox("x")


@pytest.mark.parametrize("name", TOOLSETS)
def test_an_unknown_tool_is_an_observation_in_every_family(name: str) -> None:
    seen = act(name, FakeSandbox(), "browser")
    assert seen.exit_code == 1
    assert seen.text.startswith("Unknown tool 'browser'. Known: ")


@pytest.mark.parametrize(
    ("name", "tools"),
    [
        ("srl-swe", "bash str_replace_editor submit"),
        ("swe-smith", "bash str_replace_editor open goto edit insert search_dir submit"),
        ("mini-swe-agent", "bash"),
        ("openhands", "execute_bash str_replace_editor think finish task_tracker"),
        ("swe-gym", "execute_bash str_replace_editor finish"),
        ("r2e-gym", "execute_bash file_editor str_replace_editor search finish submit"),
    ],
)
def test_each_family_has_its_tools(name: str, tools: str) -> None:
    assert set(tools.split()) <= set(open_toolbox(name).tools)


def test_shell_state_is_kept_where_the_family_kept_it(local: Sandbox) -> None:
    for name, tool, kept in (
        ("swe-smith", "bash", True),
        ("openhands", "execute_bash", True),
        ("mini-swe-agent", "bash", False),
        ("r2e-gym", "execute_bash", False),
    ):
        toolbox = open_toolbox(name)
        toolbox.perform(Action(tool, {"command": "cd /tmp"}), local)
        seen = toolbox.perform(Action(tool, {"command": "pwd"}), local)
        assert ("/tmp\n" in f"{seen.text}\n") is kept
        local.exec("cd /testbed")


def test_the_familys_environment_is_set_before_its_first_action() -> None:
    sandbox = FakeSandbox()
    toolbox = open_toolbox("mini-swe-agent")
    for _ in range(2):
        toolbox.perform(Action("bash", {"command": "ls"}), sandbox)
    assert sandbox.commands[0].startswith("export PAGER=cat; export MANPAGER=cat; ")
    assert sandbox.commands[1:] == ["ls", "ls"]


def test_the_bundled_family_runs_nothing_of_its_own() -> None:
    sandbox = FakeSandbox()
    act("srl-swe", sandbox, "bash", command="ls")
    assert sandbox.commands == ["ls"]


def test_mini_swe_agents_output_is_left_as_it_is() -> None:
    sandbox = FakeSandbox(answer=lambda command: ExecResult("out\n", 0))
    assert act("mini-swe-agent", sandbox, "bash", command="ls").text == "out\n"


def test_r2es_shell_is_sh_and_shows_both_streams(local: Sandbox) -> None:
    seen = act("r2e-gym", local, "execute_bash", command="echo out; echo err >&2; exit 3")
    assert seen == Observation(
        "Error executing command:\n\n[STDOUT]\n\nout \n\n[STDERR]\n\nerr", exit_code=3
    )
    seen = act("r2e-gym", local, "execute_bash", command='echo "it\'s"')
    assert seen == Observation("[STDOUT]\n\nit's \n\n[STDERR]\n\n", exit_code=0)


def test_openhands_frames_what_a_command_printed(local: Sandbox) -> None:
    seen = act("openhands", local, "execute_bash", command="cd /tmp && echo hi && false")
    head, _, tail = seen.text.partition("\n[Python interpreter: ")
    assert head == (
        "hi\n[The command completed with exit code 1.]\n[Current working directory: /tmp]"
    )
    assert tail.endswith("]\n[Command finished with exit code 1]")
    seen = act("swe-gym", local, "execute_bash", command="pwd")
    assert seen.text.startswith("pwd\n/tmp[Python Interpreter: ")
    assert seen.text.endswith(
        "]\nroot@openhands-workspace:/tmp # \n[Command finished with exit code 0]"
    )


def test_openhands_can_not_type_into_what_has_ended() -> None:
    sandbox = FakeSandbox()
    seen = act("openhands", sandbox, "execute_bash", command="")
    assert seen.text == "ERROR: No previous running command to retrieve logs from."
    seen = act("openhands", sandbox, "execute_bash", command="C-c", is_input="true")
    assert seen.text == "ERROR: No previous running command to interact with."
    assert sandbox.commands == []


def test_a_timeout_is_told_in_the_familys_words() -> None:
    sandbox = FakeSandbox(answer=lambda command: ExecResult("", None, timed_out=True))
    for name, tool, words in (
        ("r2e-gym", "execute_bash", "The command took too long to execute (>90s)"),
        ("swe-agent", "bash", "The command was cancelled because it took more than 30 seconds."),
        ("nebius-swe-agent", "bash", "EXECUTION TIMED OUT BECAUSE THE COMMAND WAS RUNNING"),
    ):
        assert act(name, sandbox, tool, command="sleep 999").text.startswith(words)


def test_thinking_and_finishing_do_nothing() -> None:
    sandbox = FakeSandbox()
    assert act("openhands", sandbox, "think", thought="hm").text == "Your thought has been logged."
    assert act("openhands", sandbox, "finish", message="done").exit_code is None
    assert act("r2e-gym", sandbox, "finish", command="submit").text == "<<< Finished >>>"
    assert sandbox.commands == []


def test_r2es_search_counts_in_folders_and_shows_lines_of_files(local: Sandbox) -> None:
    local.exec("mkdir -p pkg/.hid; printf 'a.b\\naxb\\n' | tee pkg/m.py pkg/.hid/n.py > pkg/t.txt")
    seen = act("r2e-gym", local, "search", search_term="a.b")
    assert seen.text == (
        'Found 1 matches for "a.b" in /testbed:\n./pkg/m.py (1 matches)\n'
        'End of matches for "a.b" in /testbed'
    )
    seen = act("r2e-gym", local, "search", search_term="a.b", path="pkg/t.txt")
    assert seen.text == 'Matches for "a.b" in /testbed/pkg/t.txt:\n1:a.b\n2:axb'
    seen = act("r2e-gym", local, "search", search_term="zz", path="/testbed/pkg")
    assert seen.text == 'No matches found for "zz" in /testbed/pkg'
    assert (
        "not found or not a directory"
        in act("r2e-gym", local, "search", search_term="a", path="/no").text
    )


def test_recorded_paths_are_read_as_where_the_repository_lies_and_shown_as_recorded() -> None:
    sandbox = FakeSandbox(
        answer=lambda command: ExecResult("/testbed/src/a.py:1\n", 0),
        files={"/testbed/src/a.py": b"import b  # /testbed\n"},
    )
    toolbox = open_toolbox("openhands", recorded_paths={"/workspace/a__b__1.0": "/testbed"})
    call = Action("execute_bash", {"command": "cd /workspace/a__b__1.0/src && grep -n b a.py"})
    seen = toolbox.perform(call, sandbox)
    assert sandbox.commands[1] == "cd /testbed/src && grep -n b a.py"
    assert seen.text.startswith("/workspace/a__b__1.0/src/a.py:1")
    view = Action(
        "str_replace_editor", {"command": "view", "path": "/workspace/a__b__1.0/src/a.py"}
    )
    assert "`cat -n` on /workspace/a__b__1.0/src/a.py:" in toolbox.perform(view, sandbox).text
    assert "ln -s /testbed /workspace/a__b__1.0" in sandbox.commands[0]


def test_no_link_is_made_on_this_machine(local: Sandbox) -> None:
    there = "/srl-swe-no-such-folder"
    toolbox = open_toolbox("openhands", recorded_paths={there: "/testbed"})
    toolbox.perform(Action("execute_bash", {"command": "true"}), local)
    assert not Path(there).is_symlink()


def test_what_is_written_to_files_keeps_the_recorded_paths() -> None:
    sandbox = FakeSandbox()
    toolbox = open_toolbox("openhands", recorded_paths={"/workspace/b": "/testbed"})
    text = "sys.path.insert(0, '/workspace/b')\n"
    create = {"command": "create", "path": "/workspace/b/r.py", "file_text": text}
    toolbox.perform(Action("str_replace_editor", create), sandbox)
    assert sandbox.files == {"/testbed/r.py": text.encode()}


def test_a_trajectory_tells_where_its_repository_lay() -> None:
    recorded = trajectory("nebius-swe-agent", step("bash", command="cat /b/setup.py"))
    sandbox = FakeSandbox()
    open_recorded_toolbox(recorded, INSTANCE).perform(
        Action("bash", {"command": "ls /b /bc /x/b"}), sandbox
    )
    assert sandbox.commands[-1] == "ls /testbed /bc /x/b"


def test_a_trajectory_tells_its_version_of_swe_agent() -> None:
    created = "[File: /a__b/r.py (1 lines total)]\n1:"
    old = trajectory("swe-agent", step("create", created, filename="r.py"))
    for recorded, written in ((old, b"\n"), (replace(old, steps=()), b"")):
        sandbox = FakeSandbox()
        create = Action("create", {"filename": "/testbed/r.py"})
        open_recorded_toolbox(recorded, INSTANCE).perform(create, sandbox)
        assert sandbox.files["/testbed/r.py"] == written


def test_the_first_of_two_submits_is_a_review() -> None:
    def submits(*steps: Step) -> list[str]:
        sandbox = FakeSandbox(files={"/tmp/.srl_swe.patch": b"diff --git a/x b/x\n"})
        toolbox = open_recorded_toolbox(trajectory("swe-smith", *steps), INSTANCE)
        return [toolbox.perform(Action("submit"), sandbox).text for _ in steps]

    first, second = submits(step("submit"), step("submit"))
    assert first.startswith("Thank you for your work on this issue.")
    assert first.endswith("<diff>\ndiff --git a/x b/x\n\n</diff>\n")
    assert second == "\ndiff --git a/x b/x\n"
    assert submits(step("submit")) == ["\ndiff --git a/x b/x\n"]


def test_other_agents_edit_by_exact_texts(local: Sandbox) -> None:
    local.write_file("/testbed/a.txt", b"one\r\ntwo two\n")
    seen = act(
        "responses", local, "Edit", file_path="/testbed/a.txt", old_string="one", new_string="1"
    )
    assert seen.exit_code == 0
    twice = {"filePath": "a.txt", "oldString": "two", "newString": "2"}
    assert "stands 2 times" in act("chat", local, "edit", **twice).text
    act("chat", local, "edit", **twice, replaceAll="true")
    edits = json.dumps([{"oldText": "2 2", "newText": "3"}, {"oldText": "3", "newText": "4"}])
    act("responses", local, "edit", path="/testbed/a.txt", edits=edits)
    assert local.read_file("/testbed/a.txt") == b"1\r\n4\n"
    act("responses", local, "write", filePath="new/b.txt", content="b")
    assert act("responses", local, "Read", file_path="/testbed/new/b.txt").text == "1\tb"


def test_a_source_without_tools_of_its_own_has_the_bundled_ones() -> None:
    assert "str_replace_editor" in open_recorded_toolbox(trajectory("elsewhere"), INSTANCE).tools


NAMES = sorted({name for name in TOOLSETS for name in open_toolbox(name).tools})
ARGUMENTS = ["command", "path", "file_text", "old_str", "new_str", "view_range", "insert_line",
             "line_number", "filename", "start_line", "end_line", "replacement_text", "search",
             "replace", "replace-all", "text", "line", "file_name", "dir", "search_term", "file",
             "enable_linting", "timeout", "is_input", "edits", "old_string", "content"]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(["view", "create", "str_replace", "insert", "undo_edit", "/testbed/a.py",
                     "a.py", "/testbed", "", "0", "1", "-1", "[1, 2]", "x", "\0", "\ud800",
                     "{path}", "{", "9" * 400, "nan", "inf", "true"]),
    st.text(max_size=20),
)  # fmt: skip
CALLS = st.tuples(
    st.sampled_from(NAMES), st.dictionaries(st.sampled_from(ARGUMENTS), VALUES, max_size=6)
)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.sampled_from(sorted(TOOLSETS)), st.lists(CALLS, max_size=6))
def test_no_call_however_wrong_raises_anything(
    name: str, calls: list[tuple[str, dict[str, str]]]
) -> None:
    answer = ExecResult('[9, "E", "no"]', 0)
    sandbox = FakeSandbox(lambda command: answer, {"/testbed/a.py": b"x\n\ty \xff\r\nx\n"})
    toolbox = open_toolbox(name, recorded_paths={"/workspace/a": "/testbed"})
    for tool, arguments in calls:
        seen = toolbox.perform(Action(tool, arguments), sandbox)
        seen.text.encode()
