"""GRPO that trains only on groups whose rewards differ (paper, section 3).

Groups with a population std of rewards <= epsilon carry no gradient. They are replaced: new
prompts are drawn and sampled until the batch is full or ``max_rounds`` have passed; what is
still missing then is trained on as nothing (mask 0), and the rest weighs as if it were all, in the
KL term and the entropy bonus too. One
loss type can't keep that: ``bnpo`` divides by each micro-batch's own tokens and averages over the
micro-batches, so that one without a live reply counts as a zero.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from srl_swe.training.grpo.groups import Samples, Slot, fill_slots, group_stds, take_groups
from srl_swe.training.grpo.phase_times import TimedGRPOTrainer
from srl_swe.training.grpo.prompt_order import PromptOrder
from srl_swe.training.grpo.sampled import SampledReplies, tokens_written
from srl_swe.training.grpo.weight_sync_alarm import WeightSyncAlarm
from srl_swe.training.guards.dynamic_sampling import check_dynamic_sampling
from srl_swe.training.recipes.records import DynamicSampling

logger = logging.getLogger(__name__)

AVERAGED_OVER_ROWS = {"grpo", "dr_grpo", "luspo", "sapo"}
"""Loss types whose denominator counts rows, dead ones included: their live rows weigh more instead.

``cispo``, ``dapo`` and ``vespo`` divide by the live tokens of the whole batch."""


LIVE = "live"
"""Key of a merged batch with dead rows: which rows are worth training on, (rows,)."""


@dataclass(frozen=True, slots=True)
class Round:
    """One call of the sampler: this rank's samples, and every rank's group stds."""

    samples: Samples
    stds: Tensor
    """(groups of all ranks,), the same on every rank; without the filter one may span ranks."""
    tokens: int
    """Sampled by all ranks."""


class DynamicSamplingGRPOTrainer(TimedGRPOTrainer):
    """TRL's trainer; with ``dynamic_sampling=None`` it is that to the last bit.

    With TimedGRPOTrainer it overrides six private methods of TRL 1.16; a test pins them, and
    what else of TRL's own is used. Nothing of it needs a checkpoint: new prompts depend on the
    seed, the step, the micro-step within it and the round alone. Every rank decides from the same
    gathered rewards, so that collectives stay aligned.
    """

    args: Any
    model: torch.nn.Module
    train_dataset: Dataset
    use_adaptive_entropy: bool
    _last_world_entropy: float
    beta: float
    """Of the KL term of the batch under way; like its advantages it makes up for dead rows."""
    entropy_coef: float
    """Of the entropy bonus, likewise; an adaptive one is made up for in :meth:`_compute_loss`."""

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
        """TRL's loss; its entropy bonus weighs live rows as if they were all.

        The bonus is a mean over the live tokens of a micro-batch, so that one with few live rows
        would weigh as much as a full one, and one with none would dilute the others.
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
        """As TRL's adaptive control moves it at the end of an update."""
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
        """Of each round which groups are worth training on, (ranks, groups a rank)."""
        ranks = self.accelerator.num_processes
        return [round.stds.view(ranks, -1) > epsilon for round in rounds]

    def _live_here(self, rounds: Sequence[Round], epsilon: float) -> list[list[bool]]:
        rank = self.accelerator.process_index
        return [live[rank].tolist() for live in self._live(rounds, epsilon)]

    def _empty_slots(self, rounds: Sequence[Round], epsilon: float) -> Tensor:
        """Groups that each rank still lacks, (ranks,)."""
        live = self._live(rounds, epsilon)
        return (live[0].size(1) - torch.cat(live, dim=1).sum(dim=1)).clamp(min=0)

    def _draw(self, count: int, round_index: int) -> list[dict[str, Any]]:
        """``count`` prompts for this rank, others on every rank, each repeated for its group."""
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
