"""``srl-swe steps``."""

from __future__ import annotations

import os

from srl_swe.cli import step_options as step
from srl_swe.cli import trajectory_options as trajectory
from srl_swe.cli.step_output import build, show
from srl_swe.errors import UserError
from srl_swe.files import check_output_folder


def steps(
    out: step.Out = None,
    source: step.Source = None,
    dialect: step.Dialect = "xml",
    pairs: step.Pairs = 2,
    thoughts: step.Thoughts = "drop",
    observation_chars: step.ObservationChars = 10_000,
    token_budget: step.TokenBudget = None,
    tokenizer: step.Tokenizer = None,
    include_submit: step.IncludeSubmit = False,
    resolved_only: step.ResolvedOnly = False,
    model: step.Model = None,
    per_instance: step.PerInstance = None,
    drop_duplicates: step.DropDuplicates = False,
    not_in: step.NotIn = None,
    unnamed: step.Unnamed = "refuse",
    validation: step.Validation = 0.0,
    instance: trajectory.InstanceName = None,
    only: trajectory.Filters = None,
    limit: trajectory.Limit = None,
    part: trajectory.Slice = None,
    shuffle: trajectory.Shuffle = False,
    seed: trajectory.Seed = 0,
    skip_broken: trajectory.SkipBroken = False,
    workers: step.Workers = None,
    examples: step.Show = 0,
    push: step.Push = None,
) -> None:
    """Turn trajectories into step contexts: a Hugging Face data set for SFT, SRL and RLVR.

    `steps profile` is the command `profile`, which keeps the steps that a policy learns from;
    write ./profile for a folder of that name.
    """
    from srl_swe.step_dataset import StepSettings
    from srl_swe.trajectories.hub_push import check_name
    from srl_swe.trajectories.selection import Selection

    if out is None and (push or not examples):
        raise UserError("name a folder OUT to write to, or look at examples by --show alone.")
    if out is not None:
        check_output_folder(out)
    window = step.make_window(pairs, observation_chars, token_budget, thoughts)
    settings = StepSettings(dialect, window, include_submit, tokenizer, validation, seed)
    step.check_settings(settings)
    if push is not None:
        check_name(push)
    order = seed if shuffle else None
    reading = trajectory.make_reading(
        only, limit, part, order, skip_broken=skip_broken, instance=instance
    )
    selection = Selection(resolved_only, model, per_instance, drop_duplicates, unnamed=unnamed)
    found = step.make_source(source, reading, selection, not_in)
    if out is not None:
        build(found, settings, out, workers or os.cpu_count() or 1, push)
    show(found, settings, out, examples)
