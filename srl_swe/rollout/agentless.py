"""The paper's two settings of an evaluation, after SWE-RL's Agentless-mini (arXiv 2502.18449).

``agentless`` (end to end): one reply names up to five files from the tree of the base commit, and
another edits them. ``oracle``: the files of the gold patch take the place of the first reply. The
policy runs no command: files are read from the base commit, and the patch is the diff of the
edits (:mod:`srl_swe.rollout.repair`).

Departures from Agentless-mini: only the text after the thought is read, paths that almost exist
are repaired, and long files are cut to the context instead of left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources

from srl_swe.dialects import FormatReason, Strictness, read_answer
from srl_swe.errors import PolicyError, SandboxError, nearest_name
from srl_swe.rollout.episode import OfPolicy, OnReply, PromptTooLong, ask, failed_attempt
from srl_swe.rollout.repair import (
    EditFault,
    apply_edits,
    change_fault,
    oracle_paths,
    parse_edits,
    repair_messages,
)
from srl_swe.sandbox import Sandbox, enforced, normal_form
from srl_swe.sandbox.base_commit import BaseCommit
from srl_swe.sandbox.patches import DiffFailed, plain_diff
from srl_swe.sandbox.working_tree import Blob, Change
from srl_swe.steps.prompt import CountTokens, OverBudget
from srl_swe.types import Instance, Message, Observation, Step, StopReason, Trajectory

MAX_FILES = 5
LOCALIZE_PROMPT = resources.files("srl_swe").joinpath("prompts/localize.md").read_text("utf-8")
_NAMES_OF_TESTS_ARE_CODE = "pytest-dev/pytest"
_PATH = re.compile(r"[^\s`'\"*()]+\.py\b")
_LONGEST_NAME = 300
_SIMILAR = 0.9
"""The least ratio of difflib between a path and its repair."""

_EXPLANATIONS: Mapping[FormatReason | EditFault, str] = {
    FormatReason.NO_THINK: "it did not begin with <think>...</think>",
    FormatReason.EMPTY_THOUGHT: "the thought between <think> and </think> was empty",
    EditFault.NO_EDIT: "it held no search/replace edit",
    EditFault.UNKNOWN_FILE: "the file was not shown",
    EditFault.NOT_FOUND: "the text to search for is not in the file",
    EditFault.NO_CHANGE: "only blank lines differ",
    EditFault.BROKEN_SYNTAX: "a file no longer parses",
}


@dataclass(frozen=True, slots=True)
class _Ended:
    """The end of an attempt: its changes, and a note on why nothing could be asked."""

    reason: StopReason
    changes: tuple[Change, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Agentless(OfPolicy):
    """Localize and repair, one reply each; with ``oracle``, repair the gold patch's files.

    ``think_opened`` as in :class:`~srl_swe.dialects.ReplyFormat`. ``token_budget``: tokens of a
    prompt; None shows all files whole. A reply out of the format ends the attempt with
    FORMAT_ERRORS, a prompt over the budget with TOKEN_LIMIT, both with an empty patch.
    """

    strictness: Strictness = "lenient"
    think_opened: bool = False
    token_budget: int | None = None
    oracle: bool = False

    def __call__(
        self, instance: Instance, sandbox: Sandbox, on_reply: OnReply = lambda completion: None
    ) -> Trajectory:
        """One step per reply: its whole text as thought, and the observation of its reading.

        ``executed`` is False for a reply out of the format.
        """
        steps: list[Step] = []
        try:
            held_to = enforced(sandbox)
            base = BaseCommit.open(sandbox, instance.base_commit, instance.workdir)
            try:
                ended = self._attempt(instance, base, steps, on_reply)
            except (PromptTooLong, OverBudget) as error:
                ended = _Ended(StopReason.TOKEN_LIMIT, note=str(error))
            patch = plain_diff(ended.changes).decode("utf-8")
        except DiffFailed as error:
            return failed_attempt(instance, SandboxError(str(error)), self.name, steps)
        except (SandboxError, PolicyError) as error:
            return failed_attempt(instance, error, self.name, steps)
        return Trajectory(
            instance.instance_id,
            tuple(steps),
            problem_statement=instance.problem_statement,
            stop_reason=ended.reason,
            patch=patch,
            model=self.name,
            enforced=held_to or None,
            notes=(ended.note,) if ended.note else (),
            normal_form=normal_form(ended.changes),
        )

    def _attempt(
        self, instance: Instance, base: BaseCommit, steps: list[Step], on_reply: OnReply
    ) -> _Ended:
        if self.oracle:
            blobs = oracle_blobs(instance, base)
        else:
            shown = [path for path in base.entries if is_source(path, instance.repo)]
            prompt = localize_messages(instance.problem_statement, shown)
            if self._count is not None and self._count(prompt) > (self.token_budget or 0):
                raise OverBudget(f"the repository's tree is over {self.token_budget} tokens")
            step, paths = self._read_paths(ask(self.policy, prompt, on_reply).text, shown)
            steps.append(step)
            if not step.executed:
                return _Ended(StopReason.FORMAT_ERRORS)
            blobs = base.read(paths)
        files = texts_of(blobs)
        if not files:
            return _Ended(StopReason.SUBMITTED, note="nothing to edit: no file that exists")
        issue = instance.problem_statement
        prompt = repair_messages(issue, files, self.token_budget, self._count)
        step, changed = self._read_edits(ask(self.policy, prompt, on_reply).text, files)
        steps.append(step)
        if not step.executed:
            return _Ended(StopReason.FORMAT_ERRORS)
        changes = tuple(
            Change(path.encode(), old, Blob(old.mode, text.encode("utf-8", "replace")))
            for path, text in changed.items()
            if text != files[path] and (old := blobs[path])
        )
        return _Ended(StopReason.SUBMITTED, changes)

    @property
    def _count(self) -> CountTokens | None:
        return None if self.token_budget is None else self.policy.count_tokens

    def _read_paths(self, reply: str, known: Sequence[str]) -> tuple[Step, list[str]]:
        """The step of a reply to the tree, and the paths that it names."""
        answer, fault = read_answer(reply, self.strictness, think_opened=self.think_opened)
        named = None if fault else last_block(answer)
        if named is None:
            why = _EXPLANATIONS[fault] if fault else "it held no code block of paths"
            return _unusable(reply, why), []
        nearest = (nearest_path(line, known) for line in named)
        paths = list(dict.fromkeys(path for path in nearest if path))[:MAX_FILES]
        said = "\n".join(["Files to edit:", *paths]) if paths else "No named file exists."
        return Step(reply, None, Observation(said)), paths

    def _read_edits(self, reply: str, files: Mapping[str, str]) -> tuple[Step, Mapping[str, str]]:
        """The step of a reply to files, and their new texts; none if nothing is submitted."""
        answer, fault = read_answer(reply, self.strictness, think_opened=self.think_opened)
        if fault is not None:
            return _unusable(reply, _EXPLANATIONS[fault]), {}
        edits = list(dict.fromkeys(parse_edits(answer)))
        if not edits:
            return _unusable(reply, _EXPLANATIONS[EditFault.NO_EDIT]), {}
        edited = apply_edits(edits, files)
        skipped = [
            f"Skipped edit {edits.index(edit) + 1} of {edit.path}: {_EXPLANATIONS[why]}."
            for edit, why in edited.skipped
        ]
        rejected = change_fault(edited.changed, files) if edited.changed else None
        if rejected:
            verdict = f"Nothing is submitted: {_EXPLANATIONS[rejected]}."
        elif not edited.changed:
            verdict = "Nothing is submitted: no edit applies."
        else:
            verdict = f"{len(edits) - len(skipped)} of {len(edits)} edits applied."
        step = Step(reply, None, Observation("\n".join([verdict, *skipped])))
        return step, {} if rejected else edited.changed


def localize_messages(issue: str, paths: Iterable[str]) -> list[Message]:
    """The prompt for the files to edit: the issue and the tree of ``paths``."""
    shown = f"{issue.strip()}\n\nThe Python files:\n\n```\n{render_tree(paths)}```"
    return [{"role": "system", "content": LOCALIZE_PROMPT}, {"role": "user", "content": shown}]


def is_source(path: str, repo: str) -> bool:
    """Whether the tree shows the file, by Agentless-mini's rule: Python, and not a test.

    A test has a name or folder that begins with ``test``, except in pytest itself.

    >>> [is_source(path, "a/b") for path in ("a/b.py", "tests/b.py", "a/test_b.py", "a/b.txt")]
    [True, False, False, False]
    """
    if not path.endswith(".py"):
        return False
    is_test = any(part.startswith("test") for part in path.split("/"))
    return not is_test or repo == _NAMES_OF_TESTS_ARE_CODE


def render_tree(paths: Iterable[str]) -> str:
    r"""One name per line, indented by four spaces per folder.

    >>> print(render_tree(["a/b/c.py", "a/d.py", "e.py"]), end="")
    a/
        b/
            c.py
        d.py
    e.py
    """
    lines, open_folders = list[str](), list[str]()
    for path in sorted(paths, key=lambda path: path.split("/")):
        *folders, name = path.split("/")
        same = 0
        while same < min(len(folders), len(open_folders)) and folders[same] == open_folders[same]:
            same += 1
        for depth in range(same, len(folders)):
            lines.append("    " * depth + folders[depth] + "/")
        lines.append("    " * len(folders) + name)
        open_folders = folders
    return "".join(f"{line}\n" for line in lines)


def last_block(answer: str) -> list[str] | None:
    """The lines of the last fenced block, without blank ones; None if no block is closed."""
    last: list[str] | None = None
    opened: list[str] | None = None
    for line in answer.split("\n"):
        if line.lstrip().startswith("```"):
            last, opened = (last, []) if opened is None else (opened, None)
        elif opened is not None and line.strip():
            opened.append(line)
    return last


def nearest_path(line: str, known: Sequence[str]) -> str | None:
    """The path that a line names, repaired if it almost exists; None if it does not.

    Repaired are list marks and quotes, misspellings, leading folders that are missing, if the rest
    is unique, and additional ones.

    >>> nearest_path("- `/testbed/lib/query.py`", ["a/lib/query.py", "lib/query.py"])
    'lib/query.py'
    """
    if line.strip() in known:
        return line.strip()
    found = _PATH.search(line[:_LONGEST_NAME])
    if found is None:
        return None
    name = found[0].removeprefix("./")
    if name in known:
        return name
    longer = [path for path in known if path.endswith(f"/{name}")]
    if longer:
        return longer[0] if len(longer) == 1 else None
    similar = nearest_name(name, known, _SIMILAR)
    shorter = [path for path in known if "/" in path and name.endswith(f"/{path}")]
    return similar or max(shorter, key=len, default=None)


def oracle_blobs(instance: Instance, base: BaseCommit) -> dict[str, Blob]:
    """The files that the gold patch changes. Raises SandboxError if the commit lacks one."""
    paths = oracle_paths(instance.gold_patch)
    if missing := [path for path in paths if path not in base.entries]:
        raise SandboxError(f"{instance.instance_id}: its image has no {missing[0]}")
    return base.read(paths)


def texts_of(blobs: Mapping[str, Blob]) -> dict[str, str]:
    """The texts by path, without files that are not UTF-8."""
    texts: dict[str, str] = {}
    for path, blob in blobs.items():
        with suppress(UnicodeDecodeError):
            texts[path] = blob.data.decode("utf-8")
    return texts


def _unusable(reply: str, why: str) -> Step:
    return Step(reply, None, Observation(f"Your reply was not used: {why}."), executed=False)
