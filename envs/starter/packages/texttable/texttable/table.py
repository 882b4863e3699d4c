"""A table: typed columns, rows, and how they become text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from texttable.styles import PLAIN, Style
from texttable.width import Align, display_width, pad, truncate

Row = tuple[Any, ...]

_MIN_WIDTH = 3  # of a Markdown rule


@dataclass(frozen=True)
class Column:
    """A header, and how the cells below it look.

    `format` is a format spec such as `.2f`. Cells wider than `max_width` are cut.
    """

    header: str
    align: Align = "left"
    format: str = ""
    max_width: int | None = None

    def text(self, value: object) -> str:
        """A value as it is shown: on one line, None blank."""
        if value is None:
            return ""
        text = " ".join(format(value, self.format).splitlines())
        return text if self.max_width is None else truncate(text, self.max_width)


class Table:
    """Rows of values under columns.

    >>> table = Table(["name", Column("size", align="right")])
    >>> table.add_row("a.txt", 120)
    >>> table.add_row("bc.txt", 7)
    >>> print(table)
    name    size
    ------  ----
    a.txt    120
    bc.txt     7
    """

    def __init__(self, columns: Iterable[Column | str]) -> None:
        self.columns = [Column(c) if isinstance(c, str) else c for c in columns]
        self._rows: list[Row] = []
        if not self.columns:
            raise ValueError("a table needs at least one column")

    @classmethod
    def from_dicts(
        cls, records: Sequence[Mapping[str, object]], columns: Iterable[Column | str] = ()
    ) -> Table:
        """A row per record. Without `columns`, every key is one, in order of appearance."""
        keys = dict.fromkeys(key for record in records for key in record)
        table = cls(list(columns) or keys)
        for record in records:
            table.add_row(*(record.get(column.header) for column in table.columns))
        return table

    @property
    def rows(self) -> list[Row]:
        return list(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __str__(self) -> str:
        return self.render()

    def add_row(self, *cells: object) -> None:
        """Append a row. Cells that are left out are blank."""
        if len(cells) > len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        blanks = (None,) * (len(self.columns) - len(cells))
        self._rows.append(cells + blanks)

    def sort_by(self, header: str, reverse: bool = False) -> None:
        """Sort the rows by one column. Rows that tie stay in order; blank ones come last."""
        index = self._index(header)
        blank = [row for row in self._rows if row[index] is None]
        filled = [row for row in self._rows if row[index] is not None]
        filled.sort(key=lambda row: row[index], reverse=reverse)
        self._rows = filled + blank

    def render(self, style: Style = PLAIN) -> str:
        """The whole table as text, without a newline at the end."""
        header = [style.escape(column.header) for column in self.columns]
        body = [self._cells(row, style) for row in self._rows]
        widths = [max(_MIN_WIDTH, *map(display_width, texts)) for texts in zip(header, *body)]
        aligns = [column.align for column in self.columns]

        rule = style.rule(widths, aligns)
        lines = [
            style.line([pad(*cell) for cell in zip(cells, widths, aligns)])
            for cells in [header, *body]
        ]
        lines.insert(1, rule)
        if style.framed:
            lines = [rule, *lines, rule]
        return "\n".join(lines)

    def _index(self, header: str) -> int:
        for index, column in enumerate(self.columns):
            if column.header == header:
                return index
        raise KeyError(header)

    def _cells(self, row: Row, style: Style) -> list[str]:
        return [style.escape(c.text(value)) for c, value in zip(self.columns, row)]
