"""What a policy can do: greedy replies on step contexts, greedy rollouts, and their verdicts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.evaluation import grade
from srl_swe.evaluation.harness import Harness
from srl_swe.files import damage_named, write_atomic
from srl_swe.progress import say
from srl_swe.rollout import Agent, EpisodeLimits, Rules, predictions, rollout_all
from srl_swe.rollout.prompting import Prompting, differences, load_prompting
from srl_swe.rollout.replies import check_thought
from srl_swe.rollout.weights import find_weights
from srl_swe.sandbox import OpenSandbox
from srl_swe.steps.contexts import StepContext
from srl_swe.steps.prompt import PAPER_WINDOW, Window
from srl_swe.types import Instance, Outcome, Verdict

# Demonstrations for the warm start that are right only some of the time.
#
# A policy that has memorised the experts' steps leaves nothing for SRL to improve. One that has
# seen each situation answered in several ways, some of them wrong or out of format, must find
# out which earns the reward: that is what SRL's curves then show.


COPIES = 4
WRONG_SHARE = 0.5
UNFINISHED_SHARE = 0.25


def careless(contexts: Sequence[StepContext], seed: int = 0) -> list[StepContext]:
    """Each context :data:`COPIES` times: first as it is, then with doubtful answers.

    With the probability :data:`WRONG_SHARE` a doubtful one is the expert's at another step of
    the same trajectory, though never ``submit``; with :data:`UNFINISHED_SHARE` its call is not
    closed, which is out of format. So every right answer is in the data at least once.
    """
    rng = random.Random(seed)
    return [
        _doubtful(context, contexts, rng) if copy else context
        for context in contexts
        for copy in range(COPIES)
    ]


def _doubtful(
    context: StepContext, contexts: Sequence[StepContext], rng: random.Random
) -> StepContext:
    if rng.random() < WRONG_SHARE:
        context = _answered_wrongly(context, contexts, rng)
    if rng.random() < UNFINISHED_SHARE:
        reply = context.expert_reply
        context = replace(context, expert_reply=reply[: reply.rindex("</")].rstrip())
    return context


def _answered_wrongly(
    context: StepContext, contexts: Sequence[StepContext], rng: random.Random
) -> StepContext:
    other = rng.choice(
        [
            other
            for other in contexts
            if other.instance_id == context.instance_id
            and other.expert_action != context.expert_action
            and other.tool != "submit"
        ]
    )
    return replace(
        context,
        expert_reply=other.expert_reply,
        expert_action=other.expert_action,
        tool=other.tool,
    )


RESULT_FILE = "result.json"
_NOT_JUDGED = frozenset({Outcome.BROKEN_SANDBOX, Outcome.NOT_ATTEMPTED})
"""A sandbox broke under the tests, or under the rollout, which then hands in nothing."""


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """One policy: its greedy replies on the training steps, and what its rollouts resolved.

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
        """How many of these instances its patches resolved."""
        return sum(
            verdict.outcome is Outcome.RESOLVED and verdict.instance_id in instance_ids
            for verdict in self.verdicts
        )

    @property
    def broken(self) -> frozenset[str]:
        """Instances of which nothing is known, as a sandbox broke."""
        return frozenset(one.instance_id for one in self.verdicts if one.outcome in _NOT_JUDGED)

    def resolved_share(self, instance_ids: Sequence[str]) -> float | None:
        """Of these instances whose sandboxes held: a broken one is no wrong answer.

        None where none held, or there are none.
        """
        judged = [name for name in instance_ids if name not in self.broken]
        return self.resolved(judged) / len(judged) if judged else None


@dataclass(frozen=True, slots=True)
class Measuring:
    """What policies are measured on, alike for each. ``data``: a folder of step contexts.

    ``grading``: where verdicts are kept; policies may share it, as they are keyed by the patch.
    ``harness``: None is one whose containers carry no owner.
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


def measure(policy: Path, name: str, on: Measuring, folder: Path) -> PolicyResult:
    """Score, roll out and grade the policy; what ``folder`` holds of these weights is kept.

    Instances whose sandboxes broke are tried anew. Replies are read as in the policy's training,
    or else strictly on steps and leniently in rollouts. ``name`` goes into predictions and is the
    label.
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
    agent = _make_agent(policy, on, trained)
    rollouts = rollout_all(agent, on.instances, on.open_sandbox, folder)
    handed_in = predictions(rollouts, name)
    verdicts = grade(on.instances, handed_in, on.grading, report=say, harness=on.harness)
    result = PolicyResult(
        label=name,
        steps=scores.n,
        similarity_mean=scores.similarity_mean,
        format_rate=scores.format_rate,
        exact_rate=scores.exact_rate,
        verdicts=tuple(verdicts),
        weights=weights,
    )
    write_atomic(path, _results().dump_json(result, indent=2))
    return result


def _make_agent(policy: Path, on: Measuring, trained: Prompting | None) -> Agent:
    """Greedy, with the window of the measurement; warns if the policy was trained with another."""
    from srl_swe.rollout.local_policy import open_local_policy

    dialect, known = get_dialect(on.dialect), trained or Prompting(on.dialect, "lenient")
    used = replace(known, dialect=on.dialect, window=on.window)
    if differing := differences(known, used):
        say(f"warning: {policy} is not prompted as it was trained: {differing}")
    opened = open_local_policy(
        str(policy), max_new_tokens=on.max_new_tokens, temperature=0.0, template=known.template
    )
    check_thought(str(policy), opened.opening, known.strictness)
    replies = ReplyFormat(dialect, known.strictness, opened.opening == "opened")
    return Agent(opened, Rules(replies, on.window, EpisodeLimits(steps=on.max_steps)))


def load_result(folder: Path) -> PolicyResult:
    """What :func:`measure` left in the folder. Raises UserError if that is damaged."""
    path = folder / RESULT_FILE
    with damage_named(str(path), "delete it, and the policy is measured again"):
        return _results().validate_json(path.read_bytes())


@cache
def _results() -> TypeAdapter[PolicyResult]:
    return TypeAdapter(PolicyResult)
