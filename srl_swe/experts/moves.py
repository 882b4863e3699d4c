"""The moves of an expert in their order; the first one with something left to do is made.

Each move is a function of the situation that returns None if it is done or not to be done. Which
optional moves are made, and how, is a matter of habits, which a seed decides.
"""

from __future__ import annotations

import ast
import builtins
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from random import Random
from typing import Literal

from srl_swe.experts.gold import Gold, PendingEdit, Tree
from srl_swe.experts.reading import Seen
from srl_swe.experts.thoughts import Kind, Move
from srl_swe.tools import SUBMIT
from srl_swe.tools.translation import edit_call
from srl_swe.types import Action, Instance

_SCROLLED_LINES = 20
"""A file is viewed whole if it is at most so many lines longer than a view with a range."""
_COMMON_WORD = 25
"""A word with more occurrences in the file is not worth a search."""
_SCRIPT = "reproduce.py"


WrongTurn = Literal["word", "file", "tests", ""]


@dataclass(frozen=True, slots=True)
class Habits:
    """Choices for one instance.

    ``wrong_turn``: a step that does not help; empty for none. ``tail_lines``: those printed of a
    test run; 0 for all. ``view_lines``: the most of a view with a range. ``short_answers``: prefers
    actions that print little.
    """

    reproduces: Literal["first", "searched", "viewed", "never"]
    writes_script: bool
    wrong_turn: WrongTurn
    reruns: bool
    tests_near: bool
    tail_lines: int
    reviews: bool
    search_form: int
    margin_lines: int
    last_file_first: bool
    view_lines: int = 70
    short_answers: bool = False

    @classmethod
    def of(cls, seed: int, instance_id: str) -> Habits:
        """Those of a seed."""
        rng = Random(f"{seed}\0{instance_id}\0habits")
        wrong: tuple[WrongTurn, ...] = ("word", "file", "tests", "", "", "")
        return cls(
            reproduces=rng.choice(("first", "searched", "viewed")),
            writes_script=rng.random() < 0.4,
            wrong_turn=rng.choice(wrong),
            reruns=rng.random() < 0.8,
            tests_near=rng.random() < 0.4,
            tail_lines=15 if rng.random() < 0.5 else 0,
            reviews=rng.random() < 0.3,
            search_form=rng.randrange(4),
            margin_lines=rng.choice((0, 2, 5)),
            last_file_first=rng.random() < 0.3,
        )


BRIEF = Habits(
    reproduces="never",
    writes_script=False,
    wrong_turn="",
    reruns=False,
    tests_near=False,
    tail_lines=1,
    reviews=False,
    search_form=4,
    margin_lines=2,
    last_file_first=False,
    view_lines=40,
    short_answers=True,
)
"""Search, view, edit, test, submit, always in the same way, and with short answers."""


@dataclass(frozen=True)
class Situation:
    """Everything on which the next move depends; ``rng`` is in the same state at every step."""

    instance: Instance
    gold: Gold
    tree: Tree
    seen: Seen
    habits: Habits
    rng: Random

    @cached_property
    def target(self) -> PendingEdit | None:
        """The edit to make next: in code that was seen, else in a known file, else the first."""
        edits = list(self.tree.edits)
        paths = list(dict.fromkeys(edit.path for edit in edits))
        if self.habits.last_file_first:
            edits.sort(key=lambda edit: -paths.index(edit.path))
        order = sorted(
            edits,
            key=lambda edit: (
                not edit.is_undo,
                edit.current is None,
                not self.seen.has_seen(edit.path, edit.with_neighbours),
                not self.seen.knows_path(edit.path),
            ),
        )
        return order[0] if order else None

    def file(self, path: str) -> str:
        """The absolute path."""
        return f"{self.instance.workdir}/{path}"

    def first_new(self, moves: Iterable[Move], since: int = 0) -> Move | None:
        """The first move whose action was not made since that step."""
        return next((move for move in moves if not self.seen.has_done(move.action, since)), None)


MakeMove = Callable[[Situation], Move | None]


def bash(kind: Kind, command: str, **facts: str) -> Move:
    """A move by a command in the shell."""
    return Move(kind, Action("bash", {"command": command}), facts)


# Before the edit.


def look_at_changes(here: Situation) -> Move | None:
    """Look at a wrong edit before it is undone."""
    target = here.target
    if (
        target is None
        or not target.is_undo
        or here.seen.has_seen(target.path, target.with_neighbours)
    ):
        return None
    return here.first_new([bash(Kind.LOOK_AT_CHANGES, "git diff")], here.seen.last_change + 1)


def restore(here: Situation) -> Move | None:
    """Take back a file that is lost, or wrong in too many places."""
    target = here.target
    if target is None or not target.restores:
        return None
    command = f"git checkout -- {shlex.quote(target.path)}"
    move = bash(Kind.RESTORE, command, path=target.path)
    if not here.seen.has_done(move.action, max(here.seen.last_change, 0)):
        return move
    return Move(Kind.RESTORE, target.action(here.instance.workdir), {"path": target.path})


def turn_wrong(here: Situation) -> Move | None:
    """A step that does not help, once and early."""
    seen, target = here.seen, here.target
    match here.habits.wrong_turn:
        case "tests" if not seen.steps:
            return bash(Kind.FIRST_TESTS, _test_command(here))
        case "word" if target is not None and not seen.has_searched:
            others = [
                word for word in seen.issue.names if not _has_word(target.current or "", word)
            ]
            if others:
                word = here.rng.choice(others[:5])
                return bash(
                    Kind.SEARCH, f"grep -rnw {word} --include='*.py' . | head -n 20", word=word
                )
        case "file" if target is not None and seen.knows_path(target.path):
            if any(action.arguments.get("command") == "view" for _, action, _ in seen.acted):
                return None
            others = sorted(
                path
                for path in here.gold.paths
                if path.endswith(".py") and path != target.path and seen.knows_path(path)
            )
            if others:
                path = here.rng.choice(others)
                return Move(Kind.VIEW, edit_call("view", here.file(path)), {"path": path})
    return None


def reproduce(here: Situation) -> Move | None:
    """Run the example of the issue, or the tests if it has none."""
    if here.seen.has_reproduced() or not here.tree.edits or _has_edited(here):
        return None
    if script := here.seen.issue.script:
        return here.first_new(_script_moves(here, script, Kind.REPRODUCE))
    if call := _known_call(here):
        return here.first_new([bash(Kind.REPRODUCE, call)])
    if here.habits.tests_near and not here.seen.tests_since(-1):
        return bash(Kind.FIRST_TESTS, _test_command(here))
    return None


def _at(habit: str) -> MakeMove:
    """The move :func:`reproduce`, for those who make it at this place."""
    return lambda here: reproduce(here) if here.habits.reproduces == habit else None


def search(here: Situation) -> Move | None:
    """Find the file to edit by words of the issue, else by words of the code seen so far."""
    target = here.target
    path = target.path if target else next(iter(here.tree.deletions), "")
    is_new = target is not None and target.current is None
    if here.seen.knows_path(path) or (is_new and here.seen.has_searched):
        return None
    return here.first_new(_searches(here, here.tree.texts.get(path) or "", target))


def view(here: Situation) -> Move | None:
    """Read the code around the edit."""
    target = here.target
    if (
        target is None
        or target.current is None
        or here.seen.has_seen(target.path, target.with_neighbours)
    ):
        return None
    return here.first_new(_views(here, target), here.seen.last_change + 1)


def edit(here: Situation) -> Move | None:
    """Make the next edit of the gold patch."""
    target = here.target
    if target is None:
        return None
    action = target.action(here.instance.workdir)
    facts = {"path": target.path}
    if target.current is None:
        folder = str(PurePosixPath(target.path).parent)
        if not any(path.startswith(f"{folder}/") for path in here.gold.paths) and folder != ".":
            made = bash(Kind.MAKE_FOLDER, f"mkdir -p {shlex.quote(folder)}")
            if not here.seen.has_done(made.action):
                return made
        return Move(Kind.CREATE, action, facts)
    old, new = "\n".join(target.removed), "\n".join(target.added)
    if target.symbols:
        facts["function"] = target.symbols[0][1]
    if not new.strip():
        return Move(Kind.REMOVE, action, {**facts, "old": old})
    if not old.strip():
        return Move(Kind.INSERT, action, {**facts, "new": new})
    old, new = _where_they_differ(target)
    kind = Kind.UNDO if target.is_undo else Kind.REPLACE
    return Move(kind, action, {**facts, "old": old, "new": new})


def delete(here: Situation) -> Move | None:
    """Delete a file as the gold patch does."""
    moves = [
        bash(Kind.DELETE, f"rm {shlex.quote(path)}", path=path) for path in here.tree.deletions
    ]
    return moves[0] if moves else None


# After it.


def rerun(here: Situation) -> Move | None:
    """Run the example of the issue again."""
    since, script = here.seen.last_change + 1, here.seen.issue.script
    if not script or not here.habits.reruns or here.seen.has_reproduced(since):
        return None
    return here.first_new(_script_moves(here, script, Kind.RERUN), since)


def tidy(here: Situation) -> Move | None:
    """Remove and take back everything outside the fix."""
    strays = sorted(here.tree.strays)
    named = "\n".join([here.seen.text, *(action.text for _, action, _ in here.seen.acted)])
    if any(path not in named for path in strays):
        look = bash(Kind.LOOK_AT_CHANGES, "git status --short")
        if move := here.first_new([look], here.seen.last_change + 1):
            return move
    new = [path for path in strays if not here.tree.strays[path]]
    changed = [path for path in strays if here.tree.strays[path]]
    moves = []
    if new:
        moves.append(bash(Kind.TIDY, f"rm -rf {shlex.join(new)}", path=new[0]))
    if changed:
        moves.append(bash(Kind.TIDY, f"git checkout -- {shlex.join(changed)}", path=changed[0]))
    return here.first_new(moves, max(here.seen.last_change, 0))


def test(here: Situation) -> Move | None:
    """Run the tests after the last change; those of the module if all take too long."""
    runs = here.seen.tests_since(here.seen.last_change)
    near, command = _near_tests(here), _test_command(here)
    if not runs:
        if here.habits.tests_near and near and here.seen.knows_path(near):
            return bash(Kind.TEST_NEAR, _test_command(here, near), path=near)
        return bash(Kind.TEST, command)
    if near and all(answer.timed_out for _, answer in runs):
        move = bash(Kind.TEST_NEAR, _test_command(here, near), path=near)
        return here.first_new([move], here.seen.last_change + 1)
    return None


def review(here: Situation) -> Move | None:
    """Look at the diff before it is submitted."""
    if not here.habits.reviews:
        return None
    return here.first_new([bash(Kind.REVIEW, "git diff")], here.seen.last_change + 1)


FIXING: tuple[MakeMove, ...] = (
    look_at_changes,
    restore,
    _at("first"),
    turn_wrong,
    search,
    _at("searched"),
    turn_wrong,
    view,
    _at("viewed"),
    edit,
    delete,
)
FINISHING: tuple[MakeMove, ...] = (rerun, tidy, test, review)


def next_move(here: Situation) -> Move:
    """The first move with something to do; at last the change is submitted."""
    for make in FINISHING if here.tree.is_fixed else FIXING:
        if (move := make(here)) is not None:
            return move
    return Move(Kind.SUBMIT, Action(SUBMIT))


# Searches and views.


def _searches(here: Situation, text: str, target: PendingEdit | None) -> Iterator[Move]:
    """Searches that lead to the file with this text, then others, then a list of all files."""
    seen, issue = here.seen, here.seen.issue
    around = [name for _, name in target.symbols] if target else []
    known = [name for name in around if seen.knows_word(name)]
    leading = [name for name in issue.names if 0 < _count(text, name) <= _COMMON_WORD]
    defined = [name for name in leading if _is_defined(text, name)]
    messages = [message for message in issue.messages if message in text]
    here.rng.shuffle(leading)
    names = list(dict.fromkeys([*known, *defined, *leading]))
    if messages and here.habits.search_form % 2:
        yield bash(Kind.SEARCH_MESSAGE, f"grep -rn {shlex.quote(messages[0])} .", word=messages[0])
    for name in names[:3]:
        yield bash(
            Kind.SEARCH, _grep(name, here.habits.search_form, _is_defined(text, name)), word=name
        )
    for name in [name for name in issue.names if name not in names][:2]:
        form = 4 if here.habits.short_answers else 3
        yield bash(Kind.SEARCH, _grep(name, form, False), word=name)
    yield from _hops(here)
    lists = ("git ls-files '*.py'", "find . -name '*.py' -not -path './.git/*' | sort")
    yield bash(Kind.LIST, lists[here.habits.search_form % 2])
    yield bash(Kind.LIST, "git ls-files")


def _grep(name: str, form: int, is_defined: bool) -> str:
    """A search for a name; one form finds definitions only."""
    word = shlex.quote(name)
    match form:
        case 0 | 4 if is_defined:
            return f"grep -rnE '(def|class) {name}\\b' --include='*.py' ."
        case 1:
            return f"grep -rnw {word} --include='*.py' . | head -n 40"
        case 2:
            return f"grep -rn {word} --include='*.py' ."
        case 4:
            return f"grep -rnw {word} --include='*.py' . | head -n 8"
        case _:
            return f"grep -rnw {word} . --include='*.py'"


def _hops(here: Situation) -> Iterator[Move]:
    """Views of functions that the issue names and a search has found in other files."""
    for name in here.seen.issue.names[:6]:
        defines = rf"(?:async )?(?:def|class) {re.escape(name)}\b"
        found = re.search(rf"(?:^|\s)(?:\./)?([\w./-]+\.py):(\d+):\s*{defines}", here.seen.text)
        if found and found[1] in here.gold.paths and "test" not in found[1]:
            first = int(found[2])
            bounds = f"[{first}, -1]" if first < 2 else f"[{max(1, first - 2)}, {first + 20}]"
            call = edit_call("view", here.file(found[1]), view_range=bounds)
            yield Move(Kind.VIEW_PART, call, {"path": found[1], "line": found[2]})


def _views(here: Situation, target: PendingEdit) -> Iterator[Move]:
    """Views that show the edit: its function if that is known, else the file in windows."""
    path, lines, facts = here.file(target.path), target.lines, {"path": target.path}
    if len(lines) <= here.habits.view_lines + _SCROLLED_LINES:
        yield Move(Kind.VIEW, edit_call("view", path), facts)
    known = [
        (line, name)
        for line, name in target.symbols
        if here.seen.knows_line(target.path, line, lines[line - 1])
    ]
    if not known and target.symbols:
        if here.habits.short_answers:
            yield from _definitions(here, target)
        yield bash(
            Kind.OUTLINE,
            f"grep -nE '^ *(async def|def|class) ' {shlex.quote(target.path)}",
            **facts,
        )
    starts = [line for line, _ in known] or [1]
    for start in starts:
        first = max(1, start - here.habits.margin_lines)
        end = _end_of_block(lines, start) + here.habits.margin_lines
        while first <= len(lines):
            last = min(end, first + here.habits.view_lines - 1, len(lines))
            call = edit_call("view", path, view_range=f"[{first}, {last}]")
            yield Move(Kind.VIEW_PART, call, {**facts, "line": str(first)})
            if last > target.last:
                break
            first, end = max(last - 4, first + 1), len(lines)
    yield Move(Kind.VIEW, edit_call("view", path), facts)


def _definitions(here: Situation, target: PendingEdit) -> Iterator[Move]:
    """Searches for a definition whose name was seen, else views of functions of the issue."""
    for _, name in target.symbols:
        if here.seen.knows_word(name):
            command = f"grep -nE '(def|class) {name}\\b' {shlex.quote(target.path)}"
            yield bash(Kind.SEARCH, command, word=name)
    yield from _hops(here)


def _end_of_block(lines: Sequence[str], start: int) -> int:
    """The last line, from 1, of the block that begins at line ``start``."""
    head = lines[start - 1]
    indent = len(head) - len(head.lstrip())
    for number in range(start, len(lines)):
        text = lines[number].strip()
        inside = len(lines[number]) - len(lines[number].lstrip()) > indent
        if text and not inside and text[0] not in ")]}":
            return number
    return len(lines)


def _count(text: str, word: str) -> int:
    return len(re.findall(rf"\b{re.escape(word)}\b", text))


def _has_word(text: str, word: str) -> bool:
    return _count(text, word) > 0


def _is_defined(text: str, name: str) -> bool:
    return re.search(rf"\b(?:def|class)\s+{re.escape(name)}\b", text) is not None


def _where_they_differ(target: PendingEdit) -> tuple[str, str]:
    """The first line of the edit that changes, before and after."""
    pairs = zip(target.removed, target.added, strict=False)
    differing = [(a, b) for a, b in pairs if a != b and a.strip() and b.strip()]
    return differing[0] if differing else ("\n".join(target.removed), "\n".join(target.added))


# Scripts and tests.


def _has_edited(here: Situation) -> bool:
    """Whether the gold patch is applied in part."""
    return any(here.tree.texts[file.path] != file.before for file in here.gold.files)


def _script_moves(here: Situation, script: str, kind: Kind) -> Iterator[Move]:
    """The moves that run a script: written to a file first, or passed to Python."""
    text = f"{script}\n"
    is_there = here.tree.texts.get(_SCRIPT) is not None
    if here.habits.writes_script and _SCRIPT not in here.gold.paths:
        if not is_there:
            created = edit_call("create", here.file(_SCRIPT), file_text=text)
            yield Move(Kind.WRITE_SCRIPT, created)
        if is_there and here.seen.has_done(edit_call("create", here.file(_SCRIPT), file_text=text)):
            yield bash(kind, f"python {_SCRIPT}")
    if "\nEOF\n" not in text:
        yield bash(kind, f"python - <<'EOF'\n{text}EOF")


def _known_call(here: Situation) -> str:
    """A command that prints a call of the issue; empty without one, or without its import."""
    target = here.target
    if target is None or not here.seen.knows_path(target.path) or not target.path.endswith(".py"):
        return ""
    parts = PurePosixPath(target.path.removeprefix("src/")).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    for call in here.seen.issue.calls:
        used = {n.id for n in ast.walk(ast.parse(call)) if isinstance(n, ast.Name)}
        needed = sorted(used - set(dir(builtins)))
        if needed and all(_is_defined(target.current or "", name) for name in needed):
            code = f"from {module} import {', '.join(needed)}; print(repr({call}))"
            return f"python -c {shlex.quote(code)}"
    return ""


def _near_tests(here: Situation) -> str:
    """The file of tests named after an edited module; empty without one."""
    for file in here.gold.files:
        stem = PurePosixPath(file.path).stem
        names = {f"test_{stem}.py", f"{stem}_test.py", f"test{stem}.py"}
        if found := sorted(path for path in here.gold.paths if PurePosixPath(path).name in names):
            return found[0]
    return ""


def _test_command(here: Situation, path: str = "") -> str:
    lines = here.habits.tail_lines
    tail = f" 2>&1 | tail -n {lines}" if lines else ""
    return f"python -m pytest -q{f' {shlex.quote(path)}' if path else ''}{tail}"
