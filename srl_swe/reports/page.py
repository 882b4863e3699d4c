"""Self-contained HTML pages: no script, nothing fetched, all text escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jinja2 import Environment
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table of texts, for a page or a terminal; the first cell of a row is its heading."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def draw(self, title: str, texts: int = 1) -> Table:
        """Draw it for a terminal; all but the first ``texts`` columns are aligned as numbers."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title)
        for number, column in enumerate(self.columns):
            justify: Literal["left", "right"] = "left" if number < texts else "right"
            table.add_column(Text(column), justify=justify, overflow="fold")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table

    def markdown(self) -> str:
        """Write it for a document."""
        rule = "|---" + "|---:" * (len(self.columns) - 1) + "|"
        head, *rows = ("| " + " | ".join(row) + " |" for row in (self.columns, *self.rows))
        return "\n".join([head, rule, *rows])


@dataclass(frozen=True, slots=True)
class Mark:
    """An outcome in a table of instances.

    ``href``: the address of its episode, empty if none. ``label`` stands before the outcome.
    """

    outcome: str
    href: str = ""
    label: str = ""
    detail: str = ""


Hrefs = Mapping[tuple[str, str], str]
"""Addresses of episodes by the column and the instance of a table."""


@dataclass(frozen=True, slots=True)
class Way:
    """A link to another page, with a sentence about it."""

    title: str
    href: str
    about: str


def counted(number: int, noun: str, plural: str = "") -> str:
    """The number with its noun; ``plural`` if an s is not enough. Templates can call it too.

    >>> counted(1, "seed"), counted(3, "instance"), counted(0, "reply", "replies")
    ('1 seed', '3 instances', '0 replies')
    """
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def first_names(names: Sequence[str], most: int) -> str:
    """The first names, and the number of the others.

    >>> first_names(["a", "b", "c"], 2), first_names(["a"], 2)
    ('a, b and 1 more', 'a')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


_PICTURES = {
    **{code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"},
    0x7F: "\u2421",
    **{
        code: f"<U+{code:04X}>"  # as in view/static/text.js
        for first, last in (
            *((0x80, 0x9F), (0x061C, 0x061C), (0x200B, 0x200F), (0x202A, 0x202E)),
            *((0x2060, 0x2069), (0xFEFF, 0xFEFF)),
        )
        for code in range(first, last + 1)
    },
}


def visible(text: str) -> str:
    r"""The text with control characters, and those of writing direction or no width, made visible.

    >>> visible("\x1b[31mred\tmore")
    '␛[31mred\tmore'
    """
    return text.translate(_PICTURES)


def cut_long(text: str, most: int) -> str:
    r"""The text with control characters visible, without its middle if it is longer than ``most``.

    >>> cut_long("abcdef", 4)
    'ab\n[2 characters left out]\nef'
    """
    shown, half = visible(text), most // 2
    if len(shown) <= most:
        return shown
    return f"{shown[:half]}\n[{len(shown) - 2 * half:,} characters left out]\n{shown[-half:]}"


def render_page(template: str, **view: Any) -> str:
    """Fill in ``templates/TEMPLATE``. Raises jinja2.UndefinedError if ``view`` lacks a name.

    Surrogates that stand for no byte, as in a policy's JSON, are replaced: no file can hold them.
    """
    html = templates("srl_swe.reports").get_template(template).render(view)
    return re.sub("[\ud800-\udc7f\udd00-\udfff]", "\ufffd", html)


@cache
def templates(package: str, folder: str = "templates") -> Environment:
    """The templates in a folder of a package."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package, folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["counted"] = counted
    return environment
