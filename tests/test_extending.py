"""docs/extending.md: its examples are one module, which is used as the page says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.domains import WorkedSettings, find_domain, find_worked
from srl_swe.engines import SandboxSettings, sandboxes_for
from srl_swe.errors import UserError
from srl_swe.instances import load_instances
from srl_swe.plugins import GROUPS, find_named
from srl_swe.rewards.table import StepScore, find_step_reward, step_reward, weight_shares
from srl_swe.rollout import Agent, Rules, rollout
from srl_swe.steps import StepMaker, StepSource
from srl_swe.testing import FakeSandbox, ScriptedPolicy
from srl_swe.tools import find_tool
from srl_swe.trajectories import Reading, ReadReport, load_trajectories
from srl_swe.types import Action, Outcome

PAGE = (Path(__file__).parents[1] / "docs/extending.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page's module by a name of its own, in the current folder."""
    name = f"examples_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text("\n\n".join(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_every_group_of_entry_points_stands_on_the_page() -> None:
    assert all(f"`{group}`" in PAGE for group in GROUPS.values())
    assert len(EXAMPLES) == len(GROUPS)


def test_a_reward_of_the_users_is_scored_and_mixed(module: str) -> None:
    name = f"{module}:length_reward"
    assert find_step_reward(name)(["abcd", "ab"], "abcd") == [1.0, 0.5]
    assert weight_shares({name: 1, "similarity": 3}) == {name: 0.25, "similarity": 0.75}


def test_a_dialect_of_the_users_asks_and_reads(module: str) -> None:
    terse = get_dialect(f"{module}:terse")
    assert terse.SYSTEM_PROMPT.endswith("to one sentence.")
    assert terse.parse_reply("<think>a</think><function=submit></function>").action is not None


def test_a_reader_of_the_users_reads_a_file_of_its_format(module: str, tmp_path: Path) -> None:
    path = tmp_path / "teacher.jsonl"
    pair = {"ran": "ls", "printed": "a.py"}
    path.write_text(json.dumps({"id": "a__b-1", "pairs": [pair]}) + "\n")
    with pytest.raises(UserError, match=r"teacher.jsonl:1"):
        load_trajectories(path)
    (read,) = load_trajectories(path, Reading(reader=f"{module}:pairs"))
    assert read.source == "pairs"
    assert read.steps[0].action == Action("bash", {"command": "ls"})


def test_a_sandbox_of_the_users_is_opened(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    instance = load_instances("starter")[0]
    open_sandbox = sandboxes_for([instance], SandboxSettings(f"{module}:logged"))
    with open_sandbox(instance) as sandbox:
        assert sandbox.exec("echo here").output == "here\n"
    assert capsys.readouterr().out == f"opening a sandbox for {instance.instance_id}\n"


def test_a_tool_of_the_users_answers_a_policy(module: str) -> None:
    name, tool = find_tool(f"{module}:count_lines")
    call = "<think>long?</think><function=count_lines><parameter=path>/a.py</parameter></function>"
    policy = ScriptedPolicy([call, "<think>done</think><function=submit></function>"])
    rules = Rules(ReplyFormat(get_dialect(f"{module}:counting"), "lenient"), tools={name: tool})
    attempt = rollout(
        Agent(policy, rules), load_instances("starter")[0], FakeSandbox(files={"/a.py": b"1\n2\n"})
    )
    first = attempt.steps[0].observation
    assert first is not None
    assert first.text == "2 lines"


def test_a_domain_of_the_users_makes_steps_and_verifies_answers(
    module: str, tmp_path: Path
) -> None:
    name = f"{module}:puzzles"
    solution = "1. **Sort**\n   It is a, e, t.\n2. **Read**\n   So \\boxed{tea}."
    row = {"problem": "Make a drink of t, a, e.", "solution": solution, "answer": "EAT"}
    (tmp_path / "puzzles.jsonl").write_text(json.dumps(row) + "\n")
    domain = find_domain(name)
    source = StepSource("puzzles.jsonl", reader=domain.reader({}))
    maker = StepMaker(WorkedSettings(name), make_steps=domain.make_steps)
    (trajectory,) = source.stream(ReadReport())
    assert trajectory.resolved
    (made,) = maker.rows(trajectory)
    assert made["prompt"][1]["content"].endswith("## The next step\n\n1. **Sort**")
    form = ReplyFormat(get_dialect(name))
    score = step_reward("<think>a</think>It is a, e, t.", made["expert_action"], form)
    assert score == StepScore(1.0, 1.0, None)
    worked = find_worked(name)
    assert worked is not None
    (problem,) = worked.load_problems("puzzles.jsonl")
    verdicts = [worked.verifier()(problem, text).outcome for text in ("tea", "ate it")]
    assert verdicts == [Outcome.RESOLVED, Outcome.UNRESOLVED]


def test_a_package_names_its_extensions_by_entry_points(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = tmp_path / "mine-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        f"[srl_swe.rewards]\nlength = {module}:length_reward\nbroken = {module}_no:x\n"
    )
    assert find_step_reward("length")(["ab"], "ab") == [1.0]
    with pytest.raises(UserError, match="reward broken, of mine: its import failed: ModuleNotFou"):
        find_step_reward("broken")
    with pytest.raises(UserError, match="Did you mean 'length'"):
        find_step_reward("lenght")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("{}_no:x", "no module '{}_no' in the current folder or on PYTHONPATH."),
        ("{}:lenght_reward", "has no 'lenght_reward'. Did you mean 'length_reward'?"),
        ("{}:EXAMPLE", "has no 'EXAMPLE'."),
        ("a b:c", "write MODULE:NAME, such as my_module:my_reward."),
        ("{}:__doc__", "not callable"),
        ("broken:x", "its import failed: ZeroDivisionError: division by zero."),
    ],
)
def test_a_mistake_in_a_name_is_one_line(module: str, tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(UserError) as mistake:
        find_step_reward(name.format(module))
    assert why.format(module) in str(mistake.value)
    assert "\n" not in str(mistake.value)


def test_what_an_extension_lacks_is_named(module: str) -> None:
    with pytest.raises(UserError, match=r"dialect .*: lacks SOLUTION_PROMPT, SYSTEM_PROMPT"):
        get_dialect(f"{module}:")
    assert find_named("reader", f"{module}:pairs", {}, needs=("name",)) is not None


def test_the_command_line_takes_a_reader_from_the_current_folder(
    module: str, tmp_path: Path
) -> None:
    (tmp_path / "teacher.jsonl").write_text(json.dumps({"id": "a__b-1", "pairs": []}) + "\n")
    words = ("convert", "teacher.jsonl", "--reader", f"{module}:pairs", "--out", "mine.jsonl")
    command = [sys.executable, "-P", "-m", "srl_swe", *words]
    environment = {**os.environ, "PYTHONPATH": ""}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    assert '"source": "pairs"' in (tmp_path / "mine.jsonl").read_text()
