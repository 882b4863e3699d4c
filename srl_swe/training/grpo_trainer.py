"""GRPO that trains only on groups whose rewards differ (paper, section 3).

A group is the ``num_generations`` samples that share a prompt. Groups with a population std of
rewards <= epsilon carry no gradient. They are replaced: new prompts are drawn and sampled until
the batch is full or ``max_rounds`` have passed. Groups still missing then get mask 0, and the live
ones are weighted up to a full batch, in the KL term and the entropy bonus too. The exception is
``bnpo``: it divides by each micro-batch's own tokens and averages over the micro-batches, and a
micro-batch without a live reply counts as zero.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import pad as pad_columns
from torch.utils.data import Sampler
from trl.trainer.utils import RepeatSampler, pad

from srl_swe.errors import UserError
from srl_swe.training.alarms import WeightSyncAlarm
from srl_swe.training.micro_batches import by_length, ignores_padding, order_by_length, used_columns
from srl_swe.training.recipe import DynamicSampling
from srl_swe.training.shared_prompts import accept_packed, check_shared_prompts, shared_logps
from srl_swe.training.timing import TimedGRPOTrainer
from srl_swe.training.trl_config import check_dynamic_sampling

logger = logging.getLogger(__name__)

Samples = dict[str, Tensor]
"""Result of TRL's ``_generate_and_score_completions``: tensors with one row per sample."""

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
_PADDED_LEFT = {"prompt_ids", "prompt_mask"}


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
    fill = {"prompt_ids": pad_token_id, "completion_ids": pad_token_id, "tool_mask": 1}
    fill["importance_sampling_ratio"] = 1  # vespo sums its logarithms, without a mask
    rows = [
        (slot.round, slot.group * group_size + member)
        for slot in slots
        for member in range(group_size)
    ]
    taken: Samples = {}
    for key in (key for key in rounds[0] if key in _TOKEN_LEVEL | _ROW_LEVEL):
        values = [rounds[index][key][row] for index, row in rows]
        side = "left" if key in _PADDED_LEFT else "right"
        taken[key] = pad(values, fill.get(key, 0), side) if values[0].dim() else torch.stack(values)
    dead = torch.tensor([not slot.live for slot in slots]).repeat_interleave(group_size)
    taken["completion_mask"][dead] = 0
    taken["advantages"][dead] = 0.0
    return _without_empty_columns(taken)


def _without_empty_columns(samples: Samples) -> Samples:
    """Drop the columns of padding in every row; at least one column of each kind stays."""
    first = int(samples["prompt_mask"].any(dim=0).int().argmax())
    used = samples["completion_mask"].any(dim=0).nonzero()
    end = int(used.max()) + 1 if used.numel() else 1
    columns = {key: slice(first, None) for key in _PADDED_LEFT}
    return {
        key: tensor if key in _ROW_LEVEL else tensor[:, columns.get(key, slice(end))]
        for key, tensor in samples.items()
    }


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
    advantage: float = 0.0
    trained: bool = False


class SampledReplies:
    """This rank's replies of the last step that sampled."""

    def __init__(self, group_size: int, rank: int = 0, ranks: int = 1) -> None:
        self.replies: list[SampledReply] = []
        """Those of ended batches, in sampling order."""
        self._group_size, self._rank, self._ranks = group_size, rank, ranks
        self._step, self._before = -1, 0
        """``_before``: this rank's replies in the first rounds of the step's ended batches."""
        self._rounds: list[list[SampledReply]] = []

    def add_round(
        self,
        step: int,
        inputs: Sequence[Mapping[str, Any]],
        completion_ids: Sequence[Sequence[int]],
        rewards: Sequence[Sequence[float]],
        extras: Mapping[str, Sequence[Any]],
    ) -> None:
        """Add one scored call of the sampler; a new ``step`` discards the previous one."""
        if step != self._step:
            self._step, self._rounds, self.replies, self._before = step, [], [], 0
        count = len(inputs)
        replies = [
            SampledReply(
                row={name: row[name] for name in ROW_COLUMNS if name in row},
                ids=completion_ids[index],
                rewards=rewards[index],
                extras={name: of[index] for name, of in extras.items() if len(of) == count},
                round=len(self._rounds),
                group=(self._ranks * self._before + self._rank * count + index) // self._group_size,
            )
            for index, row in enumerate(inputs)
        ]
        self._rounds.append(replies)

    def end_batch(
        self, advantages: Sequence[Sequence[float]], slots: Sequence[Slot] | None
    ) -> None:
        """Record the rounds since the last call as one batch, with the advantage of each reply.

        ``slots``: this rank's groups in the batch. None means all, and then a group may begin on
        one rank and end on the next.
        """
        live = {(slot.round, slot.group) for slot in slots or () if slot.live}
        for number, (replies, values) in enumerate(zip(self._rounds, advantages, strict=True)):
            for index, (reply, advantage) in enumerate(zip(replies, values, strict=True)):
                trained = slots is None or (number, index // self._group_size) in live
                self.replies.append(replace(reply, advantage=advantage, trained=trained))
        self._before += len(self._rounds[0]) if self._rounds else 0
        self._rounds = []


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
    """TRL's trainer with dynamic sampling and without padding; else it equals TRL's.

    To the last bit for one micro-batch per update without dynamic sampling, else up to rounding.
    With TimedGRPOTrainer it overrides seven private methods of TRL 1.16; a test pins them and the
    other TRL internals in use. No state needs a checkpoint: new prompts depend only on the seed,
    the step, the micro-step within it and the round. Every rank decides from the same gathered
    rewards, which keeps collectives aligned.
    """

    train_dataset: Dataset
    use_adaptive_entropy: bool
    _last_world_entropy: float
    is_fsdp_enabled: bool
    is_deepspeed_enabled: bool
    beta: float
    """Weight of the KL term of the current batch; like its advantages it makes up for dead rows."""
    entropy_coef: float
    """Weight of the entropy bonus, likewise; :meth:`_compute_loss` corrects an adaptive one."""

    def __init__(
        self,
        *args: Any,
        dynamic_sampling: DynamicSampling | None = None,
        share_prompt: bool = False,
        share_prompt_tokens: int | None = None,
        **kwargs: Any,
    ) -> None:
        """``share_prompt_tokens``: most tokens of a packed sequence; None sets no limit."""
        super().__init__(*args, **kwargs)
        self.dynamic_sampling = dynamic_sampling
        self._group_size: int = self.args.num_generations
        ranks, rank = self.accelerator.num_processes, self.accelerator.process_index
        self.sampled = SampledReplies(self._group_size, rank, ranks)
        self._rewards_per_func = torch.empty(0)
        self._tokens_written = 0
        self._warned = False
        self._filled = 1.0
        fixed_shapes = self.pad_to_multiple_of or self.args.torch_compile
        plain = not (self._is_vlm or self.aux_loss_enabled or fixed_shapes)
        self._trims = plain and ignores_padding(self.model.config)
        self._sorts = self._trims and self._sums_over_the_update()
        self._shares, self._most_tokens = share_prompt, share_prompt_tokens
        if share_prompt:
            self._share_prompts()
        self.add_callback(WeightSyncAlarm())
        if dynamic_sampling is not None:
            check_dynamic_sampling(self.args)

    def _get_train_sampler(self, dataset: Dataset | None = None) -> PromptOrder:
        sampler: Any = super()._get_train_sampler(dataset)
        return PromptOrder(sampler, lambda: int(self.state.epoch or 0))

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **options: Any,
    ) -> Any:
        """Return TRL's values, from passes over rows of like length, without padding; 0 in gaps."""
        compute = super()._get_per_token_logps_and_entropies
        if not (self._trims or self._shares):
            return compute(model, input_ids, attention_mask, logits_to_keep, batch_size, **options)
        size, order = batch_size or len(input_ids), torch.arange(len(input_ids))
        if size < len(input_ids):
            order = order_by_length(
                input_ids[:, :-logits_to_keep],
                attention_mask[:, :-logits_to_keep],
                attention_mask[:, -logits_to_keep:].sum(dim=1),
                whole=self._shares,
            )
            size = max(size, self._group_size) if self._shares else size
        run = self._shared_pass if self._shares else partial(self._trimmed_pass, compute)
        order = order.to(input_ids.device)
        passes = [
            run(model, input_ids[rows], attention_mask[rows], logits_to_keep, **options)
            for rows in (order[start : start + size] for start in range(0, len(order), size))
        ]
        logps, entropies = zip(*passes, strict=True)
        back = order.argsort()
        in_order = [torch.cat(x)[back] if x[0] is not None else None for x in (logps, entropies)]
        return *in_order, None

    def _trimmed_pass(
        self,
        compute: Callable[..., Any],
        model: Any,
        ids: Tensor,
        mask: Tensor,
        reply_width: int,
        **options: Any,
    ) -> list[Tensor | None]:
        columns = used_columns(mask, reply_width)
        cut = mask.size(1) - columns.stop
        logps, entropies, _ = compute(
            model, ids[:, columns], mask[:, columns], reply_width - cut, **options
        )
        return [x if x is None else pad_columns(x, (0, cut)) for x in (logps, entropies)]

    def _shared_pass(
        self, model: Any, ids: Tensor, mask: Tensor, reply_width: int, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        phase = nullcontext() if torch.is_grad_enabled() else self.stopwatch.phase("logprob")
        with phase, self.accelerator.autocast():
            return shared_logps(model, ids, mask, reply_width, self._most_tokens)

    def _share_prompts(self) -> None:
        """Prepare the policy and the reference. Raises UserError if they can't share prompts."""
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        for model in filter(None, (self.model, self.ref_model)):
            bare: Any = self.accelerator.unwrap_model(model)
            bare = bare.get_base_model() if isinstance(bare, PeftModel) else bare
            attention = bare.config._attn_implementation
            check_shared_prompts(
                bare.config, self.args, self._most_tokens, attention, sharded=sharded
            )
            accept_packed(bare)

    def _sums_over_the_update(self) -> bool:
        """Whether the sum over an update's micro-batches does not depend on their rows."""
        of_micro_batches = (
            self.loss_type == "bnpo" or self._entropy_bonus_enabled or self.top_entropy_quantile < 1
        )
        whole = self.args.gradient_accumulation_steps % self.args.steps_per_generation == 0
        return self.args.steps_per_generation > 1 and whole and not of_micro_batches

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Return TRL's micro-batch, of rows alike in length if that changes no result."""
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if not self._sorts or self._buffered_inputs is before:
            return inputs
        self._buffered_inputs = by_length(self._buffered_inputs, whole_groups=self._shares)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._rewards_per_func = rewards
        if self.model.training:
            rows = zip(inputs, completion_ids_list, strict=True)
            written = sum(int(row.get(TOKENS_WRITTEN, len(ids))) for row, ids in rows)
            counts = torch.tensor([written], device=self.accelerator.device)
            self._tokens_written = int(self.accelerator.gather(counts).sum())
            if TOKENS_WRITTEN in inputs[0]:  # TRL leaves out episodes that are not trained on
                lengths = self._metrics["train"]["completions/mean_length"]
                lengths[-1] = self._tokens_written / len(rewards)
            by_rank = rewards.view(self.accelerator.num_processes, len(inputs), -1)
            mine = by_rank[self.accelerator.process_index]
            self._keep_replies(inputs, completion_ids_list, mine)
        return rewards

    def _keep_replies(
        self, inputs: list[dict[str, Any]], completion_ids: list[list[int]], rewards: Tensor
    ) -> None:
        """Keep this rank's replies of a round; ``rewards``: (replies, reward functions)."""
        extras = self._pending_extra_logs
        step = self.state.global_step
        self.sampled.add_round(step, inputs, completion_ids, rewards.tolist(), extras)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Samples:
        if not self.model.training:
            return super()._generate_and_score_completions(inputs)
        rounds, slots = [self._sample(inputs)], None
        samples = rounds[0].samples
        if self.dynamic_sampling is not None:
            samples, slots = self._only_live(rounds, self.dynamic_sampling)
        self.sampled.end_batch([round.samples["advantages"].tolist() for round in rounds], slots)
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
            loss: Tensor = super()._compute_loss(model, inputs)
            return loss
        coefficient, args = self.entropy_coef, self.args
        made_up_for = self._filled if self.use_adaptive_entropy else 1.0
        self.entropy_coef = coefficient * live.float().mean().item() / made_up_for
        loss = super()._compute_loss(model, inputs)
        if self.use_adaptive_entropy and self.accelerator.sync_gradients:  # TRL's control
            if self._last_world_entropy <= args.entropy_target:
                coefficient = min(coefficient + args.entropy_coef_delta, args.entropy_coef_max)
            else:
                coefficient = max(coefficient - args.entropy_coef_delta, args.entropy_coef_min)
        self.entropy_coef = coefficient
        if logged := self._metrics["train"]["entropy_coef"]:
            logged[-1] = coefficient
        return loss

    def _sample(self, inputs: list[dict[str, Any]]) -> Round:
        samples = super()._generate_and_score_completions(inputs)
        weighted = self._rewards_per_func * self.reward_weights.to(self._rewards_per_func.device)
        unscorable = weighted.isnan().all(dim=1)
        rewards = weighted.nansum(dim=1).masked_fill(unscorable, torch.nan)
        taught = (samples["completion_mask"] * samples.get("tool_mask", 1)).any(dim=1)
        has_taught = self.accelerator.gather(taught).view(-1, self._group_size).any(dim=1).cpu()
        stds = group_stds(rewards, self._group_size) * has_taught  # else all replies are masked
        return Round(samples, stds, self._tokens_written)

    def _only_live(
        self, rounds: list[Round], sampling: DynamicSampling
    ) -> tuple[Samples, list[Slot]]:
        """Sample more rounds while groups are missing, and merge them into one batch."""
        ranks, rank = self.accelerator.num_processes, self.accelerator.process_index
        live: list[Tensor] = []  # per round: (ranks, groups per rank)
        while True:
            live.append(rounds[-1].stds.view(ranks, -1) > sampling.epsilon)
            missing = (live[0].size(1) - torch.cat(live, dim=1).sum(dim=1)).clamp(min=0)
            if len(rounds) > sampling.max_rounds or not missing.any():
                break
            rounds.append(self._sample(self._draw(int(missing.max()), len(rounds))))
        filled = 1 - missing.sum().item() / live[0].numel()
        self._log("dynamic_sampling/kept_frac", torch.cat(live, dim=1).double().mean().item())
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
        slots = fill_slots([by_rank[rank].tolist() for by_rank in live])
        return self._merge(rounds, slots, filled), slots

    def _draw(self, count: int, round_index: int) -> list[dict[str, Any]]:
        """Draw ``count`` prompts for this rank, different on each, repeated for their groups."""
        seed = f"{self.args.seed}/{self.state.global_step}/{self._micro_step}/{round_index}"
        generator = random.Random(seed)
        rows, wanted = range(len(self.train_dataset)), count * self.accelerator.num_processes
        draw = generator.sample if wanted <= len(rows) else generator.choices
        first = count * self.accelerator.process_index
        drawn = draw(rows, k=wanted)[first : first + count]
        return [dict(self.train_dataset[row]) for row in drawn for _ in range(self._group_size)]

    def _merge(self, rounds: Sequence[Round], slots: Sequence[Slot], filled: float) -> Samples:
        """Make the batch; ``filled``: the share of live groups over all ranks."""
        self.beta, self._filled = self.args.beta, filled or 1.0
        if not self.use_adaptive_entropy:
            self.entropy_coef = self.args.entropy_coef / self._filled
        if len(rounds) == 1 and filled == 1:
            return rounds[0].samples
        samples = take_groups(
            [round.samples for round in rounds],
            slots,
            self._group_size,
            self._tokenizer.pad_token_id,
        )
        if self.loss_type in AVERAGED_OVER_ROWS:
            samples["advantages"] /= self._filled
            self.beta /= self._filled
        if self._entropy_bonus_enabled and filled < 1:
            alive = torch.tensor([slot.live for slot in slots]).repeat_interleave(self._group_size)
            samples[LIVE] = alive.to(samples["advantages"].device)
        mask = samples["completion_mask"] * samples.get("tool_mask", 1)
        samples["num_items_in_batch"] = self.accelerator.gather(mask.sum()).sum()
        return samples

    def _log(self, name: str, value: float) -> None:
        self._metrics["train"][name].append(value)
