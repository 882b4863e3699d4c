"""Undoes what a patch did to files that would run inside the test runner rather than be tested.

A policy whose reward is the tests soon finds that a ``conftest.py`` can make them pass. Only
rewards do without such files: a verdict that is reported is swebench's own, on the whole patch.

Files are looked at, not the patch: git and GNU patch read so many forms, and a policy's own git
may write any of them, that no text tells for sure what will be written where.
"""

from __future__ import annotations

import re
import shlex

from srl_swe.errors import SandboxError
from srl_swe.sandbox import Sandbox

RUNNER_HOOKS = (
    "conftest.py",
    "pytest.ini",
    ".pytest.ini",
    "pytest.toml",
    ".pytest.toml",
    "sitecustomize.py",
    "usercustomize.py",
)
"""Files that Python or pytest loads by itself, wherever they lie.

Settings in ``setup.cfg``, ``tox.ini`` and ``pyproject.toml`` stay: honest fixes edit them.
"""
_BACKUP = "/tmp/.srl_swe_hooks.tar"
_NAMED = " -o ".join(f"-name {name}" for name in RUNNER_HOOKS)
_FIND = rf"find . -path ./.git -prune -o \( {_NAMED} \)"
_PATH = re.compile(r"^(?:--- a|\+\+\+ b)/(.*?)\t?$", re.MULTILINE)
_TIMEOUT_S = 300.0


def save_runner_hooks(sandbox: Sandbox, workdir: str) -> None:
    """Before the patch is applied. Raises SandboxError."""
    _run(f"{_FIND} -print0 | tar --null --no-recursion -cf {_BACKUP} -T -", sandbox, workdir)


def restore_runner_hooks(sandbox: Sandbox, workdir: str, gold_patch: str = "") -> None:
    """After it: all hooks are as they were, but for those that the gold patch is about too.

    Raises SandboxError.
    """
    allowed = [f"./{path}" for path in gold_hooks(gold_patch)]
    kept = "".join(f" -not -path {shlex.quote(path)}" for path in allowed)
    excluded = "".join(f" --exclude={shlex.quote(path)}" for path in allowed)
    _run(
        f"{_FIND}{kept} -print0 | xargs -0 -r rm -rf -- && tar -xf {_BACKUP}{excluded}",
        sandbox,
        workdir,
    )


def gold_hooks(gold_patch: str) -> list[str]:
    r"""Paths of the hooks in a gold patch, which is a plain git diff.

    >>> gold_hooks("--- a/x.py\n+++ b/x.py\n--- /dev/null\n+++ b/tests/conftest.py\n")
    ['tests/conftest.py']
    """
    paths = dict.fromkeys(_PATH.findall(gold_patch))
    return [path for path in paths if path.rpartition("/")[2] in RUNNER_HOOKS]


def _run(command: str, sandbox: Sandbox, workdir: str) -> None:
    done = sandbox.exec(f"cd {shlex.quote(workdir)} && {command}", _TIMEOUT_S, keep_state=False)
    if done.exit_code != 0:
        raise SandboxError(f"the test runner's files can't be put back: {done.output[-500:]}")
