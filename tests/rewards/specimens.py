"""Pairs of actions on which rewards differ, and tables of each reward's values.

``python tests/rewards/specimens.py`` prints the tables of docs/rewards.md; a test compares them.
The first six pairs show the weaknesses of the paper's reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from srl_swe.rewards.holistic import solution_text
from srl_swe.rewards.table import STEP_REWARDS, WHOLE_SOLUTION
from srl_swe.types import Action


@dataclass(frozen=True, slots=True)
class Specimen:
    """A candidate beside the expert's action; ``name`` describes the candidate."""

    name: str
    expert: str
    candidate: str


def bash(command: str) -> str:
    """The canonical text of a shell command."""
    return Action("bash", {"command": command}).text


def editor(command: str, path: str = "/testbed/pkg/steps.py", **values: str) -> str:
    """The canonical text of a call of the editor."""
    return Action("str_replace_editor", {"command": command, "path": path, **values}).text


def replace(old: str, new: str, path: str = "/testbed/pkg/steps.py") -> str:
    """The canonical text of an edit."""
    return editor("str_replace", path, old_str=old, new_str=new)


FIND = bash('find /testbed -type f -name "*.py" -not -path "*/.git/*" | sort -u')
BODY = "".join(
    f"def step_{n}(values, limit):\n    total = sum(value for value in values if value < limit)\n"
    f"    return total + {n}\n\n\n"
    for n in range(13)
)
BUG, FIX = "    return total + 7\n", "    return total - 7\n"
LONG_EDIT = replace(BODY, BODY.replace(BUG, FIX))
MINIMAL_EDIT = replace(f"{BUG}\n\ndef step_8(", f"{FIX}\n\ndef step_8(")
SCRIPT = "".join(
    f"def check_{n}():\n    result = parse('case {n}')\n    assert result.value == {n}, result\n"
    f"    print('case {n}', result)\n\n\n"
    for n in range(19)
)
CREATE = editor("create", "/testbed/repro.py", file_text=SCRIPT)
GREP = bash("grep -r -n --include=*.py parse_date src")
TESTS = bash("python -m pytest tests/test_dates.py -q")
WRONG_EDIT = MINIMAL_EDIT.replace("total - 7", "total * 7")
CD_TESTS = bash("cd /testbed && pytest -q tests")
VIEW = editor("view", view_range="[10, 50]")

ACTIONS: Sequence[Specimen] = (
    Specimen("the same", LONG_EDIT, LONG_EDIT),
    Specimen("`find` or `git ls-files`", FIND, bash("git ls-files '*.py' | sort")),
    Specimen("`find` or `rm -rf`", FIND, bash("rm -rf /testbed/.git")),
    Specimen("empty command", FIND, bash("")),
    Specimen("no-op edit", LONG_EDIT, replace(BODY, BODY)),
    Specimen("right edit, minimal `old_str`", LONG_EDIT, MINIMAL_EDIT),
    Specimen(
        "script with a name changed",
        CREATE,
        editor("create", "/testbed/repro.py", file_text=SCRIPT.replace("result", "out")),
    ),
    Specimen(
        "wrong word in the right line",
        LONG_EDIT,
        replace(BODY, BODY.replace(BUG, FIX.replace("-", "*"))),
    ),
    Specimen(
        "right change to the wrong line",
        LONG_EDIT,
        replace(BODY, BODY.replace("    return total + 8\n", "    return total - 8\n")),
    ),
    Specimen(
        "right edit in the wrong file",
        LONG_EDIT,
        replace(BODY, BODY.replace(BUG, FIX), "/testbed/pkg/stops.py"),
    ),
    Specimen("edit or only a look at the file", LONG_EDIT, editor("view")),
    Specimen("flags in another order", GREP, bash("grep -n -r --include=*.py parse_date src")),
    Specimen("another word to search for", GREP, bash("grep -r -n --include=*.py parse_time src")),
    Specimen(
        "`cd X && cmd` or `cmd`", bash("cd /testbed && pytest -q tests"), bash("pytest -q tests")
    ),
    Specimen("other tests", TESTS, bash("python -m pytest tests/test_zones.py -q")),
    Specimen("`pytest` or `python -m pytest`", TESTS, bash("pytest tests/test_dates.py -q")),
    Specimen("view of other lines", VIEW, editor("view", view_range="[200, 240]")),
    Specimen("view of overlapping lines", VIEW, editor("view", view_range="[20, 60]")),
    Specimen(
        "view of another file", VIEW, editor("view", "/testbed/docs/a.md", view_range="[10, 50]")
    ),
    Specimen("`submit` or a command", TESTS, Action("submit").text),
)
"""For the rewards of a reply with one action."""

SOLUTIONS: Sequence[Specimen] = tuple(
    Specimen(name, solution_text([VIEW, MINIMAL_EDIT, TESTS]), solution_text(actions))
    for name, actions in {
        "the same": [VIEW, MINIMAL_EDIT, TESTS],
        "the edit alone": [MINIMAL_EDIT],
        "all but the edit": [VIEW, TESTS],
        "the edit last": [VIEW, TESTS, MINIMAL_EDIT],
        "a wrong edit": [VIEW, WRONG_EDIT, TESTS],
        "a wrong edit, then the right one": [VIEW, WRONG_EDIT, MINIMAL_EDIT, TESTS],
    }.items()
)
"""For the rewards of a reply with all remaining actions."""


def rewards_tables() -> str:
    """Two tables in Markdown: one line per specimen, one column per reward."""
    single = [name for name in STEP_REWARDS if name not in WHOLE_SOLUTION]
    whole = [name for name in STEP_REWARDS if name in WHOLE_SOLUTION]
    return (
        f"{_table('candidate action', ACTIONS, single)}\n"
        f"{_table('candidate solution', SOLUTIONS, whole)}"
    )


def _table(title: str, specimens: Sequence[Specimen], names: Sequence[str]) -> str:
    lines = [[title, *names], ["---"] * (1 + len(names))]
    for specimen in specimens:
        scores = [STEP_REWARDS[name]([specimen.candidate], specimen.expert)[0] for name in names]
        lines.append([specimen.name, *(f"{score:.2f}" for score in scores)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(rewards_tables(), end="")
