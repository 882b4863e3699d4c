"""The records that a page shows; :func:`srl_swe.view.page.as_json` makes JSON of them.

A list has a :class:`Row` per item. An item is an :class:`Episode` (an attempt at an instance,
replayed or graded or not) or a :class:`Target` (an expert's step to imitate, with the samples of a
policy or without). Steps are counted from 0, as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from srl_swe.rewards.structural import FieldScore
from srl_swe.types import Message, Observation, Verdict

Piece = tuple[str, int]
"""A part of a text and the number of its matching block, or -1 if it matches nothing."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """A policy's action beside the expert's: 2M/T, and the structural score field by field.

    ``matched`` is M, the characters in matching blocks; ``total`` is T, those of both texts
    (paper, section 3). ``candidate`` and ``expert`` are the whole texts in pieces; both are one
    piece without a block if the texts are too long to mark. ``fields`` is empty if the actions
    are of different kinds, hence score 0.
    """

    candidate: tuple[Piece, ...]
    expert: tuple[Piece, ...]
    matched: int
    total: int
    similarity: float
    structural: float
    fields: tuple[FieldScore, ...]
    marked: bool = True


@dataclass(frozen=True, slots=True)
class Seen(Observation):
    """An observation. ``cuts``: the marks of parts cut out of ``text``, in order."""

    cuts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edit:
    """A change by an edit tool. ``diff``: unified, without a header.

    ``applied`` None: the answer of the tool is not recorded, or in unknown words.
    """

    path: str
    command: str
    diff: str
    added: int
    removed: int
    applied: bool | None


DiffKind = Literal["same", "changed", "only_recorded", "only_fresh", "skipped"]


@dataclass(frozen=True, slots=True)
class DiffRow:
    """Two lines side by side, in pieces whose number is 0 where they differ, else -1.

    ``skipped`` stands for ``count`` equal lines that are left out.
    """

    kind: DiffKind
    recorded: tuple[Piece, ...] = ()
    fresh: tuple[Piece, ...] = ()
    count: int = 1


@dataclass(frozen=True, slots=True)
class Forgiven:
    """A rule that removed different pieces from the two observations (the first few of them)."""

    rule: str
    cause: str
    recorded: tuple[str, ...]
    fresh: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepReplay:
    """A step's replay: the comparison of :mod:`srl_swe.replay`, and both texts line by line.

    ``fresh`` is None if the step was skipped. ``diff`` is empty for equal texts.
    """

    match: str
    cause: str | None
    ratio: float | None
    seconds: float
    same_effect: bool
    fresh: Seen | None
    diff: tuple[DiffRow, ...] = ()
    forgiven: tuple[Forgiven, ...] = ()
    translation: str = ""


@dataclass(frozen=True, slots=True)
class StepView:
    """One step. ``tool`` is empty without a usable action; ``action`` is its canonical text.

    ``prompt`` holds the messages before this step, rendered as training renders them; if it can't
    be rendered, it is empty, for the reason ``prompt_problem``. ``seconds`` and tokens are of the
    reply; None if not recorded. ``pairing``: this step beside the expert's step of the same
    number; None without an expert. ``same_as_expert``: the expert's step with exactly this action,
    the nearest one.
    """

    index: int
    thought: str
    tool: str
    action: str
    arguments: Mapping[str, str]
    executed: bool
    seen: Seen | None
    prompt: tuple[Message, ...] = ()
    prompt_problem: str = ""
    seconds: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reply_truncated: bool = False
    edit: Edit | None = None
    pairing: Pairing | None = None
    same_as_expert: int | None = None
    replay: StepReplay | None = None


@dataclass(frozen=True, slots=True)
class ReplayView:
    """The replay as a whole. ``faithful`` None: it was not replayed, for the ``reason``.

    ``differences`` are paths by the result of the comparison of patches: missing, extra, differing,
    left_over. ``patch`` is the diff that the replay left.
    """

    faithful: bool | None
    reason: str = ""
    files_edited: tuple[str, ...] = ()
    differences: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    patch: str | None = None
    first_drift: int | None = None
    seconds: float = 0.0
    image: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """An item in the list.

    ``outcome``: of the tests, or ``faithful``, ``not_faithful`` and ``not_replayed`` of a replay
    alone; empty if unknown. ``score``: an episode's mean similarity to the expert, or a group's
    mean reward. ``rank`` sorts failures first: 0 failed, 1 infrastructure, 2 unknown, 3 good.
    """

    key: str
    kind: Literal["episode", "target"]
    run: str
    instance_id: str
    repo: str
    model: str
    outcome: str
    stop: str
    tools: tuple[str, ...]
    steps: int
    marked: bool
    rank: int
    title: str
    seconds: float | None = None
    tokens: int | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Episode:
    """One attempt at one instance.

    ``key`` is unique in a page and part of links. ``run`` names the folder or file that holds it.
    ``glance``: why it ended, the changes, the failing tests and the departure from the expert,
    as pairs of a heading and a sentence. ``expert`` names the expert's trajectory, empty without
    one; ``left_expert_at``: the first step with another action than the expert's. ``tests`` is the
    verdict on the patch, ``test_log`` the text of its log, cut in its middle; ``fail_to_pass`` are
    the tests that the fix has to make pass, empty if the instance is unknown.
    """

    key: str
    run: str
    instance_id: str
    repo: str
    model: str
    source: str
    issue: str
    steps: tuple[StepView, ...]
    stop: str
    glance: tuple[tuple[str, str], ...]
    patch: str | None = None
    gold_patch: str = ""
    tests: Verdict | None = None
    test_log: str = ""
    fail_to_pass: tuple[str, ...] = ()
    replay: ReplayView | None = None
    expert: str = ""
    left_expert_at: int | None = None
    marks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    enforced: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class SampleView:
    """One sampled reply. ``format``: ``ok`` or the reason why it is out of the format.

    ``ended``: for an episode, how it ended and its tests' outcome. ``reward``: the weighted sum.
    """

    number: int
    text: str
    format: str
    rewards: Mapping[str, float | None]
    advantage: float | None
    kept: bool
    tokens: int | None
    truncated: bool
    pairing: Pairing | None = None
    ended: str = ""
    reward: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """The expert's action at a step, and the replies sampled for it.

    ``training_step`` is None for a row of a data set; there, ``samples`` is empty. ``prompt`` is
    empty if the data set of a training run is not at hand. ``step_index`` is None for episodes
    (RLVR), which have no expert.
    """

    key: str
    run: str
    instance_id: str
    repo: str
    model: str
    source: str
    step_index: int | None
    n_steps: int
    tool: str
    expert_action: str
    expert_reply: str = ""
    prompt: tuple[Message, ...] = ()
    samples: tuple[SampleView, ...] = ()
    training_step: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """The step of the expert's trajectory, if there is one, and the number of samples."""
        step = None if self.step_index is None else f"step {self.step_index} of {self.n_steps}"
        count = f"{len(self.samples)} samples" if self.samples else None
        return ", ".join(filter(None, [step, count]))


Item = Episode | Target

_GOOD = frozenset({"resolved", "faithful"})
_BROKEN = frozenset({"broken_sandbox", "not_attempted", "not_replayed"})
_BROKEN_STOPS = frozenset({"sandbox_error", "policy_error"})


def make_row(item: Item) -> Row:
    """The item's row of the list."""
    row = partial(
        Row,
        key=item.key,
        run=item.run,
        instance_id=item.instance_id,
        repo=item.repo,
        model=item.model,
    )
    match item:
        case Episode(steps=steps, tests=tests, replay=replay):
            words = {True: "faithful", False: "not_faithful", None: "not_replayed"}
            outcome = str(tests.outcome) if tests else words[replay.faithful] if replay else ""
            pairs = [step.pairing.similarity for step in steps if step.pairing]
            return row(
                kind="episode",
                outcome=outcome,
                stop=item.stop,
                tools=tuple(sorted({step.tool for step in steps} - {""})),
                steps=len(steps),
                marked=bool(item.marks),
                rank=_rank(outcome, item.stop),
                title=_first_line(item.issue),
                seconds=item.seconds,
                tokens=item.tokens,
                score=sum(pairs) / len(pairs) if pairs else None,
            )
        case Target(samples=samples):
            rewards = [sample.reward for sample in samples]
            action = _first_line(" ".join(item.expert_action.split()))
            kept = "kept" if any(sample.kept for sample in samples) else "dropped"
            return row(
                kind="target",
                outcome=kept if samples else "",
                stop="",
                tools=(item.tool,),
                steps=len(samples),
                marked=False,
                rank=2,
                title=": ".join(filter(None, [item.place, action])),
                tokens=sum(sample.tokens or 0 for sample in samples) or None,
                score=sum(rewards) / len(rewards) if rewards else None,
            )


def _rank(outcome: str, stop: str) -> int:
    if outcome in _BROKEN or stop in _BROKEN_STOPS:
        return 1
    if outcome:
        return 3 if outcome in _GOOD else 0
    return 2 if stop in {"", "submitted"} else 0


def _first_line(text: str, most: int = 160) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= most else f"{line[:most]}..."


def repo_of(instance_id: str) -> str:
    """The repository in an id of SWE-bench's kind, or empty.

    >>> repo_of("django__django-123"), repo_of("oauthlib__oauthlib.1fd52536.combine_1")
    ('django/django', 'oauthlib/oauthlib')
    """
    owner, found, rest = instance_id.partition("__")
    if not found:
        return ""
    name = rest.split(".")[0] if "." in rest else rest.rpartition("-")[0] or rest
    return f"{owner}/{name}"
