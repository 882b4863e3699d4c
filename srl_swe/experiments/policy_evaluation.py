"""Evaluates a policy: greedy replies on step contexts, greedy rollouts, and their verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.evaluation.grading import grade
from srl_swe.evaluation.harness import Harness
from srl_swe.files import damage_named, write_atomic
from srl_swe.progress import say
from srl_swe.rollout import Agent, EpisodeLimits, Rules, predictions, rollout_all
from srl_swe.rollout.prompting import Prompting, differences, load_prompting
from srl_swe.rollout.tokens import check_thought
from srl_swe.rollout.weights import find_weights
from srl_swe.sandbox import OpenSandbox
from srl_swe.steps.prompt import PAPER_WINDOW, Window
from srl_swe.types import Instance, Outcome, Verdict

RESULT_FILE = "result.json"
NOT_JUDGED = frozenset({Outcome.BROKEN_SANDBOX, Outcome.NOT_ATTEMPTED})
"""Outcomes of infrastructure, which are no answers."""
"""A sandbox broke in the tests or in the rollout."""


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """One policy: its greedy replies on the training steps, and the verdicts on its rollouts.

    The rates are shares of ``steps``; ``similarity_mean`` counts a reply out of format as 0.
    """

    label: str
    steps: int
    similarity_mean: float
    format_rate: float
    exact_rate: float
    verdicts: tuple[Verdict, ...]
    weights: str = ""
    """The fingerprint of the policy; empty in results of earlier releases."""

    def resolved(self, instance_ids: Sequence[str]) -> int:
        """The number of these instances that its patches resolved."""
        return sum(
            verdict.outcome is Outcome.RESOLVED and verdict.instance_id in instance_ids
            for verdict in self.verdicts
        )

    @property
    def broken(self) -> frozenset[str]:
        """Instances whose sandbox broke in the rollout or the tests."""
        return frozenset(v.instance_id for v in self.verdicts if v.outcome in NOT_JUDGED)

    def resolved_share(self, instance_ids: Sequence[str]) -> float | None:
        """The share resolved, without instances whose sandbox broke.

        None if no instance is left.
        """
        judged = [name for name in instance_ids if name not in self.broken]
        return self.resolved(judged) / len(judged) if judged else None


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """Settings for all policies of a comparison. ``data``: a folder of step contexts.

    ``grading``: a cache of verdicts keyed by patch, which policies may share. ``harness`` None:
    swebench's, with containers without an owner.
    """

    data: Path
    instances: Sequence[Instance]
    open_sandbox: OpenSandbox
    grading: Path
    window: Window = PAPER_WINDOW
    dialect: str = "xml"
    max_steps: int = 40
    max_new_tokens: int = 512
    harness: Harness | None = None


def evaluate_policy(policy: Path, name: str, on: EvaluationSettings, folder: Path) -> PolicyResult:
    """Score, roll out and grade the policy; a result of the same weights in ``folder`` is kept.

    Instances whose sandboxes broke are tried again. Replies are parsed as in the policy's
    training, or else strictly on steps and leniently in rollouts. ``name`` is the policy's name in
    predictions and in the result.
    """
    path, weights = folder / RESULT_FILE, find_weights(str(policy)).fingerprint
    if path.exists():
        held = load_result(folder)
        if held.weights == weights and not held.broken:
            return held
    from srl_swe.training.generate import greedy_scores

    trained = load_prompting(str(policy))
    scores = greedy_scores(
        policy,
        on.data,
        dialect=on.dialect,
        strictness=trained.strictness if trained else "strict",
        max_new_tokens=on.max_new_tokens,
        template=trained.template if trained else {},
    )
    agent = make_agent(policy, on, trained)
    rollouts = rollout_all(agent, on.instances, on.open_sandbox, folder)
    submitted = predictions(rollouts, name)
    verdicts = grade(on.instances, submitted, on.grading, report=say, harness=on.harness)
    result = PolicyResult(
        label=name,
        steps=scores.n,
        similarity_mean=scores.similarity,
        format_rate=scores.format_rate,
        exact_rate=scores.exact_match,
        verdicts=tuple(verdicts),
        weights=weights,
    )
    write_atomic(path, TypeAdapter(PolicyResult).dump_json(result, indent=2))
    return result


def make_agent(
    policy: Path, on: EvaluationSettings, trained: Prompting | None, batch_size: int = 1
) -> Agent:
    """A greedy agent with the window of the settings; warns if training had another."""
    from srl_swe.rollout.local_policy import LocalPolicy

    dialect, known = get_dialect(on.dialect), trained or Prompting(on.dialect, "lenient")
    used = replace(known, dialect=on.dialect, window=on.window)
    if differing := differences(known, used):
        say(f"warning: {policy} is not prompted as it was trained: {differing}")
    opened = LocalPolicy(
        str(policy),
        max_new_tokens=on.max_new_tokens,
        temperature=0.0,
        template=known.template,
        batch_size=batch_size,
    )
    check_thought(str(policy), opened.opening, known.strictness)
    replies = ReplyFormat(dialect, known.strictness, opened.opening == "opened")
    return Agent(opened, Rules(replies, on.window, EpisodeLimits(steps=on.max_steps)))


def load_result(folder: Path) -> PolicyResult:
    """The result of :func:`evaluate_policy` in the folder. Raises UserError if damaged."""
    path = folder / RESULT_FILE
    with damage_named(str(path), "delete it, and the policy is evaluated again"):
        return TypeAdapter(PolicyResult).validate_json(path.read_bytes())
