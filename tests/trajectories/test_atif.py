from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.trajectories import atif
from srl_swe.trajectories.convert import convert, render_atif
from srl_swe.trajectories.fields import BrokenRecord
from srl_swe.trajectories.row_facts import NO_INSTANCE
from srl_swe.types import Action, Observation, Step, StopReason, Trajectory, Translation


def call(call_id: str, tool: str, **arguments: Any) -> dict[str, Any]:
    return {"tool_call_id": call_id, "function_name": tool, "arguments": arguments}


def result(content: Any, call_id: str | None = None) -> dict[str, Any]:
    return {"content": content} | ({"source_call_id": call_id} if call_id else {})


def agent(message: str, *calls: dict[str, Any], **other: Any) -> dict[str, Any]:
    results = other.pop("results", None)
    step = {"source": "agent", "message": message, **other}
    step |= {"tool_calls": list(calls)} if calls else {}
    return step | ({"observation": {"results": results}} if results else {})


def read(*steps: dict[str, Any], **other: Any) -> Trajectory:
    record = {
        "schema_version": "ATIF-v1.5",
        "session_id": "s1",
        "agent": {"name": "x", "version": "1", "model_name": "m"},
        "steps": [{"source": "user", "message": "Fix it."}, *steps],
        **other,
    }
    assert atif.is_atif(record)
    return atif.read_atif(record, "trajectory.json")


def test_results_are_paired_by_the_id_of_their_call() -> None:
    found = read(
        agent(
            "I look.",
            call("1", "view", path="a", lines=[1, 2]),
            call("2", "ls"),
            results=[result("of ls", "2"), result([{"type": "text", "text": "of view"}], "1")],
            reasoning_content="Maybe.",
        )
    )
    thought = "Maybe.\n\nI look."
    view = Action("view", {"path": "a", "lines": "[1, 2]"})
    assert found.steps == (
        Step(thought, view, Observation("of view"), True, 0),
        Step(thought, Action("ls"), Observation("of ls"), True, 0),
    )
    assert (found.instance_id, found.model, found.problem_statement) == ("s1", "m", "Fix it.")


def test_a_result_without_an_id_is_one_text_for_all_calls_of_the_step() -> None:
    found = read(
        agent("", call("1", "keys", k="a"), call("2", "keys", k="b"), results=[result("screen")]),
        agent("Bye."),
    )
    assert [step.observation for step in found.steps] == [None, Observation("screen"), None]
    assert [step.executed for step in found.steps] == [True, True, False]


def test_the_description_of_an_event_is_no_thought() -> None:
    assert read(agent("I edited the file /a.py.", call("1", "edit"))).steps[0].thought == ""


def test_calls_in_the_text_of_a_message_are_read() -> None:
    text = "<function=execute_bash>\n<parameter=command>ls</parameter>\n</function>"
    step = read(agent(text, results=[result("a\n[Command finished with exit code 0]")])).steps[0]
    assert step.action == Action("execute_bash", {"command": "ls"})
    assert step.observation == Observation("a\n[Command finished with exit code 0]", exit_code=0)


def test_steps_copied_from_an_earlier_run_are_not_executed_again() -> None:
    copied = agent("", call("1", "ls"), results=[result("x", "1")], is_copied_context=True)
    found = read(copied, agent("", call("2", "ls"), results=[result("y", "2")]))
    assert [step.executed for step in found.steps] == [False, True]
    assert found.notes[1:] == ("1 messages are copied from an earlier run and not executed here",)


def test_what_stands_in_other_files_is_noted() -> None:
    found = read(
        agent("", call("1", "ls")),
        notes="a\nb",
        continued_trajectory_ref="trajectory.cont-1.json",
        subagent_trajectories=[{}],
    )
    assert found.notes == (
        NO_INSTANCE,
        "a",
        "b",
        "continues in trajectory.cont-1.json",
        "1 runs of subagents are left out",
    )


def test_a_broken_field_is_named() -> None:
    with pytest.raises(BrokenRecord, match=r"trajectory\.json: steps\.1\.message: expected a text"):
        read(agent(7))  # type: ignore[arg-type]


FULL = Trajectory(
    "a__b-1",
    (
        Step("  kept as it is ", Action("bash", {"command": "ls"}), Observation("a", 0), True, 0),
        Step("  kept as it is ", Action("bash", {"command": "rm"}), None, False, 0),
        Step("no call <function=x>", None, Observation("?", truncated=True), False, 1),
        Step("", Action("bash", {"command": "sleep"}), Observation("", timed_out=True), True, 2),
        Step("", Action("submit"), None, True, 3),
    ),
    problem_statement="<issue>It crashes.</issue>",
    stop_reason=StopReason.STEP_LIMIT,
    patch="diff --git a/x b/x\n",
    resolved=False,
    model="m",
    source="swe-agent",
    enforced={"network": "none"},
    exit_status="exit_cost",
    notes=("one", "two"),
)


@pytest.mark.parametrize("trajectory", [FULL, Trajectory("a__b-1", ())])
def test_a_trajectory_comes_back_as_it_was_written(trajectory: Trajectory, tmp_path: Path) -> None:
    convert([trajectory], tmp_path / "runs", "atif")
    record = json.loads((tmp_path / "runs" / "a__b-1.json").read_text(encoding="utf-8"))
    assert atif.read_atif(record, "a.json") == trajectory


texts = st.text(max_size=20)
observations = st.builds(
    Observation, texts, st.none() | st.integers(-1, 255), st.booleans(), st.booleans()
)
actions = st.builds(
    Action, st.text(min_size=1, max_size=5), st.dictionaries(texts, texts, max_size=2)
)
calls = st.tuples(actions, st.none() | observations, st.booleans())
messages = st.tuples(texts, st.lists(calls, max_size=3), st.none() | observations)


@pytest.mark.slow
@given(st.lists(messages, max_size=4))
def test_any_steps_come_back_as_they_were_written(turns: list[Any]) -> None:
    steps: list[Step] = []
    for turn, (thought, made, seen) in enumerate(turns):
        steps += [Step(thought, a, o, ran, turn) for a, o, ran in made]
        steps += [] if made else [Step(thought, None, seen, False, turn)]
    record = json.loads(json.dumps(render_atif(Trajectory("a__b-1", tuple(steps)))))
    assert atif.read_atif(record, "a.json").steps == tuple(steps)


def test_what_is_written_holds_only_what_the_format_allows() -> None:
    """Of the fields of ATIF 1.7, those that we write; it allows no others than its own."""
    record = render_atif(FULL)
    root = {"schema_version", "session_id", "agent", "steps", "notes", "extra"}
    assert record.keys() <= root
    assert record["agent"].keys() == {"name", "version", "model_name"}
    assert [step["step_id"] for step in record["steps"]] == list(range(1, 6))
    for step in record["steps"]:
        assert step.keys() <= {"step_id", "source", "message", "tool_calls", "observation"}
        ids = {made["tool_call_id"] for made in step.get("tool_calls", [])}
        answered = step.get("observation", {}).get("results", [])
        assert {r["source_call_id"] for r in answered if "source_call_id" in r} <= ids


def test_what_converters_write_for_a_missing_thought_is_none() -> None:
    calls = [
        agent("Executed Bash toolu_01", call("toolu_01", "Bash", command="ls")),
        agent("Executed shell call_2", call("call_2", "shell", command=["bash", "-lc", "ls"])),
        agent("Executed run_shell_command", call("", "run_shell_command", command="ls")),
        agent("Executed Bash scripts come next.", call("4", "Bash", command="ls")),
    ]
    assert [s.thought for s in read(*calls).steps] == [
        "", "", "", "Executed Bash scripts come next.",
    ]  # fmt: skip


def test_codex_shell_with_a_list_is_a_command() -> None:
    listed = call("1", "shell", command=["bash", "-lc", "ls | wc"], workdir="/testbed")
    assert read(agent("", listed)).steps[0].action == Action("shell", {"command": "ls | wc"})


def test_translations_come_back_from_our_own_files() -> None:
    own = Translation(Action("bash", {"command": "ls"}), Observation("x", exit_code=0))
    steps = tuple(
        Step("t", Action("edit", {"text": "x"}), Observation("ok"), True, turn, translation)
        for turn, translation in enumerate((own, Translation(reason="tabs"), None))
    )
    trajectory = Trajectory("a__b-1", steps, "issue", source="swe-agent")
    assert atif.read_atif(render_atif(trajectory), "x.json").steps == steps


def test_a_patch_outside_of_utf8_is_written_as_its_bytes(tmp_path: Path) -> None:
    patch = b"+caf\xe9\n".decode("utf-8", errors="surrogateescape")
    convert([Trajectory("a__b-1", (), patch=patch)], tmp_path / "runs", "atif")
    assert b"+caf\xe9" in (tmp_path / "runs" / "a__b-1.json").read_bytes()
