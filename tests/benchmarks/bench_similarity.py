"""The similarity reward of a group of eight, against the standard library's difflib."""

from __future__ import annotations

import random
from difflib import SequenceMatcher
from functools import partial

from bench_table import Row, compare_seconds, publish

from srl_swe.rewards.similarity import similarity_rewards

GROUP = 8


def edited(text: str, share: float, rng: random.Random) -> str:
    """The text with a share of its words replaced, as a policy's near miss would have it."""
    words = text.split(" ")
    return " ".join("changed" if rng.random() < share else word for word in words)


def stock(candidates: list[str], expert: str) -> list[float]:
    """The reward by difflib, one matcher a pair."""
    return [SequenceMatcher(None, c, expert, autojunk=False).ratio() for c in candidates]


def rows(quick: bool) -> list[Row]:
    """Actions of a command's, an edit's and a new file's length."""
    rng = random.Random(0)
    vocabulary = [f"{name}_{n}" for name in ("self", "path", "value", "return") for n in range(50)]
    measured = []
    for chars, n in ((120, 50), (600, 20), (2000, 5)):
        expert = " ".join(rng.choice(vocabulary) for _ in range(chars // 8))
        candidates = [edited(expert, share / 10, rng) for share in range(GROUP)]
        assert similarity_rewards(candidates, expert) == stock(candidates, expert)
        ours, peer = (
            partial(similarity_rewards, candidates, expert),
            partial(stock, candidates, expert),
        )
        metric = f"similarity_{chars}_chars"
        measured.append(compare_seconds(metric, ours, peer, "difflib", 2 if quick else n))
    return measured


if __name__ == "__main__":
    publish("Similarity reward, a group of eight", rows)
