"""Path patterns such as `/users/{id:int}/files/{name}`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from minirouter.errors import BuildError

_PLACEHOLDER = re.compile(r"\{(\w+)(?::(\w+))?\}")


@dataclass(frozen=True)
class Converter:
    """What a placeholder matches, and how its value is read and written."""

    regex: str
    parse: Callable[[str], object]
    format: Callable[[object], str]


CONVERTERS: dict[str, Converter] = {
    "str": Converter(r"[^/]+", unquote, lambda value: quote(str(value), safe="")),
    "int": Converter(r"[0-9]+", int, str),
    "path": Converter(r".+", unquote, lambda value: quote(str(value), safe="/")),
}


@dataclass(frozen=True)
class _Placeholder:
    name: str
    converter: Converter


class Pattern:
    """A path with placeholders: `{name}`, `{name:int}` or, across slashes, `{name:path}`.

    >>> Pattern("/users/{id:int}").match("/users/7")
    {'id': 7}
    >>> Pattern("/tags/{tag}").build({"tag": "c#"})
    '/tags/c%23'
    """

    def __init__(self, text: str) -> None:
        if not text.startswith("/"):
            raise ValueError(f"a pattern starts with a slash: {text!r}")
        self.text = text
        self._parts = _parse(text)
        self._placeholders = [p for p in self._parts if isinstance(p, _Placeholder)]
        self._regex = re.compile("".join(map(_part_regex, self._parts)))

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    @property
    def names(self) -> list[str]:
        """The names of the placeholders, from left to right."""
        return [placeholder.name for placeholder in self._placeholders]

    def match(self, path: str) -> dict[str, object] | None:
        """The values in a (percent-encoded) path, or None where it does not match."""
        match = self._regex.fullmatch(path)
        if match is None:
            return None
        return {p.name: p.converter.parse(match[p.name]) for p in self._placeholders}

    def build(self, params: Mapping[str, object]) -> str:
        """The path with these values, percent-encoded."""
        return "".join(
            part if isinstance(part, str) else self._fill(part, params) for part in self._parts
        )

    def _fill(self, placeholder: _Placeholder, params: Mapping[str, object]) -> str:
        name, converter = placeholder.name, placeholder.converter
        if name not in params:
            raise BuildError(f"{self.text} needs a value for {name!r}")
        text = converter.format(params[name])
        if not re.fullmatch(converter.regex, text):
            raise BuildError(f"{self.text} cannot have {params[name]!r} for {name!r}")
        return text


def _parse(text: str) -> list[str | _Placeholder]:
    """Split a pattern into literal texts and placeholders."""
    parts: list[str | _Placeholder] = []
    position = 0
    for match in _PLACEHOLDER.finditer(text):
        kind = match[2] or "str"
        if kind not in CONVERTERS:
            known = ", ".join(CONVERTERS)
            raise ValueError(f"{text!r}: unknown converter {kind!r}; known: {known}")
        parts.append(text[position : match.start()])
        parts.append(_Placeholder(match[1], CONVERTERS[kind]))
        position = match.end()
    parts.append(text[position:])
    return parts


def _part_regex(part: str | _Placeholder) -> str:
    if isinstance(part, str):
        return re.escape(part)
    return f"(?P<{part.name}>{part.converter.regex})"
