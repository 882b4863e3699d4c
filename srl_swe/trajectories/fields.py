"""Reads JSON and YAML of other programs: every value is checked, and errors name the wrong one.

row = Fields.of(record, "runs.jsonl:17")
for message in row.items("messages"):
message.text("role")     # raises "runs.jsonl:17: messages.3.role: missing."
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml

from srl_swe.errors import UserError
from srl_swe.types import Trajectory


class BrokenRecord(UserError):
    """A record can't be read as a trajectory: the only exception of readers.

    ``where`` is a file, or a file and a line (``runs.jsonl:17``); ``field`` is the path to the
    wrong value (``messages.3.role``), empty if the record as a whole is wrong.
    """

    def __init__(self, where: str, field: str, why: str) -> None:
        super().__init__(f"{where}: {field}: {why}." if field else f"{where}: {why}.")
        self.where = where
        self.field = field
        self.why = why


@dataclass(frozen=True, slots=True)
class Reader:
    """The reader of one source format. A record is one parsed JSON value."""

    name: str
    """Becomes ``Trajectory.source``."""
    recognizes: Callable[[Any], bool]
    """Whether a record looks like this format. Cheap; never raises."""
    read: Callable[[Any, str], Trajectory]
    """Reads a record at a place, such as ``runs.jsonl:17``. Raises only BrokenRecord."""


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object and its place, for error messages.

    ``path`` leads from the record to this object; it is empty for the record itself. A null
    field counts as missing. Methods raise only BrokenRecord.
    """

    values: Mapping[str, Any]
    where: str
    path: str = ""

    @classmethod
    def of(cls, value: object, where: str, path: str = "") -> Fields:
        """The value as an object. Raises BrokenRecord if it is something else."""
        if not isinstance(value, Mapping):
            raise BrokenRecord(where, path, f"expected an object, found {describe_type(value)}")
        return cls(value, where, path)

    @classmethod
    def of_record(cls, record: object, where: str, list_field: str = "messages") -> Fields:
        """The reader of an object, or of the bare list that ``list_field`` would hold."""
        return cls.of({list_field: record} if isinstance(record, list) else record, where)

    def broken(self, name: str, why: str) -> BrokenRecord:
        """The exception to raise about the field ``name``."""
        return BrokenRecord(self.where, self._path(name), why)

    def get(self, name: str) -> Any:
        """The unchecked value; None if it is missing."""
        return self.values.get(name)

    def text(self, name: str) -> str:
        """A required text; it may be empty."""
        value = self.optional_text(name)
        if value is None:
            raise self.broken(name, "missing")
        return value

    def optional_text(self, name: str) -> str | None:
        """A text, or None if it is missing."""
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            raise self.broken(name, f"expected a text, found {describe_type(value)}")
        return value

    def optional_bool(self, name: str) -> bool | None:
        """True or false, also as 1 and 0; None if it is missing."""
        value = self.get(name)
        if value is not None and value not in (0, 1):
            raise self.broken(name, f"expected true or false, found {describe_type(value)}")
        return None if value is None else bool(value)

    def optional_int(self, name: str) -> int | None:
        """A whole number, or None if it is missing."""
        value = self.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise self.broken(name, f"expected a whole number, found {describe_type(value)}")
        if value is not None and not -_LARGEST <= value < _LARGEST:
            raise self.broken(name, "a number beyond 64 bits")
        return value

    def parsed(self, name: str) -> Any:
        """The value; a text is parsed as JSON, and an empty one is missing."""
        value = self.get(name)
        if not value or not isinstance(value, str):
            return None if value == "" else value
        try:
            return parse_json(value)
        except ValueError as error:
            raise self.broken(name, f"not JSON ({error})") from None

    def mapping(self, name: str) -> Fields:
        """An object, also as JSON text; an empty one if it is missing."""
        value = self.parsed(name)
        return Fields.of({} if value is None else value, self.where, self._path(name))

    def items(self, name: str) -> list[Fields]:
        """The objects of a list, also as JSON text; empty if it is missing."""
        value = self.parsed(name)
        path = self._path(name)
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            raise BrokenRecord(self.where, path, f"expected a list, found {describe_type(value)}")
        return [Fields.of(item, self.where, f"{path}.{i}") for i, item in enumerate(value)]

    def content(self, name: str = "content") -> str:
        """The text of a chat message: one text, or a list of parts; empty if it is missing.

        Parts without text (images) are left out.
        """
        value = self.get(name)
        if not isinstance(value, list | tuple):
            return self.optional_text(name) or ""
        path = self._path(name)
        parts = (
            part
            if isinstance(part, str)
            else Fields.of(part, self.where, f"{path}.{i}").optional_text("text")
            for i, part in enumerate(value)
        )
        return "".join(part for part in parts if part)

    def _path(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


_LARGEST = 2**63


def first_has(items: object, *names: str) -> bool:
    """Whether the first item of a list is an object with these fields."""
    first = items[0] if isinstance(items, list) and items else None
    return isinstance(first, Mapping) and first.keys() >= set(names)


_ENDINGS = re.compile(r"(?:\.(?:traj|jsonl?|ya?ml|parquet|txt|gz))+$")


def name_record(where: str) -> str:
    """The file's name without its endings, with the line or row if there is one.

    >>> name_record("runs/a__b-1.traj.json"), name_record("runs/all.jsonl:3")
    ('a__b-1', 'all-3')
    """
    file, _, line = where.rpartition(":")
    numbered = bool(file) and line.isdecimal()
    name = PurePath(file if numbered else where).name
    return (_ENDINGS.sub("", name) or where) + (f"-{line}" if numbered else "")


def parse_json(text: str) -> Any:
    """Parse JSON. Raises ValueError for any fault, too deep nesting included.

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
    """The arguments of a tool as :class:`~srl_swe.types.Action` holds them.

    A value of another type becomes JSON (dates and the like become texts); null means not given.

    >>> render_arguments({"command": "view", "view_range": [1, 50], "old_str": None})
    {'command': 'view', 'view_range': '[1, 50]'}
    """
    return {
        str(name): value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False, default=str)
        for name, value in arguments.items()
        if value is not None
    }


_TYPES = (
    (type(None), "null"),
    (str, "a text"),
    (bool, "true or false"),
    ((int, float), "a number"),
    ((list, tuple), "a list"),
    (Mapping, "an object"),
)


def describe_type(value: object) -> str:
    """JSON's name for the value's type, for messages.

    >>> describe_type([1]), describe_type(None), describe_type("x")
    ('a list', 'null', 'a text')
    """
    names = (name for kind, name in _TYPES if isinstance(value, kind))
    return next(names, type(value).__name__)


def first_line(error: Exception) -> str:
    """The first line of the error's message, else its type."""
    return (str(error).splitlines() or [type(error).__name__])[0]


# A few hundred bytes of YAML can unfold to billions of values through aliases, contain
# themselves, or spell a number that takes hours to convert. The events of the text, which
# unfold nothing, are measured before a value is made of them.

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 200
_FREE_CHARS = 4_000_000
_MAX_GROWTH = 4
"""Aliases may unfold to this many times the text, and to ``_FREE_CHARS`` in any case."""
_MAX_DIGITS = 3000
"""Python itself refuses to write integers of more than 4300 digits; these may be hexadecimal."""
_NUMBER = re.compile(r"[-+]?[0-9][0-9a-fA-F_xob:.]*")
_NUMBER_TAGS = (":int", ":float")


def parse_yaml(text: str) -> Any:
    """Parse YAML into JSON's types, in bounded time and memory; dates and keys become texts.

    Raises ValueError if the text is not YAML, is nested too deep, contains itself, unfolds to
    far more than its size, or holds a number of thousands of digits.
    """
    try:
        _measure(yaml.parse(text, Loader=_LOADER), len(text))
        return _plain(yaml.load(text, Loader=_LOADER))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from None
    except (LookupError, AttributeError, ArithmeticError):  # of PyYAML's constructors
        raise ValueError("not YAML: a tagged value is not of its kind") from None


def _measure(events: Iterator[Any], text_chars: int) -> None:
    """Raises ValueError if the value of the events would be out of bounds."""
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
                size = len(event.value) + 1
                if len(event.value) > _MAX_DIGITS and (
                    (not event.style and _NUMBER.fullmatch(event.value))
                    or (event.tag or "").endswith(_NUMBER_TAGS)
                ):
                    raise ValueError(f"a number of {len(event.value)} digits")
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


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(name): _plain(item) for name, item in value.items()}
        case list() | tuple() | set():
            return [_plain(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
    return str(value)
