from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import load_from_disk
from typer.testing import CliRunner, Result

from srl_swe.bundled import bundled
from srl_swe.cli.main import app
from srl_swe.errors import UserError
from srl_swe.trajectories import load_trajectories
from srl_swe.trajectories.jsonl import render_line
from srl_swe.types import Action, Observation, Step, Trajectory

STARTER = bundled("trajectories") / "starter.jsonl"


def steps(out: Path, *options: str, text: str | None = None) -> Result:
    result = CliRunner().invoke(app, ["steps", str(out), *options], input=text)
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def instances(out: Path) -> set[str]:
    return set(load_from_disk(str(out))["instance_id"])


def line(instance_id: str, *, resolved: bool | None = True, model: str = "m") -> str:
    step = Step("t", Action("bash", {"command": "ls"}), Observation("x"))
    made = Trajectory(instance_id, (step, step), "Crash.", resolved=resolved, model=model)
    return render_line(made)


def test_steps_are_made_of_what_is_piped_in(tmp_path: Path) -> None:
    steps(tmp_path / "out", "--source", "-", text=line("a") + line("b"))
    assert instances(tmp_path / "out") == {"a", "b"}


def test_a_folder_of_foreign_trajectories_needs_no_conversion(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "<pr_description>\nCrash.\n</pr_description>"},
        {"role": "assistant", "content": "Look.\n\n<function=bash>\n<parameter=command>ls"
         "</parameter>\n</function>"},
        {"role": "user", "content": "OBSERVATION:\nx.py"},
        {"role": "assistant", "content": "Done.\n\n<function=submit>\n</function>"},
    ]  # fmt: skip
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a__b-1.json").write_text(json.dumps({"messages": messages}))
    steps(tmp_path / "out", "--source", str(tmp_path / "runs"))
    (example,) = load_from_disk(str(tmp_path / "out"))
    assert example["instance_id"] == "a__b-1"
    assert example["expert_action"] == (
        "<function=bash>\n<parameter=command>ls</parameter>\n</function>"
    )


def test_broken_records_are_fatal_or_counted(tmp_path: Path) -> None:
    text = line("a") + "broken\n" + line("b")
    with pytest.raises(UserError, match="stdin:2: not JSON"):
        steps(tmp_path / "out", "--source", "-", text=text)
    result = steps(tmp_path / "out", "--source", "-", "--skip-broken", text=text)
    assert "2 of 3 trajectories; dropped: 1 broken" in result.output
    assert "stdin:2: not JSON" in result.output
    assert "| records dropped | broken 1 |" in (tmp_path / "out" / "README.md").read_text()


def test_why_records_are_broken_is_said_even_if_none_is_left(tmp_path: Path) -> None:
    broken = "".join(f"{{broken {n}\n" for n in range(12))
    result = CliRunner().invoke(
        app, ["steps", str(tmp_path / "out"), "--source", "-", "--skip-broken"], input=broken
    )
    assert isinstance(result.exception, UserError)
    assert "12 broken" in str(result.exception)
    assert "stdin:1: not JSON" in result.output
    assert "and 2 more" in result.output


def chat_line(**row: object) -> str:
    call = {"id": "1", "function": {"name": "bash", "arguments": {"command": "ls"}}}
    messages = [
        {"role": "user", "content": "Crash."},
        {"role": "assistant", "content": "Look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "a.py"},
        {"role": "assistant", "content": "End.", "tool_calls": [{**call, "id": "2"}]},
    ]
    return json.dumps({"messages": messages, **row}) + "\n"


def test_an_evaluated_instance_is_left_out_whatever_column_names_it(tmp_path: Path) -> None:
    evaluated = load_trajectories(STARTER)[0].instance_id
    text = chat_line(trajectory_id=f"{evaluated}_run1") + chat_line(id="a__b-1_run2_0")
    result = steps(tmp_path / "out", "--source", "-", "--not-in", "starter", text=text)
    assert "1 of an evaluated instance" in result.output
    assert instances(tmp_path / "out") == {"a__b-1"}


def test_runs_of_no_named_instance_are_refused_or_told_apart_by_hand(tmp_path: Path) -> None:
    options, text = ("--source", "-", "--not-in", "starter"), chat_line() + chat_line(id="a__b-1")
    with pytest.raises(UserError, match="1 of 2 records name no instance"):
        steps(tmp_path / "out", *options, text=text)
    kept = steps(tmp_path / "kept", *options, "--unnamed", "keep", text=text)
    assert "1 of 2 records name no instance, which --not-in needs." in kept.output
    dropped = steps(tmp_path / "dropped", *options, "--unnamed", "drop", text=text)
    assert "1 of no named instance" in dropped.output
    steps(tmp_path / "named", *options, "--instance", "c__d-2", text=text)
    assert instances(tmp_path / "named") == {"a__b-1", "c__d-2"}


def test_a_run_without_steps_is_counted_as_such(tmp_path: Path) -> None:
    text = line("a") + render_line(Trajectory("b", (), "Crash."))
    result = steps(tmp_path / "out", "--source", "-", text=text)
    assert "1 of 2 trajectories; dropped: 1 without a step" in result.output
    assert "| records dropped | without a step 1 |" in (tmp_path / "out" / "README.md").read_text()


def test_the_papers_selection_is_asked_for_by_options(tmp_path: Path) -> None:
    bundled_id = load_trajectories(STARTER)[0].instance_id
    text = "".join(
        [
            line("a"),
            line("a"),
            line("b", resolved=False),
            line("c", model="other"),
            line("d"),
            line(bundled_id),
        ]
    )
    result = steps(
        tmp_path / "out",
        *("--source", "-", "--resolved-only", "--model", "m", "--per-instance", "1"),
        *("--not-in", "starter"),
        text=text,
    )
    assert instances(tmp_path / "out") == {"a", "d"}
    for count in ("1 not resolved", "1 of another model", "1 more of one", "1 of an evaluated"):
        assert count in result.output


def test_whole_instances_are_held_out_for_validation(tmp_path: Path) -> None:
    text = "".join(line(f"a__b-{n}") for n in range(40))
    options = ("--source", "-", "--validation", "0.3", "--seed", "5")
    steps(tmp_path / "out", *options, text=text)
    trained, held = instances(tmp_path / "out"), instances(tmp_path / "out-validation")
    assert held
    assert not trained & held
    assert len(trained | held) == 40


def test_a_part_in_another_order(tmp_path: Path) -> None:
    options = ("--filter", "instance=*1*", "--shuffle", "--slice", "1:", "--limit", "2")
    text = "".join(line(f"a__b-{n}") for n in range(15))
    steps(tmp_path / "out", "--source", "-", *options, text=text)
    assert len(instances(tmp_path / "out")) == 2
    assert all("1" in name for name in instances(tmp_path / "out"))


@pytest.mark.parametrize("part", ["x", "3:1", "-1:", "1"])
def test_a_slice_that_is_none_is_a_mistake(tmp_path: Path, part: str) -> None:
    with pytest.raises(UserError, match="--slice"):
        steps(tmp_path / "out", f"--slice={part}")


def test_nothing_selected_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 not resolved"):
        steps(tmp_path / "out", "--source", "-", "--resolved-only", text=line("a", resolved=False))


@pytest.mark.docker
def test_replay_takes_the_same_options(tmp_path: Path) -> None:
    first = load_trajectories(STARTER)[0]
    options = ["--filter", f"instance={first.instance_id}", "--limit", "1", "--until", "1"]
    result = CliRunner().invoke(app, ["replay", str(STARTER), *options])
    assert result.exit_code == 0, result.output
    assert result.output.count(first.instance_id) >= 1
