"""Seconds of a training step by phase: ``time/<phase>_s`` in every log.

generate   sampling, refills included
reward     reward functions
logprob    forward passes without a gradient: old and reference policy
sync       pushing weights to vLLM
backward   the loss, forward and backward, of all micro-steps
optimizer  the update
other      between two updates: data, logging, checkpoints, validation
step       the sum: from the end of one step to the end of the next

And the tokens of the first three phases that forward any, on the first rank:

computed   positions that the model forwards, padding and repeated prompts included
real       those that hold a token of a prompt or a reply
needed     each prompt once, and the replies: less, where tokens train nothing

as ``tokens/<phase>_computed`` and so on. What vLLM forwards is not counted, and sampling does not
forward the last token of a reply.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import TrainerCallback, TrainerState
from trl.distributed import DistributedBackend
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.grpo_trainer import GRPOTrainer

from srl_swe.reports.figures import TOKEN_KINDS
from srl_swe.rollout.decoding import PromptCache, generate, plain_generation, until_end
from srl_swe.training.alarms import warned_after


def weight_sync(generation: Any) -> Callable[[], None]:
    """Return the replacement of ``sync_weights`` of TRL's VLLMGeneration.

    On a GPU it stays TRL's, which loads the parameters into vLLM's model one by one. On a CPU
    vLLM packs its matrices and drops the originals ('Parameter' object has no attribute
    'weight_loader'); the weights are reloaded like a checkpoint, from memory.
    """
    sync: Callable[[], None] = generation.sync_weights
    if generation.mode != "colocate":
        return sync
    from vllm.platforms import current_platform

    return partial(_reload_on_cpu, generation) if current_platform.is_cpu() else sync


def _reload_on_cpu(generation: Any) -> None:
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    runner = generation.llm.llm_engine.model_executor.driver_worker.model_runner
    # clones, as vLLM reads a padded matrix after TRL has unmerged the adapter
    weights = ((name, weight.clone()) for name, weight in generation._iter_named_params())
    runner.reload_weights(weights_iterator=weights)
    for layer in runner.model.modules():
        # an output layer tied to the embedding: vLLM skips it, as no checkpoint holds it
        if hasattr(layer, "cpu_linear") and layer.weight.numel() > 0:
            dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
    generation.llm.reset_prefix_cache()


class TokenCounts:
    """Tokens computed, real and needed by phase, since the last :meth:`take`."""

    def __init__(self, now: Callable[[], str | None]) -> None:
        """``now``: the phase that is under way, None between two."""
        self._now = now
        self._counts: dict[str, int] = defaultdict(int)
        self._prompts: dict[str, set[tuple[int, ...]]] = defaultdict(set)
        self._phases: set[str] = set()

    def watch(self, model: Any) -> None:
        """Count the positions that the model embeds from now on."""

        def count(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            # checkpointing repeats passes in the backward pass: they are not counted again
            if (phase := self._now()) and torch._C._current_graph_task_id() == -1:
                self._phases.add(phase)
                self._counts[f"{phase}_computed"] += inputs[0].numel()

        model.get_input_embeddings().register_forward_pre_hook(count)

    def add(
        self, phase: str, prompts: Sequence[Sequence[int]], replies: Sequence[int], passes: int = 1
    ) -> None:
        """Add rows: the ids of each prompt, and the tokens of each reply that are needed.

        A row of 0 needs nothing, its prompt neither.
        """
        real = sum(map(len, prompts)) + sum(replies)
        held = {tuple(ids) for ids, tokens in zip(prompts, replies, strict=True) if tokens}
        new = held - self._prompts[phase]
        self._prompts[phase] |= new
        self._counts[f"{phase}_real"] += passes * real
        self._counts[f"{phase}_needed"] += passes * (sum(map(len, new)) + sum(replies))

    def take(self) -> dict[str, int]:
        """Return the counts, ``<phase>_computed`` and so on, of phases that ever forwarded any."""
        counts, self._counts = self._counts, defaultdict(int)
        self._prompts.clear()
        names = [f"{phase}_{kind}" for phase in sorted(self._phases) for kind in TOKEN_KINDS]
        return {name: counts[name] for name in names}


class Stopwatch:
    """Seconds by phase. An inner phase stops the clock of the outer one."""

    def __init__(self, now: Callable[[], float] | None = None) -> None:
        self._now = now or _now
        self._spent: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    @property
    def current(self) -> str | None:
        """The phase under way, None between two."""
        return self._open[-1] if self._open else None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of the block as ``name``."""
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def take(self) -> dict[str, float]:
        """Return the seconds of each phase since the last call; an open phase counts up to now."""
        self._turn()
        spent, self._spent = dict(self._spent), defaultdict(float)
        return spent

    def _turn(self) -> None:
        now = self._now()
        if self._open:
            self._spent[self._open[-1]] += now - self._since
        self._since = now


@contextmanager
def live_model(trainer: Any) -> Iterator[Any]:
    """The trained model as it samples: unwrapped, and whole if ranks hold parts of it."""
    accelerator, args = trainer.accelerator, trainer.args
    backend: Any = DistributedBackend(accelerator)  # type: ignore[no-untyped-call]
    with (
        unwrap_model_for_generation(
            trainer.model_wrapped,
            accelerator,
            gather_deepspeed3_params=getattr(args, "ds3_gather_for_generation", True),
            gradient_checkpointing_kwargs=args.gradient_checkpointing_kwargs,
        ) as model,
        backend.summon_full_params(trainer.model_wrapped, recurse=False),
    ):
        yield model


class TimedGRPOTrainer(GRPOTrainer):
    """TRL's trainer with timed phases.

    Results equal TRL's, unless a checkpoint's generation config would change the sampling.
    """

    args: Any
    model: torch.nn.Module
    model_wrapped: torch.nn.Module
    vllm_generation: Any
    use_transformers_continuous_batching: bool
    eos_token_ids: list[int]
    ref_model: Any
    reward_call_s: float | None = None
    """Limit beyond which a reward call is warned of; None never warns."""
    known_prompts: PromptCache | None = None
    """Prompts that the present weights have read, for rollouts of several turns."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stopwatch = Stopwatch()
        self.tokens = TokenCounts(lambda: self.stopwatch.current)
        if not self.args.torch_compile:  # a hook would cut its graph
            for model in filter(None, (self.model, self.ref_model)):
                self.tokens.watch(model)
        self._update, self._micro_step = -1, 0
        if self.use_vllm:
            sync = weight_sync(self.vllm_generation)
            self.vllm_generation.sync_weights = self.stopwatch.phase("sync")(sync)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run one micro-step; the last micro-step of an update logs the seconds.

        TRL's own ``_step`` counts micro-steps from the start of the process, and the last update
        of an epoch may have fewer than the others.
        """
        if self.state.global_step != self._update:
            self._update, self._micro_step = self.state.global_step, 0
        with self.stopwatch.phase("backward"):
            loss: torch.Tensor = super().training_step(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._micro_step += 1
        if self._micro_step == self.current_gradient_accumulation_steps:
            spent = {"generate": 0.0, "reward": 0.0, "logprob": 0.0, **self.stopwatch.take()}
            for name, seconds in spent.items():
                self._metrics["train"][f"time/{name}_s"].append(seconds)
            for name, count in self.tokens.take().items():
                self._metrics["train"][f"tokens/{name}"].append(float(count))
        return loss

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if self.model.training:
            self.tokens.add("backward", *_lengths(inputs))
        loss: torch.Tensor = super()._compute_loss(model, inputs)  # type: ignore[no-untyped-call]
        return loss

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        with self.stopwatch.phase("generate"):
            samples: dict[str, Any] = super()._generate_and_score_completions(inputs)
        passes = len({"old_per_token_logps", "ref_per_token_logps"} & samples.keys())
        if self.model.training and passes:
            self.tokens.add("logprob", *_lengths(samples), passes)
        return samples

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any
    ) -> tuple[list[list[int]], Any]:
        """Sample by the recipe, ignoring other settings of the checkpoint's generation config."""
        if self.use_vllm or self.use_transformers_continuous_batching or self._is_vlm:
            with plain_generation(self.model_wrapped):
                sampled: tuple[list[list[int]], Any] = super()._generate_single_turn(  # type: ignore[no-untyped-call]
                    prompt_ids, *args, **kwargs
                )
            return sampled
        with live_model(self) as model:
            replies = generate(model, prompt_ids, self.generation_config, self.known_prompts)
        ended = [until_end(ids, self.eos_token_ids) for ids in replies]
        if self.model.training:
            self.tokens.add("generate", prompt_ids, list(map(len, ended)))
        return ended, None

    def _calculate_rewards(
        self,
        inputs: list[dict[str, Any]],
        prompts: list[Any],
        completions: list[Any],
        completion_ids_list: list[list[int]],
    ) -> torch.Tensor:
        slow = (
            f"step {self.state.global_step}: a reward call has taken {self.reward_call_s} s and "
            "goes on, while nothing is sampled or trained (alarms.reward_call_s)"
        )
        with self.stopwatch.phase("reward"), warned_after(self.reward_call_s, slow):
            rewards: torch.Tensor = super()._calculate_rewards(
                inputs, prompts, completions, completion_ids_list
            )
        return rewards

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)
        with self.stopwatch.phase("logprob"):
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)


def _lengths(samples: Mapping[str, torch.Tensor]) -> tuple[list[list[int]], list[int]]:
    """The prompts' ids without padding, and the tokens of the replies."""
    rows = zip(samples["prompt_ids"].cpu(), samples["prompt_mask"].cpu().bool(), strict=True)
    return [ids[mask].tolist() for ids, mask in rows], samples["completion_mask"].sum(1).tolist()


class StepTimes(TrainerCallback):
    """Logs the whole step, the update, and ``time/tokens_per_s`` over the whole step.

    Tokens are TRL's count: tokens read and written, of all ranks, once each.
    """

    def __init__(self, trainer: Any, *, counts_apart: bool = False) -> None:
        """``counts_apart``: TRL counts in the trainer, as for SFT, and anew after a resume."""
        self._trainer, self._counts_apart = trainer, counts_apart
        self._metrics = trainer._metrics["train"]
        self._ended = self._begun = self._updating = 0.0
        self._optimizer_s = 0.0
        self._tokens = 0.0

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Start the clock; loading and compiling before the first step belong to no step."""
        self._ended, self._tokens = _now(), float(state.num_input_tokens_seen)
        if self._counts_apart:
            self._trainer._total_train_tokens = state.num_input_tokens_seen

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the phase ``other``."""
        self._begun = _now()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the time of the update, after all micro-steps."""
        self._updating = _now()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the time of the update."""
        self._optimizer_s = _now() - self._updating

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hand the seconds to the trainer, which logs the mean since its last log."""
        now, counted = _now(), self._metrics.get("num_tokens", [self._tokens])[-1]
        step_s, tokens = now - self._ended, counted - self._tokens
        self._metrics["time/optimizer_s"].append(self._optimizer_s)
        self._metrics["time/other_s"].append(self._begun - self._ended)
        self._metrics["time/step_s"].append(step_s)
        self._metrics["time/tokens_per_s"].append(tokens / step_s if step_s > 0 else 0.0)
        self._ended, self._tokens = now, counted
        if self._counts_apart:
            state.num_input_tokens_seen = self._trainer._total_train_tokens


def _now() -> float:
    """Seconds; waits for the GPU, whose pending work would count to the next reader."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
