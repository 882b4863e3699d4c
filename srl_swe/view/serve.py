"""A live page of running folders, served to this machine alone.

Every address begins with a random word, as other users of the machine reach its ports too. Only
GET and HEAD are answered, and only for a loopback name in ``Host``, which a page of another site
can't send by a name of its own. Other sites can neither read nor load anything from here.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from srl_swe.errors import UserError
from srl_swe.progress import say
from srl_swe.view.collect import Sources, collect
from srl_swe.view.page import write_page

_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
_TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass
class LivePage:
    """The page of the paths in a temporary folder, rebuilt on request if a file has changed.

    ``look_s``: minimum pause between two looks at the folders; ``share``: maximum share of time
    spent on looks and rebuilds. ``version`` counts the rebuilds, from 1; the files of the version
    before stay for pages that still show it. ``problem`` is the mistake of the last rebuild, as a
    run may be half written; empty if it succeeded.
    """

    paths: Sequence[Path]
    sources: Sources
    title: str
    folder: Path
    clock: Callable[[], float] = time.monotonic
    look_s: float = 1.0
    share: float = 0.1
    version: int = 0
    problem: str = ""
    _seen: object = None
    _next_look: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refresh(self) -> int:
        """Rebuild the page if it is due and a file has changed; returns the version.

        A request during a rebuild gets the version before. Raises UserError if the first one fails.
        """
        if not self._lock.acquire(blocking=self.version == 0):
            return self.version
        try:
            started = self.clock()
            if started >= self._next_look:
                found = tuple(_stamps(self.paths))
                if found != self._seen:
                    self._rebuild()
                    self._seen = found
                ended = self.clock()
                self._next_look = ended + max(self.look_s, (ended - started) * (1 / self.share - 1))
        finally:
            self._lock.release()
        return self.version

    def _rebuild(self) -> None:
        number = self.version + 1
        try:
            items = collect(self.paths, self.sources)
            write_page(items, self.page(number), self.title, version=number)
        except UserError as error:
            if self.version == 0:
                raise
            if self.problem != str(error):
                say(f"the page stays as it is: {error}")
            self.problem = str(error)
            return
        self.version, self.problem = number, ""
        old = self.page(number - 2)
        old.unlink(missing_ok=True)
        shutil.rmtree(old.with_name(f"{old.stem}-data"), ignore_errors=True)

    def page(self, version: int) -> Path:
        """The file of a version's page."""
        return self.folder / f"v{version}.html"

    def find(self, name: str) -> Path | None:
        """The file with that address below the random word; None if it is missing."""
        if name == "":
            return self.page(self.version)
        path = self.folder / name
        parts = Path(name).parts
        is_chunk = len(parts) == 2 and parts[0].endswith("-data") and ".." not in parts
        return path if is_chunk and path.suffix == ".js" and path.is_file() else None


def _stamps(paths: Sequence[Path]) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of each file that can belong to a page."""
    for path in paths:
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.suffix in {".jsonl", ".json", ".parquet", ".traj"}:
                try:
                    held = file.stat()
                except OSError:  # it was replaced meanwhile
                    continue
                yield str(file), held.st_size, held.st_mtime_ns


class _Handler(BaseHTTPRequestHandler):
    """Answers for :class:`LiveServer`."""

    server: LiveServer
    server_version, sys_version = "srl-swe", ""

    def do_GET(self) -> None:
        """Send the page, its version, or a chunk of its data."""
        if self._host() not in _HOSTS:
            return self._send(HTTPStatus.FORBIDDEN, b"The host in the address is not this machine.")
        if self.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            return self._send(HTTPStatus.FORBIDDEN, b"Open this page by its own address.")
        word, slash, name = unquote(urlsplit(self.path).path).removeprefix("/").partition("/")
        if not slash or not secrets.compare_digest(word.encode(), self.server.word.encode()):
            return self._send(HTTPStatus.NOT_FOUND, b"Open the address that the command printed.")
        live = self.server.live
        if name == "version":
            return self._send(HTTPStatus.OK, str(live.refresh()).encode())
        if name == "":
            live.refresh()
        file = live.find(name)
        if file is None:
            return self._send(HTTPStatus.NOT_FOUND, b"There is nothing at this address.")
        return self._send(HTTPStatus.OK, file.read_bytes(), _TYPES[file.suffix])

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self.close_connection = True  # its body is not read
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, b"Pages here can only be read.")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse

    def _host(self) -> str:
        host = self.headers.get("Host", "")
        return host if host.endswith("]") else host.rpartition(":")[0] or host

    def _send(
        self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8"
    ) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if not kind.startswith("text/html"):  # a page has its own policy
            self.send_header("Content-Security-Policy", "default-src 'none'; sandbox")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


class LiveServer(ThreadingHTTPServer):
    """Serves a live page on 127.0.0.1."""

    daemon_threads = True

    def __init__(self, live: LivePage, port: int = 0) -> None:
        """Raises UserError if the port is in use; 0 takes a free one."""
        self.live, self.word = live, secrets.token_urlsafe(16)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            why = f"port {port} can't be used ({error.strerror})"
            raise UserError(f"{why}; name another one with --port.") from error

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.server_address[1]}/{self.word}/"


@contextmanager
def opened_server(
    paths: Sequence[Path], sources: Sources, title: str, port: int = 0
) -> Iterator[LiveServer]:
    """A server with the first version of its page; closed on leaving.

    Raises UserError if there is nothing to show or the port can't be used.
    """
    with tempfile.TemporaryDirectory(prefix="srl-swe-view-") as folder:
        live = LivePage(paths, sources, title, Path(folder))
        live.refresh()
        with LiveServer(live, port) as server:
            yield server
