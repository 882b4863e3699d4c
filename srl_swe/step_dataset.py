"""Step contexts on disk: a Hugging Face data set with a card."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srl_swe.context_window import Window
from srl_swe.files import write_atomic
from srl_swe.step_contexts import Dropped, StepContext

if TYPE_CHECKING:
    from datasets import Dataset


def make_dataset(contexts: Iterable[StepContext]) -> Dataset:
    """A Hugging Face data set with the columns that SFT and SRL read.

    ``prompt`` and ``completion`` are lists of messages; ``expert_action`` is what the
    reward compares; ``instance_id``, ``step_index``, ``n_steps`` and ``tool`` say where the
    example comes from.
    """
    from datasets import Dataset

    return Dataset.from_list([_row(context) for context in contexts])


def _row(context: StepContext) -> dict[str, Any]:
    return {
        "prompt": list(context.prompt),
        "completion": [{"role": "assistant", "content": context.expert_reply}],
        "expert_action": context.expert_action,
        "instance_id": context.instance_id,
        "step_index": context.step_index,
        "n_steps": context.n_steps,
        "tool": context.tool,
    }


def save_step_contexts(contexts: Iterable[StepContext], folder: Path, card: str) -> None:
    """Save the data set and its card into ``folder``, replacing what was there, whole or not."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    make_dataset(contexts).save_to_disk(str(partial))
    write_atomic(partial / "README.md", card)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def make_card(contexts: Sequence[StepContext], dropped: Sequence[Dropped], window: Window) -> str:
    """The data card: what the examples are, how many, from where, and what was dropped."""
    tools = Counter(context.tool for context in contexts)
    instances = Counter(context.instance_id for context in contexts)
    reasons = Counter(drop.reason for drop in dropped)
    lengths = sorted(len(context.expert_action) for context in contexts) or [0]
    rows = [
        ("examples", str(len(contexts))),
        ("instances", str(len(instances))),
        ("by tool", _counts(tools)),
        ("dropped", _counts(reasons) or "none"),
        ("window", f"{'all' if window.pairs is None else window.pairs} pairs"),
        ("observation cut at", f"{window.observation_chars} characters"),
        ("prompt budget", f"{window.token_budget or 'no limit'} tokens"),
        ("action length", f"median {lengths[len(lengths) // 2]}, max {lengths[-1]} characters"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        "# Step contexts\n\nOne row an expert step: `prompt` (messages), `completion` (the "
        "expert's reply), `expert_action` (what the similarity reward compares).\n\n"
        f"| | |\n|---|---|\n{table}\n"
    )


def _counts(counter: Mapping[Any, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))
