"""Many rollouts in parallel, appended to one file as they end; resumable after a kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from srl_swe.errors import ImageMissing, SandboxError, UserError
from srl_swe.files import append_line, drop_torn_line, read_lines
from srl_swe.parallel import run_parallel
from srl_swe.progress import progress, say
from srl_swe.rollout.episode import Agent, Completion, failure_step, rollout
from srl_swe.rollout.usage import append_replies
from srl_swe.sandbox import OpenSandbox
from srl_swe.trajectories.fields import BrokenRecord
from srl_swe.trajectories.jsonl import parse_line, render_line
from srl_swe.types import Instance, Prediction, StopReason, Trajectory

ROLLOUTS_FILE = "rollouts.jsonl"
_REMEDY = "delete that line, and its instance is rolled out again"


def rollout_all(
    agent: Agent,
    instances: Sequence[Instance],
    open_sandbox: OpenSandbox,
    folder: Path,
    *,
    workers: int = 2,
) -> list[Trajectory]:
    """One rollout per instance, in the order of ``instances``.

    Keeps the rollouts of this policy, by its name, in ``folder``; those with a broken sandbox
    or a failed policy are tried again. An unavailable image breaks only its own rollout. Tokens and
    seconds of each reply are appended to ``replies.jsonl``.
    """
    path = folder / ROLLOUTS_FILE
    done = load_rollouts(path, agent.policy.name)
    missing = [i for i in instances if i.instance_id not in done]

    def run(instance: Instance) -> tuple[Trajectory, list[Completion]]:
        replies: list[Completion] = []
        return _rollout_one(agent, instance, open_sandbox, replies.append), replies

    with progress("rollout", len(missing)) as advance:

        def keep(instance: Instance, ended: tuple[Trajectory, list[Completion]]) -> None:
            result, replies = ended
            append_replies(folder, instance.instance_id, replies)
            append_line(path, render_line(result))
            done[instance.instance_id] = result
            advance(f"{instance.instance_id}: {result.stop_reason}, {len(result.steps)} steps")

        run_parallel(run, missing, keep, workers=workers)
    return [done[instance.instance_id] for instance in instances]


def load_rollouts(path: Path, model: str | None = None) -> dict[str, Trajectory]:
    """The rollouts in the file by instance; a later line replaces an earlier one.

    ``model``: only rollouts of the policy with that name; None means any. Rollouts that a
    failure of infrastructure ended show nothing about the policy and are left out. Raises
    UserError for a damaged line.
    """
    drop_torn_line(path)
    rollouts = (_read(where, line) for where, line in read_lines(path, _REMEDY))
    found = {t.instance_id: t for t in rollouts if model is None or t.model == model}
    return {k: t for k, t in found.items() if not _failed(t)}


def _read(where: str, line: str) -> Trajectory:
    try:
        return parse_line(line, where)
    except BrokenRecord as error:
        raise UserError(f"{str(error).removesuffix('.')}; {_REMEDY}.") from None


def predictions(rollouts: Sequence[Trajectory], model_name: str) -> list[Prediction]:
    """The predictions of the rollouts; a rollout that infrastructure ended gives none."""
    return [
        Prediction(rollout.instance_id, model_name, rollout.patch or "")
        for rollout in rollouts
        if not _failed(rollout)
    ]


def _failed(rollout: Trajectory) -> bool:
    return rollout.stop_reason is not None and rollout.stop_reason.is_failure


def _rollout_one(
    agent: Agent,
    instance: Instance,
    open_sandbox: OpenSandbox,
    on_reply: Callable[[Completion], None],
) -> Trajectory:
    result: Trajectory | None = None
    try:
        with open_sandbox(instance) as sandbox:
            result = rollout(agent, instance, sandbox, on_reply=on_reply)
    except (SandboxError, ImageMissing) as error:
        if result is None:
            return _not_begun(agent, instance, SandboxError(str(error)))
        say(f"{instance.instance_id}: its sandbox could not be closed: {error}")
    assert result is not None, "a sandbox must not swallow its user's exception"
    return result


def _not_begun(agent: Agent, instance: Instance, error: SandboxError) -> Trajectory:
    return Trajectory(
        instance.instance_id,
        steps=(failure_step(error),),
        problem_statement=instance.problem_statement,
        stop_reason=StopReason.SANDBOX_ERROR,
        model=agent.policy.name,
    )
