"""Plain-text tables for terminals and Markdown."""

from texttable.styles import GRID, MARKDOWN, PLAIN, Style
from texttable.table import Column, Table
from texttable.width import display_width, pad, truncate

__all__ = [
    "GRID",
    "MARKDOWN",
    "PLAIN",
    "Column",
    "Style",
    "Table",
    "display_width",
    "pad",
    "truncate",
]
