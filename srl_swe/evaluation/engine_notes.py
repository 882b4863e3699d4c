"""Notes beside the harness' logs: the engine's record of a container before it is removed.

Whether a container died by the engine's doing or by that of the code in it is not in any log of
swebench's; the engine knows until swebench removes the container.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

ENGINE_RECORD = "engine.json"
"""JSON: ``State`` of the engine's inspection, in the folder of an attempt's logs."""

_TIMEOUT_S = 30.0


def note_engine_records() -> None:
    """From now on swebench's clean-up in this process leaves such notes."""
    from swebench.harness import run_evaluation as swebench

    clean_up = swebench.cleanup_container

    def note_and_clean_up(client: Any, container: Any, logger: Any) -> None:
        if container is not None:
            _note(container, Path(logger.log_file).parent)
        clean_up(client, container, logger)

    swebench.cleanup_container = note_and_clean_up


def _note(container: Any, folder: Path) -> None:
    command = ["docker", "inspect", "--format", "{{json .State}}", str(container.id)]
    try:
        state = subprocess.run(command, capture_output=True, check=True, timeout=_TIMEOUT_S).stdout
    except (OSError, subprocess.SubprocessError):  # then it is the engine that fails
        return
    (folder / ENGINE_RECORD).write_bytes(state)
