"""Restores files, changed by a patch, that run the tests rather than being tested.

A policy rewarded by tests soon learns that a ``conftest.py`` can make them pass. Files are restored
for rewards only: a reported verdict is swebench's own, on the whole patch.

The kernel's change times decide which files a patch has changed: git and GNU patch read so many
forms that the text of a patch is not sufficient. Unless the gold patch touches them too, these are
restored:

- files that a test runner loads by itself (:func:`.patch_paths.is_runner_file`), in any folder;
- the test folders of the instance's own tests, including helpers and ``__init__.py``;
- files named in the eval script, such as ``tests/runtests.py`` or ``bin/test``;
- ``setup.cfg``, ``pyproject.toml`` and ``package.json``, if their settings of test runners differ;
- new modules beside the package that would hide those of the standard library or of a test tool
  (``json.py``, ``pytest.py``);
- symbolic links that lead out of the repository.

A patch that changes git's own files (hooks, config, references: all but objects and index) is
refused.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from srl_swe.errors import SandboxError
from srl_swe.evaluation.patch_paths import (
    RUNNER_HOOKS,
    PathKind,
    is_runner_file,
    is_test_folder,
    kind_of,
    touched_paths,
)
from srl_swe.evaluation.test_run import without_heredocs
from srl_swe.sandbox import Sandbox
from srl_swe.sandbox.working_tree import link_leads_out
from srl_swe.types import Instance

SETTINGS_FILES = ("setup.cfg", "pyproject.toml", "package.json")
"""Honest fixes edit these too: they are restored only if settings of test runners differ."""
_INI_SECTION = re.compile(r"pytest|aliases|coverage:.*|tool:.*test.*|nosetests|unittest")
_TOML_TOOLS = ("pytest", "coverage", "tox", "hatch", "nose", "nose2")
_NPM_KEYS = ("scripts", "jest", "mocha", "ava", "tap", "nyc", "babel", "vitest", "karma", "qunit")


def same_runner_settings(path: str, before: str, after: str) -> bool:
    r"""False if the settings of test runners differ, or if either text can't be read.

    >>> same_runner_settings("setup.cfg", "[metadata]\nversion=1", "[metadata]\nversion=2")
    True
    >>> same_runner_settings("setup.cfg", "", "[tool:pytest]\naddopts = -p evil")
    False
    """
    try:
        return bool(_settings(path, before) == _settings(path, after))
    except (configparser.Error, ValueError, AttributeError, TypeError, RecursionError):
        return False


def _settings(path: str, text: str) -> Any:
    match PurePosixPath(path).name:
        case "setup.cfg":
            ini = configparser.ConfigParser(interpolation=None, strict=False)
            ini.read_string(text)
            found = {name: dict(ini[name]) for name in ini if _INI_SECTION.fullmatch(name)}
            return found, ini.get("options.entry_points", "pytest11", fallback="")
        case "pyproject.toml":
            toml = tomllib.loads(text)
            tools = toml.get("tool", {})
            return [
                *(tools.get(name) for name in _TOML_TOOLS),
                toml.get("project", {}).get("entry-points", {}).get("pytest11"),
                tools.get("poetry", {}).get("plugins", {}).get("pytest11"),
                toml.get("build-system"),
            ]
        case "package.json":
            read = json.loads(text)
            return {key: read.get(key) for key in _NPM_KEYS}
        case name:
            raise ValueError(f"{name} is not among {', '.join(SETTINGS_FILES)}")


_BACKUP = "/tmp/.srl_swe_hooks.tar"
_MEMBERS = "/tmp/.srl_swe_hooks.members"
_MODULES = "/tmp/.srl_swe_hooks.modules"
_GIT = "/tmp/.srl_swe_hooks.git"
_MARKER = "/tmp/.srl_swe_hooks.marker"
_CHANGED = "/tmp/.srl_swe_hooks.changed"
_TARGETS = "/tmp/.srl_swe_hooks.targets"
_MODULE_FOLDERS = (".", "src", "lib", "python")
"""Folders of a repository often found in ``sys.path``."""
_MODULE = re.compile(r"(?:(?:src|lib|python)/)?(?P<name>\w+)(?:\.[\w-]+)*(?:/.*)?")
_TEST_TOOLS = frozenset(
    re.findall(
        r"\w+",
        """pytest _pytest pluggy py iniconfig attr attrs exceptiongroup tomli packaging pygments
        nose nose2 hypothesis xdist execnet coverage pytest_cov pytest_asyncio anyio tox mock
        setuptools pkg_resources pip wheel _distutils_hack""",
    )
)
_IMPORTED_FIRST = frozenset(sys.stdlib_module_names) | _TEST_TOOLS
_TIMEOUT_S = 300.0
_SETTLE_S = 0.02
"""Longer than a tick of the kernel's clock for change times."""


@dataclass(frozen=True, slots=True)
class Protected:
    """The paths of one instance to restore, relative to its working folder.

    ``roots`` are whole folders and ``files`` single files. ``free`` are the paths of the gold
    patch, which are never restored.
    """

    roots: tuple[str, ...] = ()
    files: frozenset[str] = frozenset()
    free: frozenset[str] = frozenset()

    def holds(self, path: str) -> bool:
        """True for a path to restore, judged by its name alone."""
        if path in self.free:
            return False
        inside = any(path == root or path.startswith(f"{root}/") for root in self.roots)
        return inside or path in self.files or is_runner_file(path)


def protected_files(instance: Instance) -> Protected:
    """The paths of the instance's tests and of its eval script."""
    tests = list(touched_paths(instance.test_patch))
    nodes = (*instance.fail_to_pass, *instance.pass_to_pass)
    tests += [node.partition("::")[0] for node in nodes if "::" in node]
    roots = set()
    for path in tests:
        above = [folder for folder in PurePosixPath(path).parents if is_test_folder(folder.name)]
        roots |= {str(folder) for folder in above[-1:]}
    script = without_heredocs(instance.eval_script)
    words = {word.removeprefix("./") for word in re.split(r"[\s;|&()'\"=]+", script)}
    named = {
        word
        for word in words
        if re.search(r"[./]", word) and not word.startswith(("-", "/", ".")) and len(word) < 256
    }
    return Protected(
        roots=tuple(sorted(roots)),
        files=frozenset({*tests, *named}),
        free=frozenset(touched_paths(instance.gold_patch)),
    )


def save_runner_hooks(sandbox: Sandbox, workdir: str, protected: Protected) -> None:
    """Saves the protected files before the patch is applied. Raises SandboxError."""
    names = [*RUNNER_HOOKS, *SETTINGS_FILES]
    tests = [f"-name {shlex.quote(name)}" for name in names]
    tests += ["-name '*.pth'", "-path '*.egg-info/*'", "-path '*.dist-info/*'"]
    tests += [f"-path {_literal(f'./{root}/')}'*'" for root in protected.roots]
    tests += [f"-path {_literal(f'./{path}')}" for path in sorted(protected.files)]
    found = rf"find . -path ./.git -prune -o ! -type d \( {' -o '.join(tests)} \) -print0"
    modules = " ".join(_MODULE_FOLDERS)
    _run(
        f"{found} > {_MEMBERS} && tar --null --no-recursion -cf {_BACKUP} -T {_MEMBERS} && "
        f"{{ ls -1dA {modules} $(printf '%s/* ' {modules}) > {_MODULES} 2>/dev/null || :; }} && "
        f"{{ {_GIT_STATE}; }} > {_GIT} && touch {_MARKER} && sleep {_SETTLE_S}",
        sandbox,
        workdir,
    )


def restore_runner_hooks(sandbox: Sandbox, workdir: str, protected: Protected) -> str | None:
    """Restores the protected files, except those of the gold patch, after the patch is applied.

    Returns the reason if the patch changed git's own files and can't earn a reward, else None.
    Raises SandboxError.
    """
    changes = _changes(sandbox, workdir)
    if changes is None:
        return "the patch changed git's own files"
    members = {path.removeprefix("./") for path in _read(sandbox, _MEMBERS).split("\0") if path}
    modules = {path.removeprefix("./") for path in _read(sandbox, _MODULES).split("\n")}
    folders = {str(parent) for path in members for parent in PurePosixPath(path).parents}
    targets, kept = set[str](), set(protected.free)
    for path, link in changes.items():
        if path in protected.free:
            continue
        if (
            protected.holds(path)
            or path in folders  # replaces a folder
            or kind_of(path) is PathKind.GIT
            or _shadows(path, modules)
            or (link is not None and link_leads_out(os.fsencode(path), os.fsencode(link)))
        ):
            parents = [str(parent) for parent in PurePosixPath(path).parents]
            targets.add(next((parent for parent in parents if parent in members), path))
        elif PurePosixPath(path).name in SETTINGS_FILES:
            unchanged = path in members and not _settings_changed(sandbox, workdir, path)
            (kept if unchanged else targets).add(path)
    kept -= targets
    sandbox.write_file(_TARGETS, "".join(f"./{path}\0" for path in sorted(targets)).encode())
    excluded = "".join(f" --exclude={shlex.quote(f'./{path}')}" for path in sorted(kept))
    _run(
        f"xargs -0 -r -a {_TARGETS} rm -rf -- && "
        f"tar -xf {_BACKUP} --anchored --no-wildcards{excluded}",
        sandbox,
        workdir,
    )
    return None


_GIT_STATE = (
    "if [ -d .git ]; then cd .git; "
    r"find . -path ./objects -prune -o ! -path ./index ! -type d -printf '%y %m %p %l\0' "
    "| sort -z; "
    r"find . -path ./objects -prune -o ! -path ./index -type f -print0 | sort -z "
    "| xargs -0 -r sha256sum; cd ..; fi"
)
"""Prints names, modes and contents of git's own files but objects and index."""


def _changes(sandbox: Sandbox, workdir: str) -> Mapping[str, str | None] | None:
    """The paths changed since the marker, with their targets if they are links.

    None if git's own files have changed. The kernel dates changes of the inode itself, so a patch
    can't hide one.
    """
    _run(
        f"{{ {_GIT_STATE}; }} | cmp -s - {_GIT} || echo git > {_GIT}; "
        rf"find . -path ./.git -prune -o ! -type d -cnewer {_MARKER} -printf '%y%p\0%l\0' "
        f"> {_CHANGED}",
        sandbox,
        workdir,
    )
    if sandbox.read_file(_GIT) == b"git\n":
        return None
    fields = _read(sandbox, _CHANGED).split("\0")
    return {
        what[1:].removeprefix("./"): target if what[0] == "l" else None
        for what, target in zip(fields[::2], fields[1::2], strict=False)
        if what
    }


def _shadows(path: str, modules: Collection[str]) -> bool:
    """True for a new module that would hide an installed one."""
    found = _MODULE.fullmatch(path)
    if not found or found["name"] not in _IMPORTED_FIRST:
        return False
    stem = path[: found.end("name")]
    return not any(known == stem or known.startswith(f"{stem}.") for known in modules)


def _settings_changed(sandbox: Sandbox, workdir: str, path: str) -> bool:
    before = f"{_TARGETS}.before"
    _run(f"tar -xOf {_BACKUP} {shlex.quote(f'./{path}')} > {before}", sandbox, workdir)
    try:
        after = _read(sandbox, f"{workdir}/{path}")
    except OSError:
        return True
    return not same_runner_settings(path, _read(sandbox, before), after)


def _read(sandbox: Sandbox, path: str) -> str:
    return sandbox.read_file(path).decode("utf-8", "surrogateescape")


def _literal(path: str) -> str:
    """Quoted for the shell, and for ``find -path``, which takes ``[`` for a pattern."""
    return shlex.quote(re.sub(r"([*?\[\\])", r"\\\1", path))


def _run(command: str, sandbox: Sandbox, workdir: str) -> None:
    done = sandbox.exec(f"cd {shlex.quote(workdir)} && {command}", _TIMEOUT_S, keep_state=False)
    if done.exit_code != 0:
        raise SandboxError(f"the test runner's files can't be restored: {done.output[-500:]}")
