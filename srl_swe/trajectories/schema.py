"""Writes the JSON schema of a trajectory: ``python -m srl_swe.trajectories.schema FILE``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from srl_swe.files import write_atomic
from srl_swe.trajectories.jsonl import json_schema

if __name__ == "__main__":
    write_atomic(Path(sys.argv[1]), json.dumps(json_schema(), indent=2) + "\n")
