"""This machine's git without its settings, and repositories made by it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from srl_swe.errors import UserError
from srl_swe.files import written_whole

_PERSON = "srl-swe <srl-swe@example.invalid> 946684800 +0000"
_BRANCH = "refs/heads/main"
_CLONE_TIMEOUT_S = 1800.0
_PLAIN = [
    option
    for name in ("hooksPath", "attributesFile", "excludesFile")
    for option in ("-c", f"core.{name}=/dev/null")
] + ["-c", "core.autocrlf=false"]


class GitFailed(UserError):
    """Git ended with an error, or took too long."""


def git_output(
    folder: str | Path,
    *arguments: str,
    stdin: bytes = b"",
    timeout_s: float = 120.0,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """Git's output in ``folder``, without this machine's hooks, filters and attributes.

    Raises GitFailed, or UserError if git is not installed.
    """
    ours = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    ours |= {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        "LC_ALL": "C",
        **environment,
    }
    command = f"git {' '.join(arguments[:4])}"
    try:
        done = subprocess.run(
            ["git", *_PLAIN, *arguments],
            cwd=folder,
            env=ours,
            input=stdin,
            capture_output=True,
            check=True,
            timeout=timeout_s,
        )
    except NotADirectoryError as error:
        raise GitFailed(f"{folder} is not a folder") from error
    except FileNotFoundError as error:
        if not Path(folder).exists():
            raise GitFailed(f"{folder} does not exist") from error
        raise UserError("git is not installed on this machine: apt-get install git") from error
    except subprocess.TimeoutExpired as error:
        raise GitFailed(f"{command} took more than {timeout_s:.0f} s") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1][:300] if lines else "no reason given"
        raise GitFailed(f"{command} failed: {reason}") from error
    return done.stdout


def run_git(folder: Path, *arguments: str, stdin: bytes = b"", timeout_s: float = 120.0) -> str:
    """:func:`git_output` as text."""
    output = git_output(folder, *arguments, stdin=stdin, timeout_s=timeout_s)
    return output.decode("utf-8", "surrogateescape")


def make_repository(files: Mapping[str, tuple[bool, bytes]], message: str, folder: Path) -> str:
    """Make a git repository of one commit in ``folder``, checked out; the commit's id.

    Equal files and an equal message have an equal id on every machine. ``folder`` appears whole.
    """
    with written_whole(folder) as scratch:
        scratch.mkdir()
        run_git(scratch, "init", "--quiet", "--initial-branch=main", "--template=")
        stream = b"".join(_fast_import(files, message))
        run_git(scratch, "fast-import", "--quiet", "--done", stdin=stream)
        run_git(scratch, "reset", "--quiet", "--hard", "main")
        return run_git(scratch, "rev-parse", "HEAD").strip()


def _fast_import(files: Mapping[str, tuple[bool, bytes]], message: str) -> Iterator[bytes]:
    text = message.encode()
    yield f"commit {_BRANCH}\nauthor {_PERSON}\ncommitter {_PERSON}\n".encode()
    yield b"data %d\n%s\n" % (len(text), text)
    for path in sorted(files):
        executable, data = files[path]
        quoted = "".join(f"\\{byte:03o}" for byte in path.encode())
        yield f'M {"100755" if executable else "100644"} inline "{quoted}"\n'.encode()
        yield b"data %d\n%s\n" % (len(data), data)
    yield b"done\n"


def clone_at(repository: str, commit: str, folder: Path) -> None:
    """Clone a repository (a folder or a URL) into ``folder`` with ``commit`` checked out.

    No hook or submodule of it is executed or fetched. ``folder`` appears whole. Raises UserError.
    """
    with written_whole(folder) as scratch:
        run_git(
            folder.parent,
            *("-c", "protocol.ext.allow=never", "clone", "--quiet", "--no-checkout"),
            *("--template=", "--no-hardlinks", "--", repository, str(scratch)),
            timeout_s=_CLONE_TIMEOUT_S,
        )
        try:
            run_git(scratch, "cat-file", "-e", f"{commit}^{{commit}}")
        except UserError:  # not on a branch, as the commit of a pull request
            run_git(scratch, "fetch", "--quiet", "origin", commit, timeout_s=_CLONE_TIMEOUT_S)
        run_git(scratch, "checkout", "--quiet", "--detach", commit)


def is_clean(folder: Path, commit: str) -> bool:
    """True if ``folder`` is a repository with ``commit`` checked out and nothing else changed."""
    try:
        return run_git(folder, "rev-parse", "HEAD").strip() == commit and not run_git(
            folder, "status", "--porcelain", "--ignored"
        )
    except (UserError, OSError):
        return False
