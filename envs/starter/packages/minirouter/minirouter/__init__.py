"""Match URL paths to handlers, and build them back."""

from minirouter.errors import BuildError, MethodNotAllowed, NotFound, RouterError
from minirouter.pattern import Pattern
from minirouter.query import build_query, parse_query
from minirouter.router import Match, Route, Router

__all__ = [
    "BuildError",
    "Match",
    "MethodNotAllowed",
    "NotFound",
    "Pattern",
    "Route",
    "Router",
    "RouterError",
    "build_query",
    "parse_query",
]
