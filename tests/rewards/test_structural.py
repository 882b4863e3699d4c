from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.dialects import DIALECTS
from srl_swe.rewards.final_answer import final_answer_rewards
from srl_swe.rewards.gated import OUTSIDE, gated_rewards
from srl_swe.rewards.similarity import similarity_reward
from srl_swe.rewards.structural import structural_rewards
from srl_swe.rewards.words import change_overlap, make_change, program, shell_words
from srl_swe.types import Action

from .specimens import (
    BODY,
    BUG,
    CREATE,
    FIX,
    LONG_EDIT,
    MINIMAL_EDIT,
    TESTS,
    VIEW,
    bash,
    editor,
    replace,
)  # fmt: skip

CODE = st.lists(st.sampled_from(["a = 1", "  b(a)", "", "return b"]), max_size=8).map("\n".join)


def structural(candidate: str, expert: str) -> float:
    return structural_rewards([candidate], expert)[0]


def test_an_edit_that_changes_nothing_earns_nothing_where_text_sees_no_difference() -> None:
    no_op = replace(BODY, BODY)
    assert similarity_reward(no_op, LONG_EDIT) > 0.999
    assert structural(no_op, LONG_EDIT) == 0.0


def test_the_same_change_with_less_of_the_file_quoted_is_the_same_edit() -> None:
    assert similarity_reward(MINIMAL_EDIT, LONG_EDIT) < 0.2
    assert structural(MINIMAL_EDIT, LONG_EDIT) == 1.0
    part_of_a_line = replace("total + 7", "total - 7")
    assert 0.7 < structural(part_of_a_line, LONG_EDIT) < 1


@given(CODE, CODE, CODE, CODE)
def test_lines_quoted_around_a_change_are_no_part_of_it(
    before: str, old: str, new: str, after: str
) -> None:
    fenced = [f"{before}\n# start\n{body}\n# end\n{after}" for body in (old, new)]
    assert make_change(*fenced) == make_change(f"# start\n{old}\n# end", f"# start\n{new}\n# end")


@given(CODE, CODE)
def test_a_change_is_like_itself_and_empty_where_nothing_changes(old: str, new: str) -> None:
    change = make_change(old, new)
    assert change_overlap(change, change) == 1.0
    assert not make_change(old, old).lines


def test_a_wrong_word_in_the_right_line_is_half_right() -> None:
    wrong = replace(BUG, FIX.replace("-", "*"))
    assert structural(wrong, LONG_EDIT) == 0.5


def test_an_indentation_that_is_put_right_is_a_change() -> None:
    fix = replace("  return x", "    return x")
    assert structural(replace("  return x", "  return x"), fix) == 0.0
    assert structural(fix, replace("if x:\n  return x", "if x:\n    return x")) == 1.0


def test_a_line_that_only_moves_is_judged_by_the_lines() -> None:
    moved = replace("a = 1\nb = 2", "b = 2\na = 1")
    assert structural(moved, moved) == 1.0
    assert structural(replace("a = 1\nb = 2", "a = 1\nb = 2"), moved) == 0.0


def test_an_insertion_and_a_replacement_that_adds_the_same_line_are_one_edit() -> None:
    inserted = editor("insert", insert_line="3", new_str="    check(x)")
    replaced = replace("def f(x):", "def f(x):\n    check(x)")
    assert structural(replaced, inserted) == 1.0
    elsewhere = editor("insert", insert_line="40", new_str="    check(x)")
    assert structural(elsewhere, inserted) == 0.5


def test_another_kind_of_action_earns_nothing_however_alike_its_text() -> None:
    for candidate in (TESTS, editor("view"), Action("submit").text, CREATE, "no action"):
        assert structural(candidate, LONG_EDIT) == 0.0


def test_the_path_decides_and_the_root_of_the_checkout_is_no_part_of_it() -> None:
    look = editor("view", "/testbed/pkg/core/a.py")
    assert structural(editor("view", "/testbed/pkg/./core//a.py"), look) == 1.0
    assert structural(editor("view", "/testbed/pkg/core/b.py"), look) == pytest.approx(1 / 3)
    assert structural(editor("view", "/testbed/setup.py"), look) == 0.0


def test_a_view_is_judged_by_the_lines_it_shows() -> None:
    def ranged(lines: str) -> float:
        return structural(editor("view", view_range=lines), VIEW)

    assert ranged("[10,50]") == 1.0
    assert ranged("[10, 20]") == pytest.approx((1 + 11 / 41) / 2)
    assert ranged("[60, 70]") == ranged("all of it") == 0.5
    assert ranged("9" * 5_000) == 0.5
    to_the_end = editor("view", view_range="[100, -1]")
    assert structural(to_the_end, editor("view", view_range="[100, -1]")) == 1.0


def test_a_created_file_is_judged_by_its_lines() -> None:
    script = "import a\n\nprint(a)\n"
    create = editor("create", file_text=script)
    assert structural(editor("create", file_text=script.replace("\n\n", "\n")), create) == 1.0
    assert structural(editor("create", file_text="import a\n"), create) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ls -l 'my file'|head", ["ls", "-l", "my", "file", "|", "head"]),
        ("python -c 'import a; print(a)'", ["python", "-c", "import", "a;", "print(a)"]),
        ("cd /repo && ls", ["cd /repo", "ls"]),
        ("cd /repo", ["cd", "/repo"]),
        ("echo don't  stop", ["echo", "don't", "stop"]),
        ("grep '' x", ["grep", "", "x"]),
        ("", []),
    ],
)
def test_a_command_is_cut_as_a_shell_would_and_one_that_no_shell_takes_at_its_spaces(
    command: str, words: list[str]
) -> None:
    assert shell_words(command) == words


def test_the_order_of_words_counts() -> None:
    assert structural(bash("cp b a"), bash("cp a b")) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("cd /repo && PYTHONPATH=. python -m pytest", "python"),
        ("(cd a; ls)", "cd"),
        ("FOO=1", ""),
        ("", ""),
    ],
)
def test_the_program_of_a_command_is_the_first_that_does_something(command: str, name: str) -> None:
    assert program(command) == name


@pytest.mark.parametrize(
    ("candidate", "expert"),
    [
        (bash("rm -rf /testbed"), bash("ls -la /testbed")),
        (bash(""), bash("ls")),
        (Action("submit").text, bash("ls")),
        (editor("view"), LONG_EDIT),
        (VIEW.replace("steps.py", "stops.py"), VIEW),
    ],
)
def test_outside_of_the_gate_a_reward_is_a_quarter_and_keeps_its_order(
    candidate: str, expert: str
) -> None:
    (reward,) = gated_rewards([candidate], expert)
    assert reward == OUTSIDE * similarity_reward(candidate, expert)


def test_inside_of_the_gate_it_is_the_papers_reward() -> None:
    pairs = [(bash("cd /a && ls -l"), bash("ls")), (replace("a", "b"), LONG_EDIT), (TESTS, TESTS)]
    for candidate, expert in pairs:
        assert gated_rewards([candidate], expert) == [similarity_reward(candidate, expert)]


@pytest.mark.parametrize(
    ("candidate", "expert"), [("ls -l src", "ls src"), ("cd /a && ls", "ls"), ("rm x", "ls x")]
)
def test_a_command_earns_the_same_in_every_dialect(candidate: str, expert: str) -> None:
    pairs = [
        [
            dialect.render_action(Action("bash", {"command": command}))
            for command in (candidate, expert)
        ]
        for dialect in DIALECTS.values()
    ]
    assert len({structural(*pair) for pair in pairs}) == 1
    gates = [gated_rewards(pair[:1], pair[1]) == [similarity_reward(*pair)] for pair in pairs]
    assert len(set(gates)) == 1, "the same commands are inside of the gate"


def test_the_final_answer_is_the_last_edit_and_without_one_the_last_action() -> None:
    def ends_as(candidate: list[str], expert: list[str]) -> float:
        return final_answer_rewards(["\n\n".join(candidate)], "\n\n".join(expert))[0]

    assert ends_as([TESTS, MINIMAL_EDIT], [VIEW, LONG_EDIT, TESTS]) == 1.0
    assert ends_as([MINIMAL_EDIT, replace("x", "y")], [MINIMAL_EDIT, TESTS]) == 0.0
    assert ends_as([VIEW, TESTS], [MINIMAL_EDIT, TESTS]) == 0.0
    assert ends_as([bash("ls"), TESTS], [VIEW, TESTS]) == 1.0
    assert ends_as([CREATE, TESTS], [VIEW, TESTS]) == 1.0
    assert ends_as([TESTS, VIEW], [VIEW, TESTS]) == 0.0
