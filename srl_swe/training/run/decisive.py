"""What of a recipe decides the result, and so must not change while a run is under way.

``logging_steps`` and ``save_steps`` are held against a resume too, though they decide nothing: the
Trainer takes them from the checkpoint, so that a change would be ignored. ``save_only_model``
decides what a resumed run starts from, ``dataloader_persistent_workers`` how many random numbers
are drawn, ``vllm_mode`` and ``vllm_tensor_parallel_size`` the seeds that vLLM samples by.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from srl_swe.training.recipes.records import Recipe

OURS = {"output", "completions_every", "alarms"}
"""Fields of a recipe that only say where, and how often, something is written down, or when to
stop: a run that an alarm has stopped goes on with another threshold."""

REPORTED = {
    "report_to", "run_name", "project", "trackio_space_id", "trackio_bucket_id",
    "trackio_static_space_id", "disable_tqdm", "log_level", "log_level_replica",
    "log_on_each_node", "logging_first_step", "logging_nan_inf_filter", "log_completions",
    "log_multimodal", "num_completions_to_print", "log_unique_prompts", "log_completions_hub_repo",
}  # fmt: skip
"""What is shown of a step, where and under which name; nothing is trained on it."""

KEPT = {
    "save_total_limit", "save_on_each_node", "hub_model_id", "hub_strategy", "hub_token",
    "hub_private_repo", "hub_always_push", "hub_revision",
}  # fmt: skip
"""Which copies of checkpoints stay; the one that a run goes on from always does."""

SERVED = {
    "vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout",
    "vllm_group_port", "vllm_gpu_memory_utilization", "vllm_enable_sleep_mode",
    "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory",
    "dataset_num_proc", "ddp_timeout",
}  # fmt: skip
"""Addresses, ports, patience, memory and processes: a machine's, and another's may differ. Which
replies vLLM has room for at once is not fixed anyhow, by whatever memory it gets."""

NOT_DECISIVE = REPORTED | KEPT | SERVED
"""Fields of TRL's configs."""


def decisive_fields(recipe: Recipe) -> dict[str, Any]:
    """The recipe without the fields above, and its method."""
    fields = {name: value for name, value in asdict(recipe).items() if name not in OURS}
    trainer = {name: value for name, value in recipe.trainer.items() if name not in NOT_DECISIVE}
    return {"method": type(recipe).__name__, **fields, "trainer": trainer}
