"""SWE-agent's windowed tools, in a real shell."""

from __future__ import annotations

from dataclasses import replace

import pytest

from srl_swe.sandbox import Sandbox
from srl_swe.tools import Toolbox, open_toolbox
from srl_swe.types import Action, Observation

LINES = "".join(f"line {n}\n" for n in range(1, 301))
LIKE_A_MODULE = "def f():\n    return 1\n"


@pytest.fixture
def sandbox(local: Sandbox) -> Sandbox:
    local.write_file("/testbed/long.txt", LINES.encode())
    local.write_file("/testbed/src/m.py", LIKE_A_MODULE.encode())
    return local


class Agent:
    """SWE-agent of a version, with its tools as methods.

    What they print is given without the newline that version 0 ends it with.
    """

    def __init__(self, family: str, sandbox: Sandbox) -> None:
        self.toolbox: Toolbox = open_toolbox(family)
        self.sandbox = sandbox

    def __call__(self, tool: str, **arguments: str) -> Observation:
        seen = self.toolbox.perform(Action(tool, arguments), self.sandbox)
        return replace(seen, text=seen.text.removesuffix("\n"))

    def first_line(self, tool: str, **arguments: str) -> str:
        """The number of the first line that is shown."""
        shown = (line for line in self(tool, **arguments).text.split("\n") if line[:1].isdigit())
        return next(shown).partition(":")[0]


@pytest.fixture(params=["swe-agent-0", "swe-agent"])
def agent(request: pytest.FixtureRequest, sandbox: Sandbox) -> Agent:
    return Agent(str(request.param), sandbox)


def test_a_file_is_shown_a_window_at_a_time(agent: Agent) -> None:
    text = agent("open", path="/testbed/long.txt").text
    assert text.startswith("[File: /testbed/long.txt (300 lines total)]\n1:line 1\n2:line 2\n")
    assert text.endswith("\n100:line 100\n(200 more lines below)")
    text = agent("scroll_down").text
    assert "(98 more lines above)\n99:line 99\n" in text
    assert agent.first_line("scroll_up") == "1"
    assert agent("goto", line_number="301").text == (
        "Error: <line> must be less than or equal to 300"
    )


def test_a_line_stands_a_sixth_down_the_window_as_its_version_rounded(sandbox: Sandbox) -> None:
    for family, first in (("swe-agent-0", "135"), ("swe-agent", "133")):
        agent = Agent(family, sandbox)
        assert agent.first_line("open", path="/testbed/long.txt", line_number="150") == first
        assert agent.first_line("goto", line_number="150") == first
        assert agent.first_line("goto", line_number="300") == "201"


def test_a_relative_path_is_taken_from_where_the_shell_is(agent: Agent) -> None:
    agent("bash", command="cd src")
    assert "1:def f():" in agent("open", path="m.py").text
    assert (
        agent("edit", start_line="2", end_line="2", replacement_text="    return 2").exit_code == 0
    )
    assert agent.sandbox.read_file("/testbed/src/m.py") == b"def f():\n    return 2\n"


def test_an_edit_says_so_before_or_after_the_window(sandbox: Sandbox) -> None:
    agent = Agent("swe-agent-0", sandbox)
    agent("open", path="long.txt")
    text = agent("edit", start_line="1", end_line="2", replacement_text="A\nB").text
    assert text.startswith("[File: /testbed/long.txt (300 lines total)]\n1:A\n2:B\n3:line 3\n")
    assert text.endswith(
        "\nFile updated. Please review the changes and make sure they are correct (correct "
        "indentation, no duplicate lines, etc). Edit the file again if necessary."
    )
    agent = Agent("swe-agent", sandbox)
    agent("open", path="long.txt")
    text = agent("edit", start_line="1", end_line="2", replacement_text="A\nB\nC").text
    assert text.startswith(
        "File updated. Please review the changes and make sure they are correct\n(correct "
        "indentation, no duplicate lines, etc). Edit the file again if necessary.\n"
        "[File: /testbed/long.txt (301 lines total)]\n1:A\n2:B\n3:C\n4:line 3\n"
    )


def test_an_empty_text_is_a_blank_line_in_version_0_alone(sandbox: Sandbox) -> None:
    for family, text, left in (
        ("swe-agent-0", {"replacement_text": ""}, b"a\n\nc\n"),
        ("swe-agent-0", {}, b"a\nc\n"),
        ("swe-agent", {"replacement_text": ""}, b"a\nc\n"),
    ):
        sandbox.write_file("/testbed/abc.txt", b"a\nb\nc\n")
        agent = Agent(family, sandbox)
        agent("open", path="abc.txt")
        agent("edit", start_line="2", end_line="2", **text)
        assert sandbox.read_file("/testbed/abc.txt") == left


def test_an_edit_with_a_new_syntax_error_is_refused_and_not_made(agent: Agent) -> None:
    agent("open", path="/testbed/src/m.py")
    refused = agent("edit", start_line="1", end_line="1", replacement_text="def f(:")
    assert refused.exit_code == 1
    assert refused.text.startswith(
        "Your proposed edit has introduced new syntax error(s). Please read this error message "
        "carefully and then retry editing the file.\n\nERRORS:\n- E999 SyntaxError: "
    )
    assert "would have looked if applied\n-----" in refused.text
    assert "\n1:def f(:\n2:    return 1\n" in refused.text
    assert "Your changes have NOT been applied." in refused.text
    assert agent.sandbox.read_file("/testbed/src/m.py") == LIKE_A_MODULE.encode()


def test_version_0_shows_a_rejected_edit_of_so_many_lines_just_there(sandbox: Sandbox) -> None:
    # the file, the edit and the counts of pydicom__pydicom-1458, steps 5 and 6
    sandbox.write_file("/testbed/m.py", b"x = 1\n" * 372)
    agent = Agent("swe-agent-0", sandbox)
    agent("open", path="m.py")
    for n_lines, above, below in ((10, 281, 72), (11, 280, 73)):
        broken = "\n".join(["x = (", *["x = 1"] * (n_lines - 1)])
        text = agent("edit", start_line="287", end_line="295", replacement_text=broken).text
        applied, original = text.split("This is the original code before your edit")
        assert f"\n({above} more lines above)\n{above + 1}:x = 1\n" in applied
        assert f"\n({below} more lines below)\n" in applied
        assert "\n(281 more lines above)\n282:x = 1\n" in original
        assert "\n(72 more lines below)\n" in original


def test_version_0_ends_what_it_prints_with_a_newline(sandbox: Sandbox) -> None:
    for family, end in (("swe-agent-0", "\n"), ("swe-agent", "")):
        toolbox = open_toolbox(family)
        called = toolbox.perform(Action("open", {"path": "src/m.py"}), sandbox)
        assert called.text.endswith(f"\n2:    return 1{end}")
        ran = toolbox.perform(Action("bash", {"command": "echo hi; rm -f x"}), sandbox)
        assert ran.text == f"hi{end}"
        assert toolbox.perform(Action("bash", {"command": "true"}), sandbox).text == ""


def test_an_error_that_was_there_before_the_edit_does_not_refuse_it(agent: Agent) -> None:
    agent.sandbox.write_file("/testbed/broken.py", b"x = 1\n\ny = (\n")
    agent("open", path="/testbed/broken.py")
    assert (
        agent("edit", start_line="1", end_line="1", replacement_text="a = 1\nb = 2").exit_code == 0
    )
    assert agent.sandbox.read_file("/testbed/broken.py") == b"a = 1\nb = 2\n\ny = (\n"


def test_a_syntax_error_counts_in_python_only(agent: Agent) -> None:
    agent("open", path="/testbed/long.txt")
    assert agent("edit", start_line="1", end_line="1", replacement_text="def f(:").exit_code == 0


def test_a_text_is_replaced_where_it_stands_once_in_the_window(sandbox: Sandbox) -> None:
    agent = Agent("swe-agent", sandbox)
    agent("open", path="long.txt")
    done = agent("edit", search="line 7\n", replace="seven\n").text
    assert done.startswith(
        "Text replaced. Please review the changes and make sure they are correct"
    )
    assert "\n7:seven\n8:line 8\n" in done
    assert (
        "Found more than one occurrence of 'line'" in agent("edit", search="line", replace="x").text
    )
    below = agent("edit", search="line 250", replace="x").text
    assert "not found in displayed lines.\n\nHowever, we found" in below
    assert "- line 250\n" in below
    assert "(or anywhere in the file)" in agent("edit", search="nope", replace="x").text
    assert "are the same" in agent("edit", search="line 9", replace="line 9").text


def test_replacing_all_is_asked_for_by_any_word(sandbox: Sandbox) -> None:
    agent = Agent("swe-agent", sandbox)
    agent("open", path="long.txt")
    done = agent("edit", **{"search": "line 1", "replace": "L", "replace-all": "False"}).text
    assert done.startswith("Replaced 111 occurrences.")


def test_the_whole_window_is_rewritten(sandbox: Sandbox) -> None:
    agent = Agent("swe-agent", sandbox)
    agent("open", path="long.txt")
    assert agent("edit", text="top").text == "Edit successful."
    assert sandbox.read_file("/testbed/long.txt").startswith(b"top\nline 101\n")


def test_lines_are_inserted_after_a_line_or_at_the_end(sandbox: Sandbox) -> None:
    agent = Agent("swe-agent", sandbox)
    agent("open", path="src/m.py")
    agent("insert", text="    # two\n", line="1")
    assert "4:x = 3" in agent("insert", text="x = 3").text
    assert sandbox.read_file("/testbed/src/m.py") == b"def f():\n    # two\n    return 1\nx = 3"


def test_a_new_file_holds_what_its_version_wrote(sandbox: Sandbox) -> None:
    for family, written in (("swe-agent-0", b"\n"), ("swe-agent", b"")):
        agent = Agent(family, sandbox)
        agent("create", filename=f"{family}/new.txt")
        assert sandbox.read_file(f"/testbed/{family}/new.txt") == written
        assert "already exists" in agent("create", filename="long.txt").text
        assert sandbox.read_file("/testbed/long.txt") == LINES.encode()


def test_what_can_not_be_shown_is_said(agent: Agent) -> None:
    assert agent("scroll_down").text == "No file open. Use the open command first."
    assert "Use the `open` command first." in agent("edit", start_line="1", end_line="1").text
    assert agent("open").text == 'Usage: open "<file>"'
    assert agent("open", path="gone.txt").text.endswith("File gone.txt not found")
    assert agent("open", path="/testbed").text.startswith("Error: /testbed is a directory.")
    assert "must be a number" in agent("open", path="long.txt", line_number="x").text
    assert "Setting <line_number> to 300" in agent("open", path="long.txt", line_number="999").text


def test_files_and_their_lines_are_found(agent: Agent) -> None:
    assert agent("find_file", file_name="*.py").text == (
        'Found 1 matches for "*.py" in /testbed:\n/testbed/src/m.py'
    )
    assert agent("find_file", file_name="m.py", dir="gone").text == "Directory gone not found"
    assert agent("search_dir", search_term="line 1.0$").text == (
        'Found 10 matches for "line 1.0$" in /testbed:\n/testbed/long.txt (10 matches)\n'
        'End of matches for "line 1.0$" in /testbed'
    )
    assert agent("search_dir", search_term="zz", dir="src").text == (
        'No matches found for "zz" in /testbed/src'
    )
    assert (
        agent("search_file", search_term="def").text == "No file open. Use the open command first."
    )
    assert agent("search_file", search_term="def", file="src/m.py").text == (
        'Found 1 matches for "def" in /testbed/src/m.py:\nLine 1:def f():\n'
        'End of matches for "def" in /testbed/src/m.py'
    )


def test_what_is_searched_for_can_not_reach_the_shell(agent: Agent) -> None:
    for tool in ("find_file", "search_dir", "search_file"):
        hostile = "$(touch /testbed/pwned); touch /testbed/pwned '`touch /testbed/pwned`"
        names = {"file_name": hostile, "search_term": hostile, "dir": "src", "file": "src/m.py"}
        agent(tool, **names)
        agent(tool, **{**names, "dir": hostile, "file": hostile})
        agent(tool, **{**names, "search_term": "-r", "file_name": "-delete"})
    agent("open", path="$(touch /testbed/pwned)")
    assert agent.sandbox.exec("ls /testbed/pwned").exit_code != 0
    assert agent.sandbox.exec("ls src").output == "m.py\n"


@pytest.mark.parametrize(("family", "total"), [("swe-agent-0", 3), ("swe-agent", 4)])
def test_a_form_feed_ends_a_line_for_swe_agent_1_alone(
    family: str, total: int, sandbox: Sandbox
) -> None:
    sandbox.write_file("/testbed/ff.txt", b"a\fb\nc\nd\n")
    agent = Agent(family, sandbox)
    assert f"({total} lines total)]\n1:a\fb\n2:c\n3:d" in agent("open", path="/testbed/ff.txt").text
    assert (agent("goto", line_number="4").exit_code == 0) is (total == 4)
    agent("edit", start_line="2", end_line="2", replacement_text="C")
    assert sandbox.read_file("/testbed/ff.txt") == b"a\fb\nC\nd\n"


def test_cursors_mark_what_a_bare_edit_replaces(sandbox: Sandbox) -> None:
    sandbox.write_file("/testbed/x.txt", b"one\ntwo\nthree\n")
    agent = Agent("swe-agent-0", sandbox)
    agent("open", path="/testbed/x.txt")
    refused = agent("set_cursors", start_line="3", end_line="2")
    assert "start_line must be less than or equal to end_line" in refused.text
    shown = agent("set_cursors", start_line="2", end_line="3").text
    assert "1:one\n<<<<< START CURSOR >>>>>\n2:two\n3:three\n<<<<< END CURSOR >>>>>" in shown
    shown = agent("edit", replacement_text="2\n2.5").text
    assert sandbox.read_file("/testbed/x.txt") == b"one\n2\n2.5\n"
    assert "<<<<< START CURSOR >>>>>\n2:2\n3:2.5\n<<<<< END CURSOR >>>>>\nFile updated." in shown
