from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.train

SCRIPT = Path(__file__).with_name("two_ranks.py")


def test_two_processes_draw_other_prompts_and_end_with_the_same_weights(
    warm_policy: Path, data: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(SCRIPT), str(warm_policy), str(data), str(tmp_path),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stderr[-3000:]

    first, second = (json.loads((tmp_path / f"rank-{n}.json").read_text()) for n in (0, 1))
    assert first["ranks"] == second["ranks"] == 2
    assert first["weights"] == second["weights"]
    assert len(first["rounds"]) == len(second["rounds"]) > 2, "nothing was refilled"
    for ours, theirs in zip(first["rounds"], second["rounds"], strict=True):
        assert not set(ours) & set(theirs)
    for rank in (first, second):
        assert "must be a multiple of num_generations (4)" in rank["refused"]
    fractions = [row["dynamic_sampling/filled_frac"] for row in first["log"]]
    assert len(fractions) == 2
    assert all(0 < fraction <= 1 for fraction in fractions)
