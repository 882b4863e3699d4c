"""Judges what stands in a recipe, field by field, and makes records of its sections."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_type_hints

from srl_swe.context_window import Window
from srl_swe.dialects import DIALECTS, Strictness
from srl_swe.errors import UserError
from srl_swe.rewards.outcome import TEST_REWARDS
from srl_swe.rewards.table import STEP_REWARDS, weight_shares
from srl_swe.rollout import Limits
from srl_swe.training.recipes.fields import (
    as_number,
    kinds_of,
    one_of,
    refuse_unknown,
    typed_section,
)
from srl_swe.training.recipes.records import (
    Alarms,
    DynamicSampling,
    Overlong,
    Setting,
    StepMetric,
    Validation,
    ValidationInstances,
)

SECTIONS: Mapping[str, type[Any]] = {
    "dynamic_sampling": DynamicSampling,
    "validation": Validation,
    "instances": ValidationInstances,
    "limits": Limits,
    "window": Window,
    "alarms": Alarms,
}
"""Sections of ours; those of TRL's are ``trainer`` and ``model_config``."""

CHOICES: Mapping[str, Iterable[str]] = {
    "dialect": DIALECTS,
    "strictness": get_args(Strictness),
    "overlong": get_args(Overlong),
    "setting": get_args(Setting),
    "reward": TEST_REWARDS,
    "metric": [*get_args(StepMetric), "resolved"],
}

_SIMPLE = {str: "a text", bool: "true or false"}

MAY_BE_ZERO = {"epsilon", "max_rounds", "pairs", "completions_every", "format_rate"}


def read_field(value: Any, field: dataclasses.Field[Any], hint: Any, where: str) -> Any:
    """The value that a field of a recipe or section takes; UserError for one that it can't."""
    where = f"{where}: {field.name}"
    if field.name in SECTIONS:
        return _record(value, field, where)
    if value is None:
        if type(None) not in get_args(hint):
            raise UserError(f"{where} must not be null.")
        return None
    if field.name in CHOICES:
        one_of(value, CHOICES[field.name], where)
        return value
    if field.name == "rewards":
        return _rewards(value, where)
    for kind, meaning in _SIMPLE.items():
        if kinds_of(hint) == {kind} and not isinstance(value, kind):
            raise UserError(f"{where} must be {meaning}, not {value!r}.")
    value = as_number(value, hint, where)
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_sign(value, field.name, where)
    return value


def _record(section: Any, field: dataclasses.Field[Any], where: str) -> Any:
    """The section over the field's default; a null or false one is the default."""
    made = field.default_factory
    default: Any = field.default if made is dataclasses.MISSING else made()
    if not section:
        return default
    record = SECTIONS[field.name]
    values = typed_section(section, record, where)
    hints = get_type_hints(record)
    for part in dataclasses.fields(record):
        if part.name in values:
            values[part.name] = read_field(values[part.name], part, hints[part.name], where)
        elif default is None and _is_required(part):
            raise UserError(f"{where} lacks {part.name}.")
    return record(**values) if default is None else dataclasses.replace(default, **values)


def _is_required(part: dataclasses.Field[Any]) -> bool:
    return part.default is part.default_factory is dataclasses.MISSING


def _rewards(section: Any, where: str) -> dict[str, float]:
    """Weights by name, as they were written."""
    if not isinstance(section, dict):
        raise UserError(f"{where} must hold `name: weight` lines, not {section!r}.")
    refuse_unknown(section, STEP_REWARDS, where)
    weights: dict[str, float] = {}
    for name, value in section.items():
        if value is None:
            raise UserError(f"{where}: {name} has no weight.")
        weights[name] = as_number(value, float, f"{where}: {name}")
    weight_shares(weights)
    return weights


def _check_sign(number: float, name: str, where: str) -> None:
    if name in MAY_BE_ZERO:
        if not number >= 0:  # neither is NaN
            raise UserError(f"{where} must be 0 or more, not {number}.")
    elif not number > 0:
        raise UserError(f"{where} must be more than 0, not {number}.")
