"""Fakes for the seams and the contract suite for sandboxes; public, for your tests too.

The fakes keep files in memory and answer by script, without a process.

``from srl_swe.testing.sandbox_contract import *`` in a test module with a fixture
``open_sandbox`` runs that suite. It needs pytest and is therefore not imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from srl_swe.errors import SandboxDied
from srl_swe.rollout.episode import Completion
from srl_swe.sandbox import DEFAULT_TIMEOUT_S, ExecResult
from srl_swe.types import Message

__all__ = ["FakeSandbox", "ScriptedPolicy"]


PATCH_FILE = "/tmp/.srl_swe.patch"
"""The file with the sandbox's patch."""
Answer = Callable[[str], ExecResult]


class FakeSandbox:
    """Keeps ``files``, remembers ``commands``, and answers each with ``answer(command)``.

    It runs nothing: by default every command succeeds and prints nothing. Folders exist if they
    contain files. An answer may raise SandboxError.
    """

    def __init__(
        self,
        answer: Answer = lambda _: ExecResult("", 0),
        files: Mapping[str, bytes] | None = None,
    ) -> None:
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


class ScriptedPolicy:
    """Gives the replies in order; a prompt after the last one raises AssertionError."""

    name = "scripted"

    def __init__(self, replies: Iterable[str]) -> None:
        self._replies = iter(list(replies))
        self.prompts: list[list[Message]] = []

    def reply(self, messages: Sequence[Message]) -> Completion:
        """The next reply of the script."""
        self.prompts.append(list(messages))
        text = next(self._replies, None)
        if text is None:
            raise AssertionError(f"the script is over, but reply {len(self.prompts)} was asked for")
        return Completion(text, self.count_tokens(messages), len(text))

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """One token per character."""
        return sum(len(message["content"]) for message in messages)

    def with_seed(self, seed: int) -> ScriptedPolicy:
        """Itself: the script does not depend on a seed."""
        return self
