"""Notes beside the harness' logs: the engine's record of a container before it is removed.

Whether a container died by the engine's doing or by that of the code in it is not in any log of
swebench's; the engine knows until swebench removes the container.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

ENGINE_RECORD = "engine.json"
"""In the folder of an attempt's logs: ``State`` as the engine inspects it, and its ``Events``, the
names of what happened to the container, oldest first, as far as the engine remembers."""

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
    try:
        state = json.loads(_docker("inspect", "--format", "{{json .State}}", str(container.id)))
        since, until = state["StartedAt"], f"{time.time():.9f}"
        events = _docker(
            "events", "--since", since, "--until", until, "--format", "{{.Action}}",
            "--filter", f"container={container.id}",
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return  # then it is the engine that fails
    note = {"State": state, "Events": events.split("\n")}
    (folder / ENGINE_RECORD).write_text(json.dumps(note), encoding="utf-8")


def _docker(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, check=True, timeout=_TIMEOUT_S, text=True
    )
    return done.stdout
