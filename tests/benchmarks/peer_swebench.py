"""The far end of swebench's process: its own ``main``, as it ships, with the seconds it takes.

``python peer_swebench.py ROWS PREDICTIONS RUN_ID`` writes its logs below the working directory, and
the seconds to the last line of stdout.
"""

from __future__ import annotations

import sys
import time

from swebench.harness.run_evaluation import main


def run(rows: str, predictions: str, run_id: str) -> float:
    """Seconds of one evaluation, without the imports."""
    started = time.perf_counter()
    main(
        dataset_name=rows,
        split="test",
        instance_ids=[],
        predictions_path=predictions,
        max_workers=1,
        open_file_limit=4096,
        run_id=run_id,
        timeout=1800,
        rewrite_reports=False,
        modal=False,
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    print(run(*sys.argv[1:]))
