"""Held-out repositories and operators."""

from __future__ import annotations

import pytest

from srl_swe.generation.bugs import Bug, draw_operators, split_of


def _bug(source: str = "a", *operators: str, marks: tuple[str, ...] = ()) -> Bug:
    return Bug("1", source, operators or ("x",), 1, "", (), marks)


@pytest.mark.parametrize(
    ("bug", "split"),
    [
        (_bug("a", "x"), "train"),
        (_bug("b", "x"), "held_out_repository"),
        (_bug("b", "y"), "held_out_repository"),
        (_bug("a", "y"), "held_out_operator"),
        (_bug("a", "x", "y"), "held_out_operator"),
    ],
)
def test_split(bug: Bug, split: str) -> None:
    assert split_of(bug, repositories={"b"}, operators={"y"}) == split


def test_operators_are_drawn_by_seed() -> None:
    names = [f"o{i}" for i in range(20)]
    drawn = draw_operators(names, share=0.2, seed=1)
    assert drawn == draw_operators(reversed(names), share=0.2, seed=1)
    assert len(drawn) == 4
    assert set(drawn) <= set(names)
    assert {draw_operators(names, share=0.2, seed=seed) for seed in range(5)} != {drawn}


@pytest.mark.parametrize(("share", "number"), [(0, 0), (0.01, 1), (0.5, 2), (1, 3)])
def test_some_operators_are_always_left_for_training(share: float, number: int) -> None:
    assert len(draw_operators("abcd", share=share, seed=1)) == number
