r"""Domains of worked solutions: a problem, a solution in steps of text, an answer to verify.

A record is a row with columns for the parts, a chat, or a text: a problem, then its solution.
Solutions are split by :mod:`srl_swe.dialects.text_steps`. A solution of N steps gives N-1 examples:
the prompt holds the problem, the steps before, and the next step's title if it has one (paper,
section 4). The text before the first step is part of prompts and never a target (our choice).

An answer is the content of the last ``\boxed{}`` of a reply, as in Qwen2.5-Math's evaluation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from srl_swe.dialects.reply import split_thought
from srl_swe.dialects.text_steps import (
    STEP,
    SplitSolution,
    TextSteps,
    split_solution,
    without_heading,
)
from srl_swe.errors import UserError, did_you_mean
from srl_swe.progress import say
from srl_swe.sandbox import OpenSandbox
from srl_swe.steps.contexts import Dropped, DropReason, StepContext, trajectory_id
from srl_swe.steps.dataset import BuildSettings
from srl_swe.steps.prompt import CountTokens
from srl_swe.trajectories.fields import BrokenRecord, Fields, Reader
from srl_swe.trajectories.load import file_kind, read_records
from srl_swe.types import Action, Instance, Message, Outcome, Step, Trajectory, Verdict

Target = Literal["step", "solution", "reasoning"]
"""The replies to learn: steps, or whole solutions, alone or after the expert's reasoning."""

ROLES: Mapping[str, tuple[str, ...]] = {
    "problem": ("problem", "question"),
    "solution": ("deepseek_attempt", "attempt", "response", "generation", "solution"),
    "answer": ("answer", "gt", "final_answer", "expected_answer", "ground_truth"),
    "reasoning": ("reasoning", "thinking_trajectory", "thinking"),
    "correct": ("correct", "is_correct"),
    "id": (),
    "model": ("model",),
}
"""The columns of each role; the first that a row has is taken. ``id`` is taken only if named."""
_CHATS = ("messages", "conversations")
_REFERENCE = "solution"
"""The column of the true solution, beside an attempt at one (s1K)."""
_ATTEMPT = "_attempt"
_SHORT_ANSWER = 100
_YES = {"yes": True, "no": False, "true": True, "false": False, "1": True, "0": False}
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")


@dataclass(frozen=True, slots=True)
class Problem(Instance):
    """A problem with an answer to verify; it has no repository and no image."""

    answer: str = ""


@dataclass(frozen=True, slots=True)
class WorkedSettings(BuildSettings):
    """How solutions become step contexts, and which are held out. Defaults: the paper's.

    ``columns``: those of the source by role (:data:`ROLES`). ``next_title``: the prompt has the
    title of the step, and the target is the rest of it. ``include_last``: the last step is a target
    too. ``token_budget``: longer prompts are dropped; it needs a ``tokenizer``.
    """

    domain: str = "math"
    target: Target = "step"
    next_title: bool = True
    include_last: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    token_budget: int | None = None


def last_boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{}`` with balanced braces; None without any.

    >>> last_boxed(r"So \boxed{1}, no, $\boxed{\frac{1}{2}}$."), last_boxed("2")
    ('\\frac{1}{2}', None)
    """
    starts = {match.end() for match in _BOXED.finditer(text)}
    opened: list[int] = []
    last: tuple[int, int] | None = None
    for brace in re.finditer("[{}]", text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif opened and (start := opened.pop()) in starts:
            last = max(last or (0, 0), (start, brace.start()))
    return text[last[0] + 1 : last[1]].strip() if last else None


def same_text(expected: str, given: str) -> bool:
    """Whether two answers are the same text, but for case and white space."""
    return "".join(expected.split()).lower() == "".join(given.split()).lower()


def problem_id(domain: str, statement: str) -> str:
    """The id of a problem by its text: the same for all of its solutions, in any source."""
    words = " ".join(statement.split()).lower()
    return f"{domain}-{hashlib.sha256(words.encode('utf-8', 'replace')).hexdigest()[:12]}"


@dataclass(slots=True)
class WorkedDomain(TextSteps):
    """A domain whose solutions are texts, and its dialect.

    ``ANSWER_PROMPT``: the system prompt that asks for a whole solution. ``same_answer``: whether
    two answers, the expected and the given one, are the same; a TimeoutError is TIMED_OUT.
    ``read_answer``: the answer in a reply; None without one. ``benches``: sources by name.
    ``verified_by``: the program behind ``same_answer``, for reports.
    """

    name: str = ""
    ANSWER_PROMPT: str = ""
    same_answer: Callable[[str, str], bool] = same_text
    read_answer: Callable[[str], str | None] = last_boxed
    benches: Mapping[str, str] = field(default_factory=dict)
    verified_by: Callable[[], str] = lambda: "comparison as text"

    # Solutions.

    def reader(self, columns: Mapping[str, str]) -> Reader:
        """Reads rows, chats and texts of worked solutions. Raises UserError for an unknown role."""
        if unknown := sorted(columns.keys() - ROLES.keys()):
            raise UserError(f"no role {unknown[0]!r} of a column. Known: {', '.join(ROLES)}.")
        read = partial(self._read_solution, columns=dict(columns))
        return Reader(self.name, lambda record: isinstance(record, Mapping | str), read)

    def _read_solution(self, record: Any, where: str, *, columns: Mapping[str, str]) -> Trajectory:
        parts = read_parts(record, where, columns)
        if not parts.solution:
            raise BrokenRecord(where, "", "no column of a solution: --column solution=NAME")
        split = split_solution(parts.solution)
        return Trajectory(
            parts.id or problem_id(self.name, parts.problem),
            solution_steps(split, parts.reasoning),
            problem_statement=parts.problem,
            resolved=self._is_correct(parts),
            model=parts.model,
            source=f"{self.name}-{split.form}",
        )

    def _is_correct(self, parts: Parts) -> bool | None:
        """By the grade of the source, else by its answer; None if it has neither."""
        if parts.correct is not None or parts.answer is None:
            return parts.correct
        given = self.read_answer(parts.solution)
        if given is None:
            return False
        try:
            return self.same_answer(parts.answer, given)
        except TimeoutError:
            return None

    # Steps.

    def make_steps(
        self, solution: Trajectory, settings: WorkedSettings, count_tokens: CountTokens | None
    ) -> Iterator[StepContext | Dropped]:
        """One item per step, or one for a whole solution; see :class:`WorkedSettings`."""
        if settings.target == "step":
            items = self._single_steps(solution, settings)
        else:
            items = iter([self._whole(solution, settings.target)])
        for item in items:
            if isinstance(item, Dropped) or count_tokens is None:
                yield item
                continue
            prompt = count_tokens(item.prompt)
            if settings.token_budget is not None and prompt > settings.token_budget:
                yield Dropped(item.instance_id, item.step_index, DropReason.OVER_BUDGET)
                continue
            answer: Message = {"role": "assistant", "content": item.expert_reply}
            tokens = count_tokens((*item.prompt, answer)) - prompt
            yield replace(item, prompt_tokens=prompt, completion_tokens=tokens)

    def _single_steps(
        self, solution: Trajectory, settings: WorkedSettings
    ) -> Iterator[StepContext | Dropped]:
        so_far: list[str] = []
        known_by = trajectory_id(solution)
        for index, step in enumerate(solution.steps):
            drop = partial(Dropped, solution.instance_id, index)
            if step.action is None:
                yield drop(DropReason.NO_ACTION)
                continue
            values = step.action.arguments
            so_far += [values["preamble"]] if values.get("preamble") else []
            heading = values.get("heading", "") if settings.next_title else ""
            target = without_heading(values["text"], heading)
            if index == len(solution.steps) - 1 and not settings.include_last:
                yield drop(DropReason.LAST_STEP)
            elif solution.problem_statement is None:
                yield drop(DropReason.NO_ISSUE)
            elif not target:
                yield drop(DropReason.NO_ACTION)
            elif self.parse_reply(target, "lenient").action is None:
                yield drop(DropReason.NOT_WRITABLE, "a step that holds several")
            else:
                prompt = step_prompt(
                    self.SYSTEM_PROMPT, solution.problem_statement, so_far, heading
                )
                yield _context(solution, known_by, index, prompt, target, target)
            so_far.append(values["text"])

    def _whole(self, solution: Trajectory, target: Target) -> StepContext | Dropped:
        """The whole solution as one example, in the format of evaluation and RLVR."""
        drop = partial(Dropped, solution.instance_id, 0)
        if solution.problem_statement is None:
            return drop(DropReason.NO_ISSUE)
        first, texts = solution.steps[0], [s.action.arguments for s in solution.steps if s.action]
        text = "\n\n".join(filter(None, [texts[0].get("preamble"), *(t["text"] for t in texts)]))
        if target == "reasoning" and not first.thought:
            return drop(DropReason.NO_ACTION)
        reasoned = f"<think>\n{first.thought}\n</think>\n\n{text}"
        reply = reasoned if target == "reasoning" else text
        prompt = answer_prompt(self.ANSWER_PROMPT, solution.problem_statement)
        context = _context(solution, trajectory_id(solution), 0, prompt, text, reply)
        return replace(context, n_steps=1, has_thought=True)  # a whole reply of its format

    # Problems and answers.

    def holds_problems(self, bench: str) -> bool:
        """Whether the bench is one of ours, or a file of rows with a problem and no repository."""
        if bench in self.benches:
            return True
        path = Path(bench)
        if file_kind(path) not in {".json", ".jsonl", ".parquet"} or not path.is_file():
            return False
        record = next(read_records(path), None)
        row = getattr(record, "value", None)
        return isinstance(row, Mapping) and "repo" not in row and _first(row, "problem") is not None

    def load_problems(self, bench: str, ids: Sequence[str] | None = None) -> list[Instance]:
        """The problems of a bench of ours, a file or ``hf:OWNER/NAME[:split]``, in its order.

        Their ids are the bench's name and a number. Problems without an answer are left out, with a
        remark. Raises UserError if none is left, for a record that can't be read, and for an
        unknown id.
        """
        problems: list[Instance] = []
        path = Path(bench.removesuffix(".gz"))
        name = path.stem if path.suffix else bench.rpartition("/")[2]
        name = re.sub(r"[^A-Za-z0-9._-]", "-", name)
        source, count = self.benches.get(bench, bench), 0
        if not source.startswith("hf:") and not Path(source).exists():
            hint = did_you_mean(bench, self.benches)
            known = ", ".join([*self.benches, "hf:OWNER/NAME, or a path"])
            raise UserError(f"unknown bench {bench!r}.{hint} Known: {known}.")
        for count, record in enumerate(read_records(source), start=1):
            if isinstance(record, BrokenRecord):
                raise record
            parts = read_parts(record.value, record.where, {})
            if parts.answer is not None:
                known_by = f"{name}-{count}"
                problems.append(Problem(known_by, name, "", parts.problem, "", answer=parts.answer))
        if left := count - len(problems):
            say(f"{bench}: {left} of {count} problems have no answer to verify and are left out")
        if not problems:
            raise UserError(f"{bench}: holds no problem with an answer.")
        if unknown := set(ids or ()) - {problem.instance_id for problem in problems}:
            raise UserError(f"{bench} has no problem {min(unknown)!r}.")
        return [p for p in problems if not ids or p.instance_id in set(ids)]

    def ids_of_problems(self, bench: str) -> set[str]:
        """The ids by which solutions of the bench's problems are known in any source."""
        return {problem_id(self.name, p.problem_statement) for p in self.load_problems(bench)}

    def prompt(self, problem: Instance) -> list[Message]:
        """The messages that ask for a whole solution."""
        return list(answer_prompt(self.ANSWER_PROMPT, problem.problem_statement))

    def verifier(
        self, open_sandbox: OpenSandbox | None = None, timeout_s: float = 0.0
    ) -> Callable[[Instance, str], Verdict]:
        """Compares the answer with the problem's; needs no sandbox."""
        return self._verify

    def _verify(self, problem: Instance, answer: str) -> Verdict:
        assert isinstance(problem, Problem), "made by load_problems"
        verdict = partial(Verdict, problem.instance_id, network="none")
        if not answer.strip():
            return verdict(Outcome.UNRESOLVED, detail="no answer in the reply")
        try:
            same = self.same_answer(problem.answer, answer)
        except TimeoutError as error:
            return verdict(Outcome.TIMED_OUT, detail=f"{error}; the reply's answer: {answer[:80]}")
        if same:
            return verdict(Outcome.RESOLVED)
        return verdict(Outcome.UNRESOLVED, detail=f"{answer[:80]}, not {problem.answer[:80]}")


def answer_prompt(system: str, problem: str) -> tuple[Message, ...]:
    """The prompt for a whole solution, as Qwen2.5-Math's evaluation has it."""
    return (
        {"role": "system", "content": system.strip()},
        {"role": "user", "content": problem.strip()},
    )


def step_prompt(
    system: str, problem: str, so_far: Sequence[str], heading: str
) -> tuple[Message, ...]:
    """The prompt for the step after ``so_far``; ``heading`` is its number and title, or empty."""
    parts = [problem.strip()]
    if so_far:
        parts += ["## The solution so far", *so_far]
    if heading:
        parts += ["## The next step", heading]
    return (
        {"role": "system", "content": system},
        {"role": "user", "content": "\n\n".join(parts)},
    )


def _context(
    solution: Trajectory,
    known_by: str,
    index: int,
    prompt: tuple[Message, ...],
    action: str,
    reply: str,
) -> StepContext:
    return StepContext(
        instance_id=solution.instance_id,
        step_index=index,
        n_steps=len(solution.steps),
        prompt=prompt,
        expert_reply=reply,
        expert_action=action,
        tool=STEP,
        trajectory_id=known_by,
        observations="recorded",
        source=solution.source,
        model=solution.model,
        has_thought=False,
    )


def solution_steps(split: SplitSolution, reasoning: str = "") -> tuple[Step, ...]:
    """The steps of a trajectory; the first has the reasoning and the text before the solution."""
    steps = []
    for index, step in enumerate(split.steps):
        arguments = {"text": step.text}
        if step.title:
            arguments["heading"] = step.heading
        if split.preamble and not index:
            arguments["preamble"] = split.preamble
        steps.append(Step("" if index else reasoning, Action(STEP, arguments)))
    return tuple(steps)


# Records.


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a record; an empty text or None if it has no such part.

    ``correct``: the grade of the source.
    """

    problem: str
    solution: str = ""
    reasoning: str = ""
    answer: str | None = None
    correct: bool | None = None
    id: str = ""
    model: str | None = None


def read_parts(record: Any, where: str, columns: Mapping[str, str]) -> Parts:
    """The parts of a row, a chat or a text. Raises BrokenRecord without a problem."""
    if isinstance(record, str):
        return _text_parts(record, where)
    fields = Fields.of(record, where)
    for role, column in columns.items():
        if column not in fields.values:
            raise BrokenRecord(where, column, f"missing; --column names it for {role}")
    row = fields.values
    chat = next((row[name] for name in _CHATS if row.get(name)), None)
    problem, solution = _chat_texts(chat) if chat else ("", "")
    problem = _text(row, "problem", columns) or problem
    if not problem.strip():
        raise BrokenRecord(
            where,
            "",
            "no column of a problem: rename it, or give steps --column problem=NAME",
        )
    column = _first(row, "solution", columns) or ""
    thought, solution = split_thought(str(row[column]) if column else solution)
    teacher = column.removesuffix(_ATTEMPT) if column.endswith(_ATTEMPT) else ""
    reference = str(row[_REFERENCE]) if column != _REFERENCE and row.get(_REFERENCE) else ""
    known_by = columns.get("id")
    is_attempt = bool(teacher) or column in ROLES["solution"][:-1]  # not its own proof
    own = _answer_of(reference or solution, bool(reference))
    return Parts(
        problem.strip(),
        solution.strip(),
        _text(row, "reasoning", columns, f"{teacher}_thinking_trajectory") or thought or "",
        _text(row, "answer", columns) or (own if reference or not is_attempt else None),
        _grade(row.get(_first(row, "correct", columns, f"{teacher}_grade") or "")),
        _text(row, "id", columns) if known_by else "",
        _text(row, "model", columns) or teacher or None,
    )


def _first(
    row: Mapping[str, Any], role: str, columns: Mapping[str, str] | None = None, own: str = ""
) -> str | None:
    """The column of the role: the named one, ``own``, or the first usual one with a value."""
    named = (columns or {}).get(role)
    candidates = [named] if named else [own, *ROLES[role]]
    return next((name for name in candidates if row.get(name) not in (None, "")), None)


def _text(row: Mapping[str, Any], role: str, columns: Mapping[str, str], own: str = "") -> str:
    column = _first(row, role, columns, own)
    return "" if column is None else str(row[column])


def _answer_of(solution: str, is_reference: bool) -> str | None:
    """The answer that a true solution holds; a short one is the answer itself."""
    boxed = last_boxed(solution)
    short = is_reference and "\n" not in solution and len(solution) <= _SHORT_ANSWER
    return boxed or (solution.strip() if short else None) or None


def _grade(value: Any) -> bool | None:
    if isinstance(value, str):
        return _YES.get(value.strip().lower())
    return bool(value) if value in (0, 1) else None


def _text_parts(text: str, where: str) -> Parts:
    """A problem and its numbered solution: the problem ends where the first step begins."""
    split = split_solution(text)
    if not split.preamble:
        raise BrokenRecord(where, "", "a text must hold a problem and then numbered steps")
    solution = "\n\n".join(step.text for step in split.steps)
    return Parts(split.preamble, solution, answer=last_boxed(solution))


def _chat_texts(chat: Any) -> tuple[str, str]:
    """The last question and the last reply of a chat, in OpenAI's or ShareGPT's names."""
    texts = {"problem": "", "solution": ""}
    roles = {"user": "problem", "human": "problem", "assistant": "solution", "gpt": "solution"}
    for message in chat if isinstance(chat, list) else ():
        if isinstance(message, Mapping):
            role = roles.get(str(message.get("role") or message.get("from")))
            content = message.get("content") or message.get("value")
            if role and isinstance(content, str):
                texts[role] = content
    return texts["problem"], texts["solution"]
