"""Training on two processes: weights, prompts, and what a run leaves behind."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyarrow import parquet

from srl_swe.dialects import get_dialect
from srl_swe.errors import UserError
from srl_swe.instances import load_instances
from srl_swe.reports.record import read_metrics
from srl_swe.steps.prompt import make_messages
from srl_swe.training.generate import greedy_scores
from srl_swe.training.load_recipe import load_recipe
from srl_swe.training.recipe import DynamicSampling, SftRecipe, Validation
from srl_swe.training.sft_trainer import train_sft
from srl_swe.training.srl_trainer import train_srl
from srl_swe.types import Action, Observation, Step

from .conftest import MakeSrlRecipe

pytestmark = pytest.mark.train

XML = get_dialect("xml")
LOOK = Action("bash", {"command": "ls"})
Ranks = Callable[[str], list[Any]]


@pytest.fixture(scope="module")
def ranks(
    policy: Path,
    warm_policy: Path,
    data: Path,
    srl_recipe: MakeSrlRecipe,
    warm_start: Callable[..., SftRecipe],
    tmp_path_factory: pytest.TempPathFactory,
    on_two_ranks: Callable[..., str],
) -> Ranks:
    """What each of two ranks saw in a part of ``two_ranks.py``, all of which run once."""
    folder = tmp_path_factory.mktemp("ranks")
    recipe = srl_recipe(
        warm_policy,
        dynamic_sampling=DynamicSampling(epsilon=0.1, max_rounds=1),
        per_device_train_batch_size=8,
        max_steps=2,
        save_strategy="steps",
        save_steps=1,
    )
    validation = Validation(data=recipe.data, every_steps=2, rows=7, max_new_tokens=24)
    fields = dataclasses.asdict(dataclasses.replace(recipe, validation=validation))
    (folder / "srl.yaml").write_text(yaml.safe_dump({"method": "srl", **fields}))
    issue = load_instances("starter")[0].problem_statement
    first = make_messages(issue, [], XML)
    reply = XML.render_reply("look", LOOK)
    then = make_messages(issue, [Step("look", LOOK, Observation("inikit\ntests"))], XML)
    actor = train_sft(warm_start([(first, reply), (then, reply)], max_steps=60))
    script = Path(__file__).with_name("two_ranks.py")
    on_two_ranks(script, policy, warm_policy, actor, data, folder)
    seen = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    return lambda part: [rank[part] for rank in seen]


def test_two_ranks_draw_other_prompts_and_end_with_the_same_weights(ranks: Ranks) -> None:
    first, second = ranks("refill")
    assert first["ranks"] == second["ranks"] == 2
    assert first["weights"] == second["weights"]
    assert len(first["rounds"]) == len(second["rounds"]) > 2, "nothing was refilled"
    for ours, theirs in zip(first["rounds"], second["rounds"], strict=True):
        assert not set(ours) & set(theirs)
    for rank in (first, second):
        assert "must be a multiple of num_generations (4)" in rank["refused"]
    fractions = [row["dynamic_sampling/filled_frac"] for row in first["log"]]
    assert len(fractions) == 2
    assert all(0 < fraction <= 1 for fraction in fractions)


def test_without_the_filter_a_group_over_two_ranks_is_trained_on_as_plain_trl_does(
    ranks: Ranks,
) -> None:
    first, second = ranks("straddle")
    assert first["equal"]
    assert second["equal"]
    assert len(first["group_std"]) == 2
    assert min(first["group_std"]) > 0
    (reply,) = {tuple(one) for one in first["replies"] + second["replies"]}
    assert reply[2:] == (0, True), "both ranks' replies are of the one group, which taught"
    assert len(first["replies"]) == len(second["replies"]) == 4


@pytest.mark.parametrize(("part", "sign"), [("sorted", "sorts"), ("shared", "shares")])
def test_one_step_moves_the_weights_by_the_gradient_of_plain_trl(
    ranks: Ranks, part: str, sign: str
) -> None:
    for seen in ranks(part):
        assert seen[sign]
        assert seen["difference"] <= (5e-7 if part == "sorted" else 1e-6)


def test_a_mistake_that_one_rank_finds_stops_both_with_the_same_words(ranks: Ranks) -> None:
    assert ranks("stop") == ["only here."] * 2


def test_ranks_whose_episodes_end_after_unlike_many_turns_do_not_wait_for_ever(
    ranks: Ranks,
) -> None:
    rows = ranks("episodes")[0]
    assert len(rows) == 2
    assert all(row["ended/step_limit"] > 0 and row["steps/mean"] > 1 for row in rows)


def test_both_ranks_share_validation_and_replies_and_one_does_not_go_on_alone(
    ranks: Ranks,
) -> None:
    recipe: Any = load_recipe(Path(ranks("recipe")[0]))
    output = Path(recipe.output)

    rows = read_metrics(output / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2]
    best = json.loads((output / "best" / "best.json").read_text())
    assert best["score"] == max(row.get("validation/similarity", 0.0) for row in rows)
    (start,) = json.loads((output / "manifest.json").read_text())["starts"]
    assert (start["ranks"], start["hosts"], start["to_step"]) == (2, 1, 2)

    replies = parquet.read_table(output / "completions" / "step-000001.parquet").to_pylist()
    of_ranks = [[reply for reply in replies if reply["rank"] == rank] for rank in (0, 1)]
    assert len(of_ranks[0]) == len(of_ranks[1]) >= 8
    first_round = [
        {(r["instance_id"], r["step_index"]) for r in of if r["round"] == 0} for of in of_ranks
    ]
    assert not first_round[0] & first_round[1], "the ranks sample other prompts"
    assert greedy_scores(output / "best", Path(recipe.data), max_new_tokens=24).n == 8

    for made in (output / "final", output / "checkpoint-2"):
        shutil.rmtree(made)
    with pytest.raises(UserError, match="by 2 ranks, and this start has 1 rank"):
        train_srl(recipe)
