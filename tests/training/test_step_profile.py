from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from datasets import load_from_disk
from typer.testing import CliRunner

from srl_swe.cli.main import app
from srl_swe.errors import UserError
from srl_swe.training.data import COLUMNS
from srl_swe.training.difficulty import (
    DifficultySettings,
    StepDifficulty,
    difficulty_card,
    keep_pivots,
    measure_difficulty,
)

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def profiling(warm_policy: Path, data: Path) -> DifficultySettings:
    return DifficultySettings(
        str(data), str(warm_policy), samples=4, max_new_tokens=24, rows_at_once=3, seed=5
    )


@pytest.fixture(scope="module")
def profiled(
    profiling: DifficultySettings, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[StepDifficulty]]:
    out = tmp_path_factory.mktemp("profile") / "out"
    return out, measure_difficulty(profiling, out)


def test_every_step_has_the_mean_and_the_spread_of_its_rewards(
    profiled: tuple[Path, list[StepDifficulty]],
) -> None:
    out, profiles = profiled
    assert [profile.row for profile in profiles] == list(range(8))
    for profile in profiles:
        assert len(profile.rewards) == 4
        assert profile.mean == pytest.approx(sum(profile.rewards) / 4)
        assert all(reward == -1 or 0 <= reward <= 1 for reward in profile.rewards)
    assert any(profile.std > 0.1 for profile in profiles)
    (line, *_) = (out / "profile.jsonl").read_text().splitlines()
    assert json.loads(line).keys() >= {"row", "instance_id", "step_index", "tool", "mean", "std"}


def test_a_profile_that_was_stopped_goes_on_and_comes_out_the_same(
    profiling: DifficultySettings, profiled: tuple[Path, list[StepDifficulty]], tmp_path: Path
) -> None:
    """Stopped within the second batch, and in the middle of a line."""
    out, profiles = profiled
    lines = (out / "profile.jsonl").read_text().splitlines(keepends=True)
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.json").write_text((out / "config.json").read_text())
    (begun / "profile.jsonl").write_text("".join(lines[:4]) + lines[4][:20])
    assert measure_difficulty(profiling, begun) == profiles
    assert (begun / "profile.jsonl").read_text() == "".join(lines)


def test_a_finished_profile_needs_no_policy_any_more(
    profiling: DifficultySettings, profiled: tuple[Path, list[StepDifficulty]]
) -> None:
    out, profiles = profiled
    before = (out / "profile.jsonl").stat().st_mtime_ns
    assert measure_difficulty(profiling, out) == profiles
    assert (out / "profile.jsonl").stat().st_mtime_ns == before


def test_another_reward_asks_for_another_folder(
    profiling: DifficultySettings, profiled: tuple[Path, list[StepDifficulty]]
) -> None:
    with pytest.raises(UserError, match=r"another config .*reward"):
        measure_difficulty(dataclasses.replace(profiling, reward="exact"), profiled[0])


def test_steps_with_spread_and_a_low_mean_are_kept_with_a_card(
    profiling: DifficultySettings, tmp_path: Path
) -> None:
    profiles = [
        StepDifficulty(row, mean, std, ())
        for row, (mean, std) in enumerate(
            [(0.5, 0.2), (0.5, 0.01), (0.95, 0.2), (-1.0, 0.0), (-0.3, 0.9), (1.0, 0.0)]
        )
    ]
    card = keep_pivots(profiling, profiles, tmp_path, min_std=0.05, max_mean=0.9)
    kept, whole = load_from_disk(str(tmp_path / "steps")), load_from_disk(profiling.data)
    assert set(COLUMNS) < set(kept.column_names)
    assert kept["expert_action"] == [whole["expert_action"][row] for row in (0, 4)]
    assert kept["profile_mean"] == [0.5, -0.3]
    assert (tmp_path / "steps" / "README.md").read_text() == card
    assert "2 of 6 rows" in card
    assert "3 have rewards too much alike, 1 more are learned already" in card
    assert "    +0.4 ######" in card


def test_nothing_to_keep_is_said(profiling: DifficultySettings, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no step .* std above 0.5"):
        keep_pivots(profiling, [StepDifficulty(0, 0.1, 0.1, ())], tmp_path, 0.5, 0.9)
    assert not (tmp_path / "steps").exists()


def test_the_card_holds_rewards_at_either_end_of_their_range() -> None:
    profiles = [StepDifficulty(0, -1.0, 0.0, ()), StepDifficulty(1, 1.0, 1.0, ())]
    assert "1 (0)" in difficulty_card({}, profiles, profiles[1:], 0.1, 2.0)


def test_the_command_writes_a_data_set_that_whole_solutions_are_not_made_of(
    profiling: DifficultySettings, tmp_path: Path
) -> None:
    command = [
        "steps",
        "profile",
        profiling.data,
        "--policy",
        profiling.policy,
        "--out",
        str(tmp_path),
    ]
    options = ["--samples", "4", "--max-new-tokens", "24", "--max-mean", "1"]
    result = CliRunner().invoke(app, [*command, *options, "--reward", "structural"])
    assert result.exit_code == 0, result.output
    assert "Steps worth training on" in result.output
    kept = dataclasses.replace(profiling, data=str(tmp_path / "steps"), reward="holistic")
    with pytest.raises(UserError, match="holds the steps kept by a profile"):
        measure_difficulty(kept, tmp_path / "again")
