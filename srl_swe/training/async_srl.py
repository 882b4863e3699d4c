"""Asynchronous SRL: a vLLM server samples while the trainer trains (TRL's AsyncGRPO).

Replies are sampled by a policy up to ``max_staleness`` updates old; PPO's ratio is taken to the
log-probabilities that they were sampled with. Prompts, rewards, advantages, loss, steps and records
are those of a synchronous run (:mod:`srl_swe.training.srl_trainer`). TRL's dynamic micro-batches,
its loss per micro-batch and its epsilon of 1e-8 in the advantage are replaced.
"""

from __future__ import annotations

import json
import logging
import math
import queue
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import torch
from datasets import Dataset
from torch.utils.data import DataLoader, IterableDataset
from transformers import AttentionInterface
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl.experimental.async_grpo import async_grpo_trainer
from trl.experimental.async_grpo.async_grpo_config import AsyncGRPOConfig
from trl.experimental.async_grpo.async_grpo_trainer import AsyncGRPOTrainer, DataCollatorForRollout
from trl.experimental.async_grpo.packing import TREE_ATTENTION, TreeRow
from trl.experimental.async_grpo.vllm_client import VLLMClient

from srl_swe.errors import UserError
from srl_swe.rewards import weight_shares
from srl_swe.rollout.local_policy import PLAIN
from srl_swe.training.alarms import STALENESS, WeightSyncAlarm
from srl_swe.training.async_sampler import (
    GroupOrder,
    GroupScorer,
    GroupWorker,
    ScoredGroup,
    StepGroups,
    StepShape,
    Taken,
    advantages,
    group_std,
    loss_factors,
    sample_of,
    take_step,
)
from srl_swe.training.async_server import (
    FolderTransfer,
    Server,
    check_asynchronous,
    check_fit,
    find_server,
    tree_attention,
)
from srl_swe.training.grpo_trainer import SampledReplies, SampledReply
from srl_swe.training.recipe import SrlRecipe, field_names
from srl_swe.training.srl_trainer import ReplyScorer, trainer_section
from srl_swe.training.stats import ScoredReply, reply_stats
from srl_swe.training.trl_config import ModelArguments, make_trainer_args, trl_refusals

logger = logging.getLogger(__name__)

GROUPS = "groups.json"
"""Beside a checkpoint: the groups taken so far."""


class StepSource(IterableDataset[list[TreeRow]]):
    """The micro-batches of all steps, as TRL's collator takes them, without prefetching.

    TRL's own prefetch one micro-batch: it counts groups as trained before they are, and samples of
    one group may differ in whether they are too old.
    """

    def __init__(self, trainer: AsyncSrlTrainer) -> None:
        self._trainer = trainer
        self.wait_s = 0.0
        """TRL's trainer logs and resets it; waits count as ``time/other_s`` here."""

    def __iter__(self) -> Iterator[list[TreeRow]]:
        while True:
            for samples in self._trainer.next_step():
                row = TreeRow()  # type: ignore[no-untyped-call]
                for sample in samples:
                    row.add(sample)
                yield [row]


_MOST_KL = 0.005
"""Right weights in fp32 give about 1e-9."""
_ASK_SERVER_S = 20
"""Seconds without a group, after which the server is asked whether it lives."""


def _ended(url: str, error: Exception) -> UserError:
    cause = str(error.__cause__ or error).splitlines()[0]
    return UserError(
        f"sampling by vLLM at {url} ended ({cause}); start it and then the run again, which "
        "continues from its last checkpoint."
    )


def check_answers(url: str, timeout_s: float) -> None:
    """Raise UserError if the server does not answer."""
    try:
        requests.get(f"{url}/health", timeout=timeout_s)
    except requests.RequestException as error:
        raise _ended(url, error) from error


_NAMES = {
    "kl": "sampling/kl",  # of the trainer to the sampler; not to a reference model
    "ratio": "sampling/ratio",
    "perf/fwd_bwd_s": "time/backward_s",
    "perf/weight_sync_s": "time/sync_s",
    "batch/packing_ratio": "shared_prompt/packing_ratio",
}
"""Names of the log by TRL's."""
_LEFT_OUT = ("perf/", "batch/", "sample/")


class AsyncSrlTrainer(AsyncGRPOTrainer):
    """TRL's AsyncGRPOTrainer with the steps, loss and records of :class:`SrlTrainer`.

    It runs in one process. A test pins the parts of TRL 1.16 in use.
    """

    args: Any
    processing_class: Any
    rollout_worker: Any
    _rollout_dataset: Any

    def __init__(
        self,
        *,
        recipe: SrlRecipe,
        shape: StepShape,
        loss: str,
        scale_rewards: bool,
        **kwargs: Any,
    ) -> None:
        with _made_anywhere():
            super().__init__(**kwargs)
        if self.accelerator.device.type == "cpu":
            AttentionInterface.register(TREE_ATTENTION, tree_attention)
        self._sampling, rewards = recipe.dynamic_sampling, weight_shares(recipe.rewards)
        self._shape, self._loss, self._scales = shape, loss, scale_rewards
        self.reward_func_names = list(rewards)
        self.reward_weights = torch.tensor(list(rewards.values()))
        self.reward_call_s: float | None = None
        self.sampled = SampledReplies(shape.group)
        self._scored: list[ScoredReply] = []
        self._taken = Taken()
        self.add_callback(WeightSyncAlarm("sampling/kl", above=_MOST_KL))

    # Steps.

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The micro-batches of :class:`StepSource`, one at a time."""
        self._rollout_dataset = StepSource(self)
        collator = DataCollatorForRollout(
            self.processing_class.pad_token_id,
            groups_trained=self._trained_groups,
            metrics=self._metrics["train"],
        )
        return DataLoader(self._rollout_dataset, batch_size=1, collate_fn=collator)

    def next_step(self) -> list[list[dict[str, Any]]]:
        """Wait for the groups of a step; returns its micro-batches of samples."""
        step = take_step(self._next_group, self._is_stale, self._sampling, self._shape.groups)
        for group in (*step.live, *step.dead):
            self._taken.add(group.number)
        self._record(step)
        rows = [
            (group, reply, advantage)
            for groups, factor in ((step.live, 1.0), (step.filling, 0.0))
            for group in groups
            for reply, advantage in zip(
                group.replies,
                [factor * a for a in advantages(group, scale=self._scales)],
                strict=True,
            )
        ]
        size, alive = self._shape.rows, len(step.live) * self._shape.group
        micro_batches = [rows[at : at + size] for at in range(0, len(rows), size)]
        factors = loss_factors(
            [[len(reply.ids) for _, reply, _ in batch] for batch in micro_batches],
            [[at + n < alive for n in range(size)] for at in range(0, len(rows), size)],
            self._loss,
            self.args.max_completion_length,
        )
        return [
            [
                sample_of(group, reply, factor * advantage)
                for (group, reply, advantage), factor in zip(batch, of, strict=True)
            ]
            for batch, of in zip(micro_batches, factors, strict=True)
        ]

    def _next_group(self) -> ScoredGroup:
        """Raises UserError if the child process or the server has ended meanwhile."""
        url, waited_s = self.args.vllm_server_base_url, 0
        while True:
            try:
                group: ScoredGroup = self.rollout_queue.get(timeout=1.0)
                return group
            except queue.Empty:
                waited_s += 1
            try:
                self.rollout_worker.check_health(self.args.heartbeat_stale_after_s)
            except RuntimeError as error:
                raise _ended(url, error) from error
            if waited_s % _ASK_SERVER_S == 0:
                check_answers(url, _ASK_SERVER_S)

    def _sync_weight(self) -> None:
        try:
            super()._sync_weight()  # type: ignore[no-untyped-call]
        except requests.RequestException as error:
            raise _ended(self.args.vllm_server_base_url, error) from error

    def _is_stale(self, group: ScoredGroup) -> bool:
        age = self.model_version - group.model_version
        if age <= self.args.max_staleness:
            self._metrics["train"][STALENESS].append(float(age))
            return False
        self._taken.add(group.number)
        return True

    # Records.

    def _record(self, step: StepGroups) -> None:
        """Keep the replies of a step, trained or not, and log its figures."""
        seen = [(group, True) for group in step.live] + [(group, False) for group in step.dead]
        self.sampled.replies = [
            SampledReply(
                row=group.row,
                ids=reply.ids,
                rewards=reply.rewards,
                extras=reply.extras,
                round=index // self._shape.groups,
                group=index % self._shape.groups,
                advantage=advantage,
                trained=is_live,
            )
            for index, (group, is_live) in enumerate(seen)
            for reply, advantage in zip(
                group.replies, advantages(group, scale=self._scales), strict=True
            )
        ]
        replies = [reply for group, _ in seen for reply in group.replies]
        self._scored += [reply.scored for reply in replies]
        lengths = [len(reply.ids) for reply in replies]
        read = sum(len(group.prompt_ids) * len(group.replies) for group, _ in seen)
        self.state.num_input_tokens_seen += read + sum(lengths)
        wanted, stds = self._shape.groups, [group_std(group) for group, _ in seen]
        figures = {
            "num_tokens": float(self.state.num_input_tokens_seen),
            "completions/mean_length": statistics.fmean(lengths),
            "completions/max_length": float(max(lengths)),
            "reward": statistics.fmean(reply.reward for reply in replies),
            "group_std": statistics.fmean(stds),
            "reward_std": statistics.fmean(
                statistics.stdev(reply.reward for reply in group.replies) for group, _ in seen
            ),
            "frac_reward_zero_std": statistics.fmean(std == 0 for std in stds),
            "asynchronous/stale_groups": float(step.stale),
            "dynamic_sampling/tokens_sampled": float(sum(lengths)),
            "dynamic_sampling/tokens_trained": float(
                sum(len(reply.ids) for group in step.live for reply in group.replies)
            ),
        }
        for index, name in enumerate(self.reward_func_names):
            figures[f"rewards/{name}/mean"] = statistics.fmean(r.rewards[index] for r in replies)
        if self._sampling is not None:
            figures["dynamic_sampling/kept_frac"] = len(step.live) / len(seen)
            figures["dynamic_sampling/rounds"] = len(seen) / wanted - 1
            figures["dynamic_sampling/filled_frac"] = len(step.live) / wanted
        for name, value in figures.items():
            self._metrics["train"][name].append(value)
        slowest = max(group.score_s for group, _ in seen)
        if self.reward_call_s is not None and slowest > self.reward_call_s:
            logger.warning(
                "step %d: scoring a group took %.0f s (alarms.reward_call_s)",
                self.state.global_step,
                slowest,
            )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the statistics of the replies; names are those of a synchronous run."""
        metrics = self._metrics["train"]
        for name, ours in _NAMES.items():
            if name in metrics:
                metrics[ours] = metrics.pop(name)
        for name in [name for name in metrics if name.startswith(_LEFT_OUT)]:
            del metrics[name]
        scored, self._scored = self._scored, []
        logs.update(reply_stats(scored))
        super().log(logs, start_time)

    @contextmanager
    def plain_attention(self) -> Iterator[None]:
        """Let the model generate inside: TRL's attention takes packed rows only."""
        model = self.accelerator.unwrap_model(self.model)
        model.set_attn_implementation("sdpa")
        try:
            yield
        finally:
            model.set_attn_implementation(TREE_ATTENTION)

    # Resuming.

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train; a resumed run leaves out the groups that its checkpoint took."""
        self._taken = Taken()
        if resume_from_checkpoint:
            held = json.loads((Path(resume_from_checkpoint) / GROUPS).read_text("utf-8"))
            self._taken = Taken(held["first"], set(held["beyond"]))
        self.rollout_worker.start_after(self._taken)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial))
        checkpoint = folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        checkpoint.mkdir(parents=True, exist_ok=True)
        taken = {"first": self._taken.first, "beyond": sorted(self._taken.beyond)}
        (checkpoint / GROUPS).write_text(json.dumps(taken) + "\n")
        super()._save_checkpoint(model, trial)  # type: ignore[no-untyped-call]


@contextmanager
def _made_anywhere() -> Iterator[None]:
    """Let TRL's trainer be made on a CPU, too, and without its warning of two like callbacks.

    It asks for the GPU's name, by which it knows the FLOPs.
    """
    module: Any = async_grpo_trainer
    asked = module.get_peak_flops_per_device
    if not torch.cuda.is_available():
        module.get_peak_flops_per_device = lambda *_: None
    callbacks = logging.getLogger("transformers.trainer_callback")
    level = callbacks.level
    callbacks.setLevel(logging.ERROR)
    try:
        yield
    finally:
        module.get_peak_flops_per_device = asked
        callbacks.setLevel(level)


def make_async_trainer(
    recipe: SrlRecipe, args: Any, model: ModelArguments, scorer: ReplyScorer, rows: Dataset
) -> AsyncSrlTrainer:
    """Make the trainer of a recipe with ``asynchronous``; ``args``: of a synchronous run.

    Raises UserError for settings that can't be honoured, and for a server that does not fit.
    """
    assert recipe.asynchronous is not None
    check_asynchronous(recipe, args, model)
    url = args.vllm_server_base_url or f"http://{args.vllm_server_host}:{args.vllm_server_port}"
    server = find_server(url, recipe.model, args.vllm_server_timeout)
    check_fit(recipe, args, model, server)
    shape = StepShape(
        args.gradient_accumulation_steps, args.per_device_train_batch_size, args.num_generations
    )
    order = GroupOrder(len(rows), shape.groups, args.seed, args.shuffle_dataset)
    config = _async_config(recipe, args, server, order, model)
    with trl_refusals():
        worker = _worker(recipe, config, scorer, rows, order, shape, seeded=server.device != "cpu")
        folder = Path(args.output_dir).absolute() / ".weights"
        client = VLLMClient(server.url, args.vllm_server_timeout)
        by_folder = FolderTransfer(client, folder, config.weight_sync_timeout)
        return AsyncSrlTrainer(
            recipe=recipe,
            shape=shape,
            loss=args.loss_type,
            scale_rewards=args.scale_rewards in {"group", True},
            model=recipe.model,
            args=config,
            train_dataset=rows,
            processing_class=scorer.tokenizer,
            peft_config=model.peft_config,
            rollout_worker=worker,
            weight_transfer=by_folder if server.device == "cpu" else None,
        )


def _async_config(
    recipe: SrlRecipe, args: Any, server: Server, order: GroupOrder, model: ModelArguments
) -> AsyncGRPOConfig:
    """Make TRL's config; fields that the recipe leaves out have GRPOConfig's defaults."""
    names = set(field_names(AsyncGRPOConfig))
    epochs = args.num_train_epochs * (order.groups_per_epoch // order.prompts)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(epochs)
    assert recipe.asynchronous is not None
    section = {
        "lr_scheduler_type": args.lr_scheduler_type,
        "max_completion_length": args.max_completion_length,
        **{name: of for name, of in trainer_section(recipe).items() if name in names},
        **PLAIN,
        "max_steps": steps,
        "vllm_server_base_url": server.url,
        "token_budget": 0,
        "log_completions": False,
        "max_staleness": recipe.asynchronous.max_staleness,
    }
    return make_trainer_args(AsyncGRPOConfig, section, Path(args.output_dir), model)


def _worker(
    recipe: SrlRecipe,
    config: AsyncGRPOConfig,
    scorer: ReplyScorer,
    rows: Dataset,
    order: GroupOrder,
    shape: StepShape,
    *,
    seeded: bool,
) -> GroupWorker:
    """Make the sampler; it is at most ``max_staleness`` steps ahead of the trainer."""
    ahead = config.max_staleness
    asked = max(1, ahead // 2)
    form = scorer.form
    return GroupWorker(
        queue_maxsize=max(1, (ahead - asked) * shape.groups - 2),  # two more wait at the scorer
        max_inflight_tasks=asked * shape.groups * shape.group,
        model_name=recipe.model,
        dataset=rows,
        order=order,
        taken=Taken(),
        seeded=seeded,
        scorer=GroupScorer(
            scorer.tokenizer,
            recipe.dialect,
            form.strictness,
            form.think_opened,
            form.whole_solution,
            scorer.end_ids,
            weight_shares(recipe.rewards),
        ),
        processing_class=scorer.tokenizer,
        eos_token_ids=list(scorer.end_ids),
        num_generations=shape.group,
        vllm_server_url=config.vllm_server_base_url,
        max_tokens=config.max_completion_length,
        temperature=config.temperature,
        request_timeout=config.request_timeout,
        chat_template_kwargs=config.chat_template_kwargs,
    )
