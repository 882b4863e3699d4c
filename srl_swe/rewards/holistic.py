"""Holistic similarity: all remaining actions in one reply, compared as one text.

    r = 2M / T        of the reply's actions and the expert's from this step on, each joined

The reply holds one thought and then all remaining actions until the issue is resolved, without
the observations in between (paper, ablation of how finely the reward is given: "holistic";
mathematics only there, 25.9 against 27.6 step by step). M and T as in
:mod:`srl_swe.rewards.similarity`, and also -1 out of format.

Weaknesses: step k+1 depends on the unknown output of step k, so the later actions are guesses;
the few important ones are a small share of a long text, which takes long to sample, hence choose
``max_completion_length`` with care.
"""

from __future__ import annotations

from collections.abc import Sequence


def solution_text(actions: Sequence[str]) -> str:
    """The canonical texts of several actions, joined for the comparison."""
    return "\n\n".join(actions)
