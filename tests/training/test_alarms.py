from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from srl_swe.errors import UserError
from srl_swe.reports.record import read_alarms
from srl_swe.training.alarms import TrainingAlarms, format_rate, warned_after
from srl_swe.training.callbacks import add_callbacks
from srl_swe.training.load_recipe import load_recipe
from srl_swe.training.recipe import ALARMS_OF_TESTS, Alarms, SrlRecipe
from srl_swe.training.run_folder import decisive_fields, open_run
from srl_swe.training.srl_trainer import train_srl

Logs = dict[str, Any]
FORMAT, FILLED = "format/ok", "dynamic_sampling/filled_frac"
WARNS = Alarms(format_steps=3, unfilled_steps=3, drift_steps=6, format_stops=False)


@pytest.fixture
def sound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., list[str]]:
    """What is said of logs, one per step unless ``every`` says otherwise."""

    def run(
        alarms: Alarms, logs: Sequence[Logs], every: int = 1, start: int = 0, rank: int = 0
    ) -> list[str]:
        args, control = TrainingArguments(str(tmp_path)), TrainerControl()
        callback = TrainingAlarms(alarms)
        state = TrainerState(global_step=start, is_world_process_zero=rank == 0)
        with caplog.at_level(logging.WARNING, "srl_swe"):
            callback.on_train_begin(args, state, control)
            for one in logs:
                state.global_step += every
                callback.on_log(args, state, control, logs=one)
        return [record.message for record in caplog.records]

    return run


def trend(rewards: Sequence[float], lengths: Sequence[float]) -> list[Logs]:
    return [
        {"reward/mean": reward, "completions/mean_length": length}
        for reward, length in zip(rewards, lengths, strict=True)
    ]


FALLS, GROWS = [0.5 - 0.05 * n for n in range(9)], [100.0 + 10 * n for n in range(9)]


@pytest.mark.parametrize(
    ("logs", "said"),
    [
        ([{FORMAT: 0.0}] * 3, "step 3: for 3 steps at most 1% of the replies were in the format"),
        ([{FORMAT: 0.01}] * 3, "step 3: for 3 steps at most 1%"),
        ([{FORMAT: 0.5}, *[{FORMAT: 0.0}] * 3], "step 4: for 3 steps at most 1%"),
        ([{"ended/format_errors": 0.9, "ended/no_think": 0.1}] * 3, "step 3: for 3 steps at most"),
        ([{"ended/no_answer": 1.0}] * 3, "step 3: for 3 steps at most 1%"),
        ([{FILLED: 0.0}] * 3, "step 3: for 3 steps dynamic sampling found no group"),
        (trend(FALLS, GROWS), "step 7: over 6 steps the mean reward fell by 0.25 while replies"),
    ],
)
def test_what_makes_a_run_worthless_is_said_once(
    sound: Callable[..., list[str]], logs: list[Logs], said: str
) -> None:
    (message,) = sound(WARNS, [*logs, *logs[-1:]])
    assert message.startswith(said)


@pytest.mark.parametrize(
    "logs",
    [
        [{FORMAT: 0.0}] * 2,
        [{FORMAT: 0.0}, {FORMAT: 0.02}] * 4,
        [{"loss": 0.1}] * 9,
        [{"ended/submitted": 1.0}] * 9,
        [{FILLED: 0.0}, {FILLED: 0.1}] * 4,
        trend(FALLS, [100.0] * 9),
        trend(FALLS, GROWS[::-1]),
        trend([0.5] * 9, GROWS),
        trend(FALLS[::-1], GROWS),
        trend(FALLS[:6], GROWS[:6]),
    ],
)
def test_a_sound_run_is_left_alone(sound: Callable[..., list[str]], logs: list[Logs]) -> None:
    assert sound(WARNS, logs) == []


def test_each_alarm_can_be_switched_off(sound: Callable[..., list[str]]) -> None:
    off = Alarms(format_steps=None, unfilled_steps=None, drift_steps=None, reward_call_s=None)
    logs = [{FORMAT: 0.0, FILLED: 0.0, **one} for one in trend(FALLS, GROWS)]
    assert sound(off, logs * 9) == []


def test_steps_are_counted_and_not_logs_and_from_where_a_run_goes_on(
    sound: Callable[..., list[str]],
) -> None:
    assert sound(WARNS, [{FORMAT: 0.0}], every=3)[0].startswith("step 3: for 3 steps")
    assert sound(WARNS, [{FORMAT: 0.0}] * 2, start=100)[1:] == []


def test_it_is_said_again_if_it_happens_again(sound: Callable[..., list[str]]) -> None:
    assert len(sound(WARNS, [*[{FORMAT: 0.0}] * 4, {FORMAT: 0.9}] * 2)) == 2


def test_only_the_first_rank_warns(sound: Callable[..., list[str]]) -> None:
    assert sound(WARNS, [{FORMAT: 0.0}] * 4, rank=1) == []


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("alarms", "logs"),
    [(Alarms(format_steps=2), {FORMAT: 0.0}), (Alarms(2, unfilled_stops=True), {FILLED: 0.0})],
)
def test_every_rank_stops_alike(
    sound: Callable[..., list[str]], alarms: Alarms, logs: Logs, rank: int
) -> None:
    with pytest.raises(UserError) as caught:
        sound(alarms, [logs] * 12, rank=rank)
    assert str(caught.value).endswith("set `alarms:` in the recipe.")
    assert "\n" not in str(caught.value)


def test_the_defaults_are_those_that_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")
    for name, value in dataclasses.asdict(Alarms()).items():
        written = str(value).lower() if isinstance(value, bool) else f"{value:g}"
        assert f"`{name}: {written}`" in page
    assert Alarms(format_stops=False, reward_call_s=1800.0) == ALARMS_OF_TESTS


def test_a_recipe_sets_thresholds_and_may_change_them_while_a_run_is_under_way(
    tmp_path: Path,
) -> None:
    places = {"model": "m", "data": "d", "output": "o"}
    path = tmp_path / "recipe.yaml"
    alarms = {"format_steps": None, "drift_reward": 0.3}
    path.write_text(json.dumps({"method": "srl", **places, "alarms": alarms}))
    recipe = load_recipe(path, {"alarms.reward_call_s": "5"})
    assert isinstance(recipe, SrlRecipe)
    assert recipe.alarms == Alarms(format_steps=None, drift_reward=0.3, reward_call_s=5.0)
    path.write_text(json.dumps({"method": "srl", **places}))
    plain = load_recipe(path)
    assert decisive_fields(recipe) == decisive_fields(plain)


@pytest.mark.parametrize(
    "section", [{"format_rte": 1}, {"format_steps": -1}, {"format_stops": "maybe"}]
)
def test_a_mistake_in_an_alarm_is_one_sentence(section: Logs, tmp_path: Path) -> None:
    content = {"method": "srl", "model": "m", "data": "d", "output": "o", "alarms": section}
    (tmp_path / "recipe.yaml").write_text(json.dumps(content))
    with pytest.raises(UserError, match="alarms"):
        load_recipe(tmp_path / "recipe.yaml")


def test_a_slow_call_is_warned_of_while_it_runs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "srl_swe"):
        with warned_after(None, "never"), warned_after(30.0, "not yet"), warned_after(0.01, "slow"):
            deadline = time.monotonic() + 10
            while not caplog.records and time.monotonic() < deadline:
                time.sleep(0.01)
        with warned_after(0.2, "in time"):
            pass
        time.sleep(0.3)
    assert [record.message for record in caplog.records] == ["slow"]


def test_a_rate_of_the_format_is_read_from_every_methods_log() -> None:
    assert format_rate({FORMAT: 0.25}) == 0.25
    assert format_rate({"ended/no_edit": 0.25, "ended/ok": 0.75}) == 0.75
    assert format_rate({"loss": 1.0}) is None


@pytest.mark.train
def test_a_run_out_of_format_stops_without_a_final_policy_and_goes_on_with_more_patience(
    srl_recipe: Callable[..., SrlRecipe],
) -> None:
    recipe = dataclasses.replace(srl_recipe(max_steps=3), alarms=Alarms(format_steps=2))
    with pytest.raises(UserError, match="step 2: for"):
        train_srl(recipe)
    assert not (Path(recipe.output) / "final").exists()
    assert "Stopped the run" in (Path(recipe.output) / "report.html").read_text()
    assert train_srl(dataclasses.replace(recipe, alarms=Alarms(format_steps=4))).is_dir()


class SlowReward:
    __name__ = "slow"

    def __call__(self, *, completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        time.sleep(0.5)
        return [float(len(ids)) for ids in completion_ids]


@pytest.mark.train
def test_a_slow_reward_is_warned_of_by_the_step(
    make_trainer: Callable[..., Any],
    srl_recipe: Callable[..., SrlRecipe],
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = make_trainer(SlowReward(), max_steps=1)
    recipe = dataclasses.replace(srl_recipe(), alarms=Alarms(reward_call_s=0.05))
    add_callbacks(trainer, recipe, open_run(recipe))
    with caplog.at_level(logging.WARNING, "srl_swe"):
        trainer.train()
    assert "step 0: a reward call has taken 0.05 s and goes on" in caplog.text


def test_alarms_are_recorded_and_a_resumed_run_drops_those_it_redoes(tmp_path: Path) -> None:
    args, path = TrainingArguments(str(tmp_path)), tmp_path / "alarms.jsonl"
    stops = dataclasses.replace(WARNS, format_stops=True)
    for start in (0, 5, 2):
        callback = TrainingAlarms(stops, path)
        state = TrainerState(global_step=start, is_world_process_zero=True)
        callback.on_train_begin(args, state, TrainerControl())
        with pytest.raises(UserError):
            for _ in range(3):
                state.global_step += 1
                logs = {FORMAT: 0.0, FILLED: 0.0}
                callback.on_log(args, state, TrainerControl(), logs=logs)
    (last,) = read_alarms(path)
    assert (last.step, last.stopped) == (5, True)
    assert last.text.startswith("step 5: for 3 steps at most 1% of the replies")
