"""Self-contained HTML pages: no script, nothing fetched, all text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table of texts; the first cell of a row is its heading."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def render_page(template: str, **view: Any) -> str:
    """Fill in ``templates/TEMPLATE``. Raises jinja2.UndefinedError if ``view`` lacks a name."""
    return _environment().get_template(template).render(view)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("srl_swe.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
