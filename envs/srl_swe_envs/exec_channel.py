"""The attached pipes of a process in a container, over the engine's exec socket."""

from __future__ import annotations

import select
import socket
import struct
from contextlib import suppress
from typing import Any

import docker
import requests

_SEND_TIMEOUT_S = 60.0
_HEADER = struct.Struct(">BxxxL")
"""Of a frame: the stream, and how many bytes follow."""


class AttachedExec:
    """A process of root's in a container, and the socket that carries its input and output."""

    def __init__(
        self, api: docker.APIClient, container_id: str, command: list[str], *, tty: bool = False
    ) -> None:
        created = api.exec_create(container_id, command, stdin=True, tty=tty, user="0")
        self.exec_id = str(created["Id"])
        stream: Any = api.exec_start(self.exec_id, tty=tty, socket=True)
        self.socket: socket.socket = stream._sock
        self._answer: requests.Response = stream._response

    def close(self) -> None:
        """Hang up; the engine then closes the process's stdin. A second call does nothing."""
        with suppress(OSError):  # the engine may have hung up first
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        # Not only the innermost stream, which is all that the docker package returns: the parts
        # around it then fail when they are collected, and Python 3.13 prints that.
        self._answer.close()


class ExecChannel:
    """``bash -c script`` as root, as a :class:`srl_swe_envs.shell_connection.Channel`."""

    def __init__(self, api: docker.APIClient, container_id: str, command: list[str]) -> None:
        self._process = AttachedExec(api, container_id, command)
        self._socket = self._process.socket
        self._socket.settimeout(_SEND_TIMEOUT_S)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._buffer = bytearray()
        self._stream, self._frame_bytes_left = 0, 0

    def send(self, data: bytes) -> None:
        """Write all of it to stdin."""
        self._socket.sendall(data)

    def receive(self, timeout_s: float) -> tuple[int, bytes]:
        """What has arrived of the next frame."""
        while True:
            if not self._frame_bytes_left and len(self._buffer) >= _HEADER.size:
                self._stream, self._frame_bytes_left = _HEADER.unpack_from(self._buffer)
                del self._buffer[: _HEADER.size]
            if self._frame_bytes_left and self._buffer:
                return self._stream, self._take()
            if not self._poll.poll(timeout_s * 1000):
                raise TimeoutError
            received = self._socket.recv(2**16)
            if not received:
                raise EOFError("the engine has closed the pipes")
            self._buffer += received

    def close(self) -> None:
        """Hang up; the engine then closes the process's stdin."""
        self._process.close()

    def _take(self) -> bytes:
        data = bytes(self._buffer[: self._frame_bytes_left])
        del self._buffer[: len(data)]
        self._frame_bytes_left -= len(data)
        return data
