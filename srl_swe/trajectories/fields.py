"""Reading JSON that others wrote: every value is checked, and a wrong one is named.

row = Fields.of(record, "runs.jsonl:17")
for message in row.items("messages"):
    message.text("role")     # raises "runs.jsonl:17: messages.3.role: missing."
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml

from srl_swe.errors import UserError

# The one exception that a reader of foreign trajectories raises.


class BrokenRecord(UserError):
    """A record that no trajectory can be made of: which one, which field of it, and why.

    ``where`` is a file, or a file and a line (``runs.jsonl:17``); ``field`` the path to the
    value at fault (``messages.3.role``), empty where the record as a whole is.
    """

    def __init__(self, where: str, field: str, why: str) -> None:
        super().__init__(f"{where}: {field}: {why}." if field else f"{where}: {why}.")
        self.where = where
        self.field = field
        self.why = why


# The issue within the first message of a run, without the instructions around it.


_TAGS = ("pr_description", "issue_description", "github_issue", "issue")
_LEAD = re.compile(r"Consider the following PR description:\s*")


def find_issue(message: str) -> str:
    r"""The issue; the whole message where nothing marks it off.

    >>> find_issue("Read.\n<pr_description>\nIt crashes.\n</pr_description>\nNow fix it.")
    'It crashes.'
    """
    for tag in _TAGS:
        start, end = message.find(f"<{tag}>"), message.rfind(f"</{tag}>")
        if 0 <= start < end:
            return _LEAD.sub("", message[start + len(tag) + 2 : end].strip(), count=1).strip()
    issue, heading, _ = message.partition("\nINSTRUCTIONS:\n")
    return issue.split("\nISSUE:\n", 1)[-1].strip() if heading else message.strip()


# Instance ids as copies of data sets write them.


_ATTEMPT = re.compile(
    r"(?<=[^_])[_.-](?:run|attempt|rollout|sample|traj|trajectory|trial|try)[_-]?\d{1,9}(?:_\d{1,9})?\Z"
)
_COPY = re.compile(r"(?:-|_pr)\d{1,19}(_\d{1,9})\Z")
_ID = re.compile(r"[\w.+-]*[A-Za-z0-9]__[A-Za-z0-9][\w.+-]*|[\w.+-]+_pr\d{1,19}")
_LONGEST = 200
_LONGEST_END = 60


def plain_instance_id(text: str) -> str:
    """The id without the number that copies of data sets put after it, one per attempt.

    >>> plain_instance_id("python__mypy-15976_0"), plain_instance_id("a__b-1_run2_0")
    ('python__mypy-15976', 'a__b-1')
    """
    end = text[-_LONGEST_END:]
    if "__" not in text and "_pr" not in end:
        return text
    attempt = _ATTEMPT.search(end)
    text = text.removesuffix(attempt[0]) if attempt else text
    copy = _COPY.search(text[-_LONGEST_END:])
    return text.removesuffix(copy[1]) if copy else text


def looks_like_instance_id(text: str) -> bool:
    """Whether a name is built as data sets build ids of instances.

    >>> [looks_like_instance_id(t) for t in ("django__django-11119", "x_y_pr12", "all-3")]
    [True, True, False]
    """
    return len(text) <= _LONGEST and _ID.fullmatch(text) is not None


# A patch as sources record it, in the form that ``git apply`` takes.


def tidy_patch(text: str | None) -> str | None:
    r"""The patch without what a terminal did to it; None where the source has none.

    A pty ends every line with CR LF, so that the CR of the first line is not the file's.

    >>> tidy_patch("\r\ndiff --git a/x b/x\r\n-a\r\n+b")
    'diff --git a/x b/x\n-a\n+b\n'
    """
    if text is None:
        return None
    patch = text.lstrip("\r\n")
    if patch.partition("\n")[0].endswith("\r"):
        patch = patch.replace("\r\n", "\n")
    return patch if not patch or patch.endswith("\n") else patch + "\n"


# Blocks fenced by backticks in a reply's text.


_FENCE = re.compile(r"^```(\S*)[^\S\n]*(?:\n|\Z)", re.MULTILINE)


def last_fence(text: str) -> tuple[str, str | None]:
    """The text around the last fenced block, and what the block holds; None where none is.

    A block that another one holds is part of it, as for SWE-agent's ThoughtActionParser. Text
    after the block belongs to the thought.
    """
    block = None
    opened: list[re.Match[str]] = []
    for fence in _FENCE.finditer(text):
        if opened and not fence[1]:
            start = opened.pop()
            if not opened:
                block = (start, fence)
        else:
            opened.append(fence)
    if block is None:
        return text.strip(), None
    start, end = block
    body = text[start.end() : end.start()].removesuffix("\n")
    return (text[: start.start()] + text[end.end() :]).strip(), body


# Reading YAML of strangers in bounded time and memory, as the values that JSON has.
#
# A few hundred bytes of YAML can unfold to billions of values by aliases, hold themselves, or
# spell a number that takes hours to convert. The events of the text, which unfold nothing, are
# measured first; only then is a value made of them.


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 200
_FREE_CHARS = 4_000_000
_MAX_GROWTH = 4
"""Aliases may unfold to this many times the text, and to ``_FREE_CHARS`` in any case."""
_MAX_DIGITS = 4000
"""Python itself refuses to write integers of more than 4300 digits."""
_NUMBER = re.compile(r"[-+]?[0-9][0-9a-fA-F_xob:.]*")


def parse_yaml(text: str) -> Any:
    """The value, made of what JSON has: dates become texts, keys too.

    Raises ValueError for what is not YAML, is nested too deep, refers to itself, unfolds to far
    more than the text, or holds a number of thousands of digits.
    """
    try:
        _measure(yaml.parse(text, Loader=_LOADER), len(text))
        return _plain(yaml.load(text, Loader=_LOADER))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"not YAML: {_first_line(error)}") from None


def _measure(events: Iterator[Any], text_chars: int) -> None:
    """Raises ValueError if the value that the events make would be out of bounds."""
    limit = _MAX_GROWTH * text_chars + _FREE_CHARS
    known: dict[str, int] = {}
    open_sizes, open_anchors = [0], [""]
    for event in events:
        match event:
            case yaml.AliasEvent():
                if event.anchor in open_anchors:
                    raise ValueError(f"*{event.anchor} refers to a value that holds it")
                open_sizes[-1] += known.get(event.anchor or "", 1)
            case yaml.ScalarEvent():
                _check_number(event)
                size = len(event.value) + 1
                open_sizes[-1] += size
                known |= {event.anchor: size} if event.anchor else {}
            case yaml.CollectionStartEvent():
                open_sizes.append(1)
                open_anchors.append(event.anchor or "")
                if len(open_sizes) > _MAX_DEPTH:
                    raise ValueError("nested too deep")
            case yaml.CollectionEndEvent():
                size, anchor = open_sizes.pop(), open_anchors.pop()
                open_sizes[-1] += size
                known |= {anchor: size} if anchor else {}
        if open_sizes[-1] > limit:
            raise ValueError(f"its aliases unfold to more than {limit} characters")


def _check_number(event: Any) -> None:
    if event.style is None or event.style == "":
        text = event.value
        if len(text) > _MAX_DIGITS and _NUMBER.fullmatch(text):
            raise ValueError(f"a number of {len(text)} digits")
    if event.tag is not None and len(event.value) > _MAX_DIGITS and event.tag.endswith(_NUMBERS):
        raise ValueError(f"a number of {len(event.value)} digits")


_NUMBERS = (":int", ":float")


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(name): _plain(item) for name, item in value.items()}
        case list() | tuple() | set():
            return [_plain(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
    return str(value)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


_ENDINGS = re.compile(r"(?:\.(?:traj|jsonl?|ya?ml|parquet|txt))+$")


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object with its place, so that what is wrong in it can be named.

    ``path`` leads from the record to this object, empty for the record itself. A field that
    is null counts as missing. Every method raises BrokenRecord and nothing else.
    """

    values: Mapping[str, Any]
    where: str
    path: str = ""

    @classmethod
    def of(cls, value: object, where: str, path: str = "") -> Fields:
        """The value as an object. Raises BrokenRecord where it is none."""
        if not isinstance(value, Mapping):
            raise BrokenRecord(where, path, f"expected an object, found {describe_type(value)}")
        return cls(value, where, path)

    @property
    def file_name(self) -> str:
        """What to call a record that has no id of its own.

        >>> Fields({}, "runs/a__b-1.traj.json").file_name, Fields({}, "runs/all.jsonl:3").file_name
        ('a__b-1', 'all-3')
        """
        return name_record(self.where)

    @property
    def is_whole_file(self) -> bool:
        """Whether the record is its file, and not a line or a row of it."""
        return not self.where.rpartition(":")[2].isdecimal()

    def broken(self, name: str, why: str) -> BrokenRecord:
        """The exception to raise about the field ``name``."""
        return BrokenRecord(self.where, self._path(name), why)

    def get(self, name: str) -> Any:
        """The value as it is; None where it is missing."""
        return self.values.get(name)

    def text(self, name: str) -> str:
        """A text that has to be there; it may be empty."""
        value = self.optional_text(name)
        if value is None:
            raise self.broken(name, "missing")
        return value

    def optional_text(self, name: str) -> str | None:
        """A text, or None where it is missing."""
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            raise self.broken(name, f"expected a text, found {describe_type(value)}")
        return value

    def optional_bool(self, name: str) -> bool | None:
        """True or false, also as 0 and 1; None where it is missing."""
        value = self.get(name)
        if value is not None and value not in (0, 1):
            raise self.broken(name, f"expected true or false, found {describe_type(value)}")
        return None if value is None else bool(value)

    def optional_int(self, name: str) -> int | None:
        """A whole number, or None where it is missing."""
        value = self.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise self.broken(name, f"expected a whole number, found {describe_type(value)}")
        return value

    def parsed(self, name: str) -> Any:
        """The value, or what it says in JSON where it is a text."""
        value = self.get(name)
        if not isinstance(value, str):
            return value
        try:
            return parse_json(value)
        except ValueError as error:
            raise self.broken(name, f"not JSON ({error})") from None

    def mapping(self, name: str) -> Fields:
        """An object, also as JSON text; an empty one where it is missing."""
        value = self.parsed(name)
        return Fields.of({} if value is None else value, self.where, self._path(name))

    def items(self, name: str) -> list[Fields]:
        """The objects of a list, also as JSON text; none where it is missing."""
        value = self.parsed(name)
        path = self._path(name)
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            raise BrokenRecord(self.where, path, f"expected a list, found {describe_type(value)}")
        return [Fields.of(item, self.where, f"{path}.{i}") for i, item in enumerate(value)]

    def content(self, name: str = "content") -> str:
        """The text of a chat message: one text, or a list of parts; empty where missing.

        Parts that are no text (images) are left out.
        """
        value = self.get(name)
        if isinstance(value, list | tuple):
            return "".join(self._part(name, i, part) for i, part in enumerate(value))
        return self.optional_text(name) or ""

    def _part(self, name: str, index: int, part: object) -> str:
        if isinstance(part, str):
            return part
        return (
            Fields.of(part, self.where, f"{self._path(name)}.{index}").optional_text("text") or ""
        )

    def _path(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def name_record(where: str) -> str:
    """The file's name without its endings, and the line or row of it."""
    file, _, line = where.rpartition(":")
    numbered = bool(file) and line.isdecimal()
    name = PurePath(file if numbered else where).name
    return (_ENDINGS.sub("", name) or where) + (f"-{line}" if numbered else "")


def parse_json(text: str) -> Any:
    """The value; ValueError for whatever is wrong with it, too deep a nesting included.

    Halves of surrogate pairs, which JSON can spell and UTF-8 cannot, are replaced by "?".
    """
    try:
        value = json.loads(text)
        if "\\ud" in text or "\\uD" in text:
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value


def render_arguments(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Arguments of a tool as :class:`~srl_swe.types.Action` holds them.

    A value that is no text becomes its JSON; null means not given, as for the tools.

    >>> render_arguments({"command": "view", "view_range": [1, 50], "old_str": None})
    {'command': 'view', 'view_range': '[1, 50]'}
    """
    return {
        str(name): value if isinstance(value, str) else _json_text(value)
        for name, value in arguments.items()
        if value is not None
    }


def _json_text(value: object) -> str:
    """Dates and the like, which YAML and tables have and JSON has not, become texts."""
    return json.dumps(value, ensure_ascii=False, default=str)


def describe_type(value: object) -> str:
    """What JSON calls the value's type, for messages.

    >>> describe_type([1]), describe_type(None), describe_type("x")
    ('a list', 'null', 'a text')
    """
    kinds: list[tuple[type | tuple[type, ...], str]] = [
        (str, "a text"),
        (bool, "true or false"),
        ((int, float), "a number"),
        ((list, tuple), "a list"),
        (Mapping, "an object"),
    ]
    if value is None:
        return "null"
    return next((name for kind, name in kinds if isinstance(value, kind)), type(value).__name__)
