"""Reading YAML of strangers in bounded time and memory, as the values that JSON has.

A few hundred bytes of YAML can unfold to billions of values by aliases, hold themselves, or
spell a number that takes hours to convert. The events of the text, which unfold nothing, are
measured first; only then is a value made of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

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
