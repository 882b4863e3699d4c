"""Rows as s1K-1.1 has them, and worked solutions in the forms found there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TITLED = r"""To solve this, we count the pairs \((a, b)\).

1. **Identify \(\gcd(a, b)\) and \(2^{3x}\)**:
   - The cases are:
     1. both are even
     2. one is odd

2. **Coprime Pairs**
   There are \(\varphi(11) = 10\).

   1. **Not a step**: an inner list

3. **Conclusion**: twice as many.

\[
\boxed{20}
\]

Thus, the answer is \(\boxed{20}\)."""

MakeRow = Callable[..., dict[str, Any]]
WriteRows = Callable[..., Path]


@pytest.fixture
def s1k_row() -> MakeRow:
    """Makes a row of s1K-1.1: a question, an attempt at it, the true solution, and its grade."""

    def make(
        question: str = "How many?",
        attempt: str = TITLED,
        reference: str = "20",
        grade: str = "Yes",
    ) -> dict[str, Any]:
        return {
            "question": question,
            "solution": reference,
            "cot_type": "math",
            "deepseek_thinking_trajectory": "Hm.",
            "deepseek_attempt": attempt,
            "deepseek_grade": grade,
            "gemini_thinking_trajectory": "Well.",
            "gemini_attempt": "**Pairs**\n\nTen.\n\n**Sum**\n\nSo \\boxed{21}.",
            "gemini_grade": "No",
        }

    return make


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """Writes rows to a file of the given name."""

    def write(*rows: Any, name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return path

    return write
