"""Which steps are worth training on, found out once with the policy as it is.

Each step's prompt is sampled several times and scored. Steps whose rewards differ and are low
on average are kept: the pivots of PivotRL (arXiv 2603.21383), which is dynamic sampling ahead of
time. A policy that has moved on would choose others.

out/config.json      what was profiled, with which policy
out/profile.jsonl    one line a row: mean, population std and the rewards themselves
out/steps/           the rows kept, with ``profile_mean`` and ``profile_std``, and a card
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from srl_swe.dialects import ReplyFormat, Strictness, get_dialect
from srl_swe.errors import UserError
from srl_swe.files import append_line, damage_named, drop_torn_line, read_json_lines
from srl_swe.progress import progress
from srl_swe.rewards import asks_for_solution, weight_shares
from srl_swe.rollout.replies import check_thought, opens_thought, thought_opening
from srl_swe.rollout.weights import find_weights
from srl_swe.run_folder import claim
from srl_swe.steps import save_dataset
from srl_swe.steps.rows import read_config
from srl_swe.training.data import (
    PROFILE_COLUMN,
    check_expert_actions,
    load_step_contexts,
    load_tokenizer,
    max_positions,
    overlong_rows,
    room_for_prompt,
    with_solutions,
)
from srl_swe.training.generate import StepSampler
from srl_swe.training.srl_trainer import ReplyScorer

# What a profile of steps is on disk, and the card of those that are kept.


_BAR, _BINS = 40, 10
_REMEDY = "delete that line, and its step is sampled again"


@dataclass(frozen=True, slots=True)
class StepProfile:
    """What one row earned: ``row`` counts from 0, ``std`` is that of the population."""

    row: int
    mean: float
    std: float
    rewards: tuple[float, ...]


def profile_line(profile: StepProfile, row: Mapping[str, Any]) -> str:
    """The profile of that row of the step contexts as a line of ``profile.jsonl``."""
    where = {name: row[name] for name in ("instance_id", "step_index", "tool")}
    return json.dumps({**where, **dataclasses.asdict(profile)})


def read_profiles(path: Path) -> list[StepProfile]:
    """The profiles in the file by their row; none if there is no file.

    Raises UserError for a damaged line.
    """
    profiles = []
    for where, row in read_json_lines(path, _REMEDY):
        with damage_named(where, _REMEDY):
            rewards = tuple(map(float, row["rewards"]))
            numbers = (int(row["row"]), float(row["mean"]), float(row["std"]))
            profiles.append(StepProfile(*numbers, rewards))
    return sorted(profiles, key=lambda profile: profile.row)


def profile_card(
    config: Mapping[str, Any],
    profiles: Sequence[StepProfile],
    kept: Sequence[StepProfile],
    min_std: float,
    max_mean: float,
) -> str:
    """Markdown; ``config`` is what decided the rewards."""
    settings = "".join(f"| {name} | {value} |\n" for name, value in config.items())
    dead = sum(profile.std <= min_std for profile in profiles)
    easy = len(profiles) - dead - len(kept)
    return (
        f"# Steps worth training on\n\n{len(kept)} of {len(profiles)} rows: those with a reward "
        f"std above {min_std} and a mean below {max_mean}. {dead} have rewards too much alike, "
        f"{easy} more are learned already. `profile_mean` and `profile_std` are of the policy "
        f"named here, before training.\n\n| | |\n|---|---|\n{settings}\n"
        f"Mean reward, rows (kept):\n\n"
        f"{_histogram([one.mean for one in profiles], [one.mean for one in kept], -1.0)}\n"
        f"Standard deviation, rows (kept):\n\n"
        f"{_histogram([one.std for one in profiles], [one.std for one in kept], 0.0)}"
    )


def _histogram(values: Sequence[float], kept: Sequence[float], low: float) -> str:
    """A line a bin from ``low`` to 1, drawn with #; the last one holds its upper end too."""
    counts, of_kept = _counts(values, low), _counts(kept, low)
    scale = _BAR / max(counts)
    lines = [
        f"    {low + (1 - low) * index / _BINS:+.1f} {'#' * round(count * scale):{_BAR}} "
        f"{count} ({of_kept[index]})\n"
        for index, count in enumerate(counts)
    ]
    return "".join(lines)


def _counts(values: Sequence[float], low: float) -> list[int]:
    bins = Counter(min(_BINS - 1, int((value - low) / (1 - low) * _BINS)) for value in values)
    return [bins[index] for index in range(_BINS)]


@dataclass(frozen=True, slots=True)
class Profiling:
    """What decides the rewards of a profile; ``max_new_tokens`` as in the training to come."""

    data: str
    policy: str
    reward: str = "similarity"
    samples: int = 8
    temperature: float = 1.0
    max_new_tokens: int = 512
    dialect: str = "xml"
    strictness: Strictness = "strict"
    rows_at_once: int = 8
    """Prompts a batch; it decides which random numbers a row gets."""
    seed: int = 0


def profile_steps(profiling: Profiling, out: Path) -> list[StepProfile]:
    """A profile of every row, in their order; goes on where an earlier call was stopped.

    Raises UserError if ``out`` holds a profile of something else, or a prompt leaves no room
    for a reply.
    """
    weight_shares({profiling.reward: 1.0})
    if not profiling.temperature > 0:
        raise UserError(
            f"temperature {profiling.temperature}: greedy replies to one prompt are all alike; "
            "set a temperature above 0."
        )
    data = _rows(profiling)
    tokenizer = load_tokenizer(profiling.policy, {})
    check_thought(profiling.policy, thought_opening(tokenizer), profiling.strictness)
    _check_room(profiling, data, tokenizer)
    known_by = {
        "weights": find_weights(profiling.policy).fingerprint,
        "rows": len(data),
        "data_sha256": _digest(data),
    }
    claim(out, {**dataclasses.asdict(profiling), **known_by})
    path = out / "profile.jsonl"
    drop_torn_line(path)
    done = {profile.row for profile in read_profiles(path)}
    batches = [batch for batch in _batches(data, profiling) if not done.issuperset(batch)]
    if batches:
        _profile_batches(profiling, data, tokenizer, batches, path, done)
    return read_profiles(path)


def keep_pivots(
    profiling: Profiling,
    profiles: Sequence[StepProfile],
    out: Path,
    min_std: float,
    max_mean: float,
) -> str:
    """Write ``out/steps`` with the rows of std > ``min_std`` and mean < ``max_mean``.

    Returns its card. Raises UserError if there are none.
    """
    kept = [one for one in profiles if one.std > min_std and one.mean < max_mean]
    if not kept:
        raise UserError(
            f"no step of {profiling.data} has a reward std above {min_std} and a mean below "
            f"{max_mean}; {out / 'profile.jsonl'} holds what they have."
        )
    card = profile_card(dataclasses.asdict(profiling), profiles, kept, min_std, max_mean)
    rows = _rows(profiling).select([profile.row for profile in kept])
    rows = rows.add_column(PROFILE_COLUMN, [profile.mean for profile in kept])
    rows = rows.add_column("profile_std", [profile.std for profile in kept])
    made_from = read_config(Path(profiling.data))
    config = {**made_from, "profile": dataclasses.asdict(profiling)} if made_from else None
    save_dataset(rows, out / "steps", card, config)
    return card


def _profile_batches(
    profiling: Profiling,
    data: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    batches: Sequence[Sequence[int]],
    path: Path,
    done: Collection[int],
) -> None:
    """What is drawn depends on the seed and the batch, so that a resumed profile is the same."""
    sampler = StepSampler(
        profiling.policy,
        tokenizer,
        samples=profiling.samples,
        temperature=profiling.temperature,
        max_new_tokens=profiling.max_new_tokens,
    )
    scorer = _scorer(profiling, tokenizer, sampler.end_ids)
    with progress("profile", len(batches)) as advance:
        for batch in batches:
            rows = data.select(batch).to_list()
            seed = profiling.seed * len(data) + batch[0]
            ids = sampler.sample([row["prompt"] for row in rows], seed)
            profiles = _profiles(profiling, scorer, batch, rows, ids)
            for profile, row in zip(profiles, rows, strict=True):
                if profile.row not in done:
                    append_line(path, profile_line(profile, row))
            advance(f"mean reward {statistics.fmean(profile.mean for profile in profiles):.2f}")


def _profiles(
    profiling: Profiling,
    scorer: ReplyScorer,
    batch: Sequence[int],
    rows: Sequence[Mapping[str, Any]],
    ids: Sequence[Sequence[int]],
) -> list[StepProfile]:
    count = profiling.samples
    experts = [row[scorer.expert_column] for row in rows for _ in range(count)]
    rewards = scorer.rewards(profiling.reward, ids, experts)
    groups = [tuple(rewards[start : start + count]) for start in range(0, len(rewards), count)]
    return [
        StepProfile(row, statistics.fmean(group), statistics.pstdev(group), group)
        for row, group in zip(batch, groups, strict=True)
    ]


def _scorer(
    profiling: Profiling, tokenizer: PreTrainedTokenizerBase, end_ids: Collection[int]
) -> ReplyScorer:
    form = ReplyFormat(
        get_dialect(profiling.dialect),
        profiling.strictness,
        opens_thought(tokenizer),
        asks_for_solution([profiling.reward]),
    )
    return ReplyScorer(tokenizer, form, end_ids)


def _digest(data: Dataset) -> str:
    """SHA-256 of what is asked and of what it is compared with."""
    digest = hashlib.sha256()
    for row in data.select_columns(["prompt", "expert_action"]):
        digest.update(json.dumps([row["prompt"], row["expert_action"]]).encode())
    return digest.hexdigest()


def _rows(profiling: Profiling) -> Dataset:
    data = load_step_contexts(profiling.data)
    check_expert_actions(data, profiling.data)
    if PROFILE_COLUMN in data.column_names:
        raise UserError(f"{profiling.data} is what a profile kept; profile the data it is from.")
    if asks_for_solution([profiling.reward]):
        return with_solutions(data, get_dialect(profiling.dialect))
    return data


def _check_room(profiling: Profiling, data: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
    positions = max_positions(profiling.policy, {})
    if positions is None:
        return
    limit = room_for_prompt(
        positions, profiling.max_new_tokens, "--max-new-tokens", profiling.policy
    )
    as_made = not asks_for_solution([profiling.reward])
    overlong = overlong_rows(
        data, tokenizer, limit, "prompt", recorded_in=profiling.data if as_made else None
    )
    if overlong:
        raise UserError(
            f"{len(overlong)} of {len(data)} prompts in {profiling.data} leave no room for "
            f"{profiling.max_new_tokens} new tokens (the longest takes {max(overlong.values())} of "
            f"{positions}); make the step contexts with a smaller token budget."
        )


def _batches(data: Dataset, profiling: Profiling) -> Iterator[list[int]]:
    """Prompts of like length share a batch; the same batches in each call."""
    lengths = [len(str(prompt)) for prompt in data["prompt"]]
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    for start in range(0, len(order), profiling.rows_at_once):
        yield order[start : start + profiling.rows_at_once]
