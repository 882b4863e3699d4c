"""What is drawn around the cells."""

from __future__ import annotations

from dataclasses import dataclass

from texttable.width import Align

Marks = tuple[str, str, str]


@dataclass(frozen=True)
class Style:
    """The strings that make up the lines of a table.

    `cells` and `rules` stand left of, between and right of the cells and of the dashes.
    A `framed` table has a rule on top and at the bottom too. `colons` show how columns
    are aligned, the Markdown way. Characters of `escaped` get a backslash.
    """

    cells: Marks
    rules: Marks
    framed: bool = False
    colons: bool = False
    escaped: str = ""

    def escape(self, text: str) -> str:
        for char in self.escaped:
            text = text.replace(char, "\\" + char)
        return text

    def line(self, texts: list[str]) -> str:
        return _enclose(texts, self.cells).rstrip()

    def rule(self, widths: list[int], aligns: list[Align]) -> str:
        """The line below the header."""
        if self.colons:
            texts = [_colons(width, align) for width, align in zip(widths, aligns)]
        else:
            texts = ["-" * width for width in widths]
        return _enclose(texts, self.rules)


def _enclose(texts: list[str], marks: Marks) -> str:
    left, between, right = marks
    return left + between.join(texts) + right


def _colons(width: int, align: Align) -> str:
    """Dashes with a colon on the side that texts are aligned to, on both for centred ones."""
    start = ":" if align == "center" else "-"
    stop = "-" if align == "left" else ":"
    return start + "-" * (width - 2) + stop


PLAIN = Style(cells=("", "  ", ""), rules=("", "  ", ""))
GRID = Style(cells=("| ", " | ", " |"), rules=("+-", "-+-", "-+"), framed=True)
MARKDOWN = Style(cells=("| ", " | ", " |"), rules=("| ", " | ", " |"), colons=True, escaped="\\|")
