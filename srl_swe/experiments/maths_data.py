r"""The problems of a study on mathematics, and all of its data sets.

FOLDER/problems/train.jsonl       the hard level's problems with expert solutions, for all arms
FOLDER/problems/validation.jsonl  of the same level; they choose learning rates and draw curves
FOLDER/problems/easy.jsonl        held out, of the last level that the base learns
FOLDER/problems/hard.jsonl        held out, of the hard level
FOLDER/problems/harder.jsonl      held out, of the level above
FOLDER/data/NAME/                 step contexts or solutions of train.jsonl, by ``Way.data``
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from srl_swe.domains import MATH, Problem, WorkedSettings
from srl_swe.experiments.made_problems import LARGEST, make_problems
from srl_swe.experiments.maths_plan import EASY, HARD, HARDER, Data, MathsPlan
from srl_swe.files import write_atomic
from srl_swe.steps import StepJob, StepMaker, StepSource, build_step_dataset, save_step_contexts
from srl_swe.steps.contexts import StepContext
from srl_swe.trajectories import ReadReport
from srl_swe.types import Message, Trajectory

_SETTINGS: dict[Data, WorkedSettings] = {
    "titled": WorkedSettings(),
    "untitled": WorkedSettings(next_title=False),
    "rests": WorkedSettings(next_title=False, include_last=True),
    "solutions": WorkedSettings(target="solution"),
}
_EVERY_STEP = {
    kind: WorkedSettings(next_title=kind == "titled", include_last=True)
    for kind in ("titled", "untitled")
}
_BASE_SEED = 1
"""Of the base's problems; those of the arms are drawn by 0."""
_BASE_SHARES = {0: 0.2, 1: 0.4, HARD: 0.3, HARDER: 0.1}
"""Shares of the levels in the base's problems; solutions of the last two have slips."""
_CARD = """\
# Easy problems, and hard ones with slips

Whole solutions of problems, and single steps and rests of solutions with a thought. Solutions of
hard problems get most operations wrong. They make the base policy of a study and serve no other
purpose.
"""


def save_problems(plan: MathsPlan, folder: Path) -> None:
    """Write the files of problems."""
    made = {
        "train": make_problems(HARD, plan.solutions, "train"),
        "validation": make_problems(HARD, plan.validation, "validation"),
        "easy": make_problems(EASY[-1], plan.validation, "held_out"),
        "hard": make_problems(HARD, plan.held_out, "held_out"),
        "harder": make_problems(HARDER, plan.held_out, "held_out"),
    }
    for name, problems in made.items():
        lines = (json.dumps(asdict(problem)) + "\n" for problem in problems)
        write_atomic(problem_file(folder, name), "".join(lines))


def problem_file(folder: Path, name: str) -> Path:
    """The file of ``train``, ``validation``, ``easy``, ``hard`` or ``harder``."""
    return folder / "problems" / f"{name}.jsonl"


def load_held_out(folder: Path, name: str) -> list[Problem]:
    """The problems of a file, with their answers."""
    loaded = MATH.load_problems(str(problem_file(folder, name)))
    return [problem for problem in loaded if isinstance(problem, Problem)]


def load_single_steps(folder: Path, name: str) -> list[StepContext]:
    """One step of the expert's solution of each problem of a file, its title given.

    Steps are taken in turn: the first of the first problem, the second of the second.
    """
    contexts = []
    with problem_file(folder, name).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            row = json.loads(line)
            steps = _contexts(MATH.reader({}).read(row, row["id"]), _SETTINGS["titled"])
            contexts.append(steps[number % len(steps)])
    return contexts


def save_data(kind: Data, folder: Path) -> Path:
    """Make the data set from the training problems as ``srl-swe steps`` does; return its folder."""
    source = StepSource(str(problem_file(folder, "train")), reader=MATH.reader({}))
    out = folder / "data" / kind
    report = ReadReport()
    maker = StepMaker(_SETTINGS[kind], None, MATH.make_steps)
    build_step_dataset(source.stream(report), StepJob(out, maker, source.describe()), report)
    return out


def save_demonstrations(plan: MathsPlan, folder: Path) -> None:
    """Write the data set that the base policy learns, in all forms of reply.

    Easy problems are solved right; most operations of hard ones are wrong. A problem gives its
    whole solution, and a reply in another form: a step with its title given, a step without, or
    the rest of the solution.
    """
    contexts = list(_demonstrations(plan))
    random.Random(0).shuffle(contexts)
    save_step_contexts(contexts, folder, _CARD, asdict(WorkedSettings()))


def sample_texts(folder: Path, demonstrations: Path) -> list[str]:
    """Texts for a tokenizer: those of the base's data and of the arms', roles, and all numbers."""
    from srl_swe.training.data import load_step_contexts

    texts = ["system\n", "user\n", "assistant\n", *map(str, range(LARGEST + 1))] * 100
    for data in (demonstrations, folder / "data" / "rests"):
        rows = load_step_contexts(str(data))
        for row in rows.select(range(min(len(rows), 4000))):
            texts += [message["content"] for message in row["prompt"] + row["completion"]]
    return texts


def _demonstrations(plan: MathsPlan) -> Iterator[StepContext]:
    draw = random.Random(0)
    for level, share in _BASE_SHARES.items():
        count = round(share * plan.base_problems)
        slips = 0.0 if level in EASY else plan.base_slips
        for made in make_problems(level, count, "train", _BASE_SEED, slips):
            solution = MATH.reader({}).read(asdict(made), made.id)
            yield from _contexts(solution, _SETTINGS["solutions"])
            form = draw.choice(("titled", "untitled", "untitled", "rest"))
            steps = _contexts(solution, _EVERY_STEP["titled" if form == "titled" else "untitled"])
            index = draw.randrange(len(steps))
            yield _with_thought(steps, index, made.thoughts[index], rest=form == "rest")


def _contexts(solution: Trajectory, settings: WorkedSettings) -> list[StepContext]:
    items = MATH.make_steps(solution, settings, None)
    return [item for item in items if isinstance(item, StepContext)]


def _with_thought(
    steps: Sequence[StepContext], index: int, thought: str, *, rest: bool
) -> StepContext:
    """The step's context with the thought in its reply; ``rest``: with all later steps in it."""
    context = steps[index]
    prompt, target = context.prompt, context.expert_reply
    if rest:
        opening: Message = {"role": "system", "content": MATH.SOLUTION_PROMPT}
        prompt = (opening, *prompt[1:])
        target = "\n\n".join(step.expert_reply for step in steps[index:])
    reply = f"<think>\n{thought}\n</think>\n\n{target}"
    return replace(context, prompt=prompt, expert_reply=reply, has_thought=True)
