"""Reading JSON that others wrote: every value is checked, and a wrong one is named.

row = Fields.of(record, "runs.jsonl:17")
for message in row.items("messages"):
    message.text("role")     # raises "runs.jsonl:17: messages.3.role: missing."
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from srl_swe.trajectories.broken_record import BrokenRecord

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
            raise BrokenRecord(where, path, f"expected an object, found {kind_of(value)}")
        return cls(value, where, path)

    @property
    def file_name(self) -> str:
        """What to call a record that has no id of its own.

        >>> Fields({}, "runs/a__b-1.traj.json").file_name, Fields({}, "runs/all.jsonl:3").file_name
        ('a__b-1', 'all-3')
        """
        return name_of(self.where)

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
            raise self.broken(name, f"expected a text, found {kind_of(value)}")
        return value

    def optional_bool(self, name: str) -> bool | None:
        """True or false, also as 0 and 1; None where it is missing."""
        value = self.get(name)
        if value is not None and value not in (0, 1):
            raise self.broken(name, f"expected true or false, found {kind_of(value)}")
        return None if value is None else bool(value)

    def optional_int(self, name: str) -> int | None:
        """A whole number, or None where it is missing."""
        value = self.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise self.broken(name, f"expected a whole number, found {kind_of(value)}")
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
            raise BrokenRecord(self.where, path, f"expected a list, found {kind_of(value)}")
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


def name_of(where: str) -> str:
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


def argument_texts(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Arguments of a tool as :class:`~srl_swe.types.Action` holds them.

    A value that is no text becomes its JSON; null means not given, as for the tools.

    >>> argument_texts({"command": "view", "view_range": [1, 50], "old_str": None})
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


def kind_of(value: object) -> str:
    """What JSON calls the value's type, for messages.

    >>> kind_of([1]), kind_of(None), kind_of("x")
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
