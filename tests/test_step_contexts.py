from __future__ import annotations

from pathlib import Path

from datasets import load_from_disk
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.context_window import PAPER_WINDOW, Window
from srl_swe.dialects import get_dialect
from srl_swe.step_contexts import Dropped, DropReason, StepContext, step_contexts
from srl_swe.step_dataset import make_card, save_step_contexts
from srl_swe.types import Action, Observation, Step, Trajectory

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
    items = list(step_contexts(trajectory, XML, **options))  # type: ignore[arg-type]
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


def test_every_step_that_gives_no_example_has_its_reason() -> None:
    steps = (
        Step("t", None),
        Step("t", Action("bash", {"command": "vim"}), executed=False),
        Step("", Action("submit")),
        Step("t", Action("submit")),
    )
    items = list(step_contexts(make_trajectory(0, steps_made=steps), XML))
    reasons = [item.reason for item in items if isinstance(item, Dropped)]
    assert reasons == [DropReason.NO_ACTION, DropReason.NOT_EXECUTED, DropReason.NOT_WRITABLE]
    silent = make_trajectory(problem_statement=None)
    assert {i.reason for i in step_contexts(silent, XML) if isinstance(i, Dropped)} == {
        DropReason.NO_ISSUE
    }


def test_a_step_that_never_ran_is_no_part_of_later_prompts() -> None:
    blocked = Step("t", Action("bash", {"command": "vim"}), Observation("blocked"), executed=False)
    ran = make_trajectory(2).steps
    context = contexts(make_trajectory(0, steps_made=(blocked, *ran)))[-1]
    assert len(context.prompt) == 2


def test_an_issue_over_the_budget_is_dropped_and_counted() -> None:
    window = Window(token_budget=1)
    (item, *_) = step_contexts(make_trajectory(), XML, window, count_tokens=lambda messages: 2)
    assert item == Dropped("a__b-1", 0, DropReason.OVER_BUDGET)


def test_the_data_set_on_disk_has_the_columns_that_training_reads(tmp_path: Path) -> None:
    made = contexts(make_trajectory())
    save_step_contexts(made, tmp_path / "steps", make_card(made, [], PAPER_WINDOW))
    save_step_contexts(made, tmp_path / "steps", make_card(made, [], PAPER_WINDOW))
    rows = load_from_disk(str(tmp_path / "steps"))
    assert set(rows.column_names) == {
        "prompt", "completion", "expert_action", "instance_id", "step_index", "n_steps", "tool",
    }  # fmt: skip
    assert rows[0]["prompt"][0]["role"] == "system"
    assert rows[0]["completion"][0]["content"] == made[0].expert_reply
    assert "| examples | 4 |" in (tmp_path / "steps" / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["steps"]
