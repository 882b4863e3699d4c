"""Worked solutions: their splitting, the rows they come in, and the step contexts made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import load_from_disk
from typer.testing import CliRunner

from srl_swe.cli.main import app
from srl_swe.dialects import FormatReason, ReplyFormat, get_dialect
from srl_swe.dialects.text_steps import split_solution
from srl_swe.domains import MATH, Problem, WorkedSettings
from srl_swe.errors import UserError
from srl_swe.rewards import step_reward
from srl_swe.steps.contexts import Dropped, DropReason, StepContext
from srl_swe.trajectories import Reading, load_trajectories, stream_trajectories
from srl_swe.trajectories.fields import BrokenRecord
from srl_swe.types import Trajectory

from .conftest import TITLED, MakeRow, WriteRows

NAMED = "### Step 1: Count the pairs\nTen.\n\n### Step 2: Add\nSo $\\boxed{20}$."


@pytest.mark.parametrize(
    ("text", "form", "titles"),
    [
        (
            TITLED,
            "titled",
            [r"Identify \(\gcd(a, b)\) and \(2^{3x}\)", "Coprime Pairs", "Conclusion"],
        ),
        ("**1. Pairs**\nTen.\n\n**2. Sum**\nTwenty.", "titled", ["Pairs", "Sum"]),
        ("   1. **Pairs:** ten\n   2. **Sum:** twenty", "titled", ["Pairs", "Sum"]),
        (NAMED, "named", ["Count the pairs", "Add"]),
        ("**Step 1:** Count.\n\n**Step 2: Add them.** Twenty.", "named", ["", "Add them"]),
        ("Step 1: count ten.\nStep 2: add to 20.", "named", ["", ""]),
        ("Let us see.\n## Pairs\nTen.\n## Sum\nTwenty.", "headings", ["Pairs", "Sum"]),
        ("**Pairs**\n\nTen.\n\n**Sum:**\n\nTwenty.", "headings", ["Pairs", "Sum"]),
        ("1. Count ten.\n   1. inner\n2. Add to 20.\n3) Done.", "numbered", ["", "", ""]),
        ("```\n1. code\n2. code\n```\nTen.\n\nTwenty.", "paragraphs", ["", ""]),
        ("We count:\n\n\\[ x = 1 \\]\n\nso ten.\n\nThat gives 20.", "paragraphs", ["", ""]),
        ("It is \\boxed{20}.", "whole", [""]),
        ("3. **Late**\nIt begins at three.", "whole", [""]),
    ],
)
def test_a_solution_is_split_by_its_form(text: str, form: str, titles: list[str]) -> None:
    split = split_solution(text)
    assert (split.form, [step.title for step in split.steps]) == (form, titles)
    pieces = [split.preamble, *(step.text for step in split.steps)]
    assert "".join("".join(pieces).split()) == "".join(text.split()), "no word is lost"


def test_what_precedes_the_first_item_and_what_follows_the_last() -> None:
    split = split_solution(TITLED)
    assert split.preamble == r"To solve this, we count the pairs \((a, b)\)."
    assert split.steps[0].text.endswith("2. one is odd")
    assert "Not a step" in split.steps[1].text
    assert split.steps[2].text.endswith(r"Thus, the answer is \(\boxed{20}\).")


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("<think>ten</think>\n\nThere are 10.", "There are 10."),
        ("There are 10.", FormatReason.NO_THINK),
        ("<think> </think>There are 10.", FormatReason.EMPTY_THOUGHT),
        ("<think>ten</think>", FormatReason.NO_ACTION),
        ("<think>ten</think>2. **A**\nten\n3. **B**\ntwenty", FormatReason.TWO_ACTIONS),
        ("<think>ten</think>Ten.<think>more</think>", FormatReason.BAD_ACTION),
        ("<think>ten</think>By cases:\n1. even\n2. odd", "By cases:\n1. even\n2. odd"),
    ],
)
def test_a_reply_is_a_thought_and_one_step_or_earns_minus_one(
    reply: str, read: str | FormatReason
) -> None:
    form = ReplyFormat(get_dialect("math"))
    score = step_reward(reply, "There are 10.", form)
    if isinstance(read, FormatReason):
        assert (score.reward, score.reason) == (-1.0, read)
    else:
        action = form.parse(reply).action
        assert action is not None
        assert action.arguments["text"] == read
        assert score.reward == step_reward(f"<think>x</think>{read}", "There are 10.", form).reward
        assert (score.reward == 1.0) is (read == "There are 10.")


def test_a_reply_for_a_whole_solution_holds_all_its_steps() -> None:
    form = ReplyFormat(get_dialect("math"), whole_solution=True)
    steps = form.parse_solution(f"<think>all</think>{TITLED}").actions
    assert len(steps) == 3
    assert steps[0].arguments["text"].startswith("To solve this")


def read(path: Path, columns: Mapping[str, str] | None = None) -> list[Trajectory]:
    return list(stream_trajectories(path, Reading(), reader=MATH.reader(columns or {})))


def make(solution: Trajectory, **settings: Any) -> tuple[list[StepContext], list[DropReason]]:
    items = list(MATH.make_steps(solution, WorkedSettings(**settings), None))
    contexts = [item for item in items if isinstance(item, StepContext)]
    return contexts, [item.reason for item in items if isinstance(item, Dropped)]


def test_n_steps_give_n_minus_1_examples_with_the_title_of_the_next(
    s1k_row: MakeRow, write_rows: WriteRows
) -> None:
    (solution,) = read(write_rows(s1k_row()))
    contexts, dropped = make(solution)
    assert dropped == [DropReason.LAST_STEP]
    assert [context.step_index for context in contexts] == [0, 1]
    system, user = contexts[1].prompt
    assert system["content"] == get_dialect("math").SYSTEM_PROMPT
    assert user["content"].startswith("How many?\n\n## The solution so far\n\nTo solve this")
    assert user["content"].endswith("## The next step\n\n2. **Coprime Pairs**")
    assert contexts[1].expert_action.startswith(r"There are \(\varphi")
    assert contexts[1].expert_reply == contexts[1].expert_action
    assert not contexts[1].has_thought

    whole_steps, _ = make(solution, next_title=False, include_last=True)
    assert len(whole_steps) == 3
    assert whole_steps[1].expert_action.startswith("2. **Coprime Pairs**\n")
    assert "The next step" not in whole_steps[1].prompt[1]["content"]


def test_whole_solutions_are_targets_in_the_format_of_evaluation(
    s1k_row: MakeRow, write_rows: WriteRows
) -> None:
    (solution,) = read(write_rows(s1k_row()))
    ((plain,), _), ((reasoned,), _) = (make(solution, target=t) for t in ("solution", "reasoning"))
    assert list(plain.prompt) == MATH.prompt(Problem("p", "", "", "How many?", ""))
    assert "".join(plain.expert_reply.split()) == "".join(TITLED.split())
    assert reasoned.expert_reply == f"<think>\nHm.\n</think>\n\n{plain.expert_reply}"
    assert plain.has_thought


@pytest.mark.parametrize(
    ("row", "columns", "read_as"),
    [
        ({}, {}, ("math-titled", True, "deepseek")),
        ({}, {"solution": "gemini_attempt"}, ("math-headings", False, "gemini")),
        ({"deepseek_grade": None}, {}, ("math-titled", True, "deepseek")),
        ({"deepseek_grade": None, "solution": "21"}, {}, ("math-titled", False, "deepseek")),
        (
            {"deepseek_grade": None, "solution": "A proof.\nLong."},
            {},
            ("math-titled", None, "deepseek"),
        ),
    ],
)
def test_a_row_is_correct_by_its_grade_or_else_by_its_answer(
    s1k_row: MakeRow,
    write_rows: WriteRows,
    row: dict[str, Any],
    columns: dict[str, str],
    read_as: tuple[str, bool | None, str],
) -> None:
    pytest.importorskip("math_verify", reason="needs the extra `math`")
    (solution,) = read(write_rows({**s1k_row(), **row}), columns)
    assert (solution.source, solution.resolved, solution.model) == read_as


@pytest.mark.parametrize(
    "record",
    [
        {"problem": "How many?", "solution": TITLED, "answer": "20"},
        {
            "problem": "How many?",
            "answer": 20,
            "messages": [{"role": "assistant", "content": TITLED}],
        },
        {
            "messages": [
                {"role": "user", "content": "How many?"},
                {"role": "assistant", "content": f"<think>Hm.</think>{TITLED}"},
            ]
        },
        {
            "conversations": [
                {"from": "human", "value": "How many?"},
                {"from": "gpt", "value": TITLED},
            ]
        },
    ],
    ids=["columns", "both", "chat", "ShareGPT"],
)
def test_other_columns_and_chats_are_read(record: Any, write_rows: WriteRows) -> None:
    (solution,) = read(write_rows(record))
    assert (solution.problem_statement, len(solution.steps)) == ("How many?", 3)
    assert solution.resolved is True


@pytest.mark.parametrize("column", ["response", "generation", "attempt", "deepseek_attempt"])
def test_an_attempt_does_not_verify_itself(column: str, write_rows: WriteRows) -> None:
    (solution,) = read(write_rows({"problem": "How many?", column: TITLED}))
    assert solution.resolved is None


def test_parquet_and_plain_texts_are_read(s1k_row: MakeRow, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.Table.from_pylist([s1k_row()]), tmp_path / "rows.parquet")
    (tmp_path / "text.txt").write_text("How many?\n\n1. Count ten.\n2. Add: \\boxed{20}.\n")
    solutions = read(tmp_path)
    assert [solution.source for solution in solutions] == ["math-titled", "math-numbered"]
    assert {solution.problem_statement for solution in solutions} == {"How many?"}
    assert len({solution.instance_id for solution in solutions}) == 1, "one problem, one id"


@pytest.mark.parametrize(
    ("record", "columns", "why"),
    [
        (
            {"solution": TITLED},
            {},
            "no column of a problem: rename it, or give steps",
        ),
        ({"problem": "How many?"}, {}, "no column of a solution"),
        ({"problem": "How many?"}, {"solution": "worked"}, "worked: missing; --column names it"),
        ("It is 20.", {}, "a text must hold a problem and then numbered steps"),
    ],
)
def test_a_record_without_a_part_is_named(
    record: Any, columns: dict[str, str], why: str, write_rows: WriteRows
) -> None:
    with pytest.raises(BrokenRecord, match=why):
        read(write_rows(record), columns)


def test_an_unknown_role_of_a_column_is_refused() -> None:
    with pytest.raises(UserError, match="no role 'solutions'"):
        MATH.reader({"solutions": "x"})


def steps(*words: str) -> str:
    ended = CliRunner().invoke(app, ["steps", "--domain", "math", *words])
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_the_command_keeps_correct_solutions_and_holds_out_whole_problems(
    s1k_row: MakeRow, write_rows: WriteRows, tmp_path: Path
) -> None:
    questions = [f"How many {number}?" for number in range(40)]
    rows = [s1k_row(question) for question in questions for _ in range(2)]
    source = write_rows(*rows, s1k_row("Wrong?", grade="No"), s1k_row("Other?", NAMED))
    out = tmp_path / "steps"
    said = steps(str(source), "--out", str(out), "--validation", "0.3")
    assert "solutions by the form that split them: 81 math-titled, 1 math-named" in said
    train, validation = (load_from_disk(str(p)) for p in (out, tmp_path / "steps-validation"))
    assert len(train) + len(validation) == 2 * 80 + 1
    assert not set(train["instance_id"]) & set(validation["instance_id"])
    assert len(validation) > 0
    card = json.loads((out / "card.json").read_text())
    assert card["dropped_records"] == {"not resolved": 1}
    assert set(card["facts"]["by_source"]) <= {"math-titled", "math-named"}
    assert "mathematics" in (out / "README.md").read_text()
    assert "left as it is" in steps(str(source), "--out", str(out), "--validation", "0.3")


def test_problems_of_a_bench_are_left_out(
    s1k_row: MakeRow, write_rows: WriteRows, tmp_path: Path
) -> None:
    bench = write_rows({"problem": " how  many?", "answer": "20"}, name="bench.jsonl")
    source = write_rows(s1k_row(), s1k_row("Other?"))
    steps(str(source), "--out", str(tmp_path / "steps"), "--not-in", str(bench))
    card = json.loads((tmp_path / "steps/card.json").read_text())
    assert card["dropped_records"] == {"of an evaluated instance": 1}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--pairs", "3"], "--pairs is for the domain software"),
        (["--column", "solution"], "write ROLE=COLUMN"),
        (["--token-budget", "9"], "name a --tokenizer"),
        (["--domain", "maths"], "unknown domain 'maths'. Did you mean 'math'?"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], why: str, write_rows: WriteRows) -> None:
    command = ["steps", "--domain", "math", str(write_rows({})), "--show", "1", *words]
    mistake = CliRunner().invoke(app, command).exception
    assert isinstance(mistake, UserError)
    assert why in str(mistake)


def test_software_reads_its_own_formats(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"problem": "a", "solution": "b"}) + "\n")
    with pytest.raises(UserError, match="not a trajectory of a known format"):
        load_trajectories(tmp_path / "rows.jsonl")
