"""A finished data set: what `datasets.load_from_disk` reads, the card, and its move into place."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

from srl_swe.errors import UserError
from srl_swe.files import write_atomic
from srl_swe.run_folder import CONFIG_FILE, claim, refuse_other
from srl_swe.step_dataset.columns import SCHEMA
from srl_swe.step_dataset.shards import shard_name


def is_finished(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether it holds a whole data set of that config; False where it is empty or not there.

    Raises UserError that names the differing keys where it holds one of another config, and
    one where it holds something else.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG_FILE).exists():
        raise UserError(f"{folder} holds something else than step contexts; name another folder.")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder.")
    return refuse_other(folder, config)


def load_rows(folder: Path) -> Any:
    """The data set that the folder holds, as ``datasets`` has it.

    Raises UserError if it is damaged, FileNotFoundError if there is none, and IndexError if it
    has no rows, hence no table, as ``datasets`` 5 does.
    """
    from datasets import load_from_disk

    try:
        rows = load_from_disk(str(folder))
    except (FileNotFoundError, IndexError):
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"{folder}: damaged ({why}); delete it and make the step contexts again."
        ) from error
    return rows


def write_metadata(folder: Path, shards: Sequence[str], sha256: str) -> None:
    """What makes a Hugging Face data set of the tables; its fingerprint is of their content.

    Without a shard an empty one is written, as there is no data set without a table.
    """
    from datasets import DatasetInfo, Features

    folder.mkdir(parents=True, exist_ok=True)
    if not shards:
        shards = [shard_name(0)]
        pa.ipc.new_stream(str(folder / shards[0]), SCHEMA).close()
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in shards],
        "_fingerprint": sha256[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    DatasetInfo(features=Features.from_arrow_schema(SCHEMA)).write_to_directory(str(folder))
    write_atomic(folder / "state.json", json.dumps(state, indent=2) + "\n")


def write_cards(folder: Path, cards: Mapping[str, str], config: Mapping[str, Any]) -> None:
    """The data card's files, and the config by which the folder is known again."""
    for name, text in cards.items():
        write_atomic(folder / name, text)
    claim(folder, config)


def digest_of(shard_digests: Sequence[str]) -> str:
    """One for all shards."""
    return hashlib.sha256("\n".join(shard_digests).encode()).hexdigest()


def move_into_place(made: Path, folder: Path) -> None:
    """Put what was made where it is wanted; what was there is gone only once it is replaced."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    made.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
