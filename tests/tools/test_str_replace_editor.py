from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from srl_swe.sandbox import Sandbox
from srl_swe.testing import FakeSandbox
from srl_swe.tools import perform
from srl_swe.types import Action, Observation

GOLDEN = Path(__file__).parents[3] / "shared/samples/editor_golden/sweagent_str_replace_editor.json"


def edit(sandbox: Sandbox, **arguments: str) -> Observation:
    return perform(Action("str_replace_editor", arguments), sandbox)


@pytest.mark.skipif(not GOLDEN.exists(), reason="recorded calls of SWE-smith are not here")
def test_recorded_calls_of_swe_agents_editor_give_the_recorded_texts() -> None:
    rows = json.loads(GOLDEN.read_text())
    sandboxes: defaultdict[str, FakeSandbox] = defaultdict(FakeSandbox)
    for row in rows:
        arguments = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in row["args"].items()
        }
        fresh = edit(sandboxes[row["src"]], **arguments)
        recorded = row["observation"].replace("\r\n", "\n").removeprefix("OBSERVATION:\n")
        assert fresh.text.strip() == recorded.strip(), row["turn"]
    assert len(rows) == 70
