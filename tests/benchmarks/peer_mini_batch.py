"""mini-swe-agent's batch runner, timed; for the peers' own Python.

Its arguments are those of ``mini-extra swebench``. The last line of its output is a JSON object
with the seconds, imports left out.
"""

from __future__ import annotations

import json
import sys
import time

import datasets  # noqa: F401  (the runner imports it while it runs)
from minisweagent.models.litellm_model import LitellmModel  # noqa: F401  (so is litellm)
from minisweagent.run.benchmarks.swebench import app

if __name__ == "__main__":
    started = time.perf_counter()
    app(sys.argv[1:], standalone_mode=False)
    print("\n" + json.dumps({"seconds": time.perf_counter() - started}))
