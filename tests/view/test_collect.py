from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from srl_swe.dialects import get_dialect
from srl_swe.errors import UserError
from srl_swe.rollout import Completion
from srl_swe.rollout.usage import append_replies
from srl_swe.steps.contexts import StepContext, make_step_contexts
from srl_swe.trajectories.jsonl import load_jsonl
from srl_swe.types import Outcome, Verdict
from srl_swe.view.collect import Kind, Sources, collect, find_parts
from srl_swe.view.records import Episode, Target, make_row

from .conftest import STARTER, make_episode_record

FIX = "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n"


def episodes(path: Path, sources: Sources | None = None) -> list[Episode]:
    return [item for item in collect([path], sources) if isinstance(item, Episode)]


def test_a_folder_is_searched_for_runs_of_each_kind(stored: Path) -> None:
    kinds = {part.run.partition("/")[2]: part.kind for part in find_parts(stored)}
    assert kinds == {
        "grade": Kind.PREDICTIONS,
        "replay": Kind.REPLAY,
        "replay-2": Kind.REPLAY,
        "rollout": Kind.ROLLOUTS,
        "srl": Kind.TRAINING,
        "steps": Kind.DATA_SET,
        "trajectory.jsonl": Kind.TRAJECTORIES,
    }


def test_every_part_gives_items_with_keys_of_their_own(stored: Path, sources: Sources) -> None:
    rows = [make_row(item) for item in collect([stored, stored], sources)]
    assert len({row.key for row in rows}) == len(rows)
    assert {row.run.partition("/")[2] for row in rows} == {
        part.run.partition("/")[2] for part in find_parts(stored)
    }


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("rollout/rollouts.jsonl", Kind.ROLLOUTS),
        ("replay/certificates.jsonl", Kind.REPLAY),
        ("grade/verdicts.jsonl", Kind.PREDICTIONS),
        ("srl/completions/step-000001.parquet", Kind.TRAINING),
        ("trajectory.jsonl", Kind.TRAJECTORIES),
    ],
)
def test_a_file_stands_for_its_run(stored: Path, file: str, kind: Kind) -> None:
    (part,) = find_parts(stored / file)
    assert part.kind is kind


def test_missing_and_empty_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        list(collect([tmp_path / "missing"]))
    (tmp_path / "notes.md").write_text("no run")
    with pytest.raises(UserError, match=r"contains no files|nothing to show"):
        list(collect([tmp_path]))


def test_a_resolved_and_a_failed_episode_have_their_tests_and_marks(
    make_run: Callable[..., Path],
) -> None:
    run = make_run(
        [make_episode_record("a__b-1", patch=FIX), make_episode_record("a__b-2", patch=FIX)],
        [
            Verdict("a__b-1", Outcome.RESOLVED, ("t::one",)),
            Verdict("a__b-2", Outcome.UNRESOLVED, ("t::one",), ("t::two",), "tests.log"),
        ],
        marks={"a__b-2": [{"kind": "tests", "what": "tests/test_x.py"}]},
    )
    good, bad = episodes(run)
    assert good.tests is not None
    assert bad.tests is not None
    assert (good.tests.outcome, bad.tests.outcome) == ("resolved", "unresolved")
    assert (bad.tests.failed, bad.test_log) == (("t::two",), "1 failed, 2 passed")
    assert bad.marks == ("tests: tests/test_x.py",)
    assert [make_row(each).rank for each in (good, bad)] == [3, 0]
    glance = dict(bad.glance)
    assert glance["Why it ended"] == "It submitted its changes after 1 step."
    assert glance["Changes"] == "x.py (+1 \u22121)."
    assert glance["Tests"] == "Unresolved: 1 test passed, 1 failed (t::two)."


def test_a_log_outside_of_the_run_is_not_read(make_run: Callable[..., Path]) -> None:
    verdict = Verdict("a__b-1", Outcome.UNRESOLVED, (), ("t",), "../secret.log")
    run = make_run([make_episode_record("a__b-1")], [verdict])
    (run.parent / "secret.log").write_text("secret")
    (episode,) = episodes(run)
    assert episode.tests is not None
    assert episode.test_log == ""


@pytest.mark.parametrize("torn", [b'{"format": "srl-swe-traj', '{"model": "é'.encode()[:-1]])
def test_the_torn_line_of_a_running_rollout_is_left_out(
    make_run: Callable[..., Path], torn: bytes
) -> None:
    run = make_run([make_episode_record("a__b-1")])
    with (run / "rollouts.jsonl").open("ab") as file:
        file.write(torn)
    assert [episode.instance_id for episode in episodes(run)] == ["a__b-1"]
    assert (run / "rollouts.jsonl").read_bytes().endswith(torn)  # a reader writes nothing


def test_tokens_and_seconds_belong_to_their_steps(make_run: Callable[..., Path]) -> None:
    run = make_run([make_episode_record("a__b-1", ("one", "two"))])
    replies = [Completion("x", 10, 2, seconds=0.5), Completion("y", 20, 3, True, 1.5)]
    append_replies(run, "a__b-1", replies)
    (episode,) = episodes(run)
    assert [(s.prompt_tokens, s.completion_tokens, s.seconds) for s in episode.steps] == [
        (10, 2, 0.5),
        (20, 3, 1.5),
    ]
    assert [step.reply_truncated for step in episode.steps] == [False, True]
    assert (episode.tokens, episode.seconds) == (35, 2.0)


def test_prompts_are_those_of_training() -> None:
    trajectory = load_jsonl(STARTER)[0]
    made = make_step_contexts(trajectory, get_dialect("xml"), include_last=True)
    expected = [context.prompt for context in made if isinstance(context, StepContext)]
    episode = episodes(STARTER)[0]
    assert [step.prompt for step in episode.steps] == expected


def test_an_experts_own_trajectory_has_no_expert_beside_it(sources: Sources) -> None:
    assert {episode.expert for episode in episodes(STARTER, sources)} == {""}


def test_the_first_other_action_is_where_it_leaves_the_experts_way(
    make_run: Callable[..., Path], sources: Sources
) -> None:
    expert = sources.experts["starter__lrucache-1"]
    record = make_episode_record()
    run = make_run([replace(record, steps=(expert.steps[0], *record.steps))])
    (episode,) = episodes(run, sources)
    assert episode.left_expert_at == 1
    first, second = (step.pairing for step in episode.steps)
    assert first is not None
    assert second is not None
    assert (first.similarity, second.similarity < 1) == (1.0, True)
    assert [step.same_as_expert for step in episode.steps] == [0, None]
    sentence = dict(episode.glance)["Beside the expert"]
    assert "left the expert's way at step 1: bash echo 0" in sentence


def test_a_replay_stands_beside_its_record(stored: Path, sources: Sources) -> None:
    (episode,) = episodes(stored / "replay", sources)
    assert episode.replay is not None
    assert episode.replay.faithful
    assert [step.replay.match for step in episode.steps if step.replay] == ["equal"] * 8
    assert episode.replay.files_edited == ("lrucache/cache.py",)
    assert dict(episode.glance)["Replay"] == "Faithful; 8 of 8 steps print as recorded."


def test_a_replay_without_its_record_names_it(stored: Path, tmp_path: Path) -> None:
    shutil.copytree(stored / "replay", tmp_path / "replay")
    (episode,) = episodes(tmp_path / "replay")
    assert episode.steps == ()
    assert "trajectory.jsonl" in episode.notes[0]


def test_samples_have_rewards_advantages_and_their_prompt(stored: Path) -> None:
    (target,) = [item for item in collect([stored / "srl"]) if isinstance(item, Target)]
    assert len(target.samples) == 2
    assert all(set(sample.rewards) == {"similarity"} for sample in target.samples)
    assert target.prompt[0]["role"] == "system"  # from the data set beside the run
    assert make_row(target).outcome == "kept"


def test_rows_of_a_data_set_are_targets_without_samples(stored: Path) -> None:
    targets = [item for item in collect([stored / "steps"]) if isinstance(item, Target)]
    assert [target.step_index for target in targets] == list(range(8))
    assert all(target.expert_action and target.prompt for target in targets)


def test_a_graded_patch_has_its_gold_patch_beside_it(stored: Path, sources: Sources) -> None:
    (episode,) = episodes(stored / "grade", sources)
    assert episode.patch
    assert episode.gold_patch
    assert episode.tests is not None
    assert episode.tests.outcome == "resolved"
    assert "passed" in episode.test_log


def test_trajectories_of_every_family_can_be_shown(tmp_path: Path) -> None:
    shared = Path(__file__).parents[3] / "shared" / "samples"
    if not shared.is_dir():
        pytest.skip("the published samples are not here")
    for folder in sorted(shared.iterdir()):
        if folder.is_dir() and folder.name not in {"instances", "math", "editor_golden"}:
            assert [make_row(item) for item in collect([folder])], folder


def test_damaged_grading_files_leave_the_episodes(make_run: Callable[..., Path]) -> None:
    run = make_run([make_episode_record("a__b-1")])
    (run / "report.json").write_text("{")
    (run / "verdicts.jsonl").write_text("[]\n{\n" + json.dumps({"instance_id": "a__b-1"}))
    (episode,) = episodes(run)
    assert episode.tests is None
