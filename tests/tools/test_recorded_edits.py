"""The editors against what the experts' own printed, letter by letter."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from srl_swe.testing import FakeSandbox
from srl_swe.tools.editor import EditHistory, start_history, str_replace_editor
from srl_swe.tools.editor_styles import (
    ACI_0_1,
    ACI_0_3,
    ANTHROPIC,
    R2E,
    SWE_AGENT,
    SWE_MASTER,
    EditorStyle,
)

SAMPLES = Path(__file__).parents[3] / "shared/samples/editor_golden"
FRAMES = (
    "OBSERVATION:\n",
    "EXECUTION RESULT of [str_replace_editor]:\n",
    "Execution output of [str_replace_editor]:\n",
)
RECORDED = [
    ("sweagent_str_replace_editor.json", SWE_AGENT, 70),
    ("openhands_aci_0.1.2.json", ACI_0_1, 28),
    ("openhands_aci_0.1.2.json", ANTHROPIC, 28),
    ("openhands_aci_0.3.2.json", ACI_0_3, 12),
    ("r2e_swemaster_str_replace_editor.json", SWE_MASTER, 47),
]


def without_frame(recorded: str) -> str:
    text = recorded.replace("\r\n", "\n").partition("\n\nThis is step ")[0]
    for frame in FRAMES:
        text = text.removeprefix(frame)
    return text


@pytest.mark.skipif(not SAMPLES.exists(), reason="recorded calls of the experts are not here")
@pytest.mark.parametrize(("file", "style", "count"), RECORDED)
def test_recorded_calls_give_the_recorded_texts(file: str, style: EditorStyle, count: int) -> None:
    rows = json.loads((SAMPLES / file).read_text(encoding="utf-8"))
    sandboxes: defaultdict[str, FakeSandbox] = defaultdict(FakeSandbox)
    histories: defaultdict[str, EditHistory] = defaultdict(lambda: start_history(style))
    for row in rows:
        arguments = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in row["args"].items()
        }
        fresh = str_replace_editor(
            arguments, sandboxes[row["src"]], style=style, history=histories[row["src"]]
        )
        assert fresh.text.rstrip("\n") == without_frame(row["observation"])
    assert len(rows) == count


OLD = "".join(f"line {n}\n" for n in range(1, 13)) + "\tlast"
EDITED = "The file /testbed/a.py has been edited. Here's the result of running `cat -n` on a "
REVIEW = (
    "Review the changes and make sure they are as expected{}. Edit the file again if necessary."
)


def numbered(first: int, lines: str) -> str:
    return "\n".join(f"{i:6}\t{line}" for i, line in enumerate(lines.split("|"), first))


AROUND = "line 4|line 5|line 6|line 7|NEW|TWO|line 9|line 10|line 11|line 12"
REPLACED = {
    "anthropic": (ANTHROPIC, 4, AROUND),
    "swe-agent": (SWE_AGENT, 3, f"line 3|{AROUND.removesuffix('|line 12')}"),
    "aci 0.1": (ACI_0_1, 4, AROUND),
    "aci 0.3": (ACI_0_3, 5, f"{AROUND.removeprefix('line 4|')}|"),
    "r2e": (R2E, 4, AROUND),
    "swe-master": (SWE_MASTER, 4, AROUND),
}


@pytest.mark.parametrize("name", REPLACED)
def test_the_snippet_after_a_replacement_is_the_dialects(name: str) -> None:
    style, first, lines = REPLACED[name]
    sandbox = FakeSandbox(files={"/testbed/a.py": OLD.encode()})
    arguments = {
        "command": "str_replace",
        "path": "/testbed/a.py",
        "old_str": "line 8",
        "new_str": "NEW\nTWO",
    }
    seen = str_replace_editor(arguments, sandbox, style=style, history=start_history(style))
    shown = numbered(first, lines)
    assert seen.text == f"{EDITED}snippet of /testbed/a.py:\n{shown}\n{REVIEW.format('')}"


INSERTED = {
    "anthropic": (ANTHROPIC, "line 10|line 11|line 12|        last|NEW"),
    "swe-agent": (SWE_AGENT, "line 10|line 11|line 12|        last|NEW"),
    "aci 0.1": (ACI_0_1, "line 10|line 11|line 12|        last|NEW"),
    "aci 0.3": (ACI_0_3, "line 10|line 11|line 12|\tlastNEW|"),
    "r2e": (R2E, "line 10|line 11|line 12|        last|NEW"),
}


@pytest.mark.parametrize("name", INSERTED)
def test_the_snippet_after_an_insertion_is_the_dialects(name: str) -> None:
    style, lines = INSERTED[name]
    sandbox = FakeSandbox(files={"/testbed/a.py": OLD.encode()})
    arguments = {
        "command": "insert", "path": "/testbed/a.py", "insert_line": "13", "new_str": "NEW"
    }  # fmt: skip
    seen = str_replace_editor(arguments, sandbox, style=style, history=start_history(style))
    review = REVIEW.format(" (correct indentation, no duplicate lines, etc)")
    assert seen.text == f"{EDITED}snippet of the edited file:\n{numbered(10, lines)}\n{review}"
