from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from datasets import load_from_disk

from srl_swe.dialects import get_dialect
from srl_swe.errors import UserError
from srl_swe.steps import (
    StepJob,
    StepMaker,
    StepSettings,
    build_step_dataset,
    load_card,
    save_step_contexts,
)
from srl_swe.steps import rows as columns_module
from srl_swe.steps.card import Split
from srl_swe.steps.contexts import StepContext, make_step_contexts
from srl_swe.steps.prompt import Window
from srl_swe.steps.rows import SCHEMA, is_finished
from srl_swe.steps.source import identify_source
from srl_swe.trajectories import ReadReport
from srl_swe.trajectories.jsonl import render_line
from srl_swe.types import Action, Message, Observation, Step, Trajectory

from ..commands import wait_until

pytestmark = pytest.mark.slow


BUDGET = len(get_dialect("xml").SYSTEM_PROMPT) + 400
"""Room for some of the pairs, in characters."""


PLAIN, SPLIT = StepSettings(), StepSettings(validation=0.1)


def make_trajectories(count: int, steps: int = 4, issue: str = "Issue") -> list[Trajectory]:
    def make_step(number: int, index: int) -> Step:
        action = Action("bash", {"command": f"c{index}"})
        return Step(f"t{index}", action, Observation(f"{number} {index}" * 20))

    return [
        Trajectory(
            f"a__b-{number}",
            tuple(make_step(number, index) for index in range(steps)),
            f"{issue} {number}.",
            source="swe-smith",
            model="claude",
        )
        for number in range(count)
    ]


def characters(messages: Iterable[Message]) -> int:
    return sum(len(message["content"]) for message in messages)


def open_characters(name: str) -> Any:
    assert name == "characters"
    return characters


def make_job(out: Path, settings: StepSettings = PLAIN, **options: Any) -> StepJob:
    return StepJob(out, StepMaker(settings, open_characters), {"source": "test"}, **options)


def build(
    out: Path, trajectories: list[Trajectory], settings: StepSettings = PLAIN, **options: Any
) -> bool:
    job = make_job(out, settings, **options)
    return build_step_dataset(iter(trajectories), job, ReadReport(records=len(trajectories)))


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(paths)}


def test_the_data_set_holds_what_the_trajectories_give_in_their_order(tmp_path: Path) -> None:
    trajectories = make_trajectories(300)
    build(tmp_path / "steps", trajectories)
    rows = load_from_disk(str(tmp_path / "steps"))
    items = [item for t in trajectories for item in make_step_contexts(t, get_dialect("xml"))]
    contexts = [item for item in items if isinstance(item, StepContext)]
    assert len(rows) == len(contexts) == 900
    for row, context in zip(rows, contexts, strict=True):
        assert row["prompt"] == list(context.prompt)
        assert row["completion"] == [{"role": "assistant", "content": context.expert_reply}]
        same = set(SCHEMA.names) - {"prompt", "completion"}
        assert {name: row[name] for name in same} == {n: getattr(context, n) for n in same}
    assert sorted(p.name for p in (tmp_path / "steps").glob("data-*")) == [
        "data-00000.arrow",
        "data-00001.arrow",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["steps"]


def test_contexts_in_memory_are_saved_with_the_same_columns(tmp_path: Path) -> None:
    contexts = [
        item
        for item in make_step_contexts(make_trajectories(1)[0], get_dialect("xml"))
        if isinstance(item, StepContext)
    ]
    save_step_contexts(contexts, tmp_path / "steps", "card")
    save_step_contexts(contexts, tmp_path / "steps", "another card")
    rows = load_from_disk(str(tmp_path / "steps"))
    assert rows.column_names == SCHEMA.names
    assert (tmp_path / "steps" / "README.md").read_text() == "another card"
    assert [path.name for path in tmp_path.iterdir()] == ["steps"]


def test_every_column_has_a_named_use() -> None:
    table = columns_module.__doc__ or ""
    assert all(f"`{name}`" in table for name in SCHEMA.names)


def test_workers_do_not_change_a_byte(tmp_path: Path) -> None:
    settings = StepSettings(window=Window(None, token_budget=BUDGET), tokenizer="characters")
    trajectories = make_trajectories(300, steps=6)
    build(tmp_path / "one", trajectories, settings=settings)
    build(tmp_path / "two", trajectories, settings=settings, workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert load_card(tmp_path / "two").facts.rows == 1500


def test_the_fingerprint_and_the_hashes_are_of_the_content(tmp_path: Path) -> None:
    build(tmp_path / "steps", make_trajectories(300))
    card = load_card(tmp_path / "steps")
    for shard in card.shards:
        data = (tmp_path / "steps" / shard.file).read_bytes()
        assert hashlib.sha256(data).hexdigest() == shard.sha256
    state = json.loads((tmp_path / "steps" / "state.json").read_text())
    assert state["_fingerprint"] == card.sha256[:16]


def test_the_card_counts_what_came_in_and_what_became_of_it(tmp_path: Path) -> None:
    trajectories = make_trajectories(30)
    mute = Trajectory("mute", trajectories[0].steps, None)
    settings = StepSettings(
        window=Window(None, token_budget=BUDGET), tokenizer="characters", include_last=True
    )
    build(tmp_path / "steps", [*trajectories, mute], settings=settings)
    rows, card = load_from_disk(str(tmp_path / "steps")), load_card(tmp_path / "steps")
    assert card.dropped_steps == {"no_issue": 4}
    assert card.steps == 31 * 4 == len(rows) + 4
    assert (card.trajectories, card.facts.instances, card.records) == (31, 30, 31)
    assert card.facts.by_tool == {"bash": 120}
    assert card.facts.by_source == {"swe-smith": 120}
    assert card.facts.elided == sum(count > 0 for count in rows["elided"]) > 0
    lengths = sorted(rows["prompt_tokens"])
    assert card.facts.prompt.longest == lengths[-1] <= BUDGET
    assert card.facts.prompt.p50 == lengths[(len(lengths) - 1) // 2]
    assert sum(card.facts.prompt.histogram) == len(rows)


def test_lengths_are_in_characters_where_nobody_counts_tokens(tmp_path: Path) -> None:
    build(tmp_path / "steps", make_trajectories(3))
    rows, facts = load_from_disk(str(tmp_path / "steps")), load_card(tmp_path / "steps").facts
    assert facts.prompt.unit == facts.completion.unit == "characters"
    assert facts.prompt.longest == max(characters(prompt) for prompt in rows["prompt"])
    assert facts.completion.longest == max(characters(reply) for reply in rows["completion"])


def test_the_card_for_people_has_the_front_matter_of_the_hub(tmp_path: Path) -> None:
    from huggingface_hub import DatasetCard

    build(tmp_path / "steps", make_trajectories(3))
    card = DatasetCard.load(tmp_path / "steps" / "README.md")
    assert card.data.size_categories == ["n<1K"]
    assert "| examples | 9 |" in card.text
    assert "| steps dropped | last_step 3 |" in card.text
    assert load_card(tmp_path / "steps").sha256 in card.text
    assert json.loads((tmp_path / "steps" / "card.json").read_text())["config"]["dialect"] == "xml"


def test_a_share_of_the_instances_is_a_data_set_of_its_own(tmp_path: Path) -> None:
    settings = StepSettings(validation=0.2, seed=3)
    build(tmp_path / "steps", make_trajectories(600), settings=settings)
    trained = load_from_disk(str(tmp_path / "steps"))["instance_id"]
    held = load_from_disk(str(tmp_path / "steps-validation"))["instance_id"]
    assert len(trained) + len(held) == 1800
    assert not set(trained) & set(held)
    assert 60 < len(set(held)) < 180
    assert load_card(tmp_path / "steps-validation").split == "validation"


def test_a_share_that_holds_nothing_is_a_data_set_without_rows(tmp_path: Path) -> None:
    build(tmp_path / "steps", make_trajectories(2), settings=StepSettings(validation=1e-9))
    assert load_card(tmp_path / "steps-validation").facts.rows == 0
    assert len(load_from_disk(str(tmp_path / "steps-validation"))) == 0


def test_no_row_at_all_is_a_mistake_that_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 last_step"):
        build(tmp_path / "steps", make_trajectories(2, steps=1))
    assert list(tmp_path.iterdir()) == []


def test_a_finished_data_set_with_the_same_settings_is_left_alone(tmp_path: Path) -> None:
    assert build(tmp_path / "steps", make_trajectories(3))
    before = (tmp_path / "steps" / "data-00000.arrow").stat().st_mtime_ns
    assert not build(tmp_path / "steps", make_trajectories(3))
    assert (tmp_path / "steps" / "data-00000.arrow").stat().st_mtime_ns == before


def test_what_may_be_another_source_the_next_time_is_built_anew(tmp_path: Path) -> None:
    build(tmp_path / "steps", make_trajectories(3), repeatable=False)
    build(tmp_path / "steps", make_trajectories(5), repeatable=False)
    assert len(load_from_disk(str(tmp_path / "steps"))) == 15
    assert [path.name for path in tmp_path.iterdir()] == ["steps"]


def test_other_settings_for_a_finished_data_set_are_refused(tmp_path: Path) -> None:
    build(tmp_path / "steps", make_trajectories(3))
    with pytest.raises(UserError, match=r"window\.pairs: 2 -> 3"):
        build(tmp_path / "steps", make_trajectories(3), settings=StepSettings(window=Window(3)))


def test_a_folder_that_holds_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="something else"):
        build(tmp_path, make_trajectories(3))
    with pytest.raises(UserError, match="is a file"):
        build(tmp_path / "thesis.txt", make_trajectories(3))
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_local_data_set_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("1\n")
    before = identify_source(f"hf:{tmp_path}")
    (tmp_path / "a.jsonl").write_text("2\n")
    assert identify_source(f"hf:{tmp_path}") != before
    assert before.name == f"hf:{tmp_path.name}:"


def begin(out: Path, trajectories: list[Trajectory], count: int) -> None:
    """A build that ends after ``count`` trajectories, as on a broken disk."""

    def some() -> Iterator[Trajectory]:
        yield from trajectories[:count]
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        build_step_dataset(some(), make_job(out, SPLIT), ReadReport())


@pytest.mark.parametrize("stopped_at", [1, 300, 520, 799, 800])
def test_a_build_that_was_stopped_goes_on_to_the_same_bytes(
    tmp_path: Path, stopped_at: int
) -> None:
    trajectories = make_trajectories(800)
    build(tmp_path / "whole" / "steps", trajectories, SPLIT)
    begin(tmp_path / "stopped" / "steps", trajectories, stopped_at)
    build(tmp_path / "stopped" / "steps", trajectories, SPLIT)
    assert files(tmp_path / "whole") == files(tmp_path / "stopped")


def test_only_whole_shards_outlive_a_failure(tmp_path: Path) -> None:
    begin(tmp_path / "steps", make_trajectories(800), 100)
    assert list(tmp_path.iterdir()) == []
    begin(tmp_path / "steps", make_trajectories(800), 300)
    assert {path.name for path in (tmp_path / ".steps.partial").rglob("*") if path.is_file()} == {
        "config.json",
        "00000.json",
        "00000-train.arrow",
        "00000-validation.arrow",
    }


def test_another_command_on_a_partial_build_is_refused_with_what_differs(tmp_path: Path) -> None:
    begin(tmp_path / "steps", make_trajectories(800), 300)
    with pytest.raises(UserError, match=r"window\.pairs: 2 -> 3"):
        build(tmp_path / "steps", make_trajectories(800), replace(SPLIT, window=Window(3)))


def test_another_source_under_the_same_name_is_refused(tmp_path: Path) -> None:
    begin(tmp_path / "steps", make_trajectories(800), 300)
    with pytest.raises(UserError, match="other trajectories"):
        build(tmp_path / "steps", make_trajectories(800, issue="changed"), SPLIT)


@pytest.mark.parametrize("moved", [("train",), ("train", "validation")])
def test_a_kill_between_the_moves_leaves_the_same_bytes_in_the_end(
    tmp_path: Path, moved: tuple[Split, ...]
) -> None:
    trajectories = make_trajectories(600)
    build(tmp_path / "whole" / "steps", trajectories, SPLIT)
    begin(tmp_path / "steps", trajectories, 600)
    for split in moved:
        folder = make_job(tmp_path / "steps", SPLIT).folders[split]
        shutil.copytree(tmp_path / "whole" / folder.name, folder)
    assert build(tmp_path / "steps", trajectories, SPLIT) == (len(moved) == 1)
    assert not (tmp_path / ".steps.partial").exists()
    for name in ("steps", "steps-validation"):
        assert files(tmp_path / name) == files(tmp_path / "whole" / name)


def test_a_shard_that_is_finished_is_not_made_again(tmp_path: Path) -> None:
    trajectories = make_trajectories(800)
    begin(tmp_path / "steps", trajectories, 520)
    made: list[int] = []
    job = make_job(tmp_path / "steps", SPLIT)
    build_step_dataset(trajectories, job, ReadReport(), lambda shard: made.append(shard.number))
    assert made == [2, 3]


def test_a_shard_whose_tables_a_crash_has_lost_is_made_again(tmp_path: Path) -> None:
    trajectories = make_trajectories(800)
    build(tmp_path / "whole" / "steps", trajectories, SPLIT)
    begin(tmp_path / "steps", trajectories, 520)
    (tmp_path / ".steps.partial" / "00000-train.arrow").unlink()
    (tmp_path / ".steps.partial" / "00001-train.arrow").write_bytes(b"")
    build(tmp_path / "steps", trajectories, SPLIT)
    assert files(tmp_path / "steps") == files(tmp_path / "whole" / "steps")


def test_fewer_trajectories_than_the_finished_shards_hold_are_refused(tmp_path: Path) -> None:
    begin(tmp_path / "steps", make_trajectories(800), 600)
    with pytest.raises(UserError, match="other trajectories"):
        build(tmp_path / "steps", make_trajectories(256), SPLIT)


@pytest.mark.parametrize("left", ["ledger.jsonl", "sealed"])
def test_a_build_that_version_0_1_left_unfinished_is_one_clear_line(
    tmp_path: Path, left: str
) -> None:
    (tmp_path / ".steps.partial").mkdir()
    (tmp_path / ".steps.partial" / left).touch()
    with pytest.raises(UserError, match=r"steps\.partial holds .* version 0\.1 .* delete it"):
        build(tmp_path / "steps", make_trajectories(3), SPLIT)


def test_a_damaged_record_of_a_shard_is_one_clear_line(tmp_path: Path) -> None:
    begin(tmp_path / "steps", make_trajectories(800), 300)
    (tmp_path / ".steps.partial" / "00000.json").write_text("{")
    with pytest.raises(UserError, match=r"00000\.json: damaged .* made again"):
        build(tmp_path / "steps", make_trajectories(800), SPLIT)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_killed_at_once_goes_on_to_the_same_bytes_and_leaves_no_process(
    tmp_path: Path, workers: int
) -> None:
    lines = [render_line(trajectory).encode() for trajectory in make_trajectories(800)]
    command = [sys.executable, "-m", "srl_swe", "steps", "--source", "-"]
    command += ["--validation", "0.1", "--workers", str(workers)]
    subprocess.run([*command, str(tmp_path / "whole" / "steps")], input=b"".join(lines), check=True)
    killed = tmp_path / "killed" / "steps"
    process = subprocess.Popen([*command, str(killed)], stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.writelines(lines[:600])
    process.stdin.flush()
    wait_until((killed.parent / ".steps.partial" / "00000.json").exists)
    helpers = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    wait_until(lambda: not any(helper.is_running() for helper in helpers))
    subprocess.run([*command, str(killed)], input=b"".join(lines), check=True)
    assert files(tmp_path / "whole") == files(tmp_path / "killed")


def test_a_finished_build_is_known_by_its_config(tmp_path: Path) -> None:
    build(tmp_path / "steps", make_trajectories(30), SPLIT)
    assert is_finished(tmp_path / "steps", make_job(tmp_path / "steps", SPLIT).config)
    assert load_card(tmp_path / "steps").config == make_job(tmp_path / "steps", SPLIT).config
