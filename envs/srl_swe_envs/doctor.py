"""Checks of the engine and the machine: one finding per check, with a fix if needed.

The ``check_*`` functions judge given answers and ask nothing; :func:`examine` collects the answers.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import Any

import docker
from docker.utils import parse_bytes
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from srl_swe.bundled import bundled
from srl_swe.errors import EngineUnavailable, SrlSweError, UserError
from srl_swe_envs.containers import create, read_enforced
from srl_swe_envs.engine import ENGINE_ERRORS, connect, reason, setup_script
from srl_swe_envs.images import image_id, is_built_from, recipes_of
from srl_swe_envs.limits import Limits
from srl_swe_envs.owners import Fate, Owned, find
from srl_swe_envs.pulls import free_bytes
from srl_swe_envs.scripts import script


class Health(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    """It works in part, or differs from the tested set-up."""
    FAILURE = "failure"
    """A part of srl-swe can't work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check; ``way_out`` is empty exactly if ``health`` is ok."""

    subject: str
    health: Health
    found: str
    way_out: str = ""


def few(names: Sequence[str]) -> str:
    """At most three names, and the number of the others."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def ok(subject: str, found: str) -> Finding:
    """A finding without a problem."""
    return Finding(subject, Health.OK, found)


def warning(subject: str, found: str, way_out: str) -> Finding:
    """A finding worth knowing."""
    return Finding(subject, Health.WARNING, found, way_out)


def failure(subject: str, found: str, way_out: str) -> Finding:
    """A finding that needs a repair."""
    return Finding(subject, Health.FAILURE, found, way_out)


Answer = Mapping[str, Any]
"""JSON of the engine's API (``docker info``, ``docker version``), as the docker package has it."""

_GIB = 2**30
_LOW_DISK_BYTES, _NO_DISK_BYTES = 20 * _GIB, 2 * _GIB
"""An image of SWE-bench takes 0.3 to 1.5 GB, and a build or a pull needs room beside it."""
_LIMIT_FLAGS = {
    "memory": "MemoryLimit",
    "swap": "SwapLimit",
    "pids": "PidsLimit",
    "cpu": "CpuCfsQuota",
}
_MEASURED = ("memory_bytes", "cpus", "pids", "file_bytes")
"""The enforced limits that every engine should support."""


def check_engine(info: Answer, version: Answer) -> list[Finding]:
    """The checks that need no container."""
    storage, driver = info.get("Driver"), info.get("CgroupDriver")
    lacking = [name for name, flag in _LIMIT_FLAGS.items() if not info.get(flag)]
    limits = (
        f"can't limit {', '.join(lacking)}" if lacking else f"can limit {', '.join(_LIMIT_FLAGS)}"
    )
    total, each = int(info.get("MemTotal") or 0), int(parse_bytes(Limits().memory or 0))
    machine = f"{version.get('Os')}/{version.get('Arch')}"
    checks = [
        (
            "engine",
            f"{engine_name(version)} {version.get('Version')}, API {version.get('ApiVersion')}, "
            f"{machine}",
            machine == "linux/amd64",
            "",
            "SWE-bench's images are for linux/amd64: here they run emulated and slowly, if at all",
        ),
        (
            "storage driver",
            f"{storage} on {_backing_file_system(info)}",
            storage != "vfs",
            " copies the whole image for each container",
            "have the engine use overlay2 (podman: overlay, without root fuse-overlayfs)",
        ),
        (
            "cgroups",
            f"version {info.get('CgroupVersion') or 1}, driver {driver}",
            driver != "none",
            ": no limit holds",
            "run the engine as root, or where systemd delegates cgroup v2 to your user",
        ),
        (
            "limits",
            f"the engine {limits}",
            not lacking,
            "",
            "enable these cgroup controllers (swap: boot with swapaccount=1; without root: have "
            "systemd delegate them), or a command can take all of the machine",
        ),
        (
            "memory, CPUs",
            f"{total / _GIB:.1f} GiB, {info.get('NCPU')} CPUs",
            total >= each,
            f": one sandbox may use {each / _GIB:.1f} GiB",
            "give the engine's machine more memory, or the sandboxes less",
        ),
    ]
    return [
        ok(subject, found) if is_well else warning(subject, found + problem, way_out)
        for subject, found, is_well, problem, way_out in checks
    ]


def check_disk(folder: str, free_bytes: int | None) -> Finding:
    """Check the disk of ``folder``, where the engine keeps its images; None: on another machine."""
    if free_bytes is None:
        return warning(
            "disk",
            f"{folder} is on another machine",
            "look there how much is free: an image takes 0.3 to 1.5 GB",
        )
    found = f"{free_bytes / _GIB:.1f} GiB free in {folder}"
    if free_bytes >= _LOW_DISK_BYTES:
        return ok("disk", found)
    judge = failure if free_bytes < _NO_DISK_BYTES else warning
    return judge(
        "disk", found, "let go of the least used images: `srl-swe images prune --budget 50GB`"
    )


def check_quota(info: Answer, enforced: Answer | None) -> Finding:
    """Check whether a sandbox's disk is bounded; ``enforced`` None: no sandbox could be opened."""
    driver, file_system = str(info.get("Driver")), _backing_file_system(info)
    found = f"{driver} on {file_system}"
    if enforced["disk_bytes"] is not None if enforced else driver == "zfs":
        return ok("disk quota", f"{found} bounds what each sandbox writes")
    return warning(
        "disk quota",
        f"{found} has none for a container: each file is bounded, their sum is not",
        "use fewer sandboxes than could fill the disk, or move the engine's storage to xfs "
        "mounted with pquota, or to zfs",
    )


def check_enforced(enforced: Answer) -> Finding:
    """Check the enforced limits of a sandbox with the default ones, except for the disk."""
    missing = [name for name in _MEASURED if enforced[name] is None]
    held = ", ".join(f"{name} {enforced[name]:,}" for name in _MEASURED if name not in missing)
    if not missing:
        return ok("enforced limits", held)
    return warning(
        "enforced limits",
        f"not {', '.join(missing)}" + (f", but {held}" if held else ""),
        "give the engine these cgroup controllers, or run only commands that you trust",
    )


def engine_name(version: Answer) -> str:
    """``podman`` if it is behind Docker's API, else ``docker``."""
    names = [str(part.get("Name", "")) for part in version.get("Components") or ()]
    return "podman" if any("podman" in name.lower() for name in names) else "docker"


def _backing_file_system(info: Answer) -> str:
    status = {pair[0]: pair[1] for pair in info.get("DriverStatus") or ()}
    return str(status.get("Backing Filesystem", "an unnamed file system"))


_PROJECT = "srl-swe"
_NEEDED = ("docker", "swebench", "datasets", "gitpython")
_FOR_TRAINING = ("torch", "transformers", "trl")
_FOR_SERVING = ("vllm",)
_ASKED_BY = {"vllm": "trl"}
"""The packages whose metadata has the allowed versions, if not ours."""
_PIN = re.compile(r"^([\w.-]+)==([\w.+-]+)", re.MULTILINE)


def check_machine() -> list[Finding]:
    """The checks of this machine: Python, packages, GPU and the docker client."""
    tested = parse_pins((bundled("docker") / "constraints.txt").read_text("utf-8"))
    names = (*_NEEDED, *_FOR_TRAINING, *_FOR_SERVING)
    installed: dict[str, str] = {}
    for name in names:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    classifiers = "\n".join(metadata(_PROJECT).get_all("Classifier") or ())
    pythons = re.findall(r"Programming Language :: Python :: (3\.\d+)", classifiers)
    return [
        check_docker_client(shutil.which("docker")),
        check_gpu(_nvidia_smi(), installed.get("torch")),
        check_python(sys.version_info[:2], pythons),
        *(check_package(n, installed.get(n), tested.get(n), _allowed(n)) for n in names),
    ]


def parse_pins(constraints: str) -> dict[str, str]:
    r"""Lower-case names to versions, from lines ``name==version``.

    >>> parse_pins("# tested\nGitPython==3.2.1\n")
    {'gitpython': '3.2.1'}
    """
    return {name.lower(): pinned for name, pinned in _PIN.findall(constraints)}


def check_docker_client(path: str | None) -> Finding:
    """Check the program ``docker``; ``path`` is None if it is not on PATH."""
    if path:
        return ok("docker client", path)
    return failure(
        "docker client",
        "no program `docker` on PATH, which SWE-bench's harness calls when it grades",
        f"install the client: `sh {setup_script()}`, or your distribution's docker-cli or "
        "podman-docker",
    )


def check_gpu(described: str | None, torch: str | None) -> Finding:
    """Check the GPUs; ``described`` is the output of nvidia-smi, None without a driver."""
    if not described:
        return warning(
            "GPU",
            "none seen (nvidia-smi)",
            "the demo and the tests train without; a real model takes an NVIDIA GPU and its driver",
        )
    if torch and torch.endswith("+cpu"):
        return warning(
            "GPU",
            f"{described}, but torch {torch} can't use it",
            "install torch's build for CUDA, see https://pytorch.org/get-started/locally/",
        )
    return ok("GPU", described)


def check_python(running: tuple[int, int], tested: list[str]) -> Finding:
    """Check the Python version; ``tested`` holds versions like 3.12."""
    shown = ".".join(map(str, running))
    if shown in tested:
        return ok("Python", shown)
    return warning("Python", shown, f"srl-swe is tested with Python {' and '.join(tested)}")


def check_package(
    name: str, installed: str | None, tested: str | None, allowed: SpecifierSet
) -> Finding:
    """Check a package; a missing version is None, ``allowed`` is srl-swe's requirement."""
    if installed is None and name in _NEEDED:
        return failure(name, "not installed", f"pip install {_PROJECT}")
    if installed is None and name in _FOR_TRAINING:
        return warning(name, "not installed: no training", f"pip install '{_PROJECT}[train]'")
    if installed is None:
        return ok(name, "not installed; only fast generation on GPUs takes it")
    public = Version(installed).public  # 2.13.0+cpu is 2.13.0
    pinned = f"{name}=={tested}" if tested else f"{name}{allowed}"
    if public not in allowed:
        return failure(name, f"{installed}; needed is {allowed}", f"pip install '{pinned}'")
    if tested is None:
        return warning(name, installed, "no version of it has been tested with srl-swe")
    if public != tested:
        return warning(name, f"{installed}, tested is {tested}", f"pip install '{pinned}'")
    return ok(name, installed)


def _allowed(name: str) -> SpecifierSet:
    try:
        asked = [Requirement(line) for line in requires(_ASKED_BY.get(name, _PROJECT)) or ()]
    except PackageNotFoundError:
        return SpecifierSet()
    found = [requirement.specifier for requirement in asked if requirement.name.lower() == name]
    return found[0] if found else SpecifierSet()


def _nvidia_smi() -> str | None:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return "; ".join(said.stdout.splitlines()) if said.returncode == 0 else None


def examine() -> list[Finding]:
    """One finding per check; without an engine, its checks are left out."""
    try:
        client = connect()
    except EngineUnavailable as error:
        return [_broken("engine", error), *check_machine()]
    with closing(client):
        return [*_guarded("engine", lambda: _examine_engine(client)), *check_machine()]


def _examine_engine(client: docker.DockerClient) -> list[Finding]:
    info = client.info()
    folder = str(info.get("DockerRootDir"))
    return [
        *check_engine(info, client.version()),
        check_disk(folder, free_bytes(folder)),
        *_guarded("leftovers", lambda: [check_leftovers(find(client))]),
        *_guarded("images", lambda: [_check_images(client)]),
        *_guarded("sandbox", lambda: _try_sandbox(client, info)),
    ]


def check_leftovers(owned: list[Owned]) -> Finding:
    """Check for leftovers of ended runs on the engine."""
    left = [thing for thing in owned if thing.fate in {Fate.ENDED, Fate.EXPIRED}]
    if not left:
        return ok("leftovers", "ended runs have left nothing")
    kinds = sorted({thing.kind for thing in left})
    counts = (f"{sum(thing.kind is kind for thing in left)} {kind}(s)" for kind in kinds)
    return warning(
        "leftovers",
        f"ended runs have left {', '.join(counts)}",
        "`srl-swe cleanup` removes them; so does the next start of a run",
    )


def check_images(current: list[str], stale: list[str], missing: list[str]) -> Finding:
    """Check the bundled suite's images; each list holds the names in one state."""
    if not stale and not missing:
        return ok("images", f"all {len(current)} of the bundled suite are up to date")
    states = {"missing": missing, "out of date": stale}
    found = "; ".join(f"{state}: {few(names)}" for state, names in states.items() if names)
    return warning("images", f"of the bundled suite {found}", "`srl-swe images build` makes them")


def _check_images(client: docker.DockerClient) -> Finding:
    current, stale, missing = list[str](), list[str](), list[str]()
    for recipe in recipes_of(bundled("starter")):
        if image_id(client, recipe.tag) is None:
            missing.append(recipe.tag)
            continue
        fingerprint = recipe.fingerprint(image_id(client, recipe.parent))
        is_current = is_built_from(client, recipe.tag, fingerprint)
        (current if is_current else stale).append(recipe.tag)
    return check_images(current, stale, missing)


def _try_sandbox(client: docker.DockerClient, info: Answer) -> list[Finding]:
    images = (recipe.tag for recipe in recipes_of(bundled("starter")))
    image = next((image for image in images if image_id(client, image)), None)
    if image is None:
        way_out = "`srl-swe images build` makes some; then ask again"
        untried = warning("sandbox", "not tried: no image of ours is here", way_out)
        return [untried, check_quota(info, enforced=None)]
    started = time.monotonic()
    container = create(client, image, Limits())
    try:
        container.start()
        code, _ = container.container.exec_run(["bash", "-c", script("no_network.sh")])
        answered = ok("sandbox", f"{image} answers in {time.monotonic() - started:.2f} s")
        enforced = read_enforced(client, container.container)
        network = ok("network", "mode none leaves a sandbox its loopback only")
        if code != 0:
            network = failure(
                "network",
                "a sandbox of mode none can reach a network",
                "don't run untrusted commands on this engine",
            )
        return [answered, network, check_enforced(enforced), check_quota(info, enforced)]
    finally:
        container.remove()


def _guarded(subject: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except (SrlSweError, *ENGINE_ERRORS) as error:
        return [_broken(subject, error)]


def _broken(subject: str, error: Exception) -> Finding:
    """A failure; the fix in a UserError follows its last colon."""
    found, _, way_out = " ".join(str(error).split()).rpartition(": ")
    if isinstance(error, UserError) and found:
        return failure(subject, found, way_out)
    return failure(subject, reason(error), "see the engine's own log for the cause")
