"""The table of routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from minirouter.errors import BuildError, MethodNotAllowed, NotFound
from minirouter.pattern import Pattern
from minirouter.query import build_query

Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)


@dataclass(frozen=True)
class Route:
    """A handler, and the paths and methods it is for."""

    name: str
    pattern: Pattern
    methods: frozenset[str]
    handler: Handler


@dataclass(frozen=True)
class Match:
    """The route of a request, and the values in its path."""

    route: Route
    params: dict[str, object]

    def call(self) -> Any:
        """Call the handler with the values as keyword arguments."""
        return self.route.handler(**self.params)


class Router:
    """Finds the route of a path, and the path of a route. The first match wins.

    >>> router = Router()
    >>> @router.route("/users/{id:int}")
    ... def user(id):
    ...     return f"user {id}"
    >>> router.match("GET", "/users/7").call()
    'user 7'
    >>> router.url_for("user", {"id": 7, "tab": "posts"})
    '/users/7?tab=posts'
    """

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes.values())

    def __len__(self) -> int:
        return len(self._routes)

    def add(
        self,
        path: str,
        handler: Handler,
        methods: Iterable[str] = ("GET",),
        name: str | None = None,
    ) -> Route:
        """Add a route, by default named like its handler. Names are unique."""
        name = name or handler.__name__
        if name in self._routes:
            raise ValueError(f"there is a route {name!r} already")
        upper = frozenset(method.upper() for method in methods)
        route = Route(name, Pattern(path), upper, handler)
        self._routes[name] = route
        return route

    def route(
        self, path: str, methods: Iterable[str] = ("GET",), name: str | None = None
    ) -> Callable[[H], H]:
        """Add the decorated function as a route."""

        def decorate(handler: H) -> H:
            self.add(path, handler, methods, name)
            return handler

        return decorate

    def include(self, prefix: str, other: Router) -> None:
        """Add every route of another router, its paths and names below `prefix`."""
        for route in other:
            name = f"{prefix.strip('/')}.{route.name}"
            self.add(prefix + route.pattern.text, route.handler, route.methods, name)

    def match(self, method: str, path: str) -> Match:
        """The first route for this method and path. HEAD goes where GET goes.

        Raises NotFound or MethodNotAllowed.
        """
        wanted = "GET" if method.upper() == "HEAD" else method.upper()
        allowed: set[str] = set()
        for route in self:
            params = route.pattern.match(path)
            if params is None:
                continue
            if wanted in route.methods:
                return Match(route, params)
            allowed |= route.methods
        if allowed:
            raise MethodNotAllowed(method, path, allowed)
        raise NotFound(path)

    def url_for(self, name: str, params: dict[str, object] | None = None) -> str:
        """The URL of a route. Params that its path does not use become the query."""
        if name not in self._routes:
            raise BuildError(f"there is no route {name!r}")
        pattern = self._routes[name].pattern
        rest = dict(params or {})
        used = {key: rest.pop(key) for key in pattern.names if key in rest}
        return pattern.build(used) + build_query(rest)
