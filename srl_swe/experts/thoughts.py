"""The expert's thoughts: a reaction to the last answer, and the reason for the next action.

Both are made of phrases by chance of the seed, with values that the issue or an answer showed. Only
the thought of an edit quotes the edit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from srl_swe.experts.reading import Seen, is_test_run
from srl_swe.types import Action, Observation

_LONGEST_QUOTE = 90


class Kind(StrEnum):
    """The purpose of an action."""

    SEARCH = "search"
    SEARCH_MESSAGE = "search_message"
    LIST = "list"
    VIEW = "view"
    VIEW_PART = "view_part"
    OUTLINE = "outline"
    WRITE_SCRIPT = "write_script"
    REPRODUCE = "reproduce"
    FIRST_TESTS = "first_tests"
    LOOK_AT_CHANGES = "look_at_changes"
    RESTORE = "restore"
    UNDO = "undo"
    REPLACE = "replace"
    INSERT = "insert"
    REMOVE = "remove"
    MAKE_FOLDER = "make_folder"
    CREATE = "create"
    DELETE = "delete"
    RERUN = "rerun"
    TIDY = "tidy"
    TEST = "test"
    TEST_NEAR = "test_near"
    REVIEW = "review"
    SUBMIT = "submit"


@dataclass(frozen=True, slots=True)
class Move:
    """An action with its purpose, and the values that its thought may name."""

    kind: Kind
    action: Action
    facts: Mapping[str, str] = field(default_factory=dict)


PHRASES: Mapping[Kind, tuple[str, ...]] = {
    Kind.SEARCH: (
        "The issue is about `{word}`. I look for it in the repository.",
        "Where does `{word}` occur?",
        "I search for `{word}` to find the code in question.",
        "`{word}` should lead me to the code.",
    ),
    Kind.SEARCH_MESSAGE: (
        "The message of the issue must be written somewhere: I search for it.",
        "I look for the place that prints `{word}`.",
    ),
    Kind.LIST: (
        "I list the files to get to know the repository.",
        "First an overview of the files.",
        "Which files are there?",
    ),
    Kind.VIEW: (
        "I read `{path}`.",
        "Next I look at `{path}`.",
        "I open `{path}` to see how it works.",
    ),
    Kind.VIEW_PART: (
        "I read `{path}` from line {line} on.",
        "The code around line {line} of `{path}` is of interest.",
        "I look at `{path}`, line {line} and below.",
    ),
    Kind.OUTLINE: (
        "I list the definitions in `{path}`.",
        "Which functions does `{path}` have?",
    ),
    Kind.WRITE_SCRIPT: (
        "I write the example of the issue into a script.",
        "A small script with the code of the issue will show the symptom.",
    ),
    Kind.REPRODUCE: (
        "I run the example of the issue to see the symptom.",
        "Can I reproduce it? I run the code of the issue.",
        "Before I change anything I want to see the failure myself.",
    ),
    Kind.FIRST_TESTS: (
        "I run the tests to see whether they show the problem.",
        "Do the existing tests pass?",
    ),
    Kind.LOOK_AT_CHANGES: (
        "I check what has been changed so far.",
        "What do the changes look like by now?",
    ),
    Kind.RESTORE: (
        "`{path}` has been changed in too many places. I restore it and start again.",
        "It is best to take `{path}` back to its committed state.",
    ),
    Kind.UNDO: (
        "The earlier change was not right: `{old}` has to become `{new}`.",
        "`{old}` came from a wrong attempt. I correct it to `{new}`.",
    ),
    Kind.REPLACE: (
        "This is the cause: `{old}`. It has to be `{new}`.",
        "`{old}` explains the symptom. I change it to `{new}`.",
        "With `{new}` in place of `{old}` the code should do what the issue expects.",
        "{place}`{old}` is wrong; `{new}` does what is asked for.",
    ),
    Kind.INSERT: (
        "Something is missing here. I add `{new}`.",
        "{place}the code lacks a step: `{new}`.",
        "I insert `{new}`, which handles the case of the issue.",
    ),
    Kind.REMOVE: (
        "`{old}` should not be there. I remove it.",
        "{place}`{old}` does harm; without it the result is right.",
    ),
    Kind.MAKE_FOLDER: ("The new file needs its folder.",),
    Kind.CREATE: (
        "The fix needs a new file, `{path}`.",
        "I add `{path}`.",
    ),
    Kind.DELETE: (
        "`{path}` is not needed any more. I delete it.",
        "I remove `{path}`.",
    ),
    Kind.RERUN: (
        "Now the example of the issue again.",
        "I run the example once more to check the change.",
        "Does the example behave as the issue expects now?",
    ),
    Kind.TIDY: (
        "I remove what does not belong to the fix.",
        "I clean up: {path} should not be part of the change.",
    ),
    Kind.TEST: (
        "I run the tests.",
        "Now the test suite, to be sure that nothing else has broken.",
        "Do the tests pass with the change?",
    ),
    Kind.TEST_NEAR: (
        "I run the tests of this module.",
        "The tests in `{path}` cover this code. I run them.",
    ),
    Kind.REVIEW: (
        "I review the change once more.",
        "A last look at the diff.",
    ),
    Kind.SUBMIT: (
        "The change is complete. I submit it.",
        "Everything that the issue asks for is done.",
        "The issue is resolved, and I hand in the change.",
    ),
}
_OPENINGS = (
    'The issue: "{title}". ',
    'I start with the issue, "{title}". ',
    "",
)


def write_thought(move: Move, seen: Seen, rng: Random) -> str:
    """The thought before the move."""
    if seen.last is None:
        reaction = rng.choice(_OPENINGS).format(title=seen.issue.title)
    else:
        reaction = _reaction(move, seen, rng)
    place = f"In `{name}` " if (name := move.facts.get("function")) else ""
    facts = {name: quote(value) for name, value in move.facts.items()}
    reason = rng.choice(PHRASES[move.kind]).format(**{**facts, "place": place})
    return f"{reaction}{reason[:1].upper()}{reason[1:]}"


def quote(code: str) -> str:
    """Code as one line of a sentence: its first line that is not blank, cut if it is long."""
    line = next((line.strip() for line in code.split("\n") if line.strip()), "an empty line")
    line = line.replace("`", "'")
    return line if len(line) <= _LONGEST_QUOTE else f"{line[:_LONGEST_QUOTE]}..."


def _reaction(move: Move, seen: Seen, rng: Random) -> str:
    """A sentence about the last answer, or nothing; it ends with a space."""
    last = seen.last
    if last is None or last.observation is None:
        return ""
    if last.action is None or not last.executed:
        return "That reply was not executed. "
    action, answer = last.action, last.observation
    if answer.timed_out:
        return "That took too long. "
    if action.tool == "str_replace_editor" and answer.exit_code == 1:
        return rng.choice(("The editor refused that. ", "That call did not work. "))
    if answer.text.startswith("Unknown tool"):
        return "There is no such tool. "
    if is_test_run(action):
        return _about_tests(answer)
    if action.tool != "bash":
        return ""
    return _about_output(action, answer, move, seen, rng)


def _about_tests(answer: Observation) -> str:
    if re.search(r"\b\d+ (?:failed|errors?)\b", answer.text):
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", answer.text, re.MULTILINE)
        return f"{failed[0]} fails. " if failed else "Some tests fail. "
    passed = re.search(r"\b(\d+) passed\b", answer.text)
    return f"{passed[1]} tests pass. " if passed else ""


def _about_output(action: Action, answer: Observation, move: Move, seen: Seen, rng: Random) -> str:
    command, path = action.arguments.get("command", ""), move.facts.get("path", "")
    lines = [line for line in answer.text.splitlines() if line.strip()]
    if not lines:
        searched = re.match(r"(?:cd \S+ && )?(?:grep|rg|find)\b", command)
        return "Nothing found. " if searched else ""
    if re.search(r"\bpython3?\b", command):
        shown = quote(lines[-1])
        if re.search(r"\b0x[0-9a-f]{6}|\d\.\d+ ?s\b", shown) or not re.search(r"\w", shown):
            return ""
        if seen.last_change >= 0:
            return rng.choice((f"Now it prints `{shown}`. ", f"The output is `{shown}` now. "))
        if lines[-1].strip() in seen.issue.text:
            return rng.choice((f"I get `{shown}`, as in the issue. ", f"It prints `{shown}`. "))
        return rng.choice((f"It prints `{shown}`. ", f"I get `{shown}`. ", ""))
    if "grep" in command and path and path in answer.text:
        return rng.choice((f"`{path}` has it. ", f"The search leads to `{path}`. ", ""))
    if "grep" in command and move.kind in {Kind.SEARCH, Kind.LIST}:
        return rng.choice(("That does not lead to the cause. ", "I look further. "))
    return ""
