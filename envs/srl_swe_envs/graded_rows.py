"""Completes rows that publish a test command in place of an eval script.

swebench 5 grades by three fields of the row: ``eval_script``, ``log_parser`` and ``eval_type``.
Rows of SWE-Gym, SWE-rebench and SWE-smith lack them. They are made here from the row's patches and
test names, and from the commands in the ``grading`` tables of ``specs/*.toml``. Texts of a row go
into a script only quoted, as a here-document, or as the commands that the row itself gives.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from srl_swe.evaluation.test_run import END_MARKER, START_MARKER
from srl_swe.instances import read_test_names

_CONDA = ("source /opt/miniconda3/bin/activate", "conda activate testbed")
_MIRROR = re.compile(r"swesmith/(?P<owner>.+?)__(?P<name>.+)\.[0-9a-f]{8}")
"""The name of a repository's copy, in rows of SWE-smith."""
_CASE = re.compile(r"\[case ([^\]]+)\]")
"""A test of mypy, in a file of test data."""
_NOT_TESTS = (
    ".json", ".png", "csv", ".txt", ".md", ".jpg", ".jpeg", ".pkl", ".yml", ".yaml", ".toml",
)  # fmt: skip
"""Files of a test patch that no test runner is given (swebench 4, NON_TEST_EXTS)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grading:
    """How the rows of a family are tested: the table ``grading`` of its spec.

    ``commands`` are test commands with the repositories that they are for, and ``parsers``
    swebench's parsers that differ from ``log_parser``. ``{files}`` in a command stands for the test
    files, ``{cases}`` for an expression of pytest's ``-k``. ``config`` names a field of the row
    that holds its own ``test_cmd``, ``log_parser`` and ``install``; these take precedence.
    """

    log_parser: str = ""
    config: str = ""
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    parsers: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Tests:
    """The tests of a row: their files, and their names for pytest's ``-k``."""

    files: Sequence[str]
    cases: Sequence[str]

    @classmethod
    def changed_by(cls, patch: str) -> _Tests:
        paths = [diff.new for diff in file_diffs(patch) if diff.new]
        files = [path for path in paths if not path.endswith(_NOT_TESTS)]
        return cls(files, _CASE.findall(patch))

    @classmethod
    def named(cls, names: Sequence[str]) -> _Tests:
        files = dict.fromkeys(name.partition("::")[0] for name in names)
        return cls(list(files), [name.rpartition("::")[2] for name in names])

    def run_by(self, command: str) -> str:
        cases = shlex.quote(" or ".join(self.cases))
        files = shlex.join(self.files)
        return command.replace("{cases}", cases).replace("{files}", files).rstrip()

    def include(self, name: str, command: str) -> bool:
        """Whether the command runs the test of that name."""
        if "{files}" in command:
            return name.partition("::")[0] in self.files
        if "{cases}" in command:
            return any(case.lower() in name.lower() for case in self.cases)
        return True


def completed(row: Mapping[str, Any], grading: Grading) -> dict[str, Any]:
    """The row with the fields for grading; unchanged if its test command or tests are unknown.

    The tests are those that ``test_patch`` changes; without one, those in FAIL_TO_PASS.
    PASS_TO_PASS then keeps the tests that the command runs, as in SWE-smith's harness.
    """
    repo = str(row.get("repo") or "")
    if mirror := _MIRROR.fullmatch(repo):
        repo = f"{mirror['owner']}/{mirror['name']}"
    config = row.get(grading.config)
    config = config if isinstance(config, Mapping) else {}
    own = _text(config.get("test_cmd"))
    command = f"{own} {{files}}" if own else _of_repository(grading.commands, repo)
    patch = str(row.get("test_patch") or "")
    failing, passing = (read_test_names(row.get(k)) for k in ("FAIL_TO_PASS", "PASS_TO_PASS"))
    if row.get("eval_script") or not command or not failing or passing is None:
        return dict(row)
    tests = _Tests.changed_by(patch) if patch else _Tests.named(failing)
    script = eval_script(
        tests.run_by(command),
        workdir=str(row.get("workdir") or "/testbed"),
        base_commit=str(row.get("base_commit") or "HEAD") if patch else "HEAD",
        test_patch=patch,
        restored=tests.files if not patch and "{files}" in command else (),
        set_up=[*_CONDA, *filter(None, [_text(config.get("install"))])],
    )
    parser = _text(config.get("log_parser")) or _of_repository(grading.parsers, repo)
    return {
        **row,
        "PASS_TO_PASS": [n for n in passing if patch or tests.include(n, command)],
        "eval_script": script,
        "log_parser": row.get("log_parser") or parser or grading.log_parser,
        "eval_type": row.get("eval_type") or "pass_and_fail",
    }


def eval_script(
    test: str,
    *,
    workdir: str,
    base_commit: str,
    test_patch: str = "",
    restored: Sequence[str] = (),
    set_up: Sequence[str] = (),
) -> str:
    """The tests as a script for swebench's harness, between its two markers.

    The files of ``test_patch`` and those in ``restored`` are taken from ``base_commit`` before the
    tests and again after them; files that the patch adds are removed. ``set_up`` are commands to
    run before, in ``workdir``.
    """
    diffs = list(file_diffs(test_patch))
    kept = [diff.old for diff in diffs if diff.old] + list(restored)
    added = [diff.new for diff in diffs if diff.new and not diff.old]
    restore = [f"git checkout {shlex.quote(base_commit)} -- {shlex.join(kept)}"] if kept else []
    remove = [f"rm -f -- {shlex.join(added)}"] if added else []
    end = "EOF_114329324912"  # swebench's own
    while end in test_patch:
        end += "_"
    lines = [
        "#!/bin/bash",
        "set -uxo pipefail",
        f"cd {shlex.quote(workdir)}",
        *set_up,
        f"git config --global --add safe.directory {shlex.quote(workdir)}",
        *restore,
        *remove,
        *([f"git apply -v - <<'{end}'\n{test_patch}\n{end}"] if test_patch else []),
        f": '{START_MARKER}'",
        test,
        f": '{END_MARKER}'",
        *restore,
    ]
    return "\n".join(lines) + "\n"


def _of_repository(table: Mapping[str, Sequence[str]], repo: str) -> str:
    """The key whose repositories include ``repo``, in any case of letters; empty if none does."""
    found = (key for key, repos in table.items() if repo.lower() in map(str.lower, repos))
    return next(found, "")


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


_HUNK = re.compile(r"@@ -(?P<old>\d+(?:,(?P<olds>\d+))?) \+(?P<new>\d+(?:,(?P<news>\d+))?) @@")
_COUNTED = {"-": (1, 0), "+": (0, 1), "\\": (0, 0)}
"""The old and new lines that a line of a hunk counts for; a context line is one of each."""
_PAIR = re.compile(r'diff --git ("a/.*"|a/.*) ("b/.*"|b/.*)')
_SWAPPED = {
    "old mode ": "new mode ", "deleted file mode ": "new file mode ",
    "rename from ": "rename to ", "--- ": "+++ ",
}  # fmt: skip
_PARTNER = _SWAPPED | {new: old for old, new in _SWAPPED.items()}


@dataclass(frozen=True, slots=True)
class FileDiff:
    """The part of a diff about one file; ``hunks`` begin with their ``@@`` line.

    ``old`` and ``new`` are its paths before and after, None if it does not exist then.
    """

    header: tuple[str, ...]
    hunks: tuple[tuple[str, ...], ...]

    @property
    def old(self) -> str | None:
        """The path before."""
        return None if self._has("new file mode ") else self._path("--- ", "rename from ", 1)

    @property
    def new(self) -> str | None:
        """The path after."""
        return None if self._has("deleted file mode ") else self._path("+++ ", "rename to ", 2)

    def _has(self, prefix: str) -> bool:
        return any(line.startswith(prefix) for line in self.header)

    def _path(self, marked: str, renamed: str, side: int) -> str | None:
        for line in self.header:
            if line.startswith(renamed):
                return _unquoted(line.removeprefix(renamed))
            if line.startswith(marked):
                name = _unquoted(line.removeprefix(marked).partition("\t")[0])
                return None if name == "/dev/null" else name.partition("/")[2]
        pair = _PAIR.fullmatch(self.header[0])
        return _unquoted(pair[side]).partition("/")[2] if pair else None

    def reversed(self) -> Iterator[str]:
        """The lines of the opposite change. Raises ValueError for a binary file or a copy."""
        values = {
            prefix: line.removeprefix(prefix)
            for line in self.header
            for prefix in _PARTNER
            if line.startswith(prefix)
        }
        for line in self.header:
            prefix = next((prefix for prefix in values if line.startswith(prefix)), "")
            if line.startswith(("GIT binary patch", "Binary files ", "copy ")):
                raise ValueError(f"{line!r} can't be reversed")
            if prefix in ("new file mode ", "deleted file mode "):
                yield _PARTNER[prefix] + values[prefix]
            elif prefix:
                value = values.get(_PARTNER[prefix], values[prefix])
                sides = ("b/", "a/") if prefix == "--- " else ("a/", "b/")
                yield prefix + (_on_side(value, *sides) if prefix in ("--- ", "+++ ") else value)
            elif (pair := _PAIR.fullmatch(line)) and "rename to " in values:
                yield f"diff --git {_on_side(pair[2], 'b/', 'a/')} {_on_side(pair[1], 'a/', 'b/')}"
            else:
                yield re.sub(r"^index (\w+)\.\.(\w+)", r"index \2..\1", line)
        for hunk in self.hunks:
            yield from _reversed_hunk(hunk)


def file_diffs(diff: str) -> Iterator[FileDiff]:
    """The parts of a unified diff, file by file; nothing for text that is not a diff."""
    header: list[str] = []
    hunks: list[tuple[str, ...]] = []
    lines = diff.removesuffix("\n").split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        is_plain = line.startswith("--- ") and (bool(hunks) or not header)
        if line.startswith("diff --git ") or is_plain:
            if header:
                yield FileDiff(tuple(header), tuple(hunks))
            header, hunks = [line], []
        elif header and (hunk := _HUNK.match(line)):
            end = _end_of_hunk(lines, at, hunk)
            hunks.append(tuple(lines[at:end]))
            at = end - 1
        elif header and not hunks:
            header.append(line)
        at += 1
    if header:
        yield FileDiff(tuple(header), tuple(hunks))


def reverse_diff(diff: str) -> str:
    """The diff that undoes ``diff``, as ``git diff -R`` writes it; empty for text that is not one.

    Raises ValueError for binary files and copies.
    """
    return "".join(f"{line}\n" for part in file_diffs(diff) for line in part.reversed())


def _end_of_hunk(lines: Sequence[str], at: int, hunk: re.Match[str]) -> int:
    old, new = int(hunk["olds"] or 1), int(hunk["news"] or 1)
    at += 1
    while at < len(lines) and (old > 0 or new > 0 or lines[at].startswith("\\")):
        counts = _COUNTED.get(lines[at][:1], (1, 1))
        old, new, at = old - counts[0], new - counts[1], at + 1
    return at


def _reversed_hunk(hunk: Sequence[str]) -> Iterator[str]:
    """Each run of changed lines with its removed lines first, as git writes them."""
    yield _HUNK.sub(lambda range_: f"@@ -{range_['new']} +{range_['old']} @@", hunk[0], count=1)
    removed: list[str] = []
    added: list[str] = []
    last = removed
    for line in hunk[1:]:
        match line[:1]:
            case "-":
                added.append(f"+{line[1:]}")
                last = added
            case "+":
                removed.append(f"-{line[1:]}")
                last = removed
            case "\\" if removed or added:  # "No newline at end of file", of the line before
                last.append(line)
            case _:
                yield from (*removed, *added, line)
                removed, added = [], []
    yield from (*removed, *added)


def _on_side(name: str, old: str, new: str) -> str:
    """The name with the other prefix: ``a/x`` for ``b/x``; quoted names too."""
    return re.sub(rf'^("?){old}', rf"\g<1>{new}", name)


def _unquoted(name: str) -> str:
    """A name as git writes it, in quotes and with escapes of bytes if it has odd characters."""
    if name.startswith('"'):
        with suppress(ValueError, SyntaxError):
            return str(ast.literal_eval(f"b{name}").decode("utf-8", "replace"))
    return name
