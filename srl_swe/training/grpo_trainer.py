"""GRPO that trains only on groups whose rewards differ (paper, section 3).

Groups with a population std of rewards <= epsilon carry no gradient. They are replaced: new
prompts are drawn and sampled until the batch is full or ``max_rounds`` have passed. Groups still
missing then get mask 0, and the live ones are weighted up to a full batch, in the KL term and the
entropy bonus too. The exception is ``bnpo``: it divides by each micro-batch's own tokens and
averages over the micro-batches, and a micro-batch without a live reply counts as zero.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Sampler
from trl.trainer.utils import RepeatSampler

from srl_swe.errors import UserError
from srl_swe.training.recipe import DynamicSampling
from srl_swe.training.timing import TimedGRPOTrainer, WeightSyncAlarm
from srl_swe.training.trl_config import check_dynamic_sampling

# Pure functions on tensors. A *group* is the ``num_generations`` samples that share a prompt.


Samples = dict[str, Tensor]
"""Result of TRL's ``_generate_and_score_completions``: tensors with one row per sample."""

_PADDED_LEFT = {"prompt_ids", "prompt_mask"}
_PAD_WITH_ONE = {"tool_mask"}
_PAD_WITH_TOKEN = {"prompt_ids", "completion_ids"}
_ROW_LEVEL = {"advantages"}
_TOKEN_LEVEL = {
    "prompt_ids",
    "prompt_mask",
    "completion_ids",
    "completion_mask",
    "old_per_token_logps",
    "importance_sampling_ratio",
    "sampling_per_token_logps",
    "ref_per_token_logps",
    "tool_mask",
}


def group_stds(rewards: Tensor, group_size: int) -> Tensor:
    """Population standard deviation of each group's rewards, ``(samples,) -> (groups,)``.

    NaN marks a sample without a reward (its sandbox broke); it is left out, and a group with
    fewer than two others has 0. Computed in float64 on the CPU for equal results on every rank.

    >>> group_stds(torch.tensor([0.0, 1.0, 0.5, 0.5, 0.3, float("nan")]), 2)
    tensor([0.5000, 0.0000, 0.0000], dtype=torch.float64)
    """
    grouped = rewards.detach().cpu().double().view(-1, group_size)
    deviations = grouped - grouped.nanmean(dim=1, keepdim=True)
    variances = deviations.square().nanmean(dim=1)
    return variances.nan_to_num(0.0).sqrt()


@dataclass(frozen=True, slots=True)
class Slot:
    """The source of one group of the final batch. A dead group trains nothing."""

    round: int
    group: int
    live: bool


def fill_slots(live: Sequence[Sequence[bool]]) -> list[Slot]:
    """Choose the groups to train on: those of round 0, dead ones replaced by later live ones.

    ``live[r][g]``: whether group g of round r is worth training on. A dead group without a
    replacement stays, as dead.

    >>> fill_slots([[True, False, False], [False, True]])  # doctest: +NORMALIZE_WHITESPACE
    [Slot(round=0, group=0, live=True), Slot(round=1, group=1, live=True),
     Slot(round=0, group=2, live=False)]
    """
    refills = iter(
        Slot(index, group, True)
        for index, groups in enumerate(live[1:], start=1)
        for group, is_live in enumerate(groups)
        if is_live
    )
    return [
        Slot(0, group, True) if is_live else next(refills, Slot(0, group, False))
        for group, is_live in enumerate(live[0])
    ]


def take_groups(
    rounds: Sequence[Samples], slots: Sequence[Slot], group_size: int, pad_token_id: int
) -> Samples:
    """Gather the samples of the slots, padded to one width; dead ones get mask 0, advantage 0.

    ``num_items_in_batch`` is left to the caller: it is a sum over ranks.
    """
    unknown = rounds[0].keys() - _TOKEN_LEVEL - _ROW_LEVEL - {"num_items_in_batch"}
    if unknown:
        raise UserError(
            f"dynamic sampling merges groups of text only, and these samples hold "
            f"{', '.join(sorted(unknown))}: switch it off (dynamic_sampling: null)."
        )
    starts = [0]
    for samples in rounds:
        starts.append(starts[-1] + len(samples["advantages"]))
    rows = torch.tensor(
        [
            starts[slot.round] + slot.group * group_size + member
            for slot in slots
            for member in range(group_size)
        ]
    )
    taken = {
        key: _concatenate([samples[key] for samples in rounds], key, pad_token_id)[rows]
        for key in rounds[0]
        if key in _TOKEN_LEVEL | _ROW_LEVEL
    }
    dead = torch.tensor([not slot.live for slot in slots]).repeat_interleave(group_size)
    taken["completion_mask"][dead] = 0
    taken["advantages"][dead] = 0.0
    return _trim(taken)


def _concatenate(tensors: Sequence[Tensor], key: str, pad_token_id: int) -> Tensor:
    if key in _ROW_LEVEL:
        return torch.cat(list(tensors))
    width = max(tensor.size(1) for tensor in tensors)
    value = pad_token_id if key in _PAD_WITH_TOKEN else int(key in _PAD_WITH_ONE)
    return torch.cat([_pad_to(tensor, width, key in _PADDED_LEFT, value) for tensor in tensors])


def _pad_to(tensor: Tensor, width: int, left: bool, value: int) -> Tensor:
    missing = width - tensor.size(1)
    return pad(tensor, (missing, 0) if left else (0, missing), value=value)


def _trim(samples: Mapping[str, Tensor]) -> Samples:
    """Drop the columns of padding in every row; at least one column of each kind stays."""
    prompt = samples["prompt_mask"].any(dim=0)
    completion = samples["completion_mask"].any(dim=0)
    first = int(prompt.int().argmax())
    last = int(completion.nonzero().max()) + 1 if completion.any() else 1

    def trimmed(key: str, tensor: Tensor) -> Tensor:
        if key in _ROW_LEVEL:
            return tensor
        return tensor[:, first:] if key in _PADDED_LEFT else tensor[:, :last]

    return {key: trimmed(key, tensor) for key, tensor in samples.items()}


class PromptOrder(Sampler[int]):
    """TRL's RepeatSampler, advanced to the permutation of the current epoch.

    TRL 1.16's own starts every process with the permutation of the first epoch; a run resumed in
    a later epoch would see the first epoch's prompts again. ``epoch`` is called at the start of
    each epoch.
    """

    def __init__(self, sampler: RepeatSampler, epoch: Callable[[], int]) -> None:
        self._sampler = sampler
        self._epoch = epoch
        self._start = sampler.generator.get_state() if sampler.shuffle else None

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[int]:
        sampler = self._sampler
        if self._start is not None:
            sampler.generator.set_state(self._start)
            for _ in range(self._epoch()):
                torch.randperm(sampler.num_samples, generator=sampler.generator)
        return iter(sampler)


ROW_COLUMNS = ("instance_id", "step_index", "n_steps", "tool", "expert_action")
"""Columns that identify the prompt and its target; the prompt itself is in the data set."""

TOKENS_WRITTEN = "tokens_written"
"""Column with the number of sampled tokens, if completions hold tokens the policy only read."""


def tokens_written(inputs: Sequence[Mapping[str, Any]], ids: Sequence[Sequence[int]]) -> int:
    """Count the tokens sampled for the rows, including those of cut and dropped replies."""
    return sum(
        int(row.get(TOKENS_WRITTEN, len(tokens))) for row, tokens in zip(inputs, ids, strict=True)
    )


@dataclass(frozen=True, slots=True)
class SampledReply:
    """One sampled reply. ``trained`` is False for a member of a dead group."""

    row: Mapping[str, Any]
    ids: Sequence[int]
    rewards: Sequence[float]
    """One per reward function; NaN if it gave none."""
    extras: Mapping[str, Any]
    """Values logged by the reward functions through TRL's ``log_extra``."""
    round: int
    """0 for the batch itself, above for the refills of dynamic sampling."""
    group: int
    """Counted over all ranks: replies with the same round and group share a prompt."""
    advantage: float
    trained: bool


@dataclass(frozen=True, slots=True)
class _Scored:
    rows: list[dict[str, Any]]
    ids: list[list[int]]
    rewards: list[list[float]]
    extras: dict[str, list[Any]]

    def extras_of(self, index: int) -> dict[str, Any]:
        return {
            name: values[index]
            for name, values in self.extras.items()
            if len(values) == len(self.rows)
        }


class SampledReplies:
    """This rank's replies of the last step that sampled."""

    def __init__(self, group_size: int, rank: int = 0) -> None:
        self._group_size = group_size
        self._rank = rank
        self._step = -1
        self._open: list[_Scored] = []
        self._replies: list[SampledReply] = []

    @property
    def replies(self) -> Sequence[SampledReply]:
        """Replies in sampling order."""
        return self._replies

    def add_round(
        self,
        step: int,
        inputs: Sequence[Mapping[str, Any]],
        completion_ids: list[list[int]],
        rewards: list[list[float]],
        extras: Mapping[str, list[Any]],
    ) -> None:
        """Add one scored call of the sampler; a new ``step`` discards the previous one."""
        if step != self._step:
            self._step, self._open, self._replies = step, [], []
        rows = [{name: row[name] for name in ROW_COLUMNS if name in row} for row in inputs]
        held = {name: list(values) for name, values in extras.items()}
        self._open.append(_Scored(rows, completion_ids, rewards, held))

    def end_batch(
        self, advantages: Sequence[Sequence[float]], live: Sequence[Sequence[bool]] | None
    ) -> None:
        """Record the rounds since the last call as one batch, with the advantage of each reply.

        ``live``: for each round, which of this rank's groups are worth training on. None means
        all, and then a group may begin on one rank and end on the next.
        """
        trained = {(s.round, s.group) for s in fill_slots(live) if s.live} if live else None
        for number, (scored, values) in enumerate(zip(self._open, advantages, strict=True)):
            first = self._rank * len(values)
            for index, advantage in enumerate(values):
                self._replies.append(
                    SampledReply(
                        scored.rows[index],
                        scored.ids[index],
                        scored.rewards[index],
                        scored.extras_of(index),
                        number,
                        (first + index) // self._group_size,
                        advantage,
                        trained is None or (number, index // self._group_size) in trained,
                    )
                )
        self._open = []


logger = logging.getLogger(__name__)

AVERAGED_OVER_ROWS = {"grpo", "dr_grpo", "luspo", "sapo"}
"""Loss types whose denominator counts rows, dead ones included; live rows are weighted up instead.

``cispo``, ``dapo`` and ``vespo`` divide by the live tokens of the whole batch."""


LIVE = "live"
"""Key of a merged batch with dead rows: mask of the rows worth training on, (rows,)."""


@dataclass(frozen=True, slots=True)
class Round:
    """One call of the sampler: this rank's samples, and every rank's group stds."""

    samples: Samples
    stds: Tensor
    """(groups of all ranks,), the same on every rank; without the filter a group may span ranks."""
    tokens: int
    """Tokens sampled by all ranks."""


class DynamicSamplingGRPOTrainer(TimedGRPOTrainer):
    """TRL's trainer with dynamic sampling; with None it equals TRL's to the last bit.

    With TimedGRPOTrainer it overrides six private methods of TRL 1.16; a test pins them and the
    other TRL internals in use. No state needs a checkpoint: new prompts depend only on the seed,
    the step, the micro-step within it and the round. Every rank decides from the same gathered
    rewards, which keeps collectives aligned.
    """

    args: Any
    model: torch.nn.Module
    train_dataset: Dataset
    use_adaptive_entropy: bool
    _last_world_entropy: float
    beta: float
    """Weight of the KL term of the current batch; like its advantages it makes up for dead rows."""
    entropy_coef: float
    """Weight of the entropy bonus, likewise; :meth:`_compute_loss` corrects an adaptive one."""

    def __init__(
        self, *args: Any, dynamic_sampling: DynamicSampling | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.dynamic_sampling = dynamic_sampling
        self._group_size: int = self.args.num_generations
        self.sampled = SampledReplies(self._group_size, self.accelerator.process_index)
        self._rewards_per_func = torch.empty(0)
        self._tokens_written = 0
        self._warned = False
        self._filled = 1.0
        self.add_callback(WeightSyncAlarm())
        if dynamic_sampling is not None:
            check_dynamic_sampling(self.args)

    def _get_train_sampler(self, dataset: Dataset | None = None) -> PromptOrder:
        sampler: Any = super()._get_train_sampler(dataset)
        return PromptOrder(sampler, lambda: int(self.state.epoch or 0))

    def _calculate_rewards(
        self,
        inputs: list[dict[str, Any]],
        prompts: list[Any],
        completions: list[Any],
        completion_ids_list: list[list[int]],
    ) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(
            inputs, prompts, completions, completion_ids_list
        )
        self._rewards_per_func = rewards
        if self.model.training:
            self._tokens_written = self._over_ranks(tokens_written(inputs, completion_ids_list))
            mine = rewards.view(self.accelerator.num_processes, len(inputs), -1)
            self.sampled.add_round(
                self.state.global_step,
                inputs,
                completion_ids_list,
                mine[self.accelerator.process_index].tolist(),
                self._pending_extra_logs,
            )
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Samples:
        if not self.model.training:
            evaluated: Samples = super()._generate_and_score_completions(inputs)
            return evaluated
        rounds = [self._sample(inputs)]
        samples = rounds[0].samples
        if self.dynamic_sampling is not None:
            samples = self._only_live(rounds, self.dynamic_sampling)
        self._end_batch(rounds)
        self._log("group_std", torch.cat([round.stds for round in rounds]).mean().item())
        self._log("dynamic_sampling/tokens_sampled", sum(round.tokens for round in rounds))
        self._log("dynamic_sampling/tokens_trained", samples["num_items_in_batch"].item())
        return samples

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return TRL's loss, with the entropy bonus weighted for live rows.

        The bonus is a mean over the live tokens of a micro-batch. Uncorrected, a micro-batch with
        few live rows would weigh as much as a full one, and an empty one would dilute the others.
        """
        if (live := inputs.get(LIVE)) is None:
            loss: Tensor = super()._compute_loss(model, inputs)  # type: ignore[no-untyped-call]
            return loss
        coefficient, share = self.entropy_coef, live.float().mean().item()
        made_up_for = self._filled if self.use_adaptive_entropy else 1.0
        self.entropy_coef = coefficient * share / made_up_for
        loss = super()._compute_loss(model, inputs)  # type: ignore[no-untyped-call]
        self.entropy_coef = self._next_entropy_coef(coefficient)
        if logged := self._metrics["train"]["entropy_coef"]:
            logged[-1] = self.entropy_coef
        return loss

    def _next_entropy_coef(self, coefficient: float) -> float:
        """Apply TRL's adaptive control at the end of an update."""
        args = self.args
        if not (self.use_adaptive_entropy and self.accelerator.sync_gradients):
            return coefficient
        if self._last_world_entropy <= args.entropy_target:
            return min(coefficient + float(args.entropy_coef_delta), float(args.entropy_coef_max))
        return max(coefficient - float(args.entropy_coef_delta), float(args.entropy_coef_min))

    def _end_batch(self, rounds: Sequence[Round]) -> None:
        sampling = self.dynamic_sampling
        self.sampled.end_batch(
            [round.samples["advantages"].tolist() for round in rounds],
            None if sampling is None else self._live_here(rounds, sampling.epsilon),
        )

    def _sample(self, inputs: list[dict[str, Any]]) -> Round:
        samples = super()._generate_and_score_completions(inputs)
        weighted = self._rewards_per_func * self.reward_weights.to(self._rewards_per_func.device)
        unscorable = weighted.isnan().all(dim=1)
        rewards = weighted.nansum(dim=1).masked_fill(unscorable, torch.nan)
        return Round(samples, group_stds(rewards, self._group_size), self._tokens_written)

    def _only_live(self, rounds: list[Round], sampling: DynamicSampling) -> Samples:
        """Sample more rounds while groups are missing, and merge them into one batch."""
        while len(rounds) <= sampling.max_rounds:
            missing = int(self._empty_slots(rounds, sampling.epsilon).max())
            if missing == 0:
                break
            rounds.append(self._sample(self._draw(missing, round_index=len(rounds))))
        groups = rounds[0].stds.numel()
        filled = 1 - self._empty_slots(rounds, sampling.epsilon).sum().item() / groups
        self._log_sampling(rounds, sampling, filled)
        return self._merge(rounds, sampling.epsilon, filled)

    def _live(self, rounds: Sequence[Round], epsilon: float) -> list[Tensor]:
        """For each round, which groups are worth training on, (ranks, groups per rank)."""
        ranks = self.accelerator.num_processes
        return [round.stds.view(ranks, -1) > epsilon for round in rounds]

    def _live_here(self, rounds: Sequence[Round], epsilon: float) -> list[list[bool]]:
        rank = self.accelerator.process_index
        return [live[rank].tolist() for live in self._live(rounds, epsilon)]

    def _empty_slots(self, rounds: Sequence[Round], epsilon: float) -> Tensor:
        """Number of groups each rank still lacks, (ranks,)."""
        live = self._live(rounds, epsilon)
        return (live[0].size(1) - torch.cat(live, dim=1).sum(dim=1)).clamp(min=0)

    def _draw(self, count: int, round_index: int) -> list[dict[str, Any]]:
        """Draw ``count`` prompts for this rank, different on each, repeated for their groups."""
        seed = f"{self.args.seed}/{self.state.global_step}/{self._micro_step}/{round_index}"
        generator = random.Random(seed)
        rows, wanted = range(len(self.train_dataset)), count * self.accelerator.num_processes
        draw = generator.sample if wanted <= len(rows) else generator.choices
        first = count * self.accelerator.process_index
        drawn = draw(rows, k=wanted)[first : first + count]
        return [dict(self.train_dataset[row]) for row in drawn for _ in range(self._group_size)]

    def _merge(self, rounds: Sequence[Round], epsilon: float, filled: float) -> Samples:
        first, self.beta = rounds[0].samples, self.args.beta
        self._filled = filled or 1.0
        if not self.use_adaptive_entropy:
            self.entropy_coef = self.args.entropy_coef / self._filled
        if len(rounds) == 1 and filled == 1:
            return first
        slots: list[Slot] = fill_slots(self._live_here(rounds, epsilon))
        samples = take_groups(
            [round.samples for round in rounds],
            slots,
            self._group_size,
            self._tokenizer.pad_token_id,
        )
        if self.loss_type in AVERAGED_OVER_ROWS and filled > 0:
            samples["advantages"] = samples["advantages"] / filled
            self.beta = self.args.beta / filled
        if self._entropy_bonus_enabled and filled < 1:
            alive = torch.tensor([slot.live for slot in slots]).repeat_interleave(self._group_size)
            samples[LIVE] = alive.to(samples["advantages"].device)
        mask = samples["completion_mask"] * samples.get("tool_mask", 1)
        samples["num_items_in_batch"] = self.accelerator.gather(mask.sum()).sum()
        return samples

    def _log_sampling(
        self, rounds: Sequence[Round], sampling: DynamicSampling, filled: float
    ) -> None:
        stds = torch.cat([round.stds for round in rounds])
        self._log("dynamic_sampling/kept_frac", (stds > sampling.epsilon).double().mean().item())
        self._log("dynamic_sampling/rounds", len(rounds) - 1)
        self._log("dynamic_sampling/filled_frac", filled)
        if filled < 1 and not self._warned and self.accelerator.is_main_process:
            self._warned = True
            logger.warning(
                "step %d: only %.0f %% of the groups have a reward std above %g after %d rounds; "
                "training goes on with these (see dynamic_sampling/filled_frac)",
                self.state.global_step,
                100 * filled,
                sampling.epsilon,
                len(rounds) - 1,
            )

    def _over_ranks(self, count: int) -> int:
        counts = torch.tensor([count], device=self.accelerator.device)
        return int(self.accelerator.gather(counts).sum())

    def _log(self, name: str, value: float) -> None:
        self._metrics["train"][name].append(value)
