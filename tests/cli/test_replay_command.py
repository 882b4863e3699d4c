from __future__ import annotations

import io
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import load_from_disk
from rich.console import Console
from typer.testing import Result

from srl_swe.bundled import bundled
from srl_swe.cli.replay_table import LiveTable, print_result
from srl_swe.errors import ImageMissing, UserError
from srl_swe.files import held_alone
from srl_swe.instances import load_instances, row_from_instance
from srl_swe.replay import Ending, certify_all, summarise
from srl_swe.replay.batch import Attempt
from srl_swe.replay.certificate import load_certificates
from srl_swe.replay.normalise import Match
from srl_swe.replay.run import ReplayedStep
from srl_swe.steps.card import load_card
from srl_swe.trajectories import load_trajectories, save_jsonl
from srl_swe.types import Action, Observation, Step, Trajectory

from ..commands import invoke, srl_swe, srl_swe_process

pytestmark = pytest.mark.slow


STARTER = load_trajectories(bundled("trajectories") / "starter.jsonl")


def replay(*arguments: str) -> Result:
    return invoke("replay", *arguments)


def saved(folder: Path, *trajectories: Trajectory) -> str:
    save_jsonl(folder / "trajectories.jsonl", trajectories)
    return str(folder / "trajectories.jsonl")


def test_all_bundled_trajectories_are_faithful_without_a_container(tmp_path: Path) -> None:
    result = replay("--sandbox", "local", "--limit", "2", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert len(load_certificates(tmp_path / "certificates.jsonl")) == 2
    assert json.loads((tmp_path / "summary.json").read_text())["all_faithful"] is True
    assert "2 of 2 replays are faithful" in (tmp_path / "report.html").read_text()


def test_another_patch_is_exit_code_1(tmp_path: Path) -> None:
    theirs = saved(tmp_path, replace(STARTER[0], patch="diff --git a/x b/x\n+x\n"), STARTER[1])
    result = replay(theirs, "--sandbox", "local", "--trust-commands")
    assert result.exit_code == 1
    assert "other patch" in result.output


def test_what_has_no_instance_is_listed_and_the_others_are_replayed(tmp_path: Path) -> None:
    theirs = saved(tmp_path, STARTER[0], replace(STARTER[1], instance_id="no__body-1"))
    result = replay(theirs, "--sandbox", "local", "--trust-commands", "--until", "1")
    assert result.exit_code == 1
    assert "not replayed: no__body-1: not_in_bench" in result.output
    with pytest.raises(UserError, match="starter holds none of the 1 instances"):
        replay(saved(tmp_path, replace(STARTER[1], instance_id="no__body-1")))


def test_grading_needs_a_folder() -> None:
    with pytest.raises(UserError, match="--out"):
        replay("--grade")


def test_a_shell_is_for_one_trajectory_and_for_a_person() -> None:
    with pytest.raises(UserError, match="one trajectory, and these are 8"):
        replay("--shell", "--sandbox", "local")
    with pytest.raises(UserError, match="--shell needs a terminal"):
        replay("--shell", "--sandbox", "local", "--limit", "1")


def test_a_place_that_can_not_be_written_is_a_mistake_before_anything_runs(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    ours = ("--sandbox", "local", "--limit", "1")
    for options, why in (
        (("--out", str(file)), "is a file"),
        (("--record", str(tmp_path)), "is a folder"),
        (("--record", str(file / "record.jsonl")), "takes no files"),
        (("--shell", "--out", str(tmp_path)), "leaves no results"),
    ):
        with pytest.raises(UserError, match=why):
            replay(*ours, *options)


def test_names_that_a_record_gives_are_printed_to_the_letter(tmp_path: Path) -> None:
    theirs = saved(tmp_path, replace(STARTER[0], source="[/mine]"))
    result = replay(theirs, "--sandbox", "local", "--trust-commands", "--until", "0")
    assert "[/mine]" in result.output


@pytest.mark.docker
def test_replays_are_graded_and_a_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    idle = replace(STARTER[1], steps=STARTER[1].steps[-1:], patch=None)
    theirs = saved(tmp_path, STARTER[0], idle)
    for _ in range(2):
        result = replay(theirs, "--grade", "--out", str(tmp_path / "out"))
        assert result.exit_code == 0, result.output
        graded = [c.verdict for c in load_certificates(tmp_path / "out" / "certificates.jsonl")]
        assert [one and one.outcome for one in graded] == ["resolved", "empty_patch"]
    assert "replay 1/" not in result.output


@pytest.mark.docker
def test_an_image_that_nobody_has_ends_its_own_trajectories(tmp_path: Path) -> None:
    first, second = (i for i in load_instances("starter") if i.instance_id in
                     {STARTER[0].instance_id, STARTER[1].instance_id})  # fmt: skip
    lacking = replace(second, instance_id="no__body-1", image="localhost:1/nobody/has:this")
    bench = tmp_path / "bench.jsonl"
    rows = [json.dumps(row_from_instance(one)) for one in (first, lacking)]
    bench.write_text("\n".join(rows) + "\n")
    other = replace(STARTER[1], instance_id="no__body-1")
    result = replay(saved(tmp_path, STARTER[0], other), "--bench", str(bench))
    assert result.exit_code == 1
    assert "not replayed: no__body-1: image_missing" in result.output
    with pytest.raises(ImageMissing, match="no image of these trajectories can be had"):
        replay(saved(tmp_path, other), "--bench", str(bench))


def make_attempts() -> list[Attempt]:
    broken = Attempt("1", STARTER[0], Ending.BROKEN_SANDBOX, reason="[red]killed[/]")
    return [broken, Attempt("2", STARTER[1], Ending.NOT_IN_BENCH, reason="not there")]


def test_the_live_table_has_a_row_for_each_that_is_running() -> None:
    console = Console(file=io.StringIO(), width=100)
    table = LiveTable(2, console)
    table.begin("1", STARTER[0], 7)
    table.begin("2", STARTER[1], 10)
    table.step("2", 0, ReplayedStep(None, Match.EQUAL, 0.1))
    table.step("2", 1, ReplayedStep(None, Match.DIFFERENT, 0.1))
    console.print(table)
    table.end(make_attempts()[0])
    console.print(table)
    before, _, after = console.file.getvalue().partition("killed")  # type: ignore[attr-defined]
    assert [line.split()[1:] for line in before.splitlines() if line.startswith("starter__")][
        :2
    ] == [
        ["0/7", "opening", "-"],
        ["2/10", "different", "1"],
    ]
    assert "0/2" in before
    assert "1/2" in after
    assert STARTER[0].instance_id not in after
    assert "ETA" in after


def test_the_result_names_all_that_was_not_replayed() -> None:
    console = Console(file=io.StringIO(), width=80)
    certificates = certify_all(make_attempts(), {})
    print_result(summarise(certificates), certificates, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "broken_sandbox: [red]killed[/]" in printed
    assert "not_in_bench: not there" in printed
    assert "…" not in printed


def test_elsewhere_than_on_a_terminal_there_are_plain_lines() -> None:
    options = ("--sandbox", "local", "--limit", "1", "--until", "1")
    result = srl_swe("replay", *options, COLUMNS="100")
    assert "replay 1/1: starter__inikit-1: 1 steps, faithful" in result.stderr
    assert "\x1b" not in result.stderr + result.stdout


LOCAL = ("--sandbox", "local", "--trust-commands")


def test_a_record_without_steps_gets_no_certificate(tmp_path: Path) -> None:
    empty = replace(STARTER[1], steps=(), patch=None)
    blocked = replace(
        STARTER[2], steps=tuple(replace(step, executed=False) for step in STARTER[2].steps)
    )
    theirs, out = saved(tmp_path, STARTER[0], empty, blocked), tmp_path / "out"
    result = replay(theirs, *LOCAL, "--out", str(out), "--record", str(tmp_path / "r.jsonl"))
    assert result.exit_code == 1
    assert "no_steps: the record has no steps" in result.output
    assert "no_steps: nothing in the record ran" in result.output
    assert "0 steps, faithful" not in result.output
    (certificate,) = load_certificates(out / "certificates.jsonl")
    assert certificate.instance_id == STARTER[0].instance_id
    assert len(load_trajectories(tmp_path / "r.jsonl")) == 1
    assert json.loads((out / "summary.json").read_text())["endings"]["no_steps"] == 2


def test_one_folder_is_one_runs(tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "out"))
    ours = ("--sandbox", "local", "--limit", "1")
    assert replay(*ours, *out).exit_code == 0
    assert replay("--sandbox", "local", "--limit", "2", *out).exit_code == 0  # goes on
    before = (tmp_path / "out" / "certificates.jsonl").read_bytes()
    theirs = saved(tmp_path, STARTER[0])
    for options, why in (
        ((*ours, "--until", "3"), "until: None -> 3"),
        ((theirs, *LOCAL), "source"),
    ):
        with pytest.raises(UserError, match=why):
            replay(*options, *out)
    with held_alone(tmp_path / "out"), pytest.raises(UserError, match="by another process"):
        replay(*ours, *out)
    assert (tmp_path / "out" / "certificates.jsonl").read_bytes() == before


def test_recording_says_what_is_not_faithful_and_whose_issue_it_keeps(tmp_path: Path) -> None:
    other = replace(
        STARTER[0], patch="diff --git a/x b/x\n+x\n", problem_statement="Their own words."
    )
    record = tmp_path / "record.jsonl"
    result = replay(saved(tmp_path, other, STARTER[1]), *LOCAL, "--record", str(record))
    name = other.instance_id
    assert "1 of 2 recorded replays are not faithful" in result.stderr
    assert f"the trajectory's own is kept ({name})" in result.stderr
    assert [t.problem_statement for t in load_trajectories(record)] == [
        "Their own words.",
        STARTER[1].problem_statement,
    ]


def test_the_result_counts_what_was_translated_and_what_no_tool_is_equal_to(
    tmp_path: Path,
) -> None:
    steps = (
        Step("t", Action("Write", {"file_path": "/testbed/n.txt", "content": "a\n"})),
        Step("t", Action("apply_patch", {"input": "*** Begin Patch"}), Observation("Done!")),
        Step("t", Action("submit")),
    )
    theirs = Trajectory(STARTER[0].instance_id, steps, "issue", source="atif")
    out = ("--out", str(tmp_path / "out"))
    result = replay(saved(tmp_path, theirs), *LOCAL, *out)
    assert "calls translated into our own tools: Write 1" in result.output
    assert "calls skipped, as no tool here is equal to them: apply_patch 1" in result.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["translated"] == {"Write": 1}
    assert summary["skipped_tools"] == {"apply_patch": 1}


MISSING_COLON = """\
#!/usr/bin/env python3


def division(a: float, b: float) -> float
    return a/b


if __name__ == "__main__":
    print(division(123, 15))

"""
SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
DEMONSTRATIONS = (
    "sweagent_v0_thought_action/swe-agent__test-repo-i1.traj",
    "sweagent_v1_function_calling/6e44b9__sweagenttestrepo-1c2844.traj",
    "sweagent_v1_function_calling/function_calling_simple.traj",
    "sweagent_demo_yaml/str_replace_anthropic_demo.yaml",
)


@pytest.mark.docker
@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the published samples are not here")
def test_all_demonstrations_of_swe_agents_test_repository_give_edits_as_targets(
    tmp_path: Path,
) -> None:
    """They are of three versions, and each has the repository in a folder of its own."""
    instance = load_instances("starter")[0]
    theirs = [load_trajectories(SAMPLES / name)[0] for name in DEMONSTRATIONS]
    where = ("/testbed/tests/missing_colon.py", "/testbed/src/testpkg/missing_colon.py")
    lay_out = "; ".join(
        f"mkdir -p $(dirname {path}) && printf %s {shlex.quote(MISSING_COLON)} > {path}"
        for path in where
    )
    first = Step("Lay it out.", Action("bash", {"command": lay_out}), Observation(""))
    moved = [
        replace(one, instance_id=instance.instance_id, steps=(first, *one.steps), patch=None)
        for one in theirs
    ]
    record = tmp_path / "record.jsonl"
    replay(saved(tmp_path, *moved), "--record", str(record))
    out = tmp_path / "steps"
    made = invoke("steps", record, "--out", out, "--workers", "1")
    assert made.exit_code == 0, made.output
    edits = [
        row["expert_action"]
        for row in load_from_disk(str(out))
        if "-> float:" in row["expert_action"] and row["tool"] == "str_replace_editor"
    ]
    assert len(edits) == len(DEMONSTRATIONS)
    assert all("<parameter=command>str_replace</parameter>" in edit for edit in edits)
    assert all("<parameter=path>/testbed/" in edit for edit in edits)
    card = load_card(out)
    assert card.translated == {"edit": 3, "find_file": 3, "open": 3}
    assert "| translated calls | edit 3, find_file 3, open 3 |" in (out / "README.md").read_text()
    shown = json.dumps([row["prompt"] for row in load_from_disk(str(out))])
    assert not re.search(r"(?<!\w)/(?:klieret__|SWE-agent__|swe-agent-)[\w-]*test-repo", shown)


@pytest.mark.docker
def test_a_replay_leaves_no_open_answer_of_the_engine_behind() -> None:
    # The development mode of Python prints on 3.11 what 3.13 prints always.
    result = srl_swe_process("replay", "--limit", "1", PYTHONDEVMODE="1")
    assert result.returncode == 0, result.stderr
    assert "Exception ignored" not in result.stderr
