"""The pipes of a process in a container, over a socket of the engine: an exec's or PID 1's."""

from __future__ import annotations

import select
import socket
import struct
from contextlib import suppress
from typing import Any, Self

import docker
import requests

_SEND_TIMEOUT_S = 60.0
_HEADER = struct.Struct(">BxxxL")
"""Of a frame: the stream, and how many bytes follow."""


class EngineSocket:
    """The socket that carries the input and the output of a process in a container."""

    def __init__(self, stream: Any) -> None:
        """``stream`` is what the docker package returns for a socket."""
        self.socket: socket.socket = stream._sock
        self._answer: requests.Response = stream._response

    def close(self) -> None:
        """Hang up; the engine then closes the stdin of an exec, and keeps that of PID 1.

        A second call does nothing.
        """
        with suppress(OSError):  # the engine may have hung up first
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        # Not only the innermost stream, which is all that the docker package returns: the parts
        # around it then fail when they are collected, and Python 3.13 prints that.
        self._answer.close()


class AttachedExec(EngineSocket):
    """A new process of root's in a container."""

    def __init__(
        self, api: docker.APIClient, container_id: str, command: list[str], *, tty: bool = False
    ) -> None:
        created = api.exec_create(container_id, command, stdin=True, tty=tty, user="0")
        self.exec_id = str(created["Id"])
        super().__init__(api.exec_start(self.exec_id, tty=tty, socket=True))


class EngineChannel:
    """A :class:`srl_swe_envs.shell_connection.Channel` to a process of a container."""

    def __init__(self, process: EngineSocket) -> None:
        self._process = process
        self._socket = process.socket
        self._socket.settimeout(_SEND_TIMEOUT_S)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._buffer = bytearray()
        self._stream, self._frame_bytes_left = 0, 0

    @classmethod
    def of_new_process(cls, api: docker.APIClient, container_id: str, command: list[str]) -> Self:
        """Start ``command`` as root in the container."""
        return cls(AttachedExec(api, container_id, command))

    @classmethod
    def of_first_process(cls, api: docker.APIClient, container_id: str) -> Self:
        """Attach to PID 1; only its output from now on is received."""
        streams = {"stdin": 1, "stdout": 1, "stream": 1}
        return cls(EngineSocket(api.attach_socket(container_id, params=streams)))

    def send(self, data: bytes) -> None:
        """Write all of it to stdin."""
        self._socket.sendall(data)

    def receive(self, timeout_s: float) -> tuple[int, bytes]:
        """Return the stream and the bytes that have arrived of the next frame."""
        while True:
            if not self._frame_bytes_left and len(self._buffer) >= _HEADER.size:
                self._stream, self._frame_bytes_left = _HEADER.unpack_from(self._buffer)
                del self._buffer[: _HEADER.size]
            if self._frame_bytes_left and self._buffer:
                return self._stream, self._take()
            if not self._poll.poll(timeout_s * 1000):
                raise TimeoutError("the process has not answered in time")
            received = self._socket.recv(2**16)
            if not received:
                raise EOFError("the engine has closed the pipes")
            self._buffer += received

    def close(self) -> None:
        """Hang up. A second call does nothing."""
        self._process.close()

    def _take(self) -> bytes:
        data = bytes(self._buffer[: self._frame_bytes_left])
        del self._buffer[: len(data)]
        self._frame_bytes_left -= len(data)
        return data
