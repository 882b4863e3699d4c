"""An INI document in memory: ordered sections of ordered keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TypeVar

from inikit.errors import MissingKey, WrongType

T = TypeVar("T")

_BOOLEANS = {
    **dict.fromkeys(("1", "yes", "true", "on"), True),
    **dict.fromkeys(("0", "no", "false", "off"), False),
}


class Section(MutableMapping[str, str]):
    """The keys of one section. Names of keys ignore case; values are strings."""

    def __init__(self, name: str, values: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._values: dict[str, str] = {}
        self.update(values or {})

    def __getitem__(self, key: str) -> str:
        try:
            return self._values[key.lower()]
        except KeyError:
            raise MissingKey(f"no key {key!r} in section [{self.name}]") from None

    def __setitem__(self, key: str, value: str) -> None:
        self._values[key.lower()] = value

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise MissingKey(f"no key {key!r} in section [{self.name}]")
        del self._values[key.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Section({self.name!r}, {self._values!r})"

    def get_int(self, key: str, default: int | None = None) -> int:
        return self._convert(key, int, "an integer", default)

    def get_float(self, key: str, default: float | None = None) -> float:
        return self._convert(key, float, "a number", default)

    def get_bool(self, key: str, default: bool | None = None) -> bool:
        """Read yes/no, true/false, on/off or 1/0, in any case."""
        return self._convert(key, lambda text: _BOOLEANS[text.lower()], "a boolean", default)

    def get_list(self, key: str, default: list[str] | None = None) -> list[str]:
        """Read comma-separated items; empty ones are left out."""
        return self._convert(key, _split, "a list", default)

    def _convert(self, key: str, convert: Callable[[str], T], kind: str, default: T | None) -> T:
        """The converted value; `default` where the key is missing, unless that is None."""
        if default is not None and key not in self:
            return default
        text = self[key]
        try:
            return convert(text)
        except (KeyError, ValueError):
            raise WrongType(f"[{self.name}] {key}: {text!r} is not {kind}") from None


class Document:
    """Sections by name, in the order they were added. `""` holds keys before any section."""

    def __init__(self) -> None:
        self._sections: dict[str, Section] = {}

    def __getitem__(self, name: str) -> Section:
        try:
            return self._sections[name]
        except KeyError:
            raise MissingKey(f"no section [{name}]") from None

    def __contains__(self, name: str) -> bool:
        return name in self._sections

    def __iter__(self) -> Iterator[Section]:
        return iter(self._sections.values())

    def __len__(self) -> int:
        return len(self._sections)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Document):
            return NotImplemented
        return self.as_dict() == other.as_dict()

    def section(self, name: str) -> Section:
        """The section of that name, added if it is not there."""
        return self._sections.setdefault(name, Section(name))

    def remove(self, name: str) -> None:
        if self._sections.pop(name, None) is None:
            raise MissingKey(f"no section [{name}]")

    def merge(self, other: Document) -> None:
        """Take over every key of `other`; its values win."""
        for section in other:
            self.section(section.name).update(section)

    def as_dict(self) -> dict[str, dict[str, str]]:
        return {section.name: dict(section) for section in self}


def _split(text: str) -> list[str]:
    items = (item.strip() for item in text.split(","))
    return [item for item in items if item]
