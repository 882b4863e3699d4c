"""What can go wrong.

RouterError
 +- NotFound           no route has this path           (404)
 +- MethodNotAllowed   a route has, for other methods   (405)
 +- BuildError         no URL can be built
"""

from __future__ import annotations

from collections.abc import Iterable


class RouterError(Exception):
    """The parent of every error of this package."""


class NotFound(RouterError):
    """No route matches the path."""

    def __init__(self, path: str) -> None:
        super().__init__(f"no route matches {path}")
        self.path = path


class MethodNotAllowed(RouterError):
    """The path is known, but not for this method. `allowed` are those it is known for."""

    def __init__(self, method: str, path: str, allowed: Iterable[str]) -> None:
        self.allowed = sorted(allowed)
        super().__init__(f"{method} {path}: only {', '.join(self.allowed)}")


class BuildError(RouterError):
    """The route is unknown, or a parameter is missing or does not fit."""
