"""The domain ``math``: the paper's first (section 4), on s1K-1.1 and four competitions."""

from __future__ import annotations

from functools import cache
from importlib import resources

from srl_swe.dialects import text_steps
from srl_swe.domains.answer_check import AnswerCheck, is_installed, same_as_text, version
from srl_swe.domains.worked import WorkedDomain
from srl_swe.errors import UserError

BENCHES = {
    "amc23": "hf:math-ai/amc23:test",
    "aime24": "hf:math-ai/aime24:test",
    "aime25": "hf:math-ai/aime25:test",
    "minerva": "hf:math-ai/minervamath:test",
}
"""The paper's four, on the hub: 40, 30, 30 and 272 problems."""
ANSWER_PROMPT = resources.files("srl_swe").joinpath("prompts/math_answer.md").read_text("utf-8")
"""The system prompt of Qwen2.5-Math's evaluation (QwenLM/Qwen2.5-Math, ``qwen25-math-cot``)."""


def same_answer(expected: str, given: str) -> bool:
    """Whether two answers are equal, by ``math-verify``.

    Raises AnswerTimeout, and UserError if the extra ``math`` is not installed.
    """
    known = same_as_text(expected, given)
    return _check()(expected, given) if known is None else known


@cache
def _check() -> AnswerCheck:
    need_math_verify()
    return AnswerCheck()


def need_math_verify() -> None:
    """Raise UserError if the extra ``math`` is not installed."""
    if not is_installed():
        raise UserError("comparing answers needs math-verify: pip install 'srl-swe[math]'.")


def _verified_by() -> str:
    need_math_verify()
    return version()


MATH = WorkedDomain(
    text_steps.MATH.SYSTEM_PROMPT,
    text_steps.MATH.SOLUTION_PROMPT,
    name="math",
    ANSWER_PROMPT=ANSWER_PROMPT,
    same_answer=same_answer,
    benches=BENCHES,
    verified_by=_verified_by,
)
