from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from srl_swe.replay.compare import (
    SIMILAR_FROM,
    compare_observations,
    edit_succeeded,
    is_edit,
    text_ratio,
)
from srl_swe.replay.normalise import Cause, Comparison, Match
from srl_swe.types import Action, Observation

GOLDEN = Path(__file__).parents[3] / "shared" / "samples" / "editor_golden"


def bash(command: str) -> Action:
    return Action("bash", {"command": command})


def seen(recorded: str, fresh: str, command: str = "", *, cut: bool = False) -> Comparison:
    return compare_observations(
        Observation(recorded, truncated=cut), Observation(fresh), bash(command)
    )


def test_the_same_text_is_equal_and_has_no_cause() -> None:
    assert seen("same", "same") == Comparison(Match.EQUAL)


def test_texts_that_differ_have_a_ratio_and_a_cause() -> None:
    nearly = seen("a line\n" * 9 + "one", "a line\n" * 9 + "two")
    assert nearly.match is Match.SIMILAR
    assert nearly.ratio is not None
    assert SIMILAR_FROM <= nearly.ratio < 1
    other = seen("Traceback", "")
    assert (other.match, other.ratio, other.cause) == (Match.DIFFERENT, 0.0, Cause.UNKNOWN)


def test_another_exit_code_counts_only_where_both_are_known() -> None:
    assert compare_observations(Observation("x", 0), Observation("x", 1)).match is Match.EXIT_CODE
    assert compare_observations(Observation("x", None), Observation("x", 1)).match is Match.EQUAL
    assert compare_observations(None, Observation("x")) == Comparison(Match.NOT_RECORDED)


@pytest.mark.parametrize(
    ("recorded", "fresh", "cause"),
    [
        ("3 passed in 0.1s", "2 passed, 1 failed in 0.1s", Cause.TESTS),
        ("Ran 2 tests in 0.298s\n\nFAILED (errors=1)", "Ran 2 tests in 0.2s\n\nOK", Cause.TESTS),
        # mini_v1_full, matplotlib-24637: the header of a run of pytest
        (
            "platform linux -- Python 3.11.11, pytest-8.3.4, pluggy-1.5.0\n2 passed in 1s",
            "platform linux -- Python 3.11.2, pytest-7.2.1, pluggy-1.0.0\n2 passed in 1s",
            Cause.VERSIONS,
        ),
        # mini_v2_toolcall, sympy-12489
        ("bash: line 1: pytest: command not found", "2 passed in 0.1s", Cause.MISSING_TOOL),
        ("New Terminal Output:", "Unknown tool 'bash_command'. Known: bash.", Cause.MISSING_TOOL),
        ("x = 1", "cat: tests/x.py: No such file or directory", Cause.MISSING_FILE),
        # openai_responses_other_agents, astropy-12907
        ("[[ True]]", "ModuleNotFoundError: No module named 'erfa'", Cause.MISSING_MODULE),
        (
            "Successfully installed six-1.16.0",
            "ERROR: No matching distribution found for six",
            Cause.NETWORK,
        ),
        ("one", "two", Cause.UNKNOWN),
    ],
)
def test_the_cause_of_a_drift_is_read_off_the_texts(
    recorded: str, fresh: str, cause: Cause
) -> None:
    assert seen(recorded, fresh).cause is cause


def test_an_exit_code_that_differs_has_the_cause_that_its_texts_show() -> None:
    recorded = Observation("3 passed in 0.02s", 0)
    fresh = Observation("bash: line 1: pytest: command not found", 127)
    drift = compare_observations(recorded, fresh, bash("pytest"))
    assert (drift.match, drift.cause) == (Match.EXIT_CODE, Cause.MISSING_TOOL)


def test_a_timeout_is_the_cause_where_only_one_of_both_had_one() -> None:
    fresh = Observation("The command was cancelled", None, timed_out=True)
    assert compare_observations(Observation("done"), fresh).cause is Cause.TIMED_OUT


def test_an_edit_that_is_answered_in_other_words_is_only_worded_otherwise() -> None:
    edit = Action("str_replace_editor", {"command": "str_replace", "path": "/testbed/x.py"})
    recorded = Observation("The file /testbed/x.py has been edited. Here's the result: 1\tx")
    fresh = Observation("The file /testbed/x.py has been edited. Review the changes.\n1\tx")
    assert compare_observations(recorded, fresh, edit).cause is Cause.WORDING


@pytest.mark.parametrize(
    "command",
    [
        "find /testbed -name '*.py'",
        "cd /testbed && find . -type f | grep -v test",
        "grep -rn serializer src",
        "grep --include=*.py -R serializer .",
        "ls -U",
        "rg serializer",
        "python -c 'import os; print(os.listdir())'",
    ],
)
def test_listings_whose_order_nobody_gives_are_compared_in_any(command: str) -> None:
    drift = seen("./a.py\n./b.py", "./b.py\n./a.py", command)
    assert (drift.match, drift.cause) == (Match.NORMALISED, Cause.LISTING_ORDER)
    assert seen("./a.py\n./b.py", "./b.py\n./c.py", command).cause is Cause.ENTRIES


@pytest.mark.parametrize(
    "command", ["cat a", "git diff", "find . | sort", "find . | head -2", "grep serializer x.py"]
)
def test_the_order_of_all_other_lines_counts(command: str) -> None:
    assert not seen("./a.py\n./b.py", "./b.py\n./a.py", command).match.as_recorded


def test_a_folder_that_the_editor_lists_has_no_order_either() -> None:
    head = "Here's the files and directories up to 2 levels deep in /testbed, excluding hidden:\n"
    assert seen(f"{head}/testbed\n/a\n/b", f"{head}/b\n/testbed\n/a").match is Match.NORMALISED


def test_columns_of_ls_are_those_of_a_terminal() -> None:
    # sweagent_v0_thought_action, test-repo-i1: `ls -F` on a pty
    drift = seen("README.md  setup.py  src/  tests/", "README.md\nsetup.py\nsrc/\ntests/", "ls -F")
    assert (drift.match, drift.cause) == (Match.NORMALISED, Cause.TERMINAL)
    assert not seen("a b", "a\nb", "echo").match.as_recorded


HEAD, TAIL = "".join(f"head {n}\n" for n in range(40)), "".join(f"tail {n}\n" for n in range(40))
WHOLE = HEAD + "".join(f"middle {n}\n" for n in range(400)) + TAIL


@pytest.mark.parametrize(
    "recorded",
    [
        f"{HEAD}<response clipped><NOTE>To save on context only part is shown.</NOTE>",
        f"{HEAD}mid\n[26135 characters elided]\n {TAIL}",  # mini_v1_full, scikit-learn-14141
        f"{HEAD}\n[... Observation truncated due to length ...]\n{TAIL}",
        f"{HEAD}<Observation truncated in middle for saving context>{TAIL}",
        f"{HEAD}\n[... omitted 44 of 300 lines ...]\n\n{TAIL}",
        f"{HEAD}mid…1234 tokens truncated…dle 7\n{TAIL}",
        f"{HEAD}\n\n... [12345 characters truncated] ...\n\n{TAIL}",
    ],
)
def test_what_was_cut_at_the_source_is_compared_on_what_it_still_shows(recorded: str) -> None:
    same = seen(recorded, WHOLE, cut=True)
    assert (same.match, same.cause) == (Match.NORMALISED, Cause.TRUNCATED)
    assert not seen(recorded, WHOLE.replace("head 7", "head x"), cut=True).match.as_recorded
    assert not seen(recorded, "", cut=True).match.as_recorded


def test_what_shows_nothing_any_more_is_not_recorded() -> None:
    # r2egym_native_jsonl: observations of long ago
    drift = seen("<Observation condensed for saving context>", "anything", cut=True)
    assert (drift.match, drift.cause) == (Match.NOT_RECORDED, Cause.TRUNCATED)


def test_an_end_that_comes_twice_is_no_cut() -> None:
    assert not seen("ok", "ok\nERROR\nok", cut=True).match.as_recorded


def test_a_text_that_is_too_short_for_both_ends_of_the_cut_one_is_another() -> None:
    cut = "one\ntwo\nthree\n[5 characters elided]\nthree\nfour"
    assert not seen(cut, "one\ntwo\nthree\nfour", cut=True).match.as_recorded


def test_our_own_cut_of_a_long_output_is_seen_through_as_well() -> None:
    fresh = Observation(f"{HEAD}\n[9000 characters left out]\n{TAIL}", truncated=True)
    assert compare_observations(Observation(WHOLE), fresh).match is Match.NORMALISED
    cut = Observation(f"{HEAD[:-8]}\n[9500 characters elided]\n{TAIL}", truncated=True)
    assert compare_observations(cut, fresh).match is Match.NORMALISED


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "\n" * 100_000 + " " * 100_000,
        "x" * 200_000,
        "\x1b]" * 100_000,
        "<response clipped><NOTE>" * 10_000,
        "=" * 100_000 + " x",
        ("= " * 50_000) + "=",
        "/tmp/" * 40_000,
        "1" * 200_000 + "s",
        "[Python interpreter: " * 10_000,
        "No module named " * 12_000,
        "\n" * 200_000,
        "grep " * 40_000,
        "a b " * 50_000,
    ],
)
def test_hostile_texts_cost_no_more_than_others(text: str) -> None:
    started = time.process_time()
    compare_observations(Observation(text, truncated=True), Observation(text[1:] + "y"), bash(text))
    assert time.process_time() - started < 10  # quadratic ones would take minutes


def test_long_texts_are_compared_by_their_lines() -> None:
    lines = [f"line {n}\n" for n in range(20_000)]
    assert text_ratio("".join(lines), "".join(lines[:-200])) > 0.98
    assert text_ratio("".join(lines), "") == 0
    assert text_ratio("", "") == 1


def test_what_edits_is_told_from_what_looks() -> None:
    def editor(command: str) -> Action:
        return Action("str_replace_editor", {"command": command, "path": "/testbed/x.py"})

    assert all(is_edit(editor(c)) for c in ("create", "str_replace", "insert", "undo_edit"))
    assert is_edit(Action("edit", {"search": "a", "replace": "b"}))
    assert is_edit(Action("file_editor", {"command": "create"}))
    assert not is_edit(editor("view"))
    assert not is_edit(Action("bash", {"command": "sed -i s/a/b/ x.py"}))
    assert not is_edit(Action("open", {"path": "x.py"}))


@pytest.mark.parametrize(
    ("answer", "succeeded"),
    [
        ("The file /testbed/x.py has been edited. Here's the result of running `cat -n`", True),
        ("File created successfully at: /testbed/x.py", True),
        ("Last edit to /testbed/x.py undone successfully.", True),
        ("Text replaced. Please review the changes", True),
        ("[File: /a/x.py (4 lines total)]\n1:x\n[File updated. Please review]", True),
        ('{"success": true, "diff": "--- a/x"}', True),
        ("No replacement was performed, old_str `x` did not appear verbatim in x.py.", False),
        ("ERROR:\nInvalid `path` parameter: /testbed/y.py. The path does not exist.", False),
        ("<tool_use_error>String to replace not found in file.", False),
        ("something nobody has heard of", None),
    ],
)
def test_the_answer_of_a_tool_says_whether_it_edited(answer: str, succeeded: bool | None) -> None:
    assert edit_succeeded(Observation(answer)) is succeeded


def test_an_exit_code_decides_where_the_words_do_not() -> None:
    assert edit_succeeded(Observation("Done.", 0)) is True
    assert edit_succeeded(Observation("Hm.", 1)) is False
    assert edit_succeeded(None) is None


@pytest.mark.skipif(not GOLDEN.exists(), reason="needs the folder of samples")
def test_every_recorded_answer_of_an_editor_is_understood() -> None:
    calls = [call for path in GOLDEN.glob("*.json") for call in json.loads(path.read_text())]
    answers = [call["observation"] for call in calls if call["args"].get("command") != "view"]
    assert len(answers) > 50
    assert [text for text in answers if edit_succeeded(Observation(text)) is None] == []
