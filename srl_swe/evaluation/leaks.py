"""Searches a sandbox, as a policy gets it, for the fix of its instance.

Found are commits besides the history of HEAD, which ``git log --all`` would show (SWE-bench#465);
the fixed files among git's objects, reachable or not; and copies of them anywhere on the disk, such
as in an installed package. An equal file in the past of HEAD is not a leak. Not found are archives,
compiled files, and a fix that was rewritten.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath

from srl_swe.errors import ImageMissing, SandboxError
from srl_swe.evaluation.patch_paths import touched_paths
from srl_swe.parallel import Placement, Workers, run_parallel
from srl_swe.progress import progress
from srl_swe.sandbox import OpenSandbox, Sandbox
from srl_swe.types import Instance

_TIMEOUT_S = 600.0
_PATCH_FILE = "/tmp/.srl_swe_leaks.diff"
_SMALLEST_FILE_BYTES = 32
"""Smaller files, such as an empty ``__init__.py``, are found everywhere."""


def find_leaks(
    instances: Sequence[Instance],
    open_sandbox: OpenSandbox,
    *,
    workers: Workers = 2,
) -> tuple[dict[str, str], dict[str, str]]:
    """The leaks by instance id, and the reasons of those that could not be searched."""
    leaks: dict[str, str] = {}
    broken: dict[str, str] = {}

    def keep(instance: Instance, found: tuple[str | None, str | None]) -> None:
        name, (leak, failure) = instance.instance_id, found
        if leak:
            leaks[name] = leak
        elif failure:
            broken[name] = failure
        advance(f"{name}: {leak or failure or 'no trace of the fix'}")

    placement: Placement[Instance, tuple[str | None, str | None]] = Placement(
        lambda instance: instance.image, lambda _, error: (None, str(error))
    )
    work = partial(_search, open_sandbox)
    with progress("search", len(instances)) as advance:
        run_parallel(work, instances, keep, workers=workers, placement=placement)
    return leaks, broken


def _search(open_sandbox: OpenSandbox, instance: Instance) -> tuple[str | None, str | None]:
    leak = None
    try:
        with open_sandbox(instance) as sandbox:
            leak = find_leak(instance, sandbox)
    except (SandboxError, ImageMissing) as error:
        return leak, None if leak else str(error)
    return leak, None


def find_leak(instance: Instance, sandbox: Sandbox) -> str | None:
    """The first trace of the fix, in one line; None without one.

    The sandbox is fresh, and changed by this: the gold patch is applied. Raises SandboxError.
    """
    run = partial(_run, sandbox, instance.workdir)
    later = run("git rev-list --count --all --reflog --not HEAD").strip()
    if not later.isdigit():
        raise SandboxError(f"git can't read the history of {instance.workdir}")
    if int(later):
        return f"`git log --all` shows {later} commits that are not in the history of HEAD"
    sandbox.write_file(_PATCH_FILE, instance.gold_patch.encode("utf-8", "surrogateescape"))
    if run(f"git apply {_PATCH_FILE} && echo applied").strip() != "applied":
        return None  # the gold patch is at fault, and grading reports it
    for path in touched_paths(instance.gold_patch):
        name = shlex.quote(path)
        size = f"$(stat -c %s -- {name} || echo 0)"
        digest = run(f"[ {size} -ge {_SMALLEST_FILE_BYTES} ] && git hash-object -- {name}").strip()
        if not digest or digest == run(f"git rev-parse HEAD:{name}").strip():
            continue
        stored = run(f"git cat-file -e {digest} && echo stored")
        if stored and not run(f"git rev-list --objects HEAD | grep -m1 ^{digest}"):
            return f"git holds the fixed {path} as object {digest[:12]}"
        if copy := run(_find_copy(instance.workdir, path)).strip():
            return f"{copy} is a copy of the fixed {path}"
    return None


def _find_copy(workdir: str, path: str) -> str:
    """Prints the path of the first other file with that name and content."""
    own, name = shlex.quote(f"{workdir}/{path}"), shlex.quote(PurePosixPath(path).name)
    return (
        f"find / -xdev -type f -name {name} ! -path {own} -exec cmp -s {{}} {own} ';' -print -quit"
    )


def _run(sandbox: Sandbox, workdir: str, command: str) -> str:
    """The output of the command in the working folder. Raises SandboxError for a time-out."""
    quiet = f"cd {shlex.quote(workdir)} && {{ {command}; }} 2>/dev/null"
    done = sandbox.exec(quiet, _TIMEOUT_S, keep_state=False)
    if done.timed_out:
        raise SandboxError(f"the search for the fix took longer than {_TIMEOUT_S:g} seconds")
    return done.output
