from __future__ import annotations

import random

from srl_swe.experiments.warm_start import COPIES, make_noisy
from srl_swe.steps.contexts import StepContext

TOOLS = ("bash", "str_replace_editor", "bash", "submit")
CONTEXTS = [
    StepContext(
        instance_id=name,
        step_index=index,
        n_steps=len(TOOLS),
        prompt=({"role": "user", "content": f"{name} at {index}"},),
        expert_reply=f"Thought of {name} at {index}.\n<call {name} {index}>\n</call>",
        expert_action=f"<call {name} {index}>\n</call>",
        tool=tool,
        trajectory_id=name,
        observations="recorded",
        source="srl-swe",
    )
    for name in ("a__b-1", "a__b-2", "a__b-3")
    for index, tool in enumerate(TOOLS)
]


def test_every_context_is_answered_rightly_at_least_once() -> None:
    demonstrations = make_noisy(CONTEXTS)
    assert len(demonstrations) == COPIES * len(CONTEXTS)
    assert demonstrations[::COPIES] == CONTEXTS


def test_a_wrong_answer_is_another_steps_of_the_same_trajectory_and_never_submits() -> None:
    right = {(c.instance_id, c.step_index): c for c in CONTEXTS}
    replies = {c.expert_action: c.expert_reply for c in CONTEXTS}
    wrong = [
        d
        for d in make_noisy(CONTEXTS)
        if d.expert_action != right[d.instance_id, d.step_index].expert_action
    ]
    assert wrong
    for demonstration in wrong:
        assert f"<call {demonstration.instance_id} " in demonstration.expert_action
        assert replies[demonstration.expert_action].startswith(demonstration.expert_reply)
        assert demonstration.tool != "submit"


def test_an_unfinished_answer_lacks_the_end_of_its_call_and_nothing_else() -> None:
    demonstrations = make_noisy(CONTEXTS)
    unfinished = [d for d in demonstrations if not d.expert_reply.endswith("</call>")]
    assert 0 < len(unfinished) < len(demonstrations) / 2
    assert all(d.expert_reply.endswith(">") for d in unfinished)


def test_the_same_seed_gives_the_same_demonstrations() -> None:
    random.seed(1)
    first = make_noisy(CONTEXTS, seed=3)
    random.seed(2)
    assert make_noisy(CONTEXTS, seed=3) == first
    assert make_noisy(CONTEXTS, seed=4) != first
