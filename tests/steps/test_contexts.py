from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.bundled import bundled
from srl_swe.dialects import get_dialect
from srl_swe.steps.contexts import (
    Dropped,
    DropReason,
    StepContext,
    make_step_contexts,
    trajectory_id,
)
from srl_swe.steps.prompt import Window
from srl_swe.trajectories import load_trajectories
from srl_swe.types import Action, Message, Observation, Step, Trajectory

XML = get_dialect("xml")


def make_trajectory(
    steps: int = 5,
    steps_made: tuple[Step, ...] = (),
    problem_statement: str | None = "issue",
) -> Trajectory:
    counted = tuple(
        Step(f"t{n}", Action("bash", {"command": f"c{n}"}), Observation(f"<<output {n}>>"))
        for n in range(steps)
    )
    return Trajectory("a__b-1", steps_made or counted, problem_statement)


def contexts(trajectory: Trajectory, **options: object) -> list[StepContext]:
    items = list(make_step_contexts(trajectory, XML, **options))  # type: ignore[arg-type]
    return [item for item in items if isinstance(item, StepContext)]


def test_n_steps_give_n_minus_1_examples_and_the_last_only_on_request() -> None:
    assert [c.step_index for c in contexts(make_trajectory(5))] == [0, 1, 2, 3]
    assert [c.step_index for c in contexts(make_trajectory(5), include_last=True)][-1] == 4


@given(st.integers(1, 8), st.one_of(st.none(), st.integers(0, 8)))
def test_no_example_holds_the_observation_of_its_own_step_or_a_later_one(
    steps: int, pairs: int | None
) -> None:
    for context in contexts(make_trajectory(steps), window=Window(pairs), include_last=True):
        seen = "".join(message["content"] for message in context.prompt) + context.expert_reply
        for later in range(context.step_index, steps):
            assert f"<<output {later}>>" not in seen
        for earlier in range(context.step_index):
            within = pairs is None or context.step_index - earlier <= pairs
            assert (f"<<output {earlier}>>" in seen) == within


def test_the_target_is_the_experts_reply_and_its_action() -> None:
    context = contexts(make_trajectory())[1]
    assert context.expert_action == Action("bash", {"command": "c1"}).text
    assert context.expert_reply == f"<think>\nt1\n</think>\n\n{context.expert_action}"
    assert (context.instance_id, context.n_steps, context.tool) == ("a__b-1", 5, "bash")


@pytest.mark.parametrize("issue", [None, " \n"])
def test_every_step_that_gives_no_example_has_its_reason(issue: str | None) -> None:
    steps = (
        Step("t", None),
        Step("t", Action("bash", {"command": "vim"}), executed=False),
        Step("", Action("think", {"thought": "hm"})),
        Step("t", Action("think", {"thought": "hm"})),
        Step("t", Action("submit")),
    )
    items = list(make_step_contexts(make_trajectory(0, steps_made=steps), XML))
    reasons = [item.reason for item in items if isinstance(item, Dropped)]
    assert reasons == ["no_action", "not_executed", "not_writable", "not_writable", "last_step"]
    silent = make_trajectory(problem_statement=issue)
    assert {i.reason for i in make_step_contexts(silent, XML) if isinstance(i, Dropped)} == {
        DropReason.NO_ISSUE,
        DropReason.LAST_STEP,
    }


def test_a_reply_without_a_thought_is_kept_as_its_action_and_marked() -> None:
    steps = (Step(" ", Action("bash", {"command": "ls"})), Step("t", Action("submit")))
    silent, told = contexts(make_trajectory(0, steps_made=steps), include_last=True)
    assert silent.expert_reply == silent.expert_action == Action("bash", {"command": "ls"}).text
    assert (silent.has_thought, told.has_thought) == (False, True)


@given(
    st.lists(st.builds(Step, st.just("t"), st.none() | st.just(Action("submit")), st.none())),
    st.booleans(),
)
def test_every_step_is_an_example_or_dropped(steps: list[Step], include_last: bool) -> None:
    made = make_trajectory(0, steps_made=tuple(steps))
    items = list(make_step_contexts(made, XML, include_last=include_last))
    assert [item.step_index for item in items] == list(range(len(made.steps)))


def test_a_step_that_never_ran_is_no_part_of_later_prompts() -> None:
    blocked = Step("t", Action("bash", {"command": "vim"}), Observation("blocked"), executed=False)
    ran = make_trajectory(2).steps
    context = contexts(make_trajectory(0, steps_made=(blocked, *ran)))[-1]
    assert len(context.prompt) == 2


def test_a_reply_without_an_action_that_was_answered_is_part_of_later_prompts() -> None:
    answered = Step("I am done", None, Observation("There was no action."), executed=False)
    alone = replace(answered, observation=None)
    broken = Step("", None, Observation("sandbox error: gone"), executed=False)
    ran = make_trajectory(2).steps
    context = contexts(make_trajectory(0, steps_made=(answered, alone, broken, *ran)))[0]
    assert [message["content"] for message in context.prompt[2:]] == [
        "I am done",
        "OBSERVATION:\nThere was no action.",
    ]


def test_an_issue_over_the_budget_is_dropped_and_counted() -> None:
    window = Window(token_budget=1)
    (item, *_) = make_step_contexts(make_trajectory(), XML, window, count_tokens=lambda messages: 2)
    assert item == Dropped("a__b-1", 0, DropReason.OVER_BUDGET)


def test_the_tokens_of_prompt_and_completion_are_those_of_the_whole_chat() -> None:
    context = contexts(make_trajectory(), count_tokens=len)[2]
    assert (context.prompt_tokens, context.completion_tokens) == (6, 1)
    assert contexts(make_trajectory())[2].prompt_tokens is None


def test_a_trajectory_without_a_container_gives_contexts_that_say_so() -> None:
    recorded = make_trajectory()
    assert {c.observations for c in contexts(recorded)} == {"recorded"}
    assert {c.observations for c in contexts(replace(recorded, enforced={}))} == {"replayed"}


def test_the_id_of_a_trajectory_is_its_contents() -> None:
    one = make_trajectory()
    assert trajectory_id(one) == trajectory_id(make_trajectory())
    others = (make_trajectory(6), replace(one, model="m"), replace(one, problem_statement="x"))
    assert len({trajectory_id(t) for t in (one, *others)}) == 4


BUNDLED = load_trajectories(bundled("trajectories") / "starter.jsonl")


@pytest.mark.parametrize("trajectory", BUNDLED, ids=lambda trajectory: trajectory.instance_id)
def test_contexts_of_the_bundled_trajectories_are_as_the_paper_says(
    trajectory: Trajectory,
) -> None:
    made = contexts(trajectory)
    assert len(made) == len(trajectory.steps) - 1
    for index, context in enumerate(made):
        shown = trajectory.steps[max(0, index - 2) : index]
        pairs: list[Message] = []
        for step in shown:
            assert step.action is not None
            assert step.observation is not None
            said = step.observation.text or (
                "Your command ran successfully and did not produce any output."
            )
            pairs += [
                {"role": "assistant", "content": step.action.text},
                {"role": "user", "content": f"OBSERVATION:\n{said}"},
            ]
        assert list(context.prompt[2:]) == pairs
        assert context.prompt[1]["content"] == (trajectory.problem_statement or "").strip()
        assert context.expert_reply.endswith(context.expert_action)


def test_one_bundled_context_to_the_letter() -> None:
    (trajectory,) = [t for t in BUNDLED if t.instance_id == "starter__inikit-1"]
    context = contexts(trajectory)[1]
    assert [message["content"] for message in context.prompt[2:]] == [
        """\
<function=str_replace_editor>
<parameter=command>create</parameter>
<parameter=path>/testbed/reproduce.py</parameter>
<parameter=file_text>
import inikit

for text in (b"[server]\\nport = 80\\n", b"port = 80\\n"):
    with open("bom.ini", "wb") as file:
        file.write(b"\\xef\\xbb\\xbf" + text)
    print(inikit.load("bom.ini").as_dict())
</parameter>
</function>""",
        "OBSERVATION:\nFile created successfully at: /testbed/reproduce.py",
    ]
    assert (
        context.expert_reply
        == """\
<think>
Run it; I expect the error of the issue.
</think>

<function=bash>
<parameter=command>python reproduce.py 2>&1 | tail -n 1</parameter>
</function>"""
    )


def test_a_call_with_arguments_that_our_tool_refuses_is_not_writable_nor_shown() -> None:
    look = Step("t", Action("bash", {"command": "ls"}), Observation("x"))
    restart = Step("t", Action("bash", {"restart": "true"}), Observation("restarted"))
    delete = Step("t", Action("str_replace_editor", {"command": "delete", "path": "/a"}))
    steps = (look, restart, look, look, look, delete, look)
    items = list(make_step_contexts(Trajectory("i", steps, "issue", source="chat"), XML))
    made = [item.step_index for item in items if isinstance(item, StepContext)]
    dropped = {i.step_index: i.reason.value for i in items if isinstance(i, Dropped)}
    assert made == [0, 4], "two pairs are shown: not the restart"
    assert dropped == dict.fromkeys((1, 2, 3, 5), "not_writable") | {6: "last_step"}
