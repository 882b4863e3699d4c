"""The similarity reward against the standard library's difflib, and its share of a training step.

4,096 pairs are the paper's batch: 512 groups of eight. Half of the groups are real actions of up to
2,000 characters, half are edits of 2,000. difflib takes minutes for them: it gets every eighth
group, and its time is scaled up. ``values_different`` counts the pairs with another float than its.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path

from bench_table import Row, compare_seconds, publish, seconds

from srl_swe.bundled import bundled
from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.experiments.demo import FULL
from srl_swe.experiments.warm_start import make_tiny_policy
from srl_swe.reports.record import load_run
from srl_swe.rewards import (
    STEP_REWARDS,
    ReadReply,
    batch_rewards,
    read_reply,
    similarity_rewards,
)
from srl_swe.steps import save_step_contexts
from srl_swe.steps.contexts import StepContext, make_step_contexts
from srl_swe.training.load_recipe import load_recipe, recipe_path
from srl_swe.training.recipe import SrlRecipe
from srl_swe.training.srl_trainer import train_srl
from srl_swe.trajectories import load_trajectories
from srl_swe.types import Action

GROUP, GROUPS, PEER_EVERY = 8, 512, 8
SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "swesmith_trajectories_hf"
"""Ten trajectories of SWE-smith; without them, the bundled ones."""
VOCABULARY = [f"{name}_{n}" for name in ("self", "path", "value", "return") for n in range(50)]

Group = tuple[list[str], str]
"""The candidates and the expert's action."""


def edited(text: str, share: float, rng: random.Random) -> str:
    """The text with a share of its words replaced, as a policy's near miss would have it."""
    words = text.split(" ")
    return " ".join("changed" if rng.random() < share else word for word in words)


def stock(candidates: list[str], expert: str) -> list[float]:
    """The reward by difflib, one matcher a pair."""
    return [SequenceMatcher(None, c, expert, autojunk=False).ratio() for c in candidates]


def rows(quick: bool) -> list[Row]:
    """Groups by length, the paper's batch, the worst pair, and a step of training."""
    rng = random.Random(0)
    measured = []
    for chars, n in ((120, 50), (600, 20), (2000, 5)):
        group = _edited_group(_words(chars, rng), rng)
        assert similarity_rewards(*group) == stock(*group)
        ours, peer = partial(similarity_rewards, *group), partial(stock, *group)
        metric = f"similarity_{chars}_chars"
        measured.append(compare_seconds(metric, ours, peer, "difflib", 2 if quick else n))
    groups = GROUPS // 16 if quick else GROUPS
    measured += batch_rows(groups, rng)
    measured += [other_reward(name, groups, rng) for name in ("gated", "structural")]
    return [*measured, worst_pair(), *share_of_a_step()]


def batch_rows(count: int, rng: random.Random) -> list[Row]:
    """Seconds of ``count`` groups, of either half and of both, and the different values."""
    real = [_edited_group(expert, rng) for expert in _real_actions(count // 2, rng)]
    edits = [_edited_group(_edit(rng), rng) for _ in range(count // 2)]
    halves, differences = zip(_half("real", real), _half("edit", edits), strict=True)
    pairs, ours = sum(row.n for row in halves), sum(row.ours for row in halves)
    peer = sum(row.peer or 0 for row in halves)
    both = Row(f"reward_{pairs}_pairs_s", "s", ours, peer, "difflib", peer / ours, pairs)
    compared = pairs // PEER_EVERY
    wrong = Row("values_different", "pairs", sum(differences), 0, "difflib", None, compared)
    return [*halves, both, wrong]


def _half(kind: str, groups: list[Group]) -> tuple[Row, int]:
    """The row of these groups, and the number of values that differ from difflib's."""
    replies = [ReadReply("", text, None) for texts, _ in groups for text in texts]
    experts = [expert for _, expert in groups for _ in range(GROUP)]
    ours: list[float] = []
    theirs: list[list[float]] = []
    took_s = seconds(lambda: ours.extend(batch_rewards(replies, experts, similarity_rewards)))
    peer_s = seconds(lambda: theirs.extend(stock(*group) for group in groups[::PEER_EVERY]))
    peer_s *= len(groups) / len(theirs)
    starts = range(0, len(ours), GROUP * PEER_EVERY)
    same = [ours[start : start + GROUP] for start in starts]
    different = sum(
        a != b for pair in zip(same, theirs, strict=True) for a, b in zip(*pair, strict=True)
    )
    name = f"reward_{len(ours)}_{kind}_pairs_s"
    return Row(name, "s", took_s, peer_s, "difflib", peer_s / took_s, len(ours)), different


def other_reward(name: str, count: int, rng: random.Random) -> Row:
    """Seconds of a batch of half real actions, half edits, by another reward."""
    groups = [_edited_group(expert, rng) for expert in _real_actions(count // 2, rng)]
    groups += [_edited_group(_edit(rng), rng) for _ in range(count // 2)]
    replies = [ReadReply("", text, None) for texts, _ in groups for text in texts]
    experts = [expert for _, expert in groups for _ in range(GROUP)]
    took_s = seconds(lambda: batch_rewards(replies, experts, STEP_REWARDS[name]))
    return Row(f"{name}_{len(replies)}_pairs_s", "s", took_s, None, "none", None, len(replies))


def worst_pair() -> Row:
    """The slowest of three edits of 6,000 characters of like lines; each its fastest of three."""
    times = []
    for before, after in [
        ("    x = 1\n" * 600, "    x = 2\n" * 600),
        ("    a[0] = b[1]\n" * 375, "    a[1] = b[0]\n" * 375),
        ("".join(f"    x_{n} = {n}\n" for n in range(300)), "    x_0 = 1\n" * 500),
    ]:
        pair = partial(similarity_rewards, [_replace(before)], _replace(after))
        times.append(1000 * min(seconds(pair) for _ in range(3)))
    return Row("worst_pair_ms", "ms", max(times), None, "none (minutes)", None, len(times))


def share_of_a_step() -> list[Row]:
    """Reading and scoring the demo's 64 replies, beside the median step of its recipe.

    The replies are other experts' actions, as a random policy's would not be compared at all. The
    second row is the share that the run recorded for the random policy's, with all bookkeeping.
    """
    contexts = [
        item
        for trajectory in load_trajectories(bundled("trajectories") / "starter.jsonl")
        for item in make_step_contexts(trajectory, get_dialect("xml"), FULL.window)
        if isinstance(item, StepContext)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_step_contexts(contexts, folder / "steps", "# For a benchmark\n")
        make_tiny_policy(folder / "steps", folder / "policy")
        places = {"model": "policy", "data": "steps", "output": "run"}
        own = {name: str(folder / place) for name, place in places.items()}
        recipe = load_recipe(recipe_path("srl-demo"), {**own, "trainer.max_steps": "4"})
        assert isinstance(recipe, SrlRecipe)
        train_srl(recipe)
        logged = load_run(folder / "run").rows[1:]
    step_s = statistics.median(row["time/step_s"] for row in logged)
    recorded = statistics.median(100 * row["time/reward_s"] / row["time/step_s"] for row in logged)
    form = ReplyFormat(get_dialect("xml"))
    experts = [context.expert_action for context in contexts[:GROUP] for _ in range(GROUP)]
    texts = [context.expert_reply for i in range(GROUP) for context in contexts[i : i + GROUP]]

    def score() -> None:
        batch_rewards([read_reply(text, form) for text in texts], experts, similarity_rewards)

    share = 100 * statistics.median(seconds(score) for _ in range(20)) / step_s
    of = f"a step of {step_s:.1f} s"
    return [
        Row("reward_share_pct", "%", share, None, of, None, 20),
        Row("reward_share_recorded_pct", "%", recorded, None, of, None, len(logged)),
    ]


def _words(chars: int, rng: random.Random) -> str:
    return " ".join(rng.choice(VOCABULARY) for _ in range(chars // 8))


def _edited_group(expert: str, rng: random.Random) -> Group:
    return [edited(expert, share / 10, rng) for share in range(GROUP)], expert


def _replace(text: str) -> str:
    values = {"command": "str_replace", "path": "/testbed/a.py", "old_str": "x", "new_str": text}
    return Action("str_replace_editor", values).text


def _edit(rng: random.Random) -> str:
    """An edit of 2,000 characters of indented code."""
    lines = (f"        {_words(64, rng)}\n" for _ in range(40))
    return _replace("".join(lines)[:1_840])


def _real_actions(count: int, rng: random.Random) -> list[str]:
    source = SAMPLES if SAMPLES.is_dir() else bundled("trajectories") / "starter.jsonl"
    steps = [step for trajectory in load_trajectories(source) for step in trajectory.steps]
    return rng.choices([text for step in steps if len(text := step.action.text) <= 2_000], k=count)


if __name__ == "__main__":
    publish("Similarity reward", rows)
