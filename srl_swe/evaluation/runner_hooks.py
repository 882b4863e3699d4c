"""Takes out of a patch what would run inside the test runner rather than be tested by it.

A policy whose reward is the tests soon finds that a ``conftest.py`` can make them pass. Only
rewards do without such files: a verdict that is reported is swebench's own, on the whole patch.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

RUNNER_HOOKS = frozenset({"conftest.py", "pytest.ini", "sitecustomize.py", "usercustomize.py"})
"""Files that Python or pytest loads by itself, wherever they lie."""
_FILE = re.compile(r"^(?=diff --git )", re.MULTILINE)
_NAME = re.compile(r'^diff --git .* "?b/([^"\n]+)"?$', re.MULTILINE)
"""From the header, which every kind of change has: a diff of text, a binary one, a renaming."""


def without_runner_hooks(patch: str, gold_patch: str = "") -> str:
    r"""The patch without the files of :data:`RUNNER_HOOKS`, but for those that ``gold_patch`` has.

    Settings in ``setup.cfg``, ``tox.ini`` and ``pyproject.toml`` stay: honest fixes edit them.

    >>> fix, hook = (
    ...     f"diff --git a/{n} b/{n}\n--- a/{n}\n+++ b/{n}\n@@ -1 +1 @@\n-a\n+b\n"
    ...     for n in ("pkg/code.py", "tests/conftest.py")
    ... )
    >>> without_runner_hooks(fix + hook) == fix
    True
    >>> without_runner_hooks(fix + hook, gold_patch=hook) == fix + hook
    True
    """
    allowed = set(_NAME.findall(gold_patch))
    return "".join(file for file in _FILE.split(patch) if not _is_hook(file, allowed))


def _is_hook(file: str, allowed: set[str]) -> bool:
    names = _NAME.findall(file.partition("\n")[0])
    return any(PurePosixPath(n).name in RUNNER_HOOKS and n not in allowed for n in names)
