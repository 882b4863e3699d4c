"""Makes each layout of git history in a sandbox, runs the script on it, and reports as JSON.

Called with a file of JSON: the text of the helpers, of the script, and the layouts.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SECRET = b"SECRET-5b1e0c7f93d248a6"
ZLIB = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
SETTINGS = """
git config --system --add safe.directory '*'
git config --system protocol.file.allow always
git config --system gc.pruneExpire never
git config --system gc.reflogExpire never
"""
USES = """
git fsck --no-progress; git status --short; git diff --stat; git log --stat --format=%h
git blame file
echo more >>file; git commit -qam mine; git rev-parse --verify HEAD^
"""
"""What a user does there, and it works."""


def bash(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run it with the system's ``timeout``: what hangs is an exit code of 124, and reported."""
    return subprocess.run(
        ["timeout", "60", "bash", "-c", text], cwd=folder, text=True, errors="replace", check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def git_files(folder: Path) -> list[Path]:
    """All files of the repositories in the folder: those under a name that ends in .git."""
    found = []
    for top, _, names in os.walk(folder):
        parts = Path(top).relative_to(folder).parts
        inside = any(part.endswith(".git") for part in parts)
        found += [Path(top) / name for name in names if inside]
    return [path for path in found if path.is_file()]


def inflated(data: bytes) -> bytes:
    """All that a zlib stream beginning anywhere in the data holds."""
    texts = []
    for match in ZLIB.finditer(data):
        try:
            texts.append(zlib.decompressobj().decompress(data[match.start() :]))
        except zlib.error:
            continue
    return b"\0".join(texts)


def leaks(folder: Path, shas: list[str]) -> list[str]:
    found = []
    for path in git_files(folder):
        data = path.read_bytes()
        if SECRET in data or SECRET in inflated(data):
            found.append(f"{path}: the secret")
        names = str(path.relative_to(folder)).replace("/", "")
        for sha in shas:
            if sha.encode() in data or bytes.fromhex(sha) in data or sha in names:
                found.append(f"{path}: {sha}")
    return found


def readable(folder: Path, shas: list[str]) -> list[str]:
    env = {**os.environ, "GIT_NO_REPLACE_OBJECTS": "1"}
    checked = subprocess.run(
        ["git", "-C", folder, "cat-file", "--batch-check"], input="\n".join(shas), env=env,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = checked.stdout.splitlines()
    return [line.split()[0] for line in lines if not line.endswith(" missing")]


def working_tree(folder: Path) -> dict[str, str]:
    tree: dict[str, str] = {}
    if folder.suffix == ".git":
        return tree
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.endswith(".git")]
        for name in names:
            path = Path(top) / name
            if name != ".git" and path.is_file():
                tree[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return tree


def words(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def examine(here: Path, make: str, helpers: str, script: str) -> dict[str, Any]:
    bash(f"mkdir {here} && cp -a /layouts/seed {here}/r", Path("/"))
    made = bash(f"here={here} base=$(git -C r rev-parse HEAD)\n{helpers}\ncd r\n{make}", here)
    work = here / (words(here / "workdir") or ["r"])[0]
    seed = words(Path("/layouts/past"))
    base = (words(here / "base") or [seed[-1]])[0]
    future = sorted(set(words(here / "future")))
    past = words(here / "past") if (here / "past").exists() else seed
    report: dict[str, Any] = {"made": made.stdout if made.returncode else ""}
    report["planted"] = readable(work, future) + leaks(here, future)
    before = working_tree(work)
    done = bash(f"set -- {work} {base}\n{script}", work)
    report |= {"exit": done.returncode, "output": done.stdout}
    if done.returncode:
        return report
    check = (here / "check").read_text() if (here / "check").exists() else ""
    again = bash(f"set -- {work} {base}\n{script}", work)
    changed = dict(before.items() ^ working_tree(work).items())
    return report | {
        "again": [again.returncode, again.stdout],
        "left": readable(work, future) + leaks(here, future),
        "lost": sorted(set(past) - set(readable(work, past))),
        "tree_changed": [] if (here / "moved").exists() else sorted(changed),
        "references": [] if (here / "untagged").exists() else lost_references(work),
        "check": bash(check, work).stdout,
        "use": "" if (here / "unusual").exists() else use(work),
    }


def lost_references(work: Path) -> list[str]:
    found = bash("git for-each-ref --format='%(refname:short)'; git describe --tags", work).stdout
    lost = {"v1", "v1.1", "v1-again", "old"} - set(found.split())
    return sorted(lost) + ([] if "\nv1.1-" in found else [found])


def use(work: Path) -> str:
    done = bash(f"set -e\n{USES}", work)
    return done.stdout[-999:] if done.returncode or "dangling" in done.stdout else ""


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text())
    Path("/layouts").mkdir()
    made = bash(f"{SETTINGS}\n{given['helpers']}\ncd /layouts\nseed seed", Path("/"))
    assert made.returncode == 0, made.stdout

    def report(numbered: tuple[int, str]) -> dict[str, Any]:
        number, make = numbered
        return examine(Path(f"/layouts/{number}"), make, given["helpers"], given["script"])

    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(report, enumerate(given["layouts"])))
    Path(sys.argv[2]).write_text(json.dumps(reports))


if __name__ == "__main__":
    main()
