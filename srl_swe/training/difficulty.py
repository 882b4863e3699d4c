"""The difficulty of steps: samples each prompt several times and keeps steps worth training on.

Keeps steps whose rewards differ and are low on average: the pivots of PivotRL (arXiv
2603.21383), which are dynamic sampling ahead of time. They depend on the policy: after some
training others would be chosen.

out/config.json      the data, the policy and all settings
out/profile.jsonl    one line per row: mean, population std and the rewards themselves
out/steps/           the rows kept, with ``profile_mean`` and ``profile_std``, and a card
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from srl_swe.dialects import ReplyFormat, Strictness, get_dialect
from srl_swe.errors import UserError
from srl_swe.files import CONFIG_FILE, append_line, claim, load_records, read_object
from srl_swe.progress import progress
from srl_swe.rewards import (
    asks_for_solution,
    batch_rewards,
    find_step_reward,
    read_reply,
    weight_shares,
)
from srl_swe.rollout.local_policy import LocalModel, Sampling
from srl_swe.rollout.tokens import check_thought, thought_opening
from srl_swe.rollout.weights import find_weights
from srl_swe.steps import save_dataset
from srl_swe.training.data import (
    PROFILE_COLUMN,
    check_expert_actions,
    expert_column,
    fitting_rows,
    load_step_contexts,
    load_tokenizer,
    max_positions,
    room_for_prompt,
    with_solutions,
)
from srl_swe.training.generate import batches_by_length

_BAR, _BINS = 40, 10
_REMEDY = "delete that line, and its step is sampled again"


@dataclass(frozen=True, slots=True)
class StepDifficulty:
    """The rewards of one row, which counts from 0; ``std`` is the population's."""

    row: int
    mean: float
    std: float
    rewards: tuple[float, ...]


def read_difficulties(path: Path) -> list[StepDifficulty]:
    """The difficulties in the file, ordered by row; empty if there is no file.

    Raises UserError for a damaged line.
    """
    return sorted(load_records(path, StepDifficulty, _REMEDY), key=lambda step: step.row)


def difficulty_card(
    config: Mapping[str, Any],
    difficulties: Sequence[StepDifficulty],
    kept: Sequence[StepDifficulty],
    min_std: float,
    max_mean: float,
) -> str:
    """A card in Markdown; ``config`` holds the settings that the rewards depend on."""
    settings = "".join(f"| {name} | {value} |\n" for name, value in config.items())
    dead = sum(profile.std <= min_std for profile in difficulties)
    easy = len(difficulties) - dead - len(kept)
    return (
        f"# Steps worth training on\n\n{len(kept)} of {len(difficulties)} rows: those with a "
        f"reward std above {min_std} and a mean below {max_mean}. {dead} have rewards too much "
        f"alike, {easy} more are learned already. `profile_mean` and `profile_std` are of the "
        f"policy named here, before training.\n\n| | |\n|---|---|\n{settings}\n"
        f"Mean reward, rows (kept):\n\n"
        f"{_histogram([step.mean for step in difficulties], [step.mean for step in kept], -1.0)}\n"
        f"Standard deviation, rows (kept):\n\n"
        f"{_histogram([step.std for step in difficulties], [step.std for step in kept], 0.0)}"
    )


def _histogram(values: Sequence[float], kept: Sequence[float], low: float) -> str:
    """One line of # per bin from ``low`` to 1; the last bin includes its upper end."""
    counts, of_kept = (
        Counter(min(_BINS - 1, int((value - low) / (1 - low) * _BINS)) for value in some)
        for some in (values, kept)
    )
    scale = _BAR / max(counts.values())
    return "".join(
        f"    {low + (1 - low) * index / _BINS:+.1f} {'#' * round(counts[index] * scale):{_BAR}} "
        f"{counts[index]} ({of_kept[index]})\n"
        for index in range(_BINS)
    )


@dataclass(frozen=True, slots=True)
class DifficultySettings:
    """The settings; ``max_new_tokens`` should be that of the training to come."""

    data: str
    policy: str
    reward: str = "similarity"
    samples: int = 8
    temperature: float = 1.0
    max_new_tokens: int = 512
    dialect: str = "xml"
    strictness: Strictness = "strict"
    rows_at_once: int = 8
    """Prompts per batch; the random numbers of a row depend on it."""
    seed: int = 0


def measure_difficulty(settings: DifficultySettings, out: Path) -> list[StepDifficulty]:
    """Sample and score every row; an interrupted call is continued.

    Raises UserError if ``out`` holds the result of other settings, or a prompt leaves no room for
    a reply.
    """
    weight_shares({settings.reward: 1.0})
    if not settings.temperature > 0:
        raise UserError(
            f"temperature {settings.temperature}: greedy replies to one prompt are all alike; "
            "set a temperature above 0."
        )
    data = _rows(settings)
    tokenizer = load_tokenizer(settings.policy, {})
    check_thought(settings.policy, thought_opening(tokenizer), settings.strictness)
    _check_room(settings, data, tokenizer)
    known_by = {
        "weights": find_weights(settings.policy).fingerprint,
        "rows": len(data),
        "data_sha256": _digest(data),
    }
    claim(out, {**dataclasses.asdict(settings), **known_by})
    path = out / "profile.jsonl"
    done = {profile.row for profile in read_difficulties(path)}
    batches = batches_by_length(data["prompt"], settings.rows_at_once)
    batches = [batch for batch in batches if not done.issuperset(batch)]
    if batches:
        model = LocalModel.load(settings.policy, tokenizer)
        _measure_batches(settings, data, model, batches, path, done)
    return read_difficulties(path)


def keep_pivots(
    settings: DifficultySettings,
    difficulties: Sequence[StepDifficulty],
    out: Path,
    min_std: float,
    max_mean: float,
) -> str:
    """Write ``out/steps`` with the rows of std > ``min_std`` and mean < ``max_mean``.

    Returns its card. Raises UserError if no row qualifies.
    """
    kept = [step for step in difficulties if step.std > min_std and step.mean < max_mean]
    if not kept:
        raise UserError(
            f"no step of {settings.data} has a reward std above {min_std} and a mean below "
            f"{max_mean}; {out / 'profile.jsonl'} holds what they have."
        )
    card = difficulty_card(dataclasses.asdict(settings), difficulties, kept, min_std, max_mean)
    rows = _rows(settings).select([profile.row for profile in kept])
    rows = rows.add_column(PROFILE_COLUMN, [profile.mean for profile in kept])
    rows = rows.add_column("profile_std", [profile.std for profile in kept])
    made_from = read_object(Path(settings.data) / CONFIG_FILE)
    config = {**made_from, "profile": dataclasses.asdict(settings)} if made_from else None
    save_dataset(rows, out / "steps", card, config)
    return card


def _measure_batches(
    settings: DifficultySettings,
    data: Dataset,
    model: LocalModel,
    batches: Sequence[Sequence[int]],
    path: Path,
    done: Collection[int],
) -> None:
    """Random numbers depend only on the seed and the batch: resuming does not change a row."""
    count, reward = settings.samples, find_step_reward(settings.reward)
    sampling = Sampling(settings.max_new_tokens, settings.temperature, count)
    form = ReplyFormat(
        get_dialect(settings.dialect),
        settings.strictness,
        thought_opening(model.tokenizer) == "opened",
        asks_for_solution([settings.reward]),
    )
    with progress("profile", len(batches)) as advance:
        for batch in batches:
            rows = data.select(batch).to_list()
            torch.manual_seed(settings.seed * len(data) + batch[0])
            texts = model.reply([row["prompt"] for row in rows], sampling)
            replies = [read_reply(text, form) for text in texts]
            experts = [row[expert_column(form)] for row in rows for _ in range(count)]
            scored = batch_rewards(replies, experts, reward)
            means: list[float] = []
            for index, (number, row) in enumerate(zip(batch, rows, strict=True)):
                rewards = scored[index * count : (index + 1) * count]
                mean, std = statistics.fmean(rewards), statistics.pstdev(rewards)
                means.append(mean)
                if number not in done:
                    where = {name: row[name] for name in ("instance_id", "step_index", "tool")}
                    step = StepDifficulty(number, mean, std, tuple(rewards))
                    append_line(path, json.dumps({**where, **dataclasses.asdict(step)}))
            advance(f"mean reward {statistics.fmean(means):.2f}")


def _digest(data: Dataset) -> str:
    """SHA-256 of the prompts and the expert's actions."""
    digest = hashlib.sha256()
    for row in data.select_columns(["prompt", "expert_action"]):
        digest.update(json.dumps([row["prompt"], row["expert_action"]]).encode())
    return digest.hexdigest()


def _rows(settings: DifficultySettings) -> Dataset:
    data = load_step_contexts(settings.data)
    check_expert_actions(data, settings.data)
    if PROFILE_COLUMN in data.column_names:
        raise UserError(f"{settings.data} holds the steps kept by a profile; profile its source.")
    if asks_for_solution([settings.reward]):
        return with_solutions(data, get_dialect(settings.dialect))
    return data


def _check_room(
    settings: DifficultySettings, data: Dataset, tokenizer: PreTrainedTokenizerBase
) -> None:
    positions = max_positions(settings.policy, {})
    if positions is None:
        return
    reply = settings.max_new_tokens
    fitting_rows(
        data,
        settings.data,
        tokenizer,
        room_for_prompt(positions, reply, "--max-new-tokens", settings.policy),
        "prompt",
        f"the policy has room for {positions} with {reply} new tokens; make the step contexts with "
        "a smaller token budget",
        as_made=not asks_for_solution([settings.reward]),
    )
