"""The names in an issue, and the findings of an episode so far. Pure."""

from __future__ import annotations

import ast
import doctest
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from unidiff.patch import PatchSet

from srl_swe.sandbox.normal_forms import PARSE_ERRORS
from srl_swe.types import Action, Observation, Step, Trajectory

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[^\n]*\n(.*?)^[ \t]*\1", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NO_CODE = re.compile(r"#[^\n]*|'[^'\n]*'|\"[^\"\n]*\"")
"""Comments and texts within Python."""
_ERROR = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Warning)): *(.*)$", re.MULTILINE)
_VOCABULARY = """
async bash class command create diff file find grep head include insert name path print pytest
python repr sort str_replace tail testbed tests view view_range
"""
"""Words of the expert's own commands."""
_LONG_SLEEP = re.compile(r"\bsleep\(\s*[\d.]{2,}|\binput\(|\bwhile True\b")
_COMMON = """
and as assert break class continue def del elif else except False finally for from global if import
in is lambda None nonlocal not or pass raise return True try while with yield print self cls len str
int float list dict set tuple bool bytes type range sorted open repr sum min max any all super
object name value key the this that python python3 pip time sys json example ValueError TypeError
KeyError IndexError AttributeError RuntimeError AssertionError Exception NameError ZeroDivisionError
NotImplementedError StopIteration OSError FileNotFoundError
"""
"""Words that are in every repository."""


@dataclass(frozen=True)
class Issue:
    """The text of an issue, its first line being the title."""

    text: str

    @cached_property
    def title(self) -> str:
        """The heading or first sentence, at most 100 characters."""
        first = next((line for line in self.text.splitlines() if line.strip()), "the issue")
        plain = " ".join(first.lstrip("#> ").split())
        sentence = re.split(r"(?<=[.!?]) ", plain)[0].rstrip(".:")
        return sentence if len(sentence) <= 100 else f"{sentence[:97].rsplit(' ', 1)[0]}..."

    @cached_property
    def blocks(self) -> list[str]:
        """The texts of the fenced blocks."""
        return [match[2] for match in _FENCE.finditer(self.text)]

    @cached_property
    def spans(self) -> list[str]:
        """The texts between single backticks."""
        return _SPAN.findall(_FENCE.sub("", self.text))

    @cached_property
    def names(self) -> list[str]:
        """Identifiers to search for: called ones first, then others in code or like code."""
        prose = _FENCE.sub("", self.text)
        code = [_NO_CODE.sub("", text) for text in map(_statements, self.blocks) if text]
        called = re.findall(r"\b([A-Za-z_]\w*)\(", "\n".join([prose, *code]))
        spans = [_NO_CODE.sub("", text) for text in self.spans]
        marked = [word for text in (*spans, *code) for word in _IDENTIFIER.findall(text)]
        coded = [
            word
            for word in _IDENTIFIER.findall(prose)
            if "_" in word.strip("_") or re.search(r"[a-z][A-Z]", word)
        ]
        found, common = dict.fromkeys([*called, *marked, *coded]), set(_COMMON.split())
        return [word for word in found if len(word) > 2 and word not in common]

    @cached_property
    def messages(self) -> list[str]:
        """The constant beginnings of error messages, as one would grep for them."""
        found = [
            re.split(r"['\"\[\d(]", text)[0].strip(" :,") for _, text in _ERROR.findall(self.text)
        ]
        return [
            text for text in dict.fromkeys(found) if len(text.split()) > 1 and text[0].isalpha()
        ]

    @cached_property
    def script(self) -> str:
        """Python that shows the symptom, from the code of the issue; empty if it has none."""
        scripts = [made for block in self.blocks if (made := _as_script(block))]
        scripts.sort(key=lambda made: not re.search(r"\.write|mkdir|touch", made))
        whole = "\n\n".join(dict.fromkeys(scripts))
        if not re.search(r"^\s*(?:import|from)\s", whole, re.MULTILINE):
            return ""
        return whole

    @cached_property
    def calls(self) -> list[str]:
        """Calls between single backticks whose value can be printed, without their imports."""
        found = []
        for span in self.spans:
            try:
                tree = ast.parse(span.strip(), mode="eval")
            except PARSE_ERRORS:
                continue
            complete = isinstance(tree.body, ast.Call) and (tree.body.args or tree.body.keywords)
            elided = any(
                isinstance(part, ast.Constant) and part.value is ... for part in ast.walk(tree)
            )
            if complete and not elided and not _LONG_SLEEP.search(span):
                found.append(span.strip())
        return found


def _statements(block: str) -> str:
    """The Python of a block, without prompts and printed lines; empty if it is something else."""
    try:
        if ">>>" in block:
            examples = doctest.DocTestParser().get_examples(block)
            block = "".join(example.source for example in examples)
        ast.parse(block)
    except PARSE_ERRORS:
        return ""
    return block


def _as_script(block: str) -> str:
    """The statements of a block; values that it shows are printed. Empty if nothing would run."""
    code = _statements(block)
    body = ast.parse(code).body
    runs = any(
        isinstance(p, ast.Call | ast.Import | ast.ImportFrom)
        for p in ast.walk(ast.Module(body, []))
    )
    only_defines = all(isinstance(p, ast.FunctionDef | ast.ClassDef) for p in body)
    if not runs or only_defines or _LONG_SLEEP.search(code):
        return ""
    lines = []
    for part in body:
        source = _source(code, part)
        shown = isinstance(part, ast.Expr) and not _is_print(part.value)
        in_session = ">>>" in block and _has_answer(block, source)
        is_value = ">>>" not in block and (part is body[-1] or not _is_call(part))
        lines.append(f"print({source})" if shown and (in_session or is_value) else source)
    return "\n".join(lines)


def _has_answer(session: str, source: str) -> bool:
    """Whether a session shows a value for the statement."""
    examples = doctest.DocTestParser().get_examples(session)
    return any(e.want and e.source.strip() == source.strip() for e in examples)


def _is_call(part: ast.stmt) -> bool:
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Call)


def _is_print(value: ast.expr) -> bool:
    return (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name)
        and value.func.id == "print"
    )


def _source(code: str, part: ast.stmt) -> str:
    """The statement with its decorators, without a comment behind it."""
    decorators = getattr(part, "decorator_list", [])
    if isinstance(part, ast.Expr):
        return ast.get_source_segment(code, part) or ""
    first = min([part.lineno, *(d.lineno for d in decorators)])
    return "\n".join(code.splitlines()[first - 1 : part.end_lineno])


# The episode so far.

_TESTS = re.compile(
    r"\b(?:pytest|py\.test|unittest|tox|nox|nosetests)\b|\bmake (?:test|check)\b|runtests"
)
_RUNS_PYTHON = re.compile(r"\bpython3?\b")
_WRITES = re.compile(
    r"\bsed\b[^|;&]* -i|\bgit (?:apply|checkout|restore|reset|stash|revert|mv|rm)\b|\bpatch\b"
    r"|\btee\b|\bmv\b|\bcp\b|\bed\b|>\s*[\w./-]+|\.write|open\([^)]*['\"][wa]"
)
_HARMLESS = re.compile(r"\d?>\s*(?:&\d|/dev/null)|2>&1")
_LOOKS = re.compile(
    r"\b(?:grep|rg|ag|find|ls|cat|head|tail|sed -n|git (?:diff|show|log|grep|ls-files))\b"
)


def is_test_run(action: Action) -> bool:
    """Whether the call runs tests."""
    return action.tool == "bash" and bool(_TESTS.search(action.arguments.get("command", "")))


def may_write(action: Action) -> bool:
    """Whether the call may change files."""
    if action.tool == "bash":
        command = _HARMLESS.sub("", action.arguments.get("command", ""))
        if is_test_run(action):
            return False
        return bool(_WRITES.search(command.partition("<<")[0] if "python" in command else command))
    return action.tool != "submit" and action.arguments.get("command") != "view"


@dataclass(frozen=True)
class Seen:
    """The steps so far, and the issue: everything from which a thought may be made."""

    issue: Issue
    steps: Sequence[Step]

    @cached_property
    def acted(self) -> list[tuple[int, Action, Observation]]:
        """The executed steps: number, call and answer."""
        return [
            (number, step.action, step.observation or Observation(""))
            for number, step in enumerate(self.steps)
            if step.action is not None and step.executed
        ]

    @cached_property
    def text(self) -> str:
        """The issue and everything printed."""
        printed = (answer.text for _, _, answer in self.acted)
        return "\n".join([self.issue.text, *printed])

    @property
    def last(self) -> Step | None:
        """The last step; None at the start."""
        return self.steps[-1] if self.steps else None

    def has_done(self, action: Action, since: int = 0) -> bool:
        """Whether exactly this call was made, at step ``since`` or later."""
        asked = _bare(action)
        return any(number >= since and _bare(made) == asked for number, made, _ in self.acted)

    def knows_word(self, word: str) -> bool:
        """Whether the word stands in the issue or was printed."""
        return re.search(rf"\b{re.escape(word)}\b", self.text) is not None

    def knows_path(self, path: str) -> bool:
        """Whether the path stands in the issue or was printed."""
        return re.search(rf"(?<![\w-])(?:\.?/)?{re.escape(path)}(?![\w-])", self.text) is not None

    def has_seen(self, path: str, lines: Sequence[str]) -> bool:
        """Whether one answer about the file showed all of these lines."""
        wanted = [" ".join(line.split()) for line in lines]
        return any(
            (path in answer.text or path in action.text)
            and all(line in " ".join(answer.text.split()) for line in wanted)
            for _, action, answer in self.acted
        )

    def knows_line(self, path: str, number: int, line: str) -> bool:
        """Whether a search or a view of the file showed the line with its number."""
        numbered = re.compile(
            rf"(?:^|:|\s){number}[:\t-]\s*{re.escape(line.strip())}", re.MULTILINE
        )
        return any(
            numbered.search(answer.text) and (path in answer.text or path in action.text)
            for _, action, answer in self.acted
        )

    @cached_property
    def last_change(self) -> int:
        """The number of the last step that may have changed the repository; -1 without one."""
        numbers = [
            number
            for number, action, answer in self.acted
            if may_write(action) and not _is_aside(action) and answer.exit_code in {0, None}
        ]
        return max(numbers, default=-1)

    @property
    def has_searched(self) -> bool:
        """Whether the repository was looked at in any way."""
        return any(
            _LOOKS.search(action.arguments.get("command", ""))
            or action.arguments.get("command") == "view"
            for _, action, _ in self.acted
        )

    def has_reproduced(self, since: int = 0) -> bool:
        """Whether Python ran since that step, other than tests that pass."""
        for number, action, answer in self.acted:
            command = action.arguments.get("command", "")
            if number < since or action.tool != "bash" or not _RUNS_PYTHON.search(command):
                continue
            if not is_test_run(action) or re.search(r"\b\d+ (?:failed|error)", answer.text):
                return True
        return False

    def tests_since(self, step: int) -> list[tuple[Action, Observation]]:
        """The runs of tests after that step."""
        return [(a, answer) for number, a, answer in self.acted if number > step and is_test_run(a)]


def _is_aside(action: Action) -> bool:
    """Whether the call writes a script to reproduce with, or removes one."""
    path = action.arguments.get("path", "")
    creates = action.arguments.get("command") == "create"
    return creates and re.search(r"(?:repro|issue|debug|check)\w*\.py$", path) is not None


def _bare(action: Action) -> str:
    """The call as text, without ``cd`` before its command."""
    return re.sub(r"(?<=<parameter=command>)\s*cd \S+ && ", "", action.text)


# The check that thoughts and actions are made from things seen.


def find_leak(trajectory: Trajectory, gold_patch: str) -> str | None:
    """A step before an edit that shows unseen lines or names of the gold patch; None without one.

    An edit may hold the lines that it adds. Names count if they are quoted as code.
    """
    added = [
        line.value.strip()
        for file in PatchSet(gold_patch)
        for hunk in file
        for line in hunk
        if line.is_added and _IDENTIFIER.search(line.value)
    ]
    seen = trajectory.problem_statement or ""
    for number, step in enumerate(trajectory.steps):
        if step.action is not None and not _edits(step.action):
            shown = f"{step.thought}\n{step.action.text}"
            lines = [line for line in added if len(line) > 5 and line in shown and line not in seen]
            quoted = " ".join([*_SPAN.findall(step.thought), *step.action.arguments.values()])
            words = {word for line in added for word in _IDENTIFIER.findall(line) if len(word) > 3}
            names = {
                w
                for w in words & set(_IDENTIFIER.findall(quoted)) - set(_VOCABULARY.split())
                if w not in seen
            }
            if lines or names:
                return f"step {number} shows {[*lines, *sorted(names)][0]!r}"
        seen += f"\n{step.thought}\n{step.action.text if step.action else ''}"
        seen += f"\n{step.observation.text if step.observation else ''}"
    return None


def _edits(action: Action) -> bool:
    given = action.arguments.get("command", "")
    return given in {"create", "str_replace", "insert"} or "git apply" in given
