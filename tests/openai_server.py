"""A scripted OpenAI-compatible server: each request takes the next answer of the script."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One answer. ``body``: a mapping for JSON, or raw text; ``after_s``: seconds to wait.

    ``is_cut``: the connection ends in the middle of the body.
    """

    body: Mapping[str, Any] | str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    after_s: float = 0.0
    is_cut: bool = False


def reply(text: str | None, finish: str = "stop", **message: Any) -> Answer:
    """A chat completion of 11 tokens in, 7 out."""
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text, **message},
        "text": text,
    }
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    return Answer({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage})


def refusal(status: int, message: str, code: str = "", **headers: str) -> Answer:
    """An error in OpenAI's form."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer({"error": {"message": message, "code": code}}, status, names)


class _Http(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """A client that was killed or has timed out is not worth a traceback."""


class OpenAiServer:
    """Serves ``models`` and the script; ``requests`` holds paths and bodies in order."""

    def __init__(self, *script: Answer, models: list[dict[str, Any]] | None = None) -> None:
        self.models = [{"id": "m", "object": "model"}] if models is None else models
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.keys: list[str] = []
        self.tokens_of: Any = None
        """Called with the messages of a request to ``/tokenize``; None: it has no such path."""
        self._script = iter(script)
        self._lock = threading.Lock()
        self._http = _Http(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def bodies(self) -> list[dict[str, Any]]:
        """The bodies of the requests for replies."""
        return [body for path, body in self.requests if path.endswith("completions")]

    def answer(self, path: str, body: dict[str, Any]) -> Answer:
        """The answer to a request."""
        if path == "/v1/models":
            return Answer({"object": "list", "data": self.models})
        with self._lock:
            if path == "/tokenize" and self.tokens_of is None:
                return refusal(404, "not found")
            self.requests.append((path, body))
            if path == "/tokenize":
                return Answer({"count": self.tokens_of(body.get("messages", []))})
            return next(self._script, refusal(400, "the script is over"))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.keys.append(self.headers["Authorization"])
                self._send(server.answer(self.path, {}))

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                self._send(server.answer(self.path, json.loads(self.rfile.read(length))))

            def _send(self, answer: Answer) -> None:
                time.sleep(answer.after_s)
                is_text = isinstance(answer.body, str)
                raw = str(answer.body).encode() if is_text else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                self.send_header("Content-Type", "text/html" if is_text else "application/json")
                self.send_header("Content-Length", str(len(raw)))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw[: len(raw) // 2] if answer.is_cut else raw)
                self.close_connection = self.close_connection or answer.is_cut

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    @contextmanager
    def running(self) -> Iterator[OpenAiServer]:
        """Answer requests inside the block."""
        thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()
