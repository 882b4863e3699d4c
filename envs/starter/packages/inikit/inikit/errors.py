"""What can go wrong.

InikitError
 +- ParseError    the text is no INI document
 +- MissingKey    a section or key is not there (also a KeyError)
 +- WrongType     a value does not read as the asked type (also a ValueError)
"""

from __future__ import annotations


class InikitError(Exception):
    """The parent of every error of this package."""


class ParseError(InikitError):
    """A line could not be read. `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line


class MissingKey(InikitError, KeyError):
    """There is no such section or key."""

    def __str__(self) -> str:  # KeyError would quote the message
        return str(self.args[0])


class WrongType(InikitError, ValueError):
    """The value does not read as the type that was asked for."""
