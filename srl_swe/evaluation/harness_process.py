"""The child process in which swebench's own ``main`` runs: ``python -m`` this, job as JSON.

swebench writes below its working directory, sets process-wide limits and prints, so it gets
a process of its own. Standard input is a lifeline: the parent keeps it open and never writes,
and the end of it (the parent is gone, even by kill -9) ends this process at once.
"""

from __future__ import annotations

import json
import os
import sys
import threading

from srl_swe.evaluation.engine_notes import note_engine_records


def _exit_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> None:
    """Runs ``swebench.harness.run_evaluation.main`` with the arguments in ``argv[1]``."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    from swebench.harness.run_evaluation import main as run_evaluation

    note_engine_records()
    run_evaluation(**json.loads(sys.argv[1]))


if __name__ == "__main__":
    main()
