from __future__ import annotations

from pathlib import Path

import pytest

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.instances import load_instances
from srl_swe.rollout import Agent, Rules, rollout
from srl_swe.sandbox import majority, normal_form
from srl_swe.sandbox.working_tree import Blob, Change
from srl_swe.testing import ScriptedPolicy
from srl_swe.trajectories.jsonl import parse_line, render_line
from srl_swe_envs.local import open_local_sandbox

OLD = '''"""Words."""

def f(a, b):
    """Add."""
    return a - b  # add
'''
FIXED = OLD.replace("a - b", "a + b")


def blob(text: str | bytes | None, mode: str = "100644") -> Blob | None:
    if text is None:
        return None
    return Blob(mode, text if isinstance(text, bytes) else text.encode())


def form_of(*changes: tuple[str, str | bytes | None, str | bytes | None]) -> str | None:
    return normal_form([Change(path.encode(), blob(old), blob(new)) for path, old, new in changes])


@pytest.mark.parametrize(
    "same",
    [
        FIXED.replace("# add", "# and not subtract"),
        FIXED.replace('    """Add."""\n', ""),
        FIXED.replace('"""Words."""\n', "# Words.\n"),
        FIXED.replace("a + b", "(a +\n        b)"),
        FIXED.replace("def f(a, b)", "\n\n\ndef f(a,b)"),
        FIXED.replace("\n", "\r\n"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(same: str) -> None:
    assert form_of(("a.py", OLD, same)) == form_of(("a.py", OLD, FIXED)) is not None


@pytest.mark.parametrize(
    "other",
    [
        [("a.py", OLD, FIXED.replace("a + b", "b + a"))],
        [("b.py", OLD, FIXED)],
        [("a.py", OLD, None)],
        [("a.py", OLD, FIXED), ("c.txt", "x\n", "x \n")],
        [("a.py", OLD, FIXED), ("c.py", None, "")],
        [("a.py", OLD, FIXED + "    return (\n")],
        [("a.py", OLD, FIXED.replace('"""Add."""', 'b"Add."'))],
    ],
)
def test_another_change_has_another_form(other: list[tuple[str, str, str | None]]) -> None:
    assert form_of(*other) not in {form_of(("a.py", OLD, FIXED)), None}


def test_files_in_which_only_comments_change_do_not_count_either() -> None:
    remark = ("b.py", "x = 1\n", "x = 1  # remark\n")
    assert form_of(("a.py", OLD, FIXED), remark) == form_of(("a.py", OLD, FIXED))
    assert form_of(remark) is None
    assert form_of() is None


def test_an_executable_bit_is_a_change() -> None:
    assert normal_form([Change(b"a.py", blob("x"), blob("x", "100755"))]) is not None


@pytest.mark.parametrize(
    "hostile",
    [
        b"\xff\xfe\x00",
        "x = " + "-" * 20_000 + "1",
        "x = a" + ".b" * 20_000,
        "x = 1" + " + 1" * 20_000,
        "x = " + "9" * 5000,
        "# coding: nonsense\nx = 1",
        'x = "' + "a" * 2**20 + '"',
    ],
    ids=["bytes", "nested", "attributes", "sum", "digits", "coding", "large"],
)
def test_text_that_python_does_not_parse_is_compared_as_it_is(hostile: str | bytes) -> None:
    assert form_of(("a.py", OLD, hostile)) != form_of(("a.py", OLD, FIXED))
    assert form_of(("a.py", hostile, hostile)) is None


@pytest.mark.parametrize(
    ("forms", "winner"),
    [
        (["a"], 0),
        (["a", "b", "b"], 1),
        (["a", "b", "b", "a"], 0),
        (["c", "b", "a", "a", "b"], 1),
        ([None, None, "a"], 2),
        ([None, "b", None, "a", "a"], 3),
        ([None, None], None),
        ([], None),
    ],
)
def test_the_majority_wins_ties_go_to_the_first_and_empty_patches_never_vote(
    forms: list[str | None], winner: int | None
) -> None:
    assert majority(forms) == winner


@pytest.mark.slow
def test_a_rollout_records_the_form_of_what_it_left(tmp_path: Path) -> None:
    (instance,) = load_instances("starter", ids=["starter__inikit-1"])
    form = ReplyFormat(get_dialect("xml"), "lenient")

    def rolled_out(command: str) -> tuple[str | None, str | None]:
        call = f"<function=bash>\n<parameter=command>{command}</parameter>\n</function>"
        policy = ScriptedPolicy([call, "<function=submit>\n</function>"])
        with open_local_sandbox(instance) as sandbox:
            result = rollout(Agent(policy, Rules(form)), instance, sandbox)
        assert parse_line(render_line(result), "here") == result
        return result.patch, result.normal_form

    first, first_form = rolled_out("echo 'new = 1' >> inikit/reader.py")
    second, second_form = rolled_out("printf '\\n\\n# new\\nnew=1\\n' >> inikit/reader.py")
    assert first != second
    assert first_form == second_form is not None
    assert rolled_out("echo '# nothing' >> inikit/reader.py")[1] is None
    assert rolled_out("true") == ("", None)
