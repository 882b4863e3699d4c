"""Extensions by name: ``module:attribute``, or an entry point of an installed package.

Nothing is imported before the user names it. docs/extending.md has an example of each kind.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from operator import attrgetter
from typing import Any, Literal, TypeVar, cast

from srl_swe.errors import UserError, did_you_mean

Kind = Literal["reward", "dialect", "reader", "sandbox", "tool", "domain"]
GROUPS: Mapping[Kind, str] = {
    "reward": "srl_swe.rewards",
    "dialect": "srl_swe.dialects",
    "reader": "srl_swe.readers",
    "sandbox": "srl_swe.sandboxes",
    "tool": "srl_swe.tools",
    "domain": "srl_swe.domains",
}
"""The group of entry points of each kind."""
Extension = TypeVar("Extension")


def find_named(
    kind: Kind,
    name: str,
    known: Mapping[str, Extension],
    *,
    needs: Sequence[str] = (),
    listed: Sequence[str] = (),
) -> Extension:
    """Look a name up among ``known``, in the module that it names, or among entry points.

    ``module:attribute`` is imported from ``sys.path`` or the current folder; ``module:`` is the
    module itself. ``needs``: attributes that an extension must have; without any it must be
    callable. ``listed``: further known names, for the message. Raises UserError for an
    unknown or unsuitable name.
    """
    if name in known:
        return known[name]
    found = _import(kind, name) if ":" in name else _entry_point(kind, name, [*known, *listed])
    if lacking := [attribute for attribute in needs if not hasattr(found, attribute)]:
        raise UserError(f"{kind} {name}: lacks {', '.join(lacking)} (docs/extending.md).")
    if not needs and not callable(found):
        raise UserError(f"{kind} {name}: not callable (docs/extending.md).")
    return cast("Extension", found)


def _import(kind: Kind, name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")] if part):
        raise UserError(f"{kind} {name}: write MODULE:NAME, such as my_module:my_{kind}.")
    if "" not in sys.path and os.getcwd() not in sys.path:  # noqa: PTH109 - compared as text
        sys.path.append(os.getcwd())  # noqa: PTH109
    try:
        found = importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and module.startswith(f"{error.name}"):
            why = f"no module {error.name!r} in the current folder or on PYTHONPATH"
        else:
            why = f"its import failed: {type(error).__name__}: {error}"
        raise UserError(f"{kind} {name}: {why}.") from error
    if not attribute:
        return found
    try:
        return attrgetter(attribute)(found)
    except AttributeError:
        hint = did_you_mean(attribute, vars(found))
        raise UserError(f"{kind} {name}: {module} has no {attribute!r}.{hint}") from None


def _entry_point(kind: Kind, name: str, known: Sequence[str]) -> Any:
    installed = entry_points(group=GROUPS[kind])
    if name in installed.names:
        try:
            return installed[name].load()
        except Exception as error:
            package = installed[name].dist
            raise UserError(
                f"{kind} {name}, of {package.name if package else 'an installed package'}: its "
                f"import failed: {type(error).__name__}: {error}."
            ) from error
    names = [*known, *sorted(installed.names)]
    hint = did_you_mean(name, names)
    raise UserError(f"unknown {kind} {name!r}.{hint} Known: {', '.join([*names, 'MODULE:NAME'])}.")
