"""Sandboxes, images and benches from a container engine: the only importer of ``srl_swe_envs``
besides the command line and :mod:`srl_swe.nodes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from srl_swe.errors import EngineUnavailable, UserError
from srl_swe.nodes import (
    build_generated_images,
    build_source_image,
    id_of_image,
    image_ids_on,
    open_after_build,
)
from srl_swe.parallel import Cluster
from srl_swe.plugins import find_named
from srl_swe.progress import say

if TYPE_CHECKING:
    from srl_swe.evaluation.harness import Harness, SwebenchHarness
    from srl_swe.generation.repositories import Source
    from srl_swe.instances import InstanceSelection
    from srl_swe.sandbox import OpenSandbox, Sandbox
    from srl_swe.training.recipe import (
        CurriculumRecipe,
        Recipe,
        RlvrRecipe,
        ValidationInstances,
    )
    from srl_swe.training.validate_episodes import ValidationBench
    from srl_swe.types import Instance
    from srl_swe_envs.streaming import ImageStream

BUILT_IN = ("docker", "local")
PIP_WITHOUT_INDEX = ("PIP_NO_INDEX", "PIP_NO_BUILD_ISOLATION", "PIP_DISABLE_PIP_VERSION_CHECK")
"""Variables of every sandbox, by which pip works without a network."""


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """A kind of sandbox, and changes to its default limits.

    ``kind``: docker, local, or an extension (:mod:`srl_swe.plugins`). ``cluster``: its nodes open
    the sandboxes; None: this machine does.
    """

    kind: str = "docker"
    limits: Mapping[str, str] = field(default_factory=dict)
    cluster: Cluster | None = None

    @property
    def decisive(self) -> dict[str, object]:
        """The settings that differ from the defaults and decide results, for configs and keys."""
        asked = {"sandbox": self.kind, "limits": dict(self.limits)}
        usual: dict[str, object] = {"sandbox": "docker", "limits": {}}
        return {name: value for name, value in asked.items() if value != usual[name]}


def sandbox_settings(kind: str, limits: Iterable[str], *, trusted: bool) -> SandboxSettings:
    """Parse the settings. ``trusted``: the commands ship with us, or the user vouches for them.

    Raises UserError for an unknown kind, an invalid limit, and untrusted commands in a local
    sandbox.
    """
    from srl_swe_envs.limits import Limits

    asked: dict[str, str] = {}
    for limit in limits:
        name, is_set, asked[name] = limit.partition("=")
        if not is_set:
            raise UserError(f"--sandbox-limit {limit}: write NAME=VALUE, such as memory=8g.")
    Limits.from_settings(asked)
    if kind not in BUILT_IN:
        _extension(kind)
        if asked:
            raise UserError(f"--sandbox-limit is for docker and local: {kind} has its own limits.")
    if kind == "local" and not trusted:
        raise UserError(
            "a local sandbox is not a security boundary, and these commands are untrusted: use "
            "--sandbox docker, or --trust-commands to let them do whatever you can do."
        )
    return SandboxSettings(kind, asked)


@dataclass(frozen=True, slots=True)
class GraderSettings:
    """The runner of the tests of a grading.

    ``runner``: ``swebench``'s harness, or ``sandbox``, our own. ``network`` and ``limits`` (changes
    to the default ones) are for the containers of the second. ``verify_share``: the share of
    verdicts, chosen by ``seed``, that swebench's harness gives again; None verifies nothing.
    ``from_logs``: the folder of an earlier grading, whose logs are read in place of running tests.
    ``cluster``: where the second runner's containers are; None: on this machine.
    """

    runner: Literal["swebench", "sandbox"] = "swebench"
    network: Literal["none", "bridge"] = "none"
    limits: Mapping[str, str] = field(default_factory=dict)
    verify_share: float | None = None
    seed: int = 0
    from_logs: Path | None = None
    cluster: Cluster | None = None

    @property
    def sandboxes(self) -> SandboxSettings:
        """The settings of the second runner's sandboxes.

        With a network, pip may ask its index, as in swebench's containers.
        """
        limits: dict[str, str] = {"network": self.network}
        if self.network != "none":
            limits |= {f"environment.{name}": "" for name in PIP_WITHOUT_INDEX}
        return SandboxSettings("docker", {**limits, **self.limits}, self.cluster)

    def check(self, instances: Sequence[Instance]) -> None:
        """Raises UserError for an instance that this runner can't grade."""
        from srl_swe.evaluation.verdicts import check_gradeable

        check_gradeable(instances)
        if self.runner == "sandbox":
            _testable(instances)
            return
        for instance in instances:
            if instance.workdir != "/testbed":
                raise UserError(
                    f"the repository of {instance.instance_id} is at {instance.workdir}, and "
                    "swebench runs tests in /testbed alone; use --runner sandbox."
                )


def sandboxes_for(
    instances: Sequence[Instance],
    settings: SandboxSettings | None = None,
    *,
    all_images: bool = True,
) -> OpenSandbox:
    """Sandboxes of these instances; missing docker images are built or pulled first.

    The nodes of a cluster build or pull an image when they open a sandbox of it.

    Raises EngineUnavailable, and ImageMissing if an image can't be had. Without ``all_images``
    it raises ImageMissing only if none can be had, else when the sandbox is opened. Without
    instances no engine is asked.
    """
    from srl_swe_envs.limits import Limits

    settings = settings or SandboxSettings()
    limits = Limits.from_settings(settings.limits)
    match settings.kind:
        case "docker" if settings.cluster is not None:
            return partial(open_after_build, limits=limits)
        case "docker":
            from srl_swe_envs.docker import open_docker_sandbox
            from srl_swe_envs.engine import shared_client
            from srl_swe_envs.images import ensure_images
            from srl_swe_envs.owners import clean_up_once

            if instances:
                clean_up_once(shared_client())
                build_generated_images(instances, say, all_images=all_images)
                ensure_images(instances, say, all_images=all_images)
            return partial(open_docker_sandbox, limits=limits)
        case "local":
            from srl_swe_envs.local import open_local_sandbox

            say(
                "sandboxes: local ones are not a security boundary: commands run as you, on this "
                "machine"
            )
            return partial(open_local_sandbox, limits=limits)
        case name:
            return _extension(name)


def _extension(name: str) -> OpenSandbox:
    return find_named("sandbox", name, {}, listed=BUILT_IN)


def check_plan(
    instances: Sequence[Instance],
    *,
    samples: int = 1,
    workers: int = 2,
    budget_bytes: int | None = None,
) -> None:
    """Print the problems of a run on these instances, and its cost if images are to be pulled.

    ``budget_bytes``: the most disk for pulled images; None for no bound. Raises UserError if the
    run can't work.
    """
    from srl_swe_envs.bench_plan import PlannedRun, judge, plan_bench
    from srl_swe_envs.doctor import Health

    plan = plan_bench(PlannedRun(tuple(instances), samples, workers, budget_bytes))
    for finding in judge(plan):
        match finding.health:
            case Health.FAILURE:
                raise UserError(f"{finding.subject}: {finding.found}: {finding.way_out}.")
            case Health.WARNING:
                say(f"warning: {finding.subject}: {finding.found}: {finding.way_out}")
            case Health.OK if plan.missing:
                say(f"plan: {finding.subject}: {finding.found}")
            case Health.OK:
                pass


@contextmanager
def images_in_turns(
    instances: Sequence[Instance], budget_bytes: int, folder: Path
) -> Iterator[ImageStream]:
    """The images of the instances in chunks under a budget; ``folder`` remembers the pulled ones.

    Bundled images are built first, and stay. Raises EngineUnavailable or ImageMissing.
    """
    from srl_swe_envs.engine import shared_client
    from srl_swe_envs.images import is_built_here
    from srl_swe_envs.pulls import plan_pulls
    from srl_swe_envs.registry import ask_registries
    from srl_swe_envs.streaming import ImageLog, ImageStream

    sandboxes_for([instance for instance in instances if is_built_here(instance)])
    missing = plan_pulls(shared_client(), [instance.image for instance in instances]).missing
    manifests = ask_registries(missing).manifests
    stream = ImageStream(shared_client(), ImageLog(folder), budget_bytes, say, manifests)
    try:
        yield stream
    finally:
        stream.stop()


def has_pulled_images(folder: Path) -> bool:
    """Whether the folder records images that its run has pulled and not yet removed."""
    from srl_swe_envs.streaming import ImageLog

    return bool(ImageLog(folder).pulled)


def image_ids_of(instances: Sequence[Instance], folder: Path) -> dict[str, str]:
    """The image ids that ``folder`` has recorded, for images that the engine lacks by now.

    Others are as the engine has them. Empty if :func:`images_in_turns` was not used there.
    """
    from srl_swe_envs.streaming import IMAGES_FILE, ImageLog

    if not (folder / IMAGES_FILE).exists():
        return {}
    from srl_swe_envs.engine import shared_client
    from srl_swe_envs.images import image_id

    recorded = ImageLog(folder).ids
    try:
        client = shared_client()
    except EngineUnavailable:
        return recorded
    images = {instance.image for instance in instances}
    found = {image: image_id(client, image) or recorded.get(image) for image in images}
    return {image: known for image, known in found.items() if known}


def owned_harness() -> SwebenchHarness:
    """The harness of swebench, with labels by which `srl-swe cleanup` knows its containers."""
    from srl_swe.evaluation.harness import SwebenchHarness
    from srl_swe_envs.owners import owner_labels

    return SwebenchHarness(owner_labels)


def harness_for(instances: Sequence[Instance], settings: GraderSettings | None = None) -> Harness:
    """The runner that grades patches of these instances; missing images are built or pulled first.

    Raises UserError for an instance that can't be graded by it, EngineUnavailable, and
    ImageMissing if no image can be had. Without instances no engine is asked.
    """
    from srl_swe.evaluation.sandbox_harness import SandboxHarness

    settings = settings or GraderSettings()
    settings.check(instances)
    match settings.runner:
        case "swebench":
            sandboxes_for(instances, all_images=False)
            return owned_harness()
        case "sandbox":
            cluster = settings.cluster
            look_up = id_of_image if cluster is None else image_ids_on(cluster, instances)
            return SandboxHarness(
                sandboxes_for(instances, settings.sandboxes, all_images=False),
                look_up,
                network=settings.network,
                limits=", ".join(f"{name}={v}" for name, v in sorted(settings.limits.items())),
                cluster=cluster,
            )


def load_bench(
    bench: str,
    ids: Sequence[str] | None = None,
    limit: int | None = None,
    selection: InstanceSelection | None = None,
    mirror: str | None = None,
) -> list[Instance]:
    """Load the instances of a bench, their rows brought into swebench's schema.

    ``mirror``: the registry of their images in place of their own, or a template of names
    (:func:`srl_swe_envs.image_names.mirrored`). Raises UserError if the bench is empty, if nothing
    of it is selected, or if the mirror can't be the name of one.
    """
    from srl_swe.instances import load_instances
    from srl_swe_envs.image_names import adapt_row, mirrored

    instances = load_instances(bench, ids=ids or None, adapt=adapt_row)[:limit]
    if not instances:
        raise UserError(f"{bench}: holds no instance.")
    selected = selection.select(instances) if selection else instances
    if not selected:
        raise UserError(f"{bench}: none of its {len(instances)} instances is selected.")
    if mirror:
        return [replace(i, image=mirrored(i.image, i.instance_id, mirror)) for i in selected]
    return selected


def validation_bench(
    recipe: Recipe, settings: SandboxSettings, workers: int
) -> ValidationBench | None:
    """The instances and sandboxes of the recipe's ``validation.instances``; None without it.

    Raises UserError if the bench is empty or an instance can't be tested, and whatever
    ``sandboxes_for`` raises.
    """
    from srl_swe.training.validate_episodes import ValidationBench

    asked = recipe.validation and recipe.validation.instances
    if not asked:
        return None
    instances = _validation_instances(asked)
    return ValidationBench(instances, sandboxes_for(instances, settings), workers)


def testable_bench(
    bench: str, ids: Sequence[str] | None = None, limit: int | None = None
) -> list[Instance]:
    """As :func:`load_bench`. Raises UserError if an instance's tests can't run in a sandbox."""
    return _testable(load_bench(bench, ids, limit))


def rlvr_bench(
    recipe: RlvrRecipe, ids: Sequence[str] | None = None, limit: int | None = None
) -> list[Instance]:
    """The instances of the recipe's bench, or the problems in a domain of worked solutions.

    Raises UserError as :func:`testable_bench`.
    """
    if (domain := recipe.worked) is None:
        return testable_bench(recipe.bench, ids, limit)
    return domain.load_problems(recipe.bench, ids)[:limit]


def check_start(recipes: Sequence[Recipe], ids: Sequence[str] | None = None) -> None:
    """Check that models, step contexts and instances exist, except those on the hub.

    ``ids`` selects RLVR's instances. Raises UserError. Imports no torch.
    """
    from srl_swe.instances import HUB_BENCHES
    from srl_swe.training.load_recipe import check_places

    for recipe in recipes:
        validated = recipe.validation and recipe.validation.instances
        bench_of_recipe = getattr(recipe, "bench", "")
        if domain := getattr(recipe, "worked", None):
            if Path(bench_of_recipe).exists():
                domain.load_problems(bench_of_recipe, ids)
            bench_of_recipe = ""
        benches = [(bench_of_recipe, ids), (validated.bench if validated else "", None)]
        for bench, names in benches:
            if bench and bench not in HUB_BENCHES and not bench.startswith("hf:"):
                load_bench(bench, names)
    check_places(recipes)


def check_benches(
    curriculum: CurriculumRecipe, ids: Sequence[str] | None, limit: int | None
) -> None:
    """Check the instances of all phases before the first one trains.

    ``ids`` and ``limit`` select RLVR's instances. Raises UserError if an instance is missing or
    can't be tested.
    """
    from srl_swe.training.recipe import RlvrRecipe

    for phase in curriculum.phases:
        if isinstance(phase.recipe, RlvrRecipe):
            rlvr_bench(phase.recipe, ids, limit)
        if phase.recipe.validation and phase.recipe.validation.instances:
            _validation_instances(phase.recipe.validation.instances)


def _validation_instances(asked: ValidationInstances) -> list[Instance]:
    from srl_swe.instances import evenly_spread

    instances = load_bench(asked.bench)
    return _testable([instances[index] for index in evenly_spread(len(instances), asked.rows)])


def _testable(instances: Sequence[Instance]) -> list[Instance]:
    from srl_swe.evaluation.sandbox_tests import check_testable

    for instance in instances:
        check_testable(instance)
    return list(instances)


@dataclass(frozen=True, slots=True)
class SourceEngine:
    """Images and sandboxes of clean sources, for :mod:`srl_swe.generation.generate`.

    ``certificates``: a file of certificates that pip trusts while an image is built.
    """

    limits: Mapping[str, str] = field(default_factory=dict)
    certificates: Path | None = None

    def build(self, source: Source) -> str:
        """Build the image of the clean source; returns its id. Raises UserError."""
        from srl_swe.generation.rows import repository_image

        build_source_image(source, say, self.certificates)
        return id_of_image(repository_image(source))

    def open(self, instance: Instance) -> AbstractContextManager[Sandbox]:
        """A fresh sandbox. Raises SandboxError."""
        from srl_swe_envs.docker import open_docker_sandbox
        from srl_swe_envs.limits import Limits

        return open_docker_sandbox(instance, Limits.from_settings(self.limits))

    def eval_script(self, source: Source, base_commit: str, test_patch: str) -> str:
        """The eval script of an instance: its hidden tests come back, then the suite runs."""
        from srl_swe_envs.graded_rows import eval_script
        from srl_swe_envs.repository_images import ACTIVATE, WORKDIR

        return eval_script(
            source.test,
            workdir=WORKDIR,
            base_commit=base_commit,
            test_patch=test_patch,
            set_up=[ACTIVATE],
        )
