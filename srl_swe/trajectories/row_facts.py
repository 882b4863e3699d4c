"""Reads facts from columns of their own: instance, issue, outcome and patch.

All readers use these functions. A record without an instance is named after its id or its
file, and its trajectory carries the note :data:`NO_INSTANCE`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from srl_swe.trajectories.fields import Fields, describe_type, name_record
from srl_swe.types import Trajectory

NO_INSTANCE = "the record names no instance"
"""The note of a trajectory whose ``instance_id`` is only the name of its record or file."""

_NAMES = ("trajectory_id", "id", "task", "task_id", "session_id")
"""Fields whose value names an instance if it looks like an instance id, else a run."""
_IMAGES = ("image", "image_name", "docker_image")
_PATCHES = ("model_patch", "rollout_patch", "generated_patch", "output_patch", "git_patch", "patch")
_OF_INSTANCES = ("test_patch", "FAIL_TO_PASS")
"""Columns of a row that was joined with its instance."""
_OUTCOMES = ("resolved", "target", "reward")
_IMAGE = re.compile(r"sweb\.eval\.[\w]+\.([\w.-]+?)(?:_1776_|_s_)([\w.-]+?)(?::[\w.-]+)?\Z")
"""Names of SWE-bench's and SWE-Gym's images."""


@dataclass(frozen=True, slots=True)
class NamedInstance:
    """An instance id; ``notes`` holds :data:`NO_INSTANCE` if it is only a name."""

    id: str
    notes: tuple[str, ...] = ()


def find_instance(row: Fields) -> NamedInstance:
    """The row's ``instance_id``, else the first value that looks like one, else any name.

    Candidates are the row's other ids, the name of its image and, for a whole file, the file's
    name. Numbers of copies and attempts are left out.
    """
    given = row.optional_text("instance_id")
    if given:
        return NamedInstance(plain_instance_id(given))
    texts = [text for name in _NAMES if isinstance(text := row.get(name), str) and text]
    images = (_IMAGE.search(image) for image in map(row.get, _IMAGES) if isinstance(image, str))
    candidates = [*texts, *(f"{image[1]}__{image[2]}" for image in images if image)]
    if not row.where.rpartition(":")[2].isdecimal():  # a whole file, not a line or a row
        candidates.append(name_record(row.where))
    for text in map(plain_instance_id, candidates):
        if looks_like_instance_id(text):
            return NamedInstance(text)
    return NamedInstance(texts[0] if texts else name_record(row.where), (NO_INSTANCE,))


def names_instance(trajectory: Trajectory) -> bool:
    """Whether the trajectory's record named its instance."""
    return NO_INSTANCE not in trajectory.notes


def with_instance(trajectory: Trajectory, instance_id: str | None) -> Trajectory:
    """The trajectory under the given id if its record names no instance."""
    if instance_id is None or names_instance(trajectory):
        return trajectory
    notes = tuple(note for note in trajectory.notes if note != NO_INSTANCE)
    return replace(trajectory, instance_id=instance_id, notes=notes)


_ATTEMPT = re.compile(
    r"(?<=[^_])([_.-](?:run|attempt|rollout|sample|traj|trajectory|trial|try)[_-]?\d{1,9}(?:_\d{1,9})?)\Z"
)
_COPY = re.compile(r"(?:-|_pr)\d{1,19}(_\d{1,9})\Z")
_TRIAL = re.compile(r"-\d{1,19}(__\w{7}|_\d{8}_\d{6})\Z")
"""Harbor's random mark of a trial, and times."""
_ID = re.compile(r"[\w.+-]*[A-Za-z0-9]__[A-Za-z0-9][\w.+-]*|[\w.+-]+_pr\d{1,19}")
_LONGEST = 200
_LONGEST_END = 60


def plain_instance_id(text: str) -> str:
    """The id without the attempt's number appended by some data sets.

    >>> plain_instance_id("python__mypy-15976_0"), plain_instance_id("a__b-1_run2_0")
    ('python__mypy-15976', 'a__b-1')
    """
    end = text[-_LONGEST_END:]
    if "__" not in text and "_pr" not in end:
        return text
    while attempt := _ATTEMPT.search(end) or _TRIAL.search(end):
        bare = text.removesuffix(attempt[1])
        if not any(sign.isdigit() for sign in bare):  # the words belong to the name
            break
        text, end = bare, bare[-_LONGEST_END:]
    copy = _COPY.search(text[-_LONGEST_END:])
    return text.removesuffix(copy[1]) if copy else text


def looks_like_instance_id(text: str) -> bool:
    """Whether a name has the form of a data set's instance ids.

    >>> [looks_like_instance_id(t) for t in ("django__django-11119", "x_y_pr12", "all-3")]
    [True, True, False]
    """
    return len(text) <= _LONGEST and _ID.fullmatch(text) is not None


_ISSUE_TAGS = ("pr_description", "issue_description", "github_issue", "issue")
_NO_TASK = re.compile(
    r"\s*(?:<(?:environment_context|user_instructions|system-reminder)>|# AGENTS\.md|You are )"
)


def pick_task(messages: Sequence[str]) -> str | None:
    """Of the user's messages before the policy's first, the one with the task; None without any.

    Others hold a system prompt or facts about the environment.

    >>> pick_task(["You are an agent.", "Fix add()."])
    'Fix add().'
    """
    tagged = (text for text in messages if any(f"<{tag}>" in text for tag in _ISSUE_TAGS))
    plain = (text for text in messages if not _NO_TASK.match(text))
    return next(chain(tagged, plain, messages), None)


_ISSUE_LEAD = re.compile(r"Consider the following PR description:\s*")


def find_issue(message: str) -> str:
    r"""The issue in a run's first message; the whole message if nothing marks the issue.

    >>> find_issue("Read.\n<pr_description>\nIt crashes.\n</pr_description>\nNow fix it.")
    'It crashes.'
    """
    for tag in _ISSUE_TAGS:
        start, end = message.find(f"<{tag}>"), message.rfind(f"</{tag}>")
        if 0 <= start < end:
            issue = message[start + len(tag) + 2 : end].strip()
            return _ISSUE_LEAD.sub("", issue, count=1).strip()
    issue, heading, _ = message.partition("\nINSTRUCTIONS:\n")
    return issue.split("\nISSUE:\n", 1)[-1].strip() if heading else message.strip()


def find_outcome(row: Fields) -> bool | None:
    """Whether the run resolved its instance; None if no column has the outcome.

    ``resolved`` comes first; a reward counts as resolved if it is 1. Raises BrokenRecord if
    ``resolved`` is neither true nor false.
    """
    for name in _OUTCOMES:
        value = row.get(name)
        outcome = parse_outcome(value)
        if outcome is not None:
            return outcome
        if name == "resolved" and value is not None:
            raise row.broken(name, f"expected true or false, found {describe_type(value)}")
    return None


def parse_outcome(value: Any) -> bool | None:
    """A flag, or a reward from 0 to 1, also as text; None for anything else.

    >>> parse_outcome("1.0"), parse_outcome(0.5), parse_outcome("maybe")
    (True, False, None)
    """
    if isinstance(value, str):
        value = {"true": 1, "false": 0}.get(value.lower(), value)
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float) or not value <= 1:  # NaN too
        return None
    return bool(value == 1)


def find_patch(row: Fields) -> str | None:
    """The run's patch; None without one. Beside hidden tests, ``patch`` is the gold patch."""
    is_joined = any(row.get(name) is not None for name in _OF_INSTANCES)
    for name in _PATCHES[:-1] if is_joined else _PATCHES:
        if isinstance(text := row.get(name), str):
            return tidy_patch(text)
    return None


def tidy_patch(text: str | None) -> str | None:
    r"""The patch as ``git apply`` takes it; None stays None.

    A pty ends every line with CR LF: a CR in the first line is the terminal's, not the file's.

    >>> tidy_patch("\r\ndiff --git a/x b/x\r\n-a\r\n+b")
    'diff --git a/x b/x\n-a\n+b\n'
    """
    if text is None:
        return None
    patch = text.lstrip("\r\n")
    if patch.partition("\n")[0].endswith("\r"):
        patch = patch.replace("\r\n", "\n")
    return patch if not patch or patch.endswith("\n") else patch + "\n"
