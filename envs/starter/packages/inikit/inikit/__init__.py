"""Read, change and write INI files."""

from inikit.document import Document, Section
from inikit.errors import InikitError, MissingKey, ParseError, WrongType
from inikit.reader import load, loads
from inikit.writer import dumps, save

__all__ = [
    "Document",
    "InikitError",
    "MissingKey",
    "ParseError",
    "Section",
    "WrongType",
    "dumps",
    "load",
    "loads",
    "save",
]
