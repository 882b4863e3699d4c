"""What contradicts dynamic sampling: it replaces single groups, on the rank that sampled them."""

from __future__ import annotations

from typing import Any

from srl_swe.errors import UserError


def check_dynamic_sampling(args: Any) -> None:
    """Raise UserError for a GRPOConfig whose groups can't be replaced one by one."""
    samples = args.per_device_train_batch_size * args.steps_per_generation
    if samples % args.num_generations:
        raise UserError(
            "dynamic sampling keeps a group on one rank: per_device_train_batch_size x "
            f"steps_per_generation ({samples}) must be a multiple of num_generations "
            f"({args.num_generations})."
        )
    for name, over_a_batch in (
        ("scale_rewards", "batch"),
        ("multi_objective_aggregation", "normalize_then_sum"),
    ):
        if getattr(args, name) == over_a_batch:
            raise UserError(
                f"trainer: {name}: {over_a_batch} scales rewards over all that is sampled at "
                "once, so that the refills of dynamic sampling would be scaled by themselves; "
                f"leave {name} out, or set `dynamic_sampling: null`."
            )
