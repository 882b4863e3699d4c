"""Patches as diffs, for tests on a bundled instance."""

from __future__ import annotations

import base64
import difflib
import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from srl_swe.bundled import bundled
from srl_swe.instances import load_instances
from srl_swe.types import Instance

(INSTANCE,) = load_instances("starter", ids=["starter__inikit-1"])
DOES_NOT_APPLY = "--- a/nowhere.py\n+++ b/nowhere.py\n@@ -1 +1 @@\n-old\n+new\n"


def source(path: str, instance: Instance = INSTANCE) -> str:
    """A file of the instance, without the fix of its gold patch."""
    package = instance.instance_id.partition("__")[2].partition("-")[0]
    return (bundled("starter") / "packages" / package / path).read_text(encoding="utf-8")


def new_file(path: str, text: str, mode: str = "100644") -> str:
    """A diff, as git writes it, that adds a file."""
    body = added(text)
    return (
        f"diff --git a/{path} b/{path}\nnew file mode {mode}\n--- /dev/null\n+++ b/{path}\n{body}"
    )


def link(path: str, target: str) -> str:
    """A diff that adds a symbolic link."""
    head = f"diff --git a/{path} b/{path}\nnew file mode 120000\n--- /dev/null\n+++ b/{path}\n"
    return f"{head}@@ -0,0 +1 @@\n+{target}\n\\ No newline at end of file\n"


def edit(path: str, new: str, instance: Instance = INSTANCE) -> str:
    """A diff from a file of the instance, which the gold patch leaves alone, to ``new``."""
    old = source(path, instance).splitlines(keepends=True)
    new = new if new.endswith("\n") else f"{new}\n"
    lines = difflib.unified_diff(old, new.splitlines(keepends=True), f"a/{path}", f"b/{path}")
    return f"diff --git a/{path} b/{path}\n" + "".join(lines)


def delete(path: str) -> str:
    """A diff that removes a file of the instance."""
    lines = source(path).splitlines()
    removed = "".join(f"-{line}\n" for line in lines)
    head = f"diff --git a/{path} b/{path}\ndeleted file mode 100644\n--- a/{path}\n+++ /dev/null\n"
    return f"{head}@@ -1,{len(lines)} +0,0 @@\n{removed}"


def binary(path: str, data: bytes) -> str:
    """A diff that adds a file of any bytes, as ``git diff --binary`` writes it."""
    packed = zlib.compress(data)
    name = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    lines = []
    for at in range(0, len(packed), 52):
        piece = packed[at : at + 52]
        size = (
            chr(ord("A") + len(piece) - 1) if len(piece) <= 26 else chr(ord("a") + len(piece) - 27)
        )
        lines.append(size + base64.b85encode(piece + bytes(-len(piece) % 4)).decode())
    head = f"diff --git a/{path} b/{path}\nnew file mode 100644\nindex {'0' * 40}..{name}\n"
    body = "\n".join(lines)
    return f"{head}GIT binary patch\nliteral {len(data)}\n{body}\n\nliteral 0\nHcmV?d00001\n\n"


def at_import(code: str, instance: Instance = INSTANCE) -> str:
    """The package runs ``code`` when it is imported, which is while pytest collects."""
    path = f"{instance.instance_id.partition('__')[2].partition('-')[0]}/__init__.py"
    return edit(path, f"{source(path, instance)}\n{code}", instance)


def in_call(code: str) -> str:
    """The package runs ``code`` whenever it makes a document, which is while a test runs."""
    path = "inikit/document.py"
    hook = "\n_made = Document.__init__\n\n\ndef _init(self, *args, **kwargs):\n"
    body = "".join(f"    {line}\n" for line in code.splitlines())
    last = "    _made(self, *args, **kwargs)\n\n\nDocument.__init__ = _init\n"
    return edit(path, f"{source(path)}{hook}{body}{last}")


def added(text: str) -> str:
    """A hunk that makes a file of the text."""
    lines = text.splitlines()
    return f"@@ -0,0 +1,{len(lines)} @@\n" + "".join(f"+{line}\n" for line in lines)


HARMLESS = new_file("notes.txt", "nothing")


def first_hunk(instance: Instance) -> str:
    """A part of the fix; all of it where it has one hunk."""
    lines = instance.gold_patch.splitlines(keepends=True)
    hunks = [number for number, line in enumerate(lines) if line.startswith("@@")]
    files = [number for number, line in enumerate(lines) if line.startswith("diff --git")]
    end = min([n for n in (*hunks[1:], *files[1:]) if n > hunks[0]], default=len(lines))
    return "".join(lines[:end])


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of patch, for any bundled instance.

    ``turn``: tests take every fifth instance from this one on; None takes all.
    """

    name: str
    make: Callable[[Instance], str]
    turn: int | None = None


_LEFT_BEHIND = "import subprocess; subprocess.Popen(['sleep', '30'], stdout=2)"
_NO_TMP = "import os; os.system('rm -rf /tmp/* /tmp/.[!.]* /var/tmp/* ~/* /home/*')"
HONEST = (
    Kind("gold", lambda i: i.gold_patch),
    Kind("harmless", lambda _: HARMLESS),
    Kind("part of the fix", first_hunk, 2),
    Kind(
        "the fix, and tests of its own",
        lambda i: i.gold_patch + new_file("tests/test_own.py", "x = 1"),
        3,
    ),
    Kind(
        "the fix, and noise",
        lambda i: i.gold_patch + at_import("print('PASSED FAILED x\\r\\n', 1)", i),
        4,
    ),
    Kind(
        "the fix, and what is left behind", lambda i: i.gold_patch + at_import(_LEFT_BEHIND, i), 0
    ),
    Kind("the fix, and no temporary files", lambda i: i.gold_patch + at_import(_NO_TMP, i), 1),
    Kind("breaks what worked", lambda i: at_import("raise SystemError", i)),
    Kind("ends the tests", lambda i: at_import("import os; os._exit(3)", i), 3),
    Kind("kills everything", lambda i: at_import("import os; os.kill(-1, 9)", i), 4),
    Kind("does not apply", lambda _: DOES_NOT_APPLY, 0),
    Kind("empty", lambda _: "", 1),
)
"""Patches on which both runners agree, with or without the protection of rewards."""
