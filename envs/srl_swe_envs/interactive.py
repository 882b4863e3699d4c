"""A shell in a sandbox for a person at a terminal: ``docker exec -it``, or a bash of this machine.

It starts in the folder and with the exports of the sandbox's own shell.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
from collections.abc import Sequence
from pathlib import Path

from srl_swe.errors import UserError
from srl_swe.sandbox import Sandbox
from srl_swe_envs.docker import DockerSandbox
from srl_swe_envs.engine import setup_script
from srl_swe_envs.local import LocalSandbox

_RC_FILE = "/tmp/.srl_swe.shellrc"
_SHELL = ("bash", "--noprofile", "--rcfile")


def check_terminal(*, needs_docker: bool) -> None:
    """Raises UserError without a terminal, or if a docker sandbox's shell has no client."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("--shell needs a terminal: run it in one, without a pipe.")
    if needs_docker and shutil.which("docker") is None:
        raise UserError(
            "--shell runs `docker exec`, but there is no program `docker` on PATH: install the "
            f"client (`sh {setup_script()}`, or your distribution's docker-cli)."
        )


def open_shell(sandbox: Sandbox, label: str) -> None:
    """Run an interactive bash in the sandbox until it ends; ``label`` appears in its prompt.

    In a local sandbox the folders have their real names. Raises UserError for a sandbox that is
    neither docker nor local or for a missing terminal or client, and SandboxError.
    """
    check_terminal(needs_docker=isinstance(sandbox, DockerSandbox))
    if isinstance(sandbox, DockerSandbox):
        columns, rows = os.get_terminal_size(sys.stdin.fileno())
        # The client may send the size before there is a terminal inside, and then gives up.
        size = f"stty rows {rows} cols {columns} 2>/dev/null\nrm -f {_RC_FILE}\n"
        sandbox.write_file(_RC_FILE, _rc(sandbox.restore, label) + size.encode())
        into = ("docker", "exec", "-it", "--user", "0", sandbox.container_id)
        _run([*into, *_SHELL, _RC_FILE, "-i"])
    elif isinstance(sandbox, LocalSandbox):
        with tempfile.NamedTemporaryFile(prefix="srl-swe-") as rc_file:
            Path(rc_file.name).write_bytes(_rc(sandbox.restore, label))
            _run([*_SHELL, rc_file.name, "-i"])
    else:
        raise UserError("only docker and local sandboxes can open an interactive shell.")


def _run(command: Sequence[str]) -> None:
    """Run it at this terminal, and always restore the terminal's modes."""
    terminal = sys.stdin.fileno()
    modes = termios.tcgetattr(terminal)
    with subprocess.Popen(command) as process:
        try:
            process.wait()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGHUP)  # an interactive bash ignores SIGTERM
                process.wait()
            # A killed shell may still own the terminal; this call would then stop us.
            before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            termios.tcsetattr(terminal, termios.TCSADRAIN, modes)
            signal.signal(signal.SIGTTOU, before)


def _rc(restore: bytes, label: str) -> bytes:
    """The start-up file: the state to continue from, then settings for interactive use."""
    terminal = shlex.quote(os.environ.get("TERM", "xterm"))
    prompt = shlex.quote(rf"({label}) \w \$ ")
    return restore + f"\nexport TERM={terminal}\nPS1={prompt}\nunset HISTFILE\n".encode()
