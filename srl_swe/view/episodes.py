"""An episode for the page: a trajectory with its run, its expert, its replay and its tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from srl_swe.dialects import Dialect, UnwritableStep, get_dialect, read_actions
from srl_swe.evaluation.details import courses
from srl_swe.replay.patches import edited_files
from srl_swe.replay.run import Replay
from srl_swe.reports.page import counted, first_names
from srl_swe.rollout.episode import Completion
from srl_swe.steps.contexts import Dropped, make_step_contexts
from srl_swe.steps.prompt import PAPER_WINDOW, WORKDIR, Window, make_messages
from srl_swe.tools.own_calls import OwnStep, make_own_steps
from srl_swe.trajectories.turns import CUT_MARK
from srl_swe.types import (
    Instance,
    Message,
    Observation,
    Outcome,
    Step,
    StopReason,
    Trajectory,
    Verdict,
)
from srl_swe.view.pairing import (
    compare_lines,
    count_changes,
    find_edit,
    find_forgiven,
    pair_actions,
)
from srl_swe.view.records import Episode, ReplayView, Seen, StepReplay, StepView, repo_of


@dataclass(frozen=True, slots=True)
class Prompts:
    """How the prompts of an episode are rendered.

    ``of_rollout``: as the policy got them, from its own calls; else as training would make them of
    a recorded trajectory. ``problem``: why they can't be rendered; empty if they can.
    """

    dialect: Dialect = field(default_factory=lambda: get_dialect("xml"))
    window: Window = PAPER_WINDOW
    of_rollout: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Beside:
    """The files beside a trajectory; each part is empty if it is not at hand.

    ``replies``: tokens and seconds of each reply. ``replay_seconds``: with opening the sandbox.
    """

    instance: Instance | None = None
    expert: Trajectory | None = None
    replies: Sequence[Completion] = ()
    tests: Verdict | None = None
    test_log: str = ""
    marks: Sequence[str] = ()
    replay: Replay | None = None
    replay_seconds: float = 0.0
    replay_image: str = ""
    not_replayed: str = ""
    prompts: Prompts = field(default_factory=Prompts)


def make_episode(trajectory: Trajectory, key: str, run: str, beside: Beside) -> Episode:
    """The episode as a page shows it."""
    own, calls = make_own_steps(trajectory)
    actions = _expert_actions(beside.expert)
    left = _left_expert_at(own.steps, actions) if beside.expert else None
    instance, usage = beside.instance, beside.replies
    return Episode(
        key=key,
        run=run,
        instance_id=trajectory.instance_id,
        repo=instance.repo if instance else repo_of(trajectory.instance_id),
        model=trajectory.model or "",
        source=trajectory.source,
        issue=trajectory.problem_statement or (instance.problem_statement if instance else ""),
        steps=tuple(_step_views(trajectory, own.steps, calls, actions, beside)),
        stop=trajectory.stop_reason or "",
        glance=tuple(_glance(trajectory, calls, actions, left, beside)),
        patch=trajectory.patch,
        gold_patch=instance.gold_patch if instance else "",
        tests=beside.tests or _recorded_outcome(trajectory),
        test_log=beside.test_log,
        fail_to_pass=instance.fail_to_pass if instance else (),
        replay=_replay_view(beside),
        expert=(beside.expert.model or "expert") if beside.expert else "",
        left_expert_at=left,
        marks=tuple(beside.marks),
        notes=trajectory.notes,
        enforced=dict(trajectory.enforced or {}),
        seconds=sum(reply.seconds for reply in usage) if usage else None,
        tokens=sum(r.prompt_tokens + r.completion_tokens for r in usage) if usage else None,
    )


def _step_views(
    trajectory: Trajectory,
    own_steps: Sequence[Step],
    calls: Sequence[OwnStep],
    actions: Sequence[str],
    beside: Beside,
) -> Iterator[StepView]:
    """The steps; ``own_steps`` have the calls of our own tools, ``actions`` are the expert's."""
    replies = _replies_of_steps(trajectory, beside.replies)
    prompts = list(_prompts(trajectory, beside))
    for index, step in enumerate(trajectory.steps):
        reply, own = replies.get(index), own_steps[index].action
        expert = actions[index] if index < len(actions) else ""
        yield StepView(
            index=index,
            thought=step.thought,
            tool=step.action.tool if step.action else "",
            action=step.action.text if step.action else "",
            arguments=dict(step.action.arguments) if step.action else {},
            executed=step.executed,
            seen=see(step.observation),
            prompt=prompts[index][0],
            prompt_problem=prompts[index][1],
            seconds=reply.seconds if reply else None,
            prompt_tokens=reply.prompt_tokens if reply else None,
            completion_tokens=reply.completion_tokens if reply else None,
            reply_truncated=bool(reply and reply.truncated),
            edit=find_edit(calls[index]),
            pairing=pair_actions(own.text, expert) if own and expert else None,
            same_as_expert=_same_step(own.text, index, actions) if own else None,
            replay=_step_replay(step, index, beside.replay),
        )


def see(observation: Observation | None) -> Seen | None:
    """The observation with the marks of its cuts."""
    if observation is None:
        return None
    return Seen(
        observation.text,
        observation.exit_code,
        observation.truncated,
        observation.timed_out,
        tuple(found[0] for found in CUT_MARK.finditer(observation.text)),
    )


def _replies_of_steps(
    trajectory: Trajectory, replies: Sequence[Completion]
) -> Mapping[int, Completion]:
    """The replies by step; the steps of one message share one, shown at the first.

    Empty if the numbers do not fit, as in settings without steps.
    """
    firsts: list[int] = []
    turns = set[int]()
    for index, step in enumerate(trajectory.steps):
        if step.turn is None or step.turn not in turns:
            firsts.append(index)
        turns |= {step.turn} if step.turn is not None else set()
    if len(firsts) - len(replies) not in {0, 1}:  # a failure adds a step without a reply
        return {}
    return dict(zip(firsts, replies, strict=False))


def _expert_actions(expert: Trajectory | None) -> list[str]:
    """The canonical texts of the expert's actions as our own calls; empty ones without action."""
    if expert is None:
        return []
    own, _ = make_own_steps(expert)
    return [step.action.text if step.action else "" for step in own.steps]


def _same_step(action: str, index: int, actions: Sequence[str]) -> int | None:
    """The nearest step of the expert with that action, if any."""
    same = [at for at, expert in enumerate(actions) if expert == action]
    return min(same, key=lambda at: abs(at - index), default=None)


def _left_expert_at(steps: Sequence[Step], actions: Sequence[str]) -> int | None:
    for index, step in enumerate(steps):
        text = step.action.text if step.action else ""
        if index >= len(actions) or text != actions[index]:
            return index
    return len(steps) if len(steps) < len(actions) else None


def _prompts(trajectory: Trajectory, beside: Beside) -> Iterator[tuple[tuple[Message, ...], str]]:
    """Per step its prompt, or the reason for its absence."""
    prompts = beside.prompts
    if prompts.problem:
        yield from (((), prompts.problem) for _ in trajectory.steps)
    elif prompts.of_rollout:
        workdir = beside.instance.workdir if beside.instance else WORKDIR
        issue = trajectory.problem_statement or ""
        for index in range(len(trajectory.steps)):
            past = trajectory.steps[:index]
            try:
                made = make_messages(issue, past, prompts.dialect, prompts.window, workdir=workdir)
            except UnwritableStep as error:
                yield (), str(error)
            else:
                yield tuple(made), ""
    else:
        contexts = make_step_contexts(
            trajectory, prompts.dialect, prompts.window, include_last=True
        )
        for context in contexts:
            if isinstance(context, Dropped):
                detail = f" ({context.detail})" if context.detail else ""
                yield (), f"training makes no example of this step: {context.reason}{detail}"
            else:
                yield context.prompt, ""


def _step_replay(step: Step, index: int, replay: Replay | None) -> StepReplay | None:
    if replay is None or index >= len(replay.steps):
        return None
    done, recorded = replay.steps[index], step.observation
    fresh, translation = done.observation, ""
    if done.translation:
        call = done.translation.action
        translation = call.text if call else f"none: {done.translation.reason}"
    return StepReplay(
        match=done.match.value,
        cause=done.cause.value if done.cause else None,
        ratio=done.ratio,
        seconds=done.seconds,
        same_effect=done.same_effect,
        fresh=see(fresh),
        diff=compare_lines(recorded.text, fresh.text) if recorded and fresh else (),
        forgiven=find_forgiven(recorded.text, fresh.text) if recorded and fresh else (),
        translation=translation,
    )


def _replay_view(beside: Beside) -> ReplayView | None:
    replay = beside.replay
    if replay is None:
        return ReplayView(None, beside.not_replayed) if beside.not_replayed else None
    seen = replay.against_record
    names = ("missing", "extra", "differing", "left_over")
    return ReplayView(
        faithful=replay.faithful,
        files_edited=edited_files(replay.patch),
        differences={name: found for name in names if seen and (found := getattr(seen, name))},
        patch=replay.patch,
        first_drift=replay.first_drift,
        seconds=beside.replay_seconds,
        image=beside.replay_image,
    )


_ENDS: Mapping[StopReason, str] = {
    StopReason.SUBMITTED: "It submitted its changes after {steps}.",
    StopReason.STEP_LIMIT: "It reached the limit of steps after {steps}, without submitting.",
    StopReason.TOKEN_LIMIT: "The next prompt did not fit the context after {steps}.",
    StopReason.TIME_LIMIT: "It reached the limit of seconds in the sandbox after {steps}.",
    StopReason.FORMAT_ERRORS: "Its last replies had no usable action; it was ended after {steps}.",
    StopReason.SANDBOX_ERROR: "The sandbox broke after {steps}; the policy is not to blame.",
    StopReason.POLICY_ERROR: "The policy's endpoint failed after {steps}.",
}


def _glance(
    trajectory: Trajectory,
    calls: Sequence[OwnStep],
    actions: Sequence[str],
    left: int | None,
    beside: Beside,
) -> Iterator[tuple[str, str]]:
    """The episode in a few sentences, each under its heading."""
    reason, steps = trajectory.stop_reason, counted(len(trajectory.steps), "step")
    ended = f"Not recorded; {steps}." if reason is None else _ENDS[reason].format(steps=steps)
    if trajectory.exit_status:
        ended += f" The source calls it {trajectory.exit_status}."
    yield "Why it ended", ended
    yield "Changes", _changes(trajectory, beside)
    if tests := beside.tests or _recorded_outcome(trajectory):
        yield "Tests", _tests_line(tests, beside.instance)
    if beside.replay is not None:
        yield "Replay", _replay_line(beside.replay, trajectory)
    if beside.expert is not None:
        yield "Beside the expert", _departure(calls, actions, left)


def _recorded_outcome(trajectory: Trajectory) -> Verdict | None:
    if trajectory.resolved is None:
        return None
    outcome = Outcome.RESOLVED if trajectory.resolved else Outcome.UNRESOLVED
    detail = "By the record; its tests are not at hand."
    return Verdict(trajectory.instance_id, outcome, detail=detail)


def _replay_line(replay: Replay, trajectory: Trajectory) -> str:
    same = sum(step.match.as_recorded for step in replay.steps)
    printed = f"{same} of {counted(len(replay.steps), 'step')} print as recorded"
    if replay.faithful:
        return f"Faithful; {printed}."
    seen, reasons = replay.against_record, list[str]()
    for name in ("missing", "extra", "differing"):
        if seen and (paths := getattr(seen, name)):
            reasons.append(f"{name} in the patch: {first_names(paths, 2)}")
    for index, (old, new) in enumerate(zip(trajectory.steps, replay.steps, strict=False)):
        if not new.same_effect and len(reasons) < 3:
            tool = old.action.tool if old.action else "no action"
            cause = f", {new.cause.replace('_', ' ')}" if new.cause else ""
            reasons.append(f"step {index} had another effect ({tool}{cause})")
    return f"Not faithful: {'; '.join(reasons)}. {printed.capitalize()}."


def _changes(trajectory: Trajectory, beside: Beside) -> str:
    if trajectory.patch is None and trajectory.stop_reason is None:
        line = "Not recorded."
    elif not (trajectory.patch or "").strip():
        why = courses([trajectory], {})[trajectory.instance_id].empty_because
        line = f"None: {why}." if why else "None."
    else:
        counts = count_changes(trajectory.patch or "")
        files = ", ".join(f"{path} (+{a} \u2212{r})" for path, (a, r) in counts.items())
        line = f"{files}." if files else "A patch that is not a diff."
    gold = edited_files(beside.instance.gold_patch) if beside.instance else ()
    return f"{line} The gold patch changes {', '.join(gold)}." if gold else line


def _tests_line(tests: Verdict, instance: Instance | None) -> str:
    failed, wanted = len(tests.failed), instance.fail_to_pass if instance else ()
    line = tests.outcome.replace("_", " ").capitalize()
    if tests.passed or tests.failed:
        line += f": {counted(len(tests.passed), 'test')} passed, {failed} failed"
    if still := [name for name in tests.failed if name in wanted]:
        line += f"; to be fixed and still failing: {first_names(still, 2)}"
    elif tests.failed:
        line += f" ({first_names(tests.failed, 2)})"
    return f"{line}. {tests.detail}".strip()


def _departure(calls: Sequence[OwnStep], actions: Sequence[str], left: int | None) -> str:
    if left is None:
        return f"All {counted(len(actions), 'action')} are the expert's."
    if left >= len(calls):
        return f"It stopped at step {left}; the expert has {counted(len(actions), 'step')}."
    if left >= len(actions):
        return f"It continued after the expert's {counted(len(actions), 'step')}."
    ours = calls[left].step.action
    did = _short(ours.text) if ours else "no usable action"
    should = _short(actions[left])
    return f"It left the expert's way at step {left}: {did}, where the expert has {should}."


def _short(action: str, most: int = 90) -> str:
    r"""An action's values in one line.

    >>> _short("<function=bash>\n<parameter=command>ls -l</parameter>\n</function>")
    'bash ls -l'
    """
    found = read_actions(action)
    text = " ".join([found[0].tool, *found[0].arguments.values()]) if found else action
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most]}..."
