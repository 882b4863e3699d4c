"""Worked solutions as text: how one is split into steps, and how a reply of one step is written.

A solution is split by the first of these forms that gives at least two steps:

| form | a step begins at |
|---|---|
| titled | a numbered item with a bold title, such as ``2. **Coprime pairs**`` |
| named | ``Step 2``, plain, bold or as a heading |
| headings | a Markdown heading, or a bold line |
| numbered | a numbered item without a title |
| paragraphs | a paragraph; formulas, lists and continuations stay with the text before them |

The paper's experts write the first form (section 4); how others are split is our choice. Items
count up by one at the indentation of the first: the items of a sub-list begin no step.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from textwrap import dedent

from srl_swe.dialects.reply import (
    FormatReason,
    Reply,
    Solution,
    Strictness,
    UnwritableStep,
    split_thought,
    thought_fault,
    write_reply,
)
from srl_swe.types import Action, Observation

STEP = "step"
"""The tool of an action that is a step; its argument ``text`` is the step."""
WHOLE = "whole"
"""The form of a solution that can't be split."""


@dataclass(frozen=True, slots=True)
class SolutionStep:
    """One step. ``heading`` is the start of ``text`` that holds its number and title.

    ``heading`` and ``title`` are empty for a step without a title.
    """

    text: str
    heading: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class SplitSolution:
    """A solution in steps; ``preamble`` is the text before the first one, which may be empty."""

    form: str
    steps: tuple[SolutionStep, ...]
    preamble: str = ""


@dataclass(frozen=True, slots=True)
class _Start:
    """The first line of a step. ``number`` None: steps of this form are not numbered."""

    number: int | None = None
    indent: int = 0
    heading: str = ""
    title: str = ""


_FENCE = re.compile(r"\s*(?:```|~~~)")
_TITLED = re.compile(r"( *)(?:(\d{1,3})[.)]\s+\*\*(.+?)\*\*|\*\*(\d{1,3})[.)]\s+(.+?)\*\*)")
_NAMED = re.compile(r"( *)(#{0,6} ?\*{0,2}) ?[Ss]tep (\d{1,3})\b(.*)")
_HEADING = re.compile(r"( *)(?:#{1,6} +(.+)|\*\*([^*]+)\*\*:?) *")
_NUMBERED = re.compile(r"( *)(\d{1,3})[.)]\s+\S")
_CONTINUES = re.compile(r"\s*(?:\\\[|\\begin|\$\$|[-*+] |\d{1,3}[.)] |[a-z=<>+\\])")
_EDGES = " :.*#-\u2013\u2014"


def _titled(line: str) -> _Start | None:
    if (match := _TITLED.match(line)) is None:
        return None
    indent, first, title, second, inner = match.groups()
    return _Start(int(first or second), len(indent), match[0], (title or inner).strip(_EDGES))


def _named(line: str) -> _Start | None:
    if (match := _NAMED.match(line)) is None:
        return None
    indent, mark, number, rest = match.groups()
    if not mark.strip():
        return _Start(int(number), len(indent))
    title, _, after = rest.partition("**") if "*" in mark else (rest, "", "")
    named = line[: len(line) - len(after)]
    return _Start(int(number), len(indent), named, title.strip(_EDGES))


def _headed(line: str) -> _Start | None:
    match = _HEADING.fullmatch(line)
    return match and _Start(None, 0, line, (match[2] or match[3]).strip(_EDGES))


def _numbered(line: str) -> _Start | None:
    match = _NUMBERED.match(line)
    return match and _Start(int(match[2]), len(match[1]))


_FORMS: Mapping[str, Callable[[str], _Start | None]] = {
    "titled": _titled,
    "named": _named,
    "headings": _headed,
    "numbered": _numbered,
}


def split_solution(text: str) -> SplitSolution:
    r"""Split a worked solution into steps; one that has no form is a single step.

    >>> split = split_solution("We count.\n1. **Pairs**\n   10.\n2. **Sum**: $\\boxed{20}$")
    >>> split.form, split.preamble, [step.title for step in split.steps]
    ('titled', 'We count.', ['Pairs', 'Sum'])
    """
    lines = dedent(text).strip("\n").splitlines()
    for form, start_of in _FORMS.items():
        starts = list(_starts(lines, start_of))
        if len(starts) >= 2:
            ends = [*(place for place, _ in starts[1:]), len(lines)]
            steps = (
                SolutionStep(_joined(lines[place:end]), start.heading.strip(), start.title)
                for (place, start), end in zip(starts, ends, strict=True)
            )
            return SplitSolution(form, tuple(steps), _joined(lines[: starts[0][0]]))
    paragraphs = tuple(SolutionStep(part) for part in _paragraphs(lines))
    return SplitSolution("paragraphs" if len(paragraphs) > 1 else WHOLE, paragraphs)


def without_heading(text: str, heading: str) -> str:
    """The step without its heading, if it has that one.

    >>> without_heading("2. **Sum**: 20", "2. **Sum**")
    '20'
    """
    return text.removeprefix(heading).lstrip(" :\t").strip() if heading else text.strip()


def _starts(
    lines: Sequence[str], start_of: Callable[[str], _Start | None]
) -> Iterator[tuple[int, _Start]]:
    """The starts of steps outside of code blocks, with the places of their lines."""
    last: _Start | None = None
    fenced = False
    for place, line in enumerate(lines):
        if _FENCE.match(line):
            fenced = not fenced
        start = None if fenced else start_of(line)
        if start is None:
            continue
        if start.number is None:
            yield place, start
        elif last is None or last.number is None:
            if start.number <= 1 or start.heading:
                last = start
                yield place, start
        elif (start.number, start.indent) == (last.number + 1, last.indent):
            last = start
            yield place, start


def _paragraphs(lines: Sequence[str]) -> list[str]:
    paragraphs: list[list[str]] = []
    fenced, begins = False, True
    for line in lines:
        if not line.strip() and not fenced:
            begins = True
            continue
        follows = bool(paragraphs) and (
            bool(_CONTINUES.match(line)) or paragraphs[-1][-1].rstrip().endswith(":")
        )
        if begins and not fenced and not follows:
            paragraphs.append([])
        elif begins and not fenced:
            paragraphs[-1].append("")
        paragraphs[-1].append(line)
        begins = False
        if _FENCE.match(line):
            fenced = not fenced
    return [_joined(part) for part in paragraphs]


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(lines).strip()


_EXPLANATIONS = {
    FormatReason.NO_THINK: "it did not begin with <think>...</think>",
    FormatReason.EMPTY_THOUGHT: "the thought between <think> and </think> was empty",
    FormatReason.NO_ACTION: "no step followed the thought",
    FormatReason.TWO_ACTIONS: "it held more than one step",
    FormatReason.BAD_ACTION: "a tag of a thought stood in the step",
}


@dataclass(slots=True)
class TextSteps:
    """A dialect in which an action is a step of a worked solution, as plain text.

    A reply is a thought and one step. Two titled or named steps are two actions; a step without a
    title ends with the reply.
    """

    SYSTEM_PROMPT: str
    SOLUTION_PROMPT: str
    TOOLSET: str = "xml"
    """Never used: steps are not carried out."""

    def render_action(self, action: Action) -> str:
        """The step's text. Raises UnwritableStep for another action."""
        if action.tool != STEP or not action.arguments.get("text", "").strip():
            raise UnwritableStep(f"{action.tool} is not a step of a worked solution")
        return action.arguments["text"]

    def declare(self, action: Action) -> str:
        """Empty: the prompt lists no tools."""
        return ""

    def render_reply(self, thought: str, action: Action) -> str:
        """Thought and step. Raises UnwritableStep if they could not be read back."""
        return write_reply(thought, action, self.render_action, self.parse_reply)

    def parse_reply(
        self, text: str, strictness: Strictness = "strict", *, think_opened: bool = False
    ) -> Reply:
        """The single step of a reply. Never raises."""
        read = self.parse_solution(text, strictness, think_opened=think_opened)
        if len(read.actions) > 1:
            return Reply(read.thought, None, FormatReason.TWO_ACTIONS)
        return Reply(read.thought, read.actions[0] if read.actions else None, read.reason)

    def parse_solution(
        self, text: str, strictness: Strictness = "strict", *, think_opened: bool = False
    ) -> Solution:
        """All steps of a reply. Never raises."""
        thought, rest = split_thought(text, think_opened=think_opened)
        fault = thought_fault(thought, rest, strictness)
        if fault is None and ("<think>" in rest or "</think>" in rest):
            fault = FormatReason.BAD_ACTION
        if fault is None and not rest.strip():
            fault = FormatReason.NO_ACTION
        if fault is not None:
            return Solution("", (), fault)
        split = split_solution(rest)
        several = split.form in {"titled", "named"}
        texts = [step.text for step in split.steps] if several else [rest.strip()]
        if several and split.preamble:
            texts[0] = f"{split.preamble}\n{texts[0]}"
        return Solution(thought or "", tuple(Action(STEP, {"text": part}) for part in texts))

    def render_observation(self, observation: Observation) -> str:
        """The text as it is; no step has one."""
        return observation.text

    def explain(self, reason: FormatReason) -> str:
        """Why a reply was not used."""
        why = _EXPLANATIONS.get(reason, reason.value)
        return f"Your reply was not used: {why}. Reply with <think>...</think> and then one step."


def _prompt(name: str) -> str:
    return resources.files("srl_swe").joinpath("prompts", name).read_text("utf-8")


MATH = TextSteps(_prompt("math_system.md"), _prompt("math_solution.md"))
"""The dialect of the domain ``math`` (:mod:`srl_swe.domains.maths`)."""
