"""Fields of TRL's dataclasses, read as TRL's own scripts read them from a command line."""

from __future__ import annotations

import enum
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import yaml
from trl.scripts.utils import TrlParser

from srl_swe.errors import UserError
from srl_swe.training.recipes.fields import (
    as_number,
    field_names,
    is_number,
    kinds_of,
    refuse_unknown,
)

_UNSET = object()
_TRUTHS = {"true", "false", "yes", "no"}


class TrlFields:
    """The fields of ``record``, one of TRL's dataclasses.

    Texts are for TRL's parser to convert, with what it lacks: a list for whatever may hold one
    (``--report_to wandb tensorboard``), YAML for lists and dicts (``'{dtype: bfloat16}'``), 2.0
    or 1e3 for a whole number, and a text where a field takes texts beside true and false.
    """

    def __init__(self, record: Any) -> None:
        self._hints = get_type_hints(record)
        self._parser = _Parser([record], allow_abbrev=False, add_help=False)
        self.names = field_names(record)

    def field_of(self, option: str) -> str | None:
        """The field behind ``learning_rate``, ``learning-rate`` or ``no_shuffle_dataset``."""
        name = option.replace("-", "_")
        return next((one for one in (name, name.removeprefix("no_")) if one in self.names), None)

    def read(self, option: str, words: Sequence[str], where: str) -> Any:
        """The value of the field that ``--option word ...`` sets; UserError if it can't be one."""
        name = self.field_of(option)
        if name is None:
            refuse_unknown([option], self.names, where)
            raise AssertionError(option)
        hint, where = self._hints[name], f"{where}: {name}"
        if len(words) == 1 and _is_none(words[0], hint):
            return None
        if len(words) == 1 and _is_structured(words[0], hint):
            return _yaml(words[0], where)
        if len(words) == 1 and is_number(hint):
            return as_number(words[0], hint, where)
        if len(words) == 1 and {str, bool} <= kinds_of(hint) and words[0].lower() not in _TRUTHS:
            return words[0]
        if len(words) > 1 and _holds(hint, list):
            return [item for word in words for item in _as_list(self._parse(option, [word], where))]
        return self._parse(option, words, where)

    def convert(self, name: str, value: Any, where: str) -> Any:
        """The value that YAML gave, its texts read as above; others are TRL's to judge."""
        hint = self._hints[name]
        if isinstance(value, str):
            return self.read(name, [value], where)
        if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
            return self.read(name, value, where)
        if value is False and any(isinstance(kind, enum.EnumMeta) for kind in kinds_of(hint)):
            return self.read(name, ["no"], where)  # what YAML 1.1 makes of `save_strategy: no`
        return as_number(value, hint, f"{where}: {name}")

    def section(self, section: Any, where: str) -> dict[str, Any]:
        """A section of a recipe that holds such fields. UserError for whatever can't be one."""
        if not isinstance(section, dict):
            raise UserError(f"{where} must hold `name: value` lines, not {section!r}.")
        refuse_unknown(section, self.names, where)
        return {name: self.convert(name, value, where) for name, value in section.items()}

    def _parse(self, option: str, words: Sequence[str], where: str) -> Any:
        given = Namespace(**dict.fromkeys(self.names, _UNSET))
        line = [f"--{option}={words[0]}"] if len(words) == 1 else [f"--{option}", *words]
        try:
            _, rest = self._parser.parse_known_args(line, given)
        except _Refused as refusal:
            raise UserError(f"{where}: {refusal}.") from None
        found = [value for value in vars(given).values() if value is not _UNSET]
        if rest or len(found) != 1:
            raise UserError(f"{where} takes one value, not {' '.join(words)!r}.")
        return found[0]


class _Refused(ValueError):
    """What argparse would have printed before it ended the process."""


class _Parser(TrlParser):
    def error(self, message: str) -> NoReturn:
        """``argument --name/-n: invalid ...`` without its first half, which the caller says."""
        said = message.partition(": ")[2] if message.startswith("argument ") else message
        raise _Refused(said or message)


def _is_none(text: str, hint: Any) -> bool:
    """Whether it means None; where a text may stand, ``none`` can be a word like any other."""
    is_word = str in kinds_of(hint) and not _holds(hint, dict)
    return text.lower() in {"none", "null"} and type(None) in get_args(hint) and not is_word


def _is_structured(text: str, hint: Any) -> bool:
    return text.lstrip().startswith(("{", "[")) and (_holds(hint, dict) or _holds(hint, list))


def _holds(hint: Any, container: type[Any]) -> bool:
    return any(container in (kind, get_origin(kind)) for kind in kinds_of(hint))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"{where}: {text!r} is no YAML.") from None
