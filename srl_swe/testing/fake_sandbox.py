"""A sandbox for tests: files in memory, answers by script, no process anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from srl_swe.errors import SandboxDied
from srl_swe.sandbox import DEFAULT_TIMEOUT_S, ExecResult

PATCH_FILE = "/tmp/.srl_swe.patch"
"""The file with the sandbox's patch."""
Answer = Callable[[str], ExecResult]


def _silence(_command: str) -> ExecResult:
    return ExecResult("", 0)


class FakeSandbox:
    """Keeps ``files``, remembers ``commands``, and answers each with ``answer(command)``.

    It runs nothing: by default every command succeeds and prints nothing. Folders exist if they
    contain files. An answer may raise SandboxError.
    """

    def __init__(self, answer: Answer = _silence, files: Mapping[str, bytes] | None = None) -> None:
        self._answer = answer
        self.files: dict[str, bytes] = dict(files or {})
        self.commands: list[str] = []
        self.closed = False

    def exec(
        self, command: str, timeout_s: float = DEFAULT_TIMEOUT_S, keep_state: bool = True
    ) -> ExecResult:
        """The script's answer; ``timeout_s`` and ``keep_state`` are ignored."""
        self._check_open()
        self.commands.append(command)
        return self._answer(command)

    def read_file(self, path: str) -> bytes:
        """The file's bytes. Raises FileNotFoundError or IsADirectoryError."""
        self._check_open()
        if path in self.files:
            return self.files[path]
        if self._is_folder(path):
            raise IsADirectoryError(path)
        raise FileNotFoundError(path)

    def write_file(self, path: str, data: bytes) -> None:
        """Keep the bytes. Raises IsADirectoryError."""
        self._check_open()
        if self._is_folder(path):
            raise IsADirectoryError(path)
        self.files[path] = bytes(data)

    def own_patch(self, base_commit: str, workdir: str) -> str | None:
        """The text of :data:`PATCH_FILE`; None without that file, or if the answer to git fails."""
        answer = self.exec(f"command git -C {workdir} diff {base_commit}")
        if answer.exit_code != 0 or PATCH_FILE not in self.files:
            return None
        return self.files[PATCH_FILE].decode("utf-8", "surrogateescape")

    def close(self) -> None:
        """Refuse all further calls, like a removed container."""
        self.closed = True

    def _is_folder(self, path: str) -> bool:
        return any(name.startswith(path.rstrip("/") + "/") for name in self.files)

    def _check_open(self) -> None:
        if self.closed:
            raise SandboxDied("the sandbox is closed; open another")
