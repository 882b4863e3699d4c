"""The start of experiments: a tiny policy, and noisy demonstrations to warm it up.

A policy that has memorised the experts' steps leaves nothing for SRL to improve. A policy that
has seen several answers to each situation, some of them wrong or out of format, must find out
which earns the reward, as SRL's curves show.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from srl_swe.dialects import get_dialect
from srl_swe.steps import StepSettings, save_step_contexts
from srl_swe.steps.contexts import StepContext, make_step_contexts
from srl_swe.types import Trajectory

COPIES = 4
WRONG_SHARE = 0.5
UNFINISHED_SHARE = 0.25

_CARD = """\
# Noisy demonstrations

The contexts of `steps/`, each several times, with answers that are right only some of the time.
They warm up the policy of an experiment and serve no other purpose.
"""


def make_tiny_policy(
    steps: Path, folder: Path, seed: int = 0, *, whole_numbers: bool = False
) -> Path:
    """Write a policy with random weights and a tokenizer trained on the texts of ``steps``.

    A large vocabulary and few layers: a reply is some 30 tokens, and training takes minutes.
    ``whole_numbers``: no token holds a number and other text.
    """
    from srl_swe.training import tiny_policy
    from srl_swe.training.data import load_step_contexts

    rows = load_step_contexts(str(steps))
    messages = [message for row in rows for message in row["prompt"] + row["completion"]]
    texts = (message["content"] for message in messages)
    return tiny_policy.make_tiny_policy(
        texts,
        folder,
        vocab_size=4096,
        hidden=192,
        layers=2,
        whole_numbers=whole_numbers,
        seed=seed,
    )


def save_noisy_demonstrations(
    trajectories: Sequence[Trajectory], settings: StepSettings, folder: Path, seed: int = 0
) -> None:
    """Write :func:`make_noisy` of the trajectories' step contexts as a data set for SFT."""
    dialect = get_dialect("xml")
    contexts = [
        item
        for trajectory in trajectories
        for item in make_step_contexts(
            trajectory, dialect, settings.window, include_last=settings.include_last
        )
        if isinstance(item, StepContext)
    ]
    save_step_contexts(make_noisy(contexts, seed), folder, _CARD, asdict(settings))


def make_noisy(contexts: Sequence[StepContext], seed: int = 0) -> list[StepContext]:
    """Each context :data:`COPIES` times: first unchanged, then with doubtful answers.

    With probability :data:`WRONG_SHARE` a doubtful answer is the expert's at another step of the
    same trajectory, though never ``submit``; with :data:`UNFINISHED_SHARE` its call is not closed,
    which is out of format. Every right answer is in the data at least once.
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
    others = [
        other
        for other in contexts
        if other.instance_id == context.instance_id
        and other.expert_action != context.expert_action
        and other.tool != "submit"
    ]
    if rng.random() < WRONG_SHARE and others:
        other = rng.choice(others)
        context = replace(
            context,
            expert_reply=other.expert_reply,
            expert_action=other.expert_action,
            tool=other.tool,
        )
    if rng.random() < UNFINISHED_SHARE:
        reply = context.expert_reply
        context = replace(context, expert_reply=reply[: reply.rindex("</")].rstrip())
    return context
