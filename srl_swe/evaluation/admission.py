"""Decides which predictions the harness has to judge, before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from srl_swe.errors import ImageMissing, UserError
from srl_swe.evaluation.swebench_harness import Harness
from srl_swe.types import Instance, Outcome, Prediction, Verdict

_FOR_GRADING = ("eval_script", "log_parser", "eval_type")


def patches_by_instance(
    instances: Sequence[Instance],
    predictions: Sequence[Prediction],
    report: Callable[[str], None],
) -> dict[str, str]:
    """The patch for each instance that has one; predictions for others are reported."""
    known = {one.instance_id for one in instances}
    patches = {p.instance_id: p.model_patch for p in predictions if p.instance_id in known}
    strangers = {p.instance_id for p in predictions} - known
    if strangers and not patches:
        raise UserError(
            f"none of the {len(strangers)} predictions is for one of these {len(known)} "
            f"instances (the first is for {min(strangers)}); name the bench they were made on."
        )
    if strangers:
        report(f"{len(strangers)} predictions are for other instances and are not graded")
    return patches


def verdict_without_tests(instance: Instance, patches: Mapping[str, str]) -> Verdict | None:
    """The verdict where no test needs to run, else None."""
    patch = patches.get(instance.instance_id)
    if patch is None:
        return Verdict(instance.instance_id, Outcome.NOT_ATTEMPTED)
    if not patch.strip():
        return Verdict(instance.instance_id, Outcome.EMPTY_PATCH)
    try:
        patch.encode("utf-8")
    except UnicodeEncodeError:
        why = "the patch is not UTF-8, and swebench's harness can't carry it"
        return Verdict(instance.instance_id, Outcome.PATCH_FAILED, detail=why)
    return None


def check_gradeable(instances: Sequence[Instance]) -> None:
    """Raises UserError for an instance whose row does not say how to test it."""
    for instance in instances:
        lacking = [name for name in _FOR_GRADING if not getattr(instance, name)]
        if lacking:
            raise UserError(
                f"{instance.instance_id} can be rolled out but not graded: its row has no "
                f"{', '.join(lacking)}; take it from a data set in swebench 5's schema."
            )


def image_ids(
    instances: Sequence[Instance], harness: Harness, max_workers: int
) -> dict[str, str | ImageMissing]:
    """The id of each image, or why it can't be had. Raises ImageMissing if that goes for all."""

    def look_up(image: str) -> str | ImageMissing:
        try:
            return harness.image_id(image)
        except ImageMissing as missing:
            return missing

    images = sorted({instance.image for instance in instances})
    with ThreadPoolExecutor(max_workers) as pool:
        found = dict(zip(images, pool.map(look_up, images), strict=True))
    missing = [answer for answer in found.values() if isinstance(answer, ImageMissing)]
    if missing and len(missing) == len(found):
        raise missing[0]
    return found
