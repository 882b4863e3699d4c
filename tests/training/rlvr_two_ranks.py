"""Run by torchrun from a test: episodes on two processes that end after unlike many turns."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from srl_swe.instances import load_instances
from srl_swe.rollout import EpisodeLimits
from srl_swe.training.recipe import DynamicSampling, RlvrRecipe
from srl_swe.training.rlvr_trainer import train_rlvr
from srl_swe.training.train import leave_process_group
from srl_swe_envs.local import open_local_sandbox


def main(policy: str, output: str, trainer: str) -> None:
    instances = load_instances("starter", ids=["starter__inikit-1", "starter__inikit-2"])
    recipe = RlvrRecipe(
        policy,
        "starter",
        output,
        "episode",
        limits=EpisodeLimits(steps=3 if os.environ["RANK"] == "0" else 1),
        dynamic_sampling=DynamicSampling(epsilon=0.01, max_rounds=1),
        trainer=json.loads(trainer),
    )
    train_rlvr(recipe, open_local_sandbox, instances, workers=2)
    Path(output, f"rank-{os.environ['RANK']}").touch()
    leave_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # gloo's threads may abort an interpreter that shuts down under load
