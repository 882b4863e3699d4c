from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.train


def what_both_saw(script: str, policy: Path, data: Path, folder: Path) -> list[dict[str, Any]]:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(Path(__file__).with_name(script)), str(policy), str(data), str(folder),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return [json.loads((folder / f"rank-{n}.json").read_text()) for n in (0, 1)]


def test_two_processes_draw_other_prompts_and_end_with_the_same_weights(
    warm_policy: Path, data: Path, tmp_path: Path
) -> None:
    first, second = what_both_saw("two_ranks.py", warm_policy, data, tmp_path)
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


def test_without_the_filter_a_group_over_two_ranks_is_trained_on_as_plain_trl_does(
    policy: Path, data: Path, tmp_path: Path
) -> None:
    first, second = what_both_saw("straddling_ranks.py", policy, data, tmp_path)
    assert first["equal"]
    assert second["equal"]
    assert len(first["group_std"]) == 2
    assert min(first["group_std"]) > 0
    (reply,) = {tuple(one) for one in first["replies"] + second["replies"]}
    assert reply[2:] == (0, True), "both ranks' replies are of the one group, which taught"
    assert len(first["replies"]) == len(second["replies"]) == 4
