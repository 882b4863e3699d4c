"""Looks over the machine and its engine, and says of each thing how well it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

import docker
from docker.errors import ImageNotFound

from srl_swe.bundled import bundled
from srl_swe.errors import EngineUnavailable, SrlSweError, UserError
from srl_swe_envs.containers import ContainerProcesses, create
from srl_swe_envs.enforced import read_enforced
from srl_swe_envs.engine import ENGINE_ERRORS, connect, reason
from srl_swe_envs.engine_checks import (
    Answer,
    check_disk,
    check_enforced,
    check_engine,
    check_quota,
)
from srl_swe_envs.findings import Finding, failure, ok, warning
from srl_swe_envs.image_pulls import free_bytes
from srl_swe_envs.image_recipes import Recipe, recipes_of
from srl_swe_envs.images import is_built_from
from srl_swe_envs.limits import Limits
from srl_swe_envs.machine_checks import check_machine
from srl_swe_envs.owners import Fate, Owned, find
from srl_swe_envs.scripts import script

_SHOWN = 3


def examine() -> list[Finding]:
    """One finding a check; without an engine, what only it can tell is left out."""
    return [*_examine_engine(), *check_machine()]


def _examine_engine() -> list[Finding]:
    try:
        client = connect()
    except EngineUnavailable as error:
        return [_broken("engine", error)]
    with closing(client):
        return _guarded("engine", lambda: _examine(client))


def _examine(client: docker.DockerClient) -> list[Finding]:
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
    """What ended runs have left on the engine."""
    left = [thing for thing in owned if thing.fate in {Fate.ENDED, Fate.EXPIRED}]
    if not left:
        return ok("leftovers", "ended runs have left nothing")
    kinds = sorted({thing.kind for thing in left})
    counts = (f"{sum(thing.kind is kind for thing in left)} {kind}(s)" for kind in kinds)
    return warning(
        "leftovers",
        f"ended runs have left {', '.join(counts)}",
        "`srl-swe reap` removes them; so does the next start of a run",
    )


def check_images(current: list[str], stale: list[str], missing: list[str]) -> Finding:
    """The names of the bundled suite's images, by how they are."""
    if not stale and not missing:
        return ok("images", f"all {len(current)} of the bundled suite are up to date")
    named = (("missing", missing), ("out of date", stale))
    found = "; ".join(f"{how}: {_some_of(names)}" for how, names in named if names)
    return warning("images", f"of the bundled suite {found}", "`srl-swe images build` makes them")


def _some_of(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _check_images(client: docker.DockerClient) -> Finding:
    by_state: dict[str, list[str]] = {"current": [], "stale": [], "missing": []}
    for recipe in recipes_of(bundled("starter")):
        by_state[_state_of(client, recipe)].append(recipe.tag)
    return check_images(**by_state)


def _state_of(client: docker.DockerClient, recipe: Recipe) -> str:
    if _id_of(client, recipe.tag) is None:
        return "missing"
    fingerprint = recipe.fingerprint(_id_of(client, recipe.parent))
    return "current" if is_built_from(client, recipe.tag, fingerprint) else "stale"


def _try_sandbox(client: docker.DockerClient, info: Answer) -> list[Finding]:
    images = [recipe.tag for recipe in recipes_of(bundled("starter"))]
    present = [image for image in images if _id_of(client, image)]
    if not present:
        way_out = "`srl-swe images build` makes some; then ask again"
        untried = warning("sandbox", "not tried: no image of ours is here", way_out)
        return [untried, check_quota(info, enforced=None)]
    started = time.monotonic()
    container = create(client, present[0], Limits())
    try:
        container.start()
        network = _check_network(container)
        answered = ok("sandbox", f"{present[0]} answers in {time.monotonic() - started:.2f} s")
        enforced = read_enforced(client, container.container)
        return [answered, network, check_enforced(enforced), check_quota(info, enforced)]
    finally:
        container.remove()


def _check_network(container: ContainerProcesses) -> Finding:
    code, _ = container.container.exec_run(["bash", "-c", script("no_network.sh")])
    if code == 0:
        return ok("network", "mode none leaves a sandbox its loopback only")
    return failure(
        "network",
        "a sandbox of mode none can reach a network",
        "don't run strangers' commands on this engine",
    )


def _id_of(client: docker.DockerClient, image: str) -> str | None:
    try:
        return str(client.images.get(image).id)
    except ImageNotFound:
        return None


def _guarded(subject: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except (SrlSweError, *ENGINE_ERRORS) as error:
        return [_broken(subject, error)]


def _broken(subject: str, error: Exception) -> Finding:
    """A failure; a UserError says the way out behind its last colon."""
    found, _, way_out = " ".join(str(error).split()).rpartition(": ")
    if isinstance(error, UserError) and found:
        return failure(subject, found, way_out)
    return failure(subject, reason(error), "see the engine's own log for the cause")
