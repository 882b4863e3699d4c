"""Checks one section of a recipe against the dataclass that it fills."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable
from typing import Any, Union, get_args, get_origin, get_type_hints

from srl_swe.errors import UserError, did_you_mean


def field_names(record: type[Any]) -> list[str]:
    """The fields that the dataclass takes."""
    return [field.name for field in dataclasses.fields(record) if field.init]


def refuse_unknown(names: Iterable[object], known: Iterable[str], where: str) -> None:
    """Raise UserError, with the nearest known name, for a name that is not known."""
    known = list(known)
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"{where}: unknown field {name!r}.{hint}")


def one_of(value: object, allowed: Iterable[str], where: str) -> None:
    """Raise UserError unless the value is one of those allowed."""
    allowed = list(allowed)
    if value not in allowed:
        raise UserError(f"{where} is {value!r}; it must be one of {', '.join(allowed)}.")


def typed_section(section: Any, record: type[Any], where: str) -> dict[str, Any]:
    """The section with its numbers as numbers: YAML 1.1 reads ``5e-7`` as a text.

    Other types are left to ``record`` to judge.
    """
    if not isinstance(section, dict):
        raise UserError(f"{where} must hold `name: value` lines, not {section!r}.")
    refuse_unknown(section, field_names(record), where)
    hints = get_type_hints(record)
    return {
        name: as_number(value, hints[name], f"{where}: {name}") for name, value in section.items()
    }


def kinds_of(hint: Any) -> set[Any]:
    """The types that a hint allows, None aside."""
    is_union = get_origin(hint) in (Union, types.UnionType)
    return (set(get_args(hint)) if is_union else {hint}) - {types.NoneType}


def is_number(hint: Any) -> bool:
    """Whether only a number will do."""
    return kinds_of(hint) <= {int, float}


def as_number(value: Any, hint: Any, where: str) -> Any:
    """The value, converted if ``hint`` says that only a number will do."""
    if value is None or not is_number(hint):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(f"{where} must be a number, not {value!r}.") from None
    kinds = kinds_of(hint)
    if kinds == {float}:
        return number
    if number.is_integer():
        return int(number)
    if kinds == {int}:
        raise UserError(f"{where} must be a whole number, not {value!r}.")
    return number
