"""The columns of a data set of step contexts, and what each is for.

| column | its use |
|---|---|
| `prompt`, `completion` | messages: the input of SFT, SRL and RLVR; what SFT imitates |
| `expert_action` | what the similarity reward compares |
| `instance_id` | the tests of RLVR; splits and rates by instance |
| `step_index`, `n_steps` | similarity by position in the trajectory |
| `tool` | similarity by tool |
| `trajectory_id` | the steps of one attempt, among several at an instance |
| `observations` | `replayed` in a container of ours, or as `recorded` at the source |
| `source`, `model` | mixing and comparing families and teachers |
| `prompt_tokens`, `completion_tokens` | sorting and filtering by length; null without a tokenizer |
| `elided` | what the token budget left out: leave such rows out, or look at them |
| `has_thought` | SFT leaves out replies without a thought, which the format does not allow |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

from srl_swe.step_contexts import StepContext

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        ("prompt", _MESSAGES),
        ("completion", _MESSAGES),
        ("expert_action", pa.string()),
        ("instance_id", pa.string()),
        ("step_index", pa.int64()),
        ("n_steps", pa.int64()),
        ("tool", pa.string()),
        ("trajectory_id", pa.string()),
        ("observations", pa.string()),
        ("source", pa.string()),
        ("model", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("elided", pa.int64()),
        ("has_thought", pa.bool_()),
    ]
)


def make_batch(contexts: Sequence[StepContext]) -> Any:
    """A record batch of :data:`SCHEMA`, one row a context."""
    return pa.RecordBatch.from_pylist([_row(context) for context in contexts], schema=SCHEMA)


def _row(context: StepContext) -> dict[str, Any]:
    """The columns that a context doesn't have under the same name are the two of messages."""
    same = {name: getattr(context, name) for name in SCHEMA.names if name not in _BUILT}
    completion = [{"role": "assistant", "content": context.expert_reply}]
    return {**same, "prompt": list(context.prompt), "completion": completion}


_BUILT = frozenset({"prompt", "completion"})
