"""Machines of a cluster, each with a container engine of its own: images, checks and cleanup.

:mod:`srl_swe.cluster` places the jobs. The functions here run on its nodes, or start it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from srl_swe.errors import ImageMissing, UserError
from srl_swe.parallel import Cluster, Placement
from srl_swe.progress import say

if TYPE_CHECKING:
    from srl_swe.generation.repositories import Source
    from srl_swe.rollout.endpoint import Endpoint
    from srl_swe.types import Instance
    from srl_swe_envs.docker import DockerSandbox
    from srl_swe_envs.limits import Limits
    from srl_swe_envs.owners import Cleaned


@contextmanager
def cluster_at(
    address: str | None,
    jobs_per_node: int,
    sandbox: str = "docker",
    policy: str | Endpoint | None = None,
) -> Iterator[Cluster | None]:
    """The Ray cluster at the address for the time of the block; None without an address.

    Nodes that have no container engine, or can't reach the ``policy``, are left out. Raises
    UserError if no cluster answers or no node is left, and for a policy that is not served: the
    nodes share it by its URL.
    """
    if address is None:
        yield None
        return
    if isinstance(policy, str):
        raise UserError(
            f"--ray: the nodes share a policy by its URL, and {policy} is not one; serve it, for "
            "instance by `vllm serve`, and name its URL."
        )
    from srl_swe.cluster import NodeChecks, ray_cluster
    from srl_swe.rollout.endpoint import KEY_VARIABLE

    needs_engine = sandbox == "docker"
    checks = NodeChecks(
        images=partial(_images_here, needs_engine, policy),
        clean_up=partial(_clean_up_here, needs_engine),
        variables=(KEY_VARIABLE,) if policy else (),
    )
    with ray_cluster(address, jobs_per_node, checks) as cluster:
        yield cluster


_BUILDING = threading.Lock()


def open_after_build(instance: Instance, limits: Limits) -> AbstractContextManager[DockerSandbox]:
    """A docker sandbox on this node, which builds a bundled instance's missing image."""
    from srl_swe_envs.docker import open_docker_sandbox

    _build_here(instance)
    return open_docker_sandbox(instance, limits)  # pulls other images


def _build_here(instance: Instance) -> None:
    from srl_swe_envs.images import ensure_images, is_built_here

    if is_built_here(instance):
        with _BUILDING:
            build_generated_images([instance], say)
            ensure_images([instance], say)


def build_generated_images(
    instances: Sequence[Instance], report: Callable[[str], None], *, all_images: bool = True
) -> None:
    """Build missing images of instances that `srl-swe generate` made, and of their sources.

    Other instances are left out. Raises ImageMissing if one can't be built; without
    ``all_images`` it is reported, and its sandboxes fail to open. Raises EngineUnavailable.
    """
    generated = [instance for instance in instances if instance.built_from]
    if not generated:
        return
    from srl_swe.generation.rows import layer_of, source_of_row
    from srl_swe_envs.engine import shared_client
    from srl_swe_envs.images import build_layer
    from srl_swe_envs.images import image_id as find_image

    client = shared_client()
    for built_from, image in {i.built_from: layer_of(i).parent for i in generated}.items():
        if find_image(client, image) is None:
            build_source_image(source_of_row(json.loads(built_from)), report)
    for instance in generated:
        layer = layer_of(instance)
        try:
            build_layer(client, layer.image, layer.parent, layer.files, report)
        except ImageMissing as missing:
            if all_images:
                raise
            report(f"images: {missing}")


def build_source_image(
    source: Source, report: Callable[[str], None], certificates: Path | None = None
) -> None:
    """Build the image of a clean source, unless it is up to date.

    ``certificates``: a file of certificates that pip trusts meanwhile. Raises UserError,
    EngineUnavailable, EngineDiskFull or ImageMissing.
    """
    from srl_swe.generation.rows import repository_image
    from srl_swe_envs.repository_images import RepositorySpec, build_repository_image

    image = repository_image(source)
    spec = RepositorySpec(
        instance_id=image.partition("/")[2].partition(":")[0],
        repository=str(source.folder),
        base_commit=source.commit,
        image=image,
        packages=source.packages,
        install=source.install,
    )
    build_repository_image(spec, report, certificates)


def _images_here(needs_engine: bool, endpoint: Endpoint | None) -> set[str]:
    """The names of the images on this node. Raises UserError if it can't take jobs."""
    if endpoint is not None:
        from srl_swe.rollout.endpoint import find_endpoint

        find_endpoint(endpoint)
    if not needs_engine:
        return set()
    from srl_swe_envs.engine import blame_sandbox, shared_client

    with blame_sandbox("listing images"):
        images = shared_client().api.images()
    return {name for image in images for name in image.get("RepoTags") or ()}


def _clean_up_here(needs_engine: bool) -> None:
    """Remove the leftovers of ended processes from this machine's engine, if it is needed."""
    if needs_engine:
        from srl_swe_envs.engine import shared_client
        from srl_swe_envs.owners import clean_up_or_warn

        clean_up_or_warn(shared_client())


def clean_up_engine(*, dry_run: bool, everything: bool) -> Cleaned:
    """Remove leftovers from this machine's engine; ``everything``: of living processes too."""
    from srl_swe_envs.engine import connect
    from srl_swe_envs.owners import Cleaned, Fate, find, remove_owned

    wanted = {Fate.ENDED, Fate.EXPIRED} | ({Fate.LIVING} if everything else set())
    with closing(connect()) as client:
        found = find(client)
        doomed = [thing for thing in found if thing.fate in wanted]
        removed = doomed if dry_run else remove_owned(client, doomed)
    stuck = [thing for thing in doomed if thing not in removed]
    return Cleaned(removed, stuck, [thing for thing in found if thing.fate not in wanted])


def image_ids_on(cluster: Cluster, instances: Sequence[Instance]) -> Callable[[str], str]:
    """Looks up the ids of the instances' images, each as a node of the cluster has it."""
    found: dict[str, str | ImageMissing] = {}

    def keep(instance: Instance, answer: str | ImageMissing) -> None:
        found[instance.image] = answer

    def look_up(image: str) -> str:
        answer = found[image]
        if isinstance(answer, ImageMissing):
            raise answer
        return answer

    placement: Placement[Instance, str | ImageMissing] = Placement(
        image=lambda instance: instance.image,
        lost=lambda _, error: ImageMissing(str(error)),
    )
    by_image = {instance.image: instance for instance in instances}
    cluster.run(_image_id_after_build, by_image.values(), keep, placement)
    return look_up


def _image_id_after_build(instance: Instance) -> str | ImageMissing:
    try:
        _build_here(instance)
        return id_of_image(instance.image)
    except ImageMissing as missing:
        return missing


def id_of_image(image: str) -> str:
    """The engine's id of the image, pulled if it is missing. Raises ImageMissing."""
    from srl_swe_envs.engine import attempt, pull, shared_client
    from srl_swe_envs.images import image_id

    client = shared_client()
    for _ in range(2):
        if found := attempt(f"looking up {image}", lambda: image_id(client, image)):
            return found
        pull(client, image)
    raise ImageMissing(f"the image {image} was pulled, but the engine does not have it.")
