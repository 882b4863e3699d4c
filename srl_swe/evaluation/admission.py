"""Decides which predictions the harness has to judge, before anything is started."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from srl_swe.errors import ImageMissing, UserError, did_you_mean
from srl_swe.evaluation.swebench_harness import Harness
from srl_swe.types import Instance, Outcome, Prediction, Verdict

_FOR_GRADING = {
    "eval_script": "eval_script",
    "log_parser": "log_parser",
    "eval_type": "eval_type",
    "FAIL_TO_PASS": "fail_to_pass",
}
"""Field of the row: field of the instance. swebench takes a row without FAIL_TO_PASS for resolved
whatever the patch."""


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


def needing_tests(
    instances: Sequence[Instance], predictions: Sequence[Prediction]
) -> list[Instance]:
    """The instances whose prediction only their tests can judge: no other needs its image."""
    patches = {one.instance_id: one.model_patch for one in predictions}
    return [one for one in instances if verdict_without_tests(one, patches) is None]


def check_gradeable(instances: Sequence[Instance]) -> None:
    """Raises UserError for an instance whose row does not say how to test it."""
    faulty = [(one, why) for one in instances for why in _faults(one)]
    if not faulty:
        return
    first, why = faulty[0]
    others = len({one.instance_id for one, _ in faulty}) - 1
    raise UserError(
        f"{first.instance_id} can be rolled out but not graded: {why}; take it from a data set in "
        "swebench 5's schema, or leave it out"
        + (f"; {others} other rows can't be graded either." if others else ".")
    )


def _faults(instance: Instance) -> Iterator[str]:
    from swebench.harness.constants import END_TEST_OUTPUT, START_TEST_OUTPUT, EvalType
    from swebench.harness.log_parsers import PARSER_REGISTRY

    lacking = [name for name, field in _FOR_GRADING.items() if not getattr(instance, field)]
    if lacking:
        yield f"its row has no {', '.join(lacking)}"
        return
    if not all(name.strip() for name in (*instance.fail_to_pass, *instance.pass_to_pass)):
        yield "FAIL_TO_PASS or PASS_TO_PASS holds an empty name"
    if instance.log_parser not in PARSER_REGISTRY:
        near = did_you_mean(instance.log_parser, PARSER_REGISTRY).strip()
        yield f"swebench has no log_parser {instance.log_parser!r}" + (near and f" ({near})")
    kinds = [kind.value for kind in EvalType]
    if instance.eval_type not in kinds:
        yield f"its eval_type {instance.eval_type!r} is not one of {', '.join(kinds)}"
    if START_TEST_OUTPUT not in instance.eval_script or END_TEST_OUTPUT not in instance.eval_script:
        yield f"its eval_script does not print '{START_TEST_OUTPUT}' and '{END_TEST_OUTPUT}'"
    if not _is_object(instance.image_assets or "{}"):
        yield "its image_assets are not a JSON object"


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


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
