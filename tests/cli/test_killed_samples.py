"""Samples of ``srl-swe eval`` in containers, killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from srl_swe.instances import load_instances

from ..commands import invoke
from ..openai_server import Answer, OpenAiServer, reply

STARTER = load_instances("starter")
SUBMIT = reply("<think>\nDone.\n</think>\n\n<function=submit>\n</function>")
SAMPLED = ("--samples", "2", "--temperature", "0.8", "--seed", "7")


class Solver(OpenAiServer):
    """Fixes or only submits, as the seed of the request decides: the same on every run."""

    def answer(self, path: str, body: dict[str, Any]) -> Answer:
        """The gold patch at first, then a submission."""
        if not path.endswith("completions"):
            return super().answer(path, body)
        self.requests.append((path, body))
        issue = body["messages"][1]["content"]
        (patch,) = (i.gold_patch for i in STARTER if i.problem_statement.strip() in issue)
        if len(body["messages"]) == 2 and body["seed"] % 4:
            return reply(
                "<think>\nFix.\n</think>\n\n<function=bash>\n<parameter=command>git apply <<'EOF'\n"
                f"{patch}\nEOF</parameter>\n</function>"
            )
        return SUBMIT


@pytest.mark.docker
def test_samples_killed_on_the_way_come_to_the_same_report(tmp_path: Path) -> None:
    """Rollouts and tests in containers; the kept trajectories make step contexts."""
    with Solver().running() as server:
        command = ("eval", server.url, "--limit", "2", *SAMPLED, "--runner", "sandbox")
        command += ("--workers", "2", "--best-of", "tests")
        killed, whole = tmp_path / "killed", tmp_path / "whole"

        def options(out: Path) -> tuple[object, ...]:
            return (*command, "--out", out, "--keep-resolved", out / "resolved.jsonl")

        child = subprocess.Popen(
            [sys.executable, "-m", "srl_swe", *map(str, options(killed))],
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 200
        while not (killed / "sample-1/rollouts.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert not (killed / "report.json").exists()
        invoke(*options(killed))
        invoke(*options(whole))
    found, expected = (
        json.loads((folder / "report.json").read_text()) for folder in (killed, whole)
    )
    assert found.pop("seconds").keys() == expected.pop("seconds").keys()
    assert found == expected
    assert 0 < found["pass_at"]["1"]["rate"] <= found["pass_at"]["2"]["rate"]
    assert found["resolved_instances"] == 2 * found["pass_at"]["2"]["rate"]
    assert (killed / "best.jsonl").read_bytes() == (whole / "best.jsonl").read_bytes()
    kept = (killed / "resolved.jsonl").read_text()
    assert kept == (whole / "resolved.jsonl").read_text()
    assert len(kept.splitlines()) == sum(t["resolved"] for t in found["tallies"].values())
    invoke("steps", killed / "resolved.jsonl", "--filter", "resolved=true", "--out", tmp_path / "s")
    assert (tmp_path / "s" / "card.json").exists()
