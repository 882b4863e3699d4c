"""Evaluates a policy for a study on generated instances: replies, executed edits, rollouts.

FOLDER/result.json            all of it; a result of the same weights is kept
FOLDER/step-replies.jsonl     greedy replies, kept too
FOLDER/rollouts.jsonl         greedy rollouts, kept too

Greedy replies are compared with the expert's on held-out and on training steps; the last edit of
each held-out trajectory is executed (:mod:`srl_swe.evaluation.executed_edits`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from srl_swe.dialects import ReplyFormat, get_dialect, read_actions
from srl_swe.evaluation.executed_edits import EditTrial, TestPatch, execute_edits
from srl_swe.evaluation.grading import grade
from srl_swe.experiments.policy_evaluation import NOT_JUDGED, EvaluationSettings, make_agent
from srl_swe.files import (
    append_line,
    damage_named,
    drop_torn_line,
    read_json_lines,
    write_atomic,
)
from srl_swe.progress import progress, say
from srl_swe.rewards import batch_rewards, read_reply, similarity_rewards
from srl_swe.rewards.words import program, shell_words
from srl_swe.rollout import predictions, rollout_all
from srl_swe.rollout.prompting import load_prompting
from srl_swe.rollout.weights import find_weights
from srl_swe.types import Instance, Outcome, Trajectory, Verdict

RESULT_FILE, REPLIES_FILE = "result.json", "step-replies.jsonl"
_REMEDY = "delete that line, and its step is answered again"
_BATCH = 8
"""Greedy replies, and rollouts, at once: the cores of a small machine gain little beyond."""
_SEARCHES = frozenset({"grep", "rg", "find", "ls", "git"})
_VIEWS = frozenset({"cat", "sed", "head", "tail", "nl"})


class StepKind(StrEnum):
    """The expert's purpose at a step, by its action."""

    SEARCH = "search"
    VIEW = "view"
    RUN = "run"
    """Any other command, such as a script that reproduces the issue."""
    CREATE = "create"
    EDIT = "edit"
    TEST = "test"
    SUBMIT = "submit"


def step_kind(action: str) -> StepKind:
    """The kind of an action, from its canonical text."""
    actions = read_actions(action)
    values = actions[0].arguments if actions else {}
    command = values.get("command", "")
    match actions[0].tool if actions else "":
        case "submit":
            return StepKind.SUBMIT
        case "str_replace_editor":
            kinds = {"view": StepKind.VIEW, "create": StepKind.CREATE}
            return kinds.get(command, StepKind.EDIT)
    if "pytest" in shell_words(command):
        return StepKind.TEST
    if program(command) in _SEARCHES:
        return StepKind.SEARCH
    return StepKind.VIEW if program(command) in _VIEWS else StepKind.RUN


@dataclass(frozen=True, slots=True)
class StepReply:
    """A greedy reply to a step context. ``similarity`` is 0 out of format.

    ``executed``: the outcome of the edit, None for a step that is not a trajectory's last edit.
    ``changed``: whether the executed action changed a file. ``no_op``: an edit whose old and new
    text are equal.
    """

    instance_id: str
    step_index: int
    kind: StepKind
    held_out: bool
    in_format: bool
    similarity: float
    exact: bool
    no_op: bool = False
    executed: Outcome | None = None
    changed: bool = False
    reply: str = ""


@dataclass(frozen=True, slots=True)
class GeneratedEvaluation:
    """One policy: its replies to steps, and the verdicts on its rollouts.

    ``verdicts`` are of held-out and training instances, by whose ids they are separated.
    """

    label: str
    weights: str
    replies: tuple[StepReply, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def broken(self) -> bool:
        """Whether a sandbox broke in an executed edit, a rollout or its tests."""
        return any(verdict.outcome in NOT_JUDGED for verdict in self.verdicts) or any(
            reply.executed in NOT_JUDGED for reply in self.replies
        )

    def resolved(self, instance_ids: Sequence[str]) -> dict[str, bool]:
        """Whether each of these instances is resolved; without those whose sandbox broke."""
        return {
            verdict.instance_id: verdict.outcome is Outcome.RESOLVED
            for verdict in self.verdicts
            if verdict.instance_id in instance_ids and verdict.outcome not in NOT_JUDGED
        }

    def executed(self) -> dict[str, bool]:
        """Whether each executed edit lets the tests pass, by instance; without broken ones."""
        return {
            reply.instance_id: reply.executed is Outcome.RESOLVED
            for reply in self.replies
            if reply.executed is not None and reply.executed not in NOT_JUDGED
        }


@dataclass(frozen=True, slots=True)
class GeneratedSettings:
    """Settings for all policies of a study.

    ``rollouts``: instances, sandboxes and limits of greedy rollouts; its data is that of the
    held-out steps. ``training_data``: steps of training instances. ``trials``: instance and
    expert's trajectory of each step whose edit is executed, by trajectory id and step. ``edits``:
    the folder of executed edits, which policies share. ``test``: the tests of a patch.
    """

    rollouts: EvaluationSettings
    training_data: Path
    trials: Mapping[tuple[str, int], tuple[Instance, Trajectory]]
    edits: Path
    test: TestPatch


def evaluate_generated(
    policy: Path, name: str, on: GeneratedSettings, folder: Path
) -> GeneratedEvaluation:
    """Evaluate the policy; instances and edits whose sandbox broke are tried again."""
    path, weights = folder / RESULT_FILE, find_weights(str(policy)).fingerprint
    if path.exists():
        held = load_evaluation(folder)
        if held.weights == weights and not held.broken:
            return held
    replies = reply_to_steps(policy, on, folder)
    verdicts = roll_out(policy, name, on.rollouts, on.rollouts.instances, folder)
    found = GeneratedEvaluation(name, weights, tuple(replies), tuple(verdicts))
    write_atomic(path, TypeAdapter(GeneratedEvaluation).dump_json(found, indent=1))
    return found


def is_broken(folder: Path) -> bool:
    """Whether the folder holds an evaluation in which a sandbox broke: it is tried again."""
    return (folder / RESULT_FILE).exists() and load_evaluation(folder).broken


def load_evaluation(folder: Path) -> GeneratedEvaluation:
    """The result in the folder. Raises UserError if it is damaged."""
    path = folder / RESULT_FILE
    with damage_named(str(path), "delete it, and the policy is evaluated again"):
        return TypeAdapter(GeneratedEvaluation).validate_json(path.read_bytes())


def roll_out(
    policy: Path, name: str, on: EvaluationSettings, instances: Sequence[Instance], folder: Path
) -> list[Verdict]:
    """Greedy rollouts of the instances, graded; those that ``folder`` holds are kept."""
    agent = make_agent(policy, on, load_prompting(str(policy)), _BATCH)
    rollouts = rollout_all(agent, instances, on.open_sandbox, folder, workers=_BATCH)
    submitted = predictions(rollouts, name)
    return grade(instances, submitted, on.grading, report=say, harness=on.harness)


def reply_to_steps(policy: Path, on: GeneratedSettings, folder: Path) -> list[StepReply]:
    """Greedy replies to all steps, with the last edits executed; ``folder`` keeps the replies."""
    from srl_swe.training.data import load_step_contexts

    rows: list[Mapping[str, Any]] = [
        {**row, "held_out": held_out}
        for held_out, data in ((True, on.rollouts.data), (False, on.training_data))
        for row in load_step_contexts(str(data))
    ]
    replies = _scored_replies(policy, rows, on.rollouts, folder / REPLIES_FILE)
    edits: dict[int, EditTrial] = {}
    for number, (row, (_, action)) in enumerate(zip(rows, replies, strict=True)):
        place = row["trajectory_id"], row["step_index"]
        if row["held_out"] and place in on.trials:
            read = read_actions(action) if action else []
            instance, trajectory = on.trials[place]
            edits[number] = EditTrial(instance, trajectory, place[1], read[0] if read else None)
    executed = execute_edits(
        list(edits.values()), on.edits, on.rollouts.open_sandbox, on.test, workers=2
    )
    found = [reply for reply, _ in replies]
    for number, edit in zip(edits, executed, strict=True):
        found[number] = replace(found[number], executed=edit.outcome, changed=edit.changed)
    return found


def _scored_replies(
    policy: Path, rows: Sequence[Mapping[str, Any]], on: EvaluationSettings, path: Path
) -> list[tuple[StepReply, str | None]]:
    """Each reply with the text of its action, None out of format; ``path`` keeps the replies."""
    from srl_swe.rollout.tokens import thought_opening
    from srl_swe.training.data import load_tokenizer

    trained = load_prompting(str(policy))
    template = trained.template if trained else {}
    tokenizer = load_tokenizer(str(policy), {})
    weights = find_weights(str(policy)).fingerprint
    places = [f"{weights} {row['trajectory_id']} {row['step_index']}" for row in rows]
    drop_torn_line(path)
    known: dict[str, str] = {}
    for _, record in read_json_lines(path, _REMEDY):
        known |= record
    missing = [number for number, place in enumerate(places) if place not in known]
    if missing:
        from srl_swe.rollout.decoding import PromptCache
        from srl_swe.rollout.local_policy import LocalModel, Sampling
        from srl_swe.training.generate import batches_by_length

        model = LocalModel.load(policy, tokenizer, template)
        model.known = PromptCache()
        prompts = [rows[number]["prompt"] for number in missing]
        with progress("reply", len(missing)) as advance:
            for batch in batches_by_length(prompts, _BATCH):
                made = model.reply([prompts[each] for each in batch], Sampling(on.max_new_tokens))
                for each, text in zip(batch, made, strict=True):
                    known[places[missing[each]]] = text
                    append_line(path, json.dumps({places[missing[each]]: text}))
                    advance(rows[missing[each]]["instance_id"])
    texts = [known[place] for place in places]
    strictness = trained.strictness if trained else "strict"
    is_opened = thought_opening(tokenizer, template) == "opened"
    form = ReplyFormat(get_dialect(on.dialect), strictness, is_opened)
    read = [read_reply(text, form) for text in texts]
    experts = [row["expert_action"] for row in rows]
    rewards = batch_rewards(read, experts, similarity_rewards)
    return [
        (
            StepReply(
                instance_id=row["instance_id"],
                step_index=row["step_index"],
                kind=step_kind(row["expert_action"]),
                held_out=row["held_out"],
                in_format=reply.action is not None,
                similarity=max(0.0, reward),
                exact=reply.action == row["expert_action"],
                no_op=reply.action is not None and _is_no_op(reply.action),
                reply=text,
            ),
            reply.action,
        )
        for row, reply, reward, text in zip(rows, read, rewards, texts, strict=True)
    ]


def _is_no_op(action: str) -> bool:
    values = [each.arguments for each in read_actions(action)]
    return any("old_str" in each and each["old_str"] == each.get("new_str") for each in values)
