from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..html_page import dead_links

pytestmark = [pytest.mark.docker, pytest.mark.train, pytest.mark.demo]


def command(out: Path) -> list[str]:
    return [sys.executable, "-m", "srl_swe", "demo", "--quick", "--out", str(out)]


def stages(out: Path) -> list[str]:
    path = out / "stages.json"
    return list(json.loads(path.read_text())) if path.exists() else []


def test_the_main_job_runs_through_is_killed_in_its_middle_and_continues(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    with subprocess.Popen(command(out), stderr=subprocess.DEVNULL) as first:
        while first.poll() is None and len(stages(out)) < 3:
            time.sleep(0.1)
        assert first.poll() is None, "it ended before the kill"
        os.kill(first.pid, signal.SIGKILL)
    before = stages(out)

    second = subprocess.run(command(out), capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr[-3000:]
    assert second.stderr.count("done before") == len(before)
    assert len(stages(out)) == 11
    for label in ("untrained", "after SFT", "after SRL"):
        assert label in second.stdout
    page = (out / "report.html").read_text()
    assert "<svg" in page
    assert "memoris" in page
    assert "/1 bugs in functions that it has not seen" in page
    assert page.count("view.html#key=") == 6, "an episode per policy and instance"
    for pages in ("report.html", "sft/report.html", "srl/report.html", "family/sft/report.html"):
        assert dead_links(out / pages) == []
    assert "../view.html#key=" in (out / "srl/report.html").read_text()

    third = subprocess.run(command(out), capture_output=True, text=True, check=True)
    assert third.stderr.count("done before") == 11
    assert third.stdout == second.stdout
