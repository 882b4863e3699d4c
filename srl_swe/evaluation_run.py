"""One evaluation as a whole: a policy is opened once and acts, its patches are graded, reported.

``evaluate`` is ``srl-swe eval``; ``roll_out`` and ``grade_predictions`` are its halves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from srl_swe.engines import (
    GraderSettings,
    SandboxSettings,
    check_plan,
    harness_for,
    owned_harness,
    sandboxes_for,
)
from srl_swe.errors import UserError
from srl_swe.evaluation import Report, save_html, save_predictions, save_report
from srl_swe.evaluation import grade as run_grading
from srl_swe.evaluation.from_logs import grade_from_logs, grader_of_logs
from srl_swe.evaluation.report import marks
from srl_swe.evaluation.samples import (
    BestOf,
    SamplesReport,
    best_report,
    pick_best,
    render_samples_page,
    samples_fields,
)
from srl_swe.evaluation.verdicts import needing_tests
from srl_swe.evaluation.verify import Verification, sample_to_verify, verify
from srl_swe.files import check_output_folder, write_atomic
from srl_swe.progress import say
from srl_swe.rollout import Agent, Sample, predictions, rollout_samples
from srl_swe.rollout.agents import AgentSettings, agent_settings, make_agent, policy_name
from srl_swe.rollout.batch import ROLLOUTS_FILE, load_rollouts
from srl_swe.rollout.endpoint import Endpoint, find_endpoint, is_served
from srl_swe.rollout.usage import Prices, load_usage
from srl_swe.rollout.vllm_server import VllmSettings, serve_by_vllm
from srl_swe.run_folder import claim, refuse_other
from srl_swe.types import Instance, Outcome, Prediction, Trajectory, Verdict

PREDICTIONS_FILE = "predictions.jsonl"
REPORT_FILE = "report.json"
PAGE_FILE = "report.html"
BEST_FILE = "best.jsonl"
SAMPLE_FOLDER = "sample-"


@dataclass(frozen=True, slots=True)
class EvalSettings:
    """How a policy is rolled out and its patches are graded.

    ``agent``: prompting, sampling and limits; None: as the policy was trained. ``bench`` names the
    instances in the run's config. ``vllm``: serve the policy by vLLM meanwhile; None samples in
    this process. ``prices`` add the cost to the sums. ``test_timeout_s``: for the tests of one
    instance. ``grader``: what runs the tests. ``batch_size``: most replies that this process
    samples together; None: as many as workers. ``samples`` > 1: sample i has the seed of ``agent``
    plus i - 1, and the sub-folder ``sample-i``. ``best_of``: how one patch per instance is picked
    from the samples; None picks none.
    """

    agent: AgentSettings | None = None
    sandboxes: SandboxSettings = field(default_factory=SandboxSettings)
    bench: str = ""
    workers: int = 2
    vllm: VllmSettings | None = None
    prices: Prices | None = None
    test_timeout_s: int = 1800
    grader: GraderSettings = field(default_factory=GraderSettings)
    batch_size: int | None = None
    samples: int = 1
    best_of: BestOf | None = None


def evaluate(
    policy: str | Path | Endpoint,
    instances: Sequence[Instance],
    folder: Path,
    settings: EvalSettings,
) -> Report | SamplesReport:
    """Roll out, grade and report in ``folder``; a killed evaluation continues there.

    Raises UserError for an instance that can't be graded, before the policy is loaded.
    """
    check_output_folder(folder)
    settings.grader.check(instances)
    rollouts = roll_out(policy, instances, folder, settings)
    reports = [
        grade_rollouts(
            instances,
            sample,
            where,
            workers=settings.workers,
            test_timeout_s=settings.test_timeout_s,
            grader=settings.grader,
        )
        for where, sample in rollouts.items()
    ]
    if settings.samples == 1:
        return reports[0]
    return _report_samples(folder, rollouts, reports, settings.best_of)


def _report_samples(
    folder: Path,
    rollouts: Mapping[Path, Sequence[Trajectory]],
    reports: Sequence[Report],
    best_of: BestOf | None,
) -> SamplesReport:
    """Report over all samples in ``folder``; with ``best_of``, also on the patches it picks."""
    best = None
    if best_of is not None:
        samples = list(rollouts.values())
        picked = pick_best(best_of, samples, reports)
        best = best_report(picked, reports)
        chosen = [samples[number][place] for place, number in enumerate(picked.values())]
        named = predictions(chosen, chosen[0].model or "policy")
        save_predictions(folder / BEST_FILE, named)
    report = SamplesReport(
        {where.name: each for where, each in zip(rollouts, reports, strict=True)}, best, best_of
    )
    write_atomic(folder / REPORT_FILE, json.dumps(samples_fields(report), indent=2) + "\n")
    write_atomic(folder / PAGE_FILE, render_samples_page(report))
    return report


def roll_out(
    policy: str | Path | Endpoint,
    instances: Sequence[Instance],
    folder: Path,
    settings: EvalSettings,
) -> dict[Path, list[Trajectory]]:
    """One rollout per instance, for the folder of each sample.

    Those that a folder holds are kept, unless infrastructure failed. The policy is opened only if
    a rollout is missing. Raises UserError if a folder holds a run of another config, or if several
    samples would be equal.
    """
    policy = find_endpoint(policy) if is_served(policy) else str(policy)
    asked = settings.agent or agent_settings(policy)
    if settings.samples > 1 and not asked.temperature:
        raise UserError(
            f"{settings.samples} samples at temperature 0 are equal: raise --temperature, for "
            "instance to 0.8, or take one sample."
        )
    seeds = {
        where: asked.seed + number
        for number, where in enumerate(sample_folders(folder, settings.samples))
    }
    configs = {
        where: _run_config(policy, replace(asked, seed=seed), settings)
        for where, seed in seeds.items()
    }
    if folder not in configs:
        configs[folder] = {**_run_config(policy, asked, settings), "samples": f"{SAMPLE_FOLDER}N"}
    for where, config in configs.items():
        refuse_other(where, config)
    name = policy_name(policy)
    with _opening(policy, asked, settings, folder) as open_agent:
        held = [load_rollouts(where / ROLLOUTS_FILE, name) for where in seeds]
        left = [i for i in instances if any(i.instance_id not in kept for kept in held)]
        if left:
            if settings.sandboxes.kind == "docker":
                check_plan(left, workers=settings.workers)
            agent = open_agent()
            for where, config in configs.items():
                claim(where, config)
            open_sandbox = sandboxes_for(instances, settings.sandboxes, all_images=False)
            samples = [Sample(where, agent.with_seed(seed)) for where, seed in seeds.items()]
            rollouts = rollout_samples(samples, instances, open_sandbox, workers=settings.workers)
        else:
            rollouts = [[kept[i.instance_id] for i in instances] for kept in held]
    for where, sample in zip(seeds, rollouts, strict=True):
        save_predictions(where / PREDICTIONS_FILE, predictions(sample, name))
    if usage := load_usage(list(seeds), settings.prices):
        say(str(usage))
    return dict(zip(seeds, rollouts, strict=True))


def sample_folders(folder: Path, samples: int) -> list[Path]:
    """The folder of each sample: sub-folders, but for a single sample ``folder`` itself."""
    if samples == 1:
        return [folder]
    return [folder / f"{SAMPLE_FOLDER}{number}" for number in range(1, samples + 1)]


def _run_config(
    policy: str | Endpoint, asked: AgentSettings, settings: EvalSettings
) -> dict[str, object]:
    """Everything that decides the rollouts, for ``config.json``."""
    decisive = asdict(asked)
    for name in ("tools", "seed"):
        if not decisive[name]:
            del decisive[name]  # not known to folders of older versions
    if isinstance(policy, Endpoint):
        decisive |= {"policy": policy.model, "endpoint": policy.decisive}
    else:
        decisive |= {"policy": policy}
    if settings.vllm is not None:
        decisive["serve"] = "vllm"
    return {"bench": settings.bench, **decisive, **settings.sandboxes.decisive}


@contextmanager
def _opening(
    policy: str | Endpoint, asked: AgentSettings, settings: EvalSettings, folder: Path
) -> Iterator[Callable[[], Agent]]:
    """Yields a function that opens the policy at its first call; it stays open inside the block."""
    if settings.vllm is not None and isinstance(policy, Endpoint):
        raise UserError("vLLM serves a folder or a hub model, not a URL.")
    with ExitStack() as stack:

        @cache
        def open_agent() -> Agent:
            opened = policy
            if settings.vllm is not None and not isinstance(policy, Endpoint):
                logs = folder / "logs"
                served = serve_by_vllm(policy, policy_name(policy), settings.vllm, logs)
                opened = stack.enter_context(served)
            return make_agent(opened, asked, settings.batch_size or settings.workers)

        yield open_agent


def grade_rollouts(
    instances: Sequence[Instance],
    rollouts: Sequence[Trajectory],
    folder: Path,
    *,
    workers: int = 2,
    test_timeout_s: int = 1800,
    grader: GraderSettings | None = None,
) -> Report:
    """Grade the patches of one policy's rollouts. Raises UserError for several policies'."""
    broken: dict[str, str] = {}
    for rollout in rollouts:
        if rollout.stop_reason is not None and rollout.stop_reason.is_failure:
            last = rollout.steps[-1].observation if rollout.steps else None
            why = last.text if last else "nothing was recorded"
            broken[rollout.instance_id] = f"its rollout broke: {why}"
    models = sorted({rollout.model or "policy" for rollout in rollouts}) or ["policy"]
    if len(models) > 1:
        raise UserError(f"grade the rollouts of one policy at a time, not {', '.join(models)}.")
    return grade_predictions(
        instances,
        predictions(rollouts, models[0]),
        folder,
        workers=workers,
        test_timeout_s=test_timeout_s,
        grader=grader,
        enforced={ended.instance_id: ended.enforced for ended in rollouts if ended.enforced},
        broken=broken,
    )


def grade_predictions(
    instances: Sequence[Instance],
    predictions: Sequence[Prediction],
    folder: Path,
    *,
    workers: int = 2,
    test_timeout_s: int = 1800,
    grader: GraderSettings | None = None,
    enforced: Mapping[str, Mapping[str, Any]] | None = None,
    broken: Mapping[str, str] | None = None,
) -> Report:
    """Grade patches and write the reports into ``folder``.

    By instance id: ``enforced`` holds the limits of the rollout's sandbox, ``broken`` the reason
    why a rollout's sandbox broke before it submitted a patch. Raises UserError for an instance
    that can't be graded, before any image is built or pulled.
    """
    check_output_folder(folder)
    graded = _graded(
        instances, predictions, folder, workers, test_timeout_s, grader or GraderSettings()
    )
    blamed = tuple(  # no patch because the rollout's sandbox broke is not the policy's failure
        replace(verdict, outcome=Outcome.BROKEN_SANDBOX, detail=why)
        if verdict.outcome is Outcome.NOT_ATTEMPTED
        and (why := (broken or {}).get(verdict.instance_id)) is not None
        else verdict
        for verdict in graded.verdicts
    )
    patches = {p.instance_id: p.model_patch for p in predictions}
    marked = marks(instances, patches, graded.verdicts, folder)
    report = Report(blamed, graded.grader, enforced or {}, marked, graded.verification)
    save_report(report, folder / REPORT_FILE)
    save_html(report, patches, folder / PAGE_FILE)
    return report


@dataclass(frozen=True, slots=True)
class _Graded:
    """The verdicts of one ``grader``, and the verification of a share of them."""

    verdicts: Sequence[Verdict]
    grader: str
    verification: Verification | None = None


def _graded(
    instances: Sequence[Instance],
    predictions: Sequence[Prediction],
    folder: Path,
    workers: int,
    timeout_s: int,
    grader: GraderSettings,
) -> _Graded:
    """Run the tests, or read their logs, as ``grader`` asks for."""
    if grader.from_logs is not None:
        logs = grader.from_logs
        read = grade_from_logs(instances, predictions, logs, folder, workers=workers, report=say)
        return _Graded(read, grader_of_logs())
    harness = harness_for(needing_tests(instances, predictions), grader)
    run = partial(run_grading, max_workers=workers, timeout_s=timeout_s, report=say)
    verdicts = run(instances, predictions, folder, harness=harness)
    if grader.verify_share is None:
        return _Graded(verdicts, harness.version)
    sample = sample_to_verify(verdicts, grader.verify_share, grader.seed)
    verification = verify(
        instances,
        predictions,
        verdicts,
        sample,
        folder,
        harness=owned_harness(),
        max_workers=workers,
        timeout_s=timeout_s,
        report=say,
    )
    return _Graded(verdicts, harness.version, verification)
