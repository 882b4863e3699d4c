"""Rows that are in memory already, as a data set at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa  # type: ignore[import-untyped]

from srl_swe.files import write_atomic
from srl_swe.run_folder import claim
from srl_swe.step_contexts import StepContext
from srl_swe.step_dataset.columns import SCHEMA, make_batch
from srl_swe.step_dataset.folder import digest_of, move_into_place, write_metadata
from srl_swe.step_dataset.shards import digest_file, shard_name

if TYPE_CHECKING:
    from datasets import Dataset


def save_step_contexts(
    contexts: Iterable[StepContext],
    folder: Path,
    card: str,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Save them with their card into ``folder``, replacing what was there, whole or not.

    ``config``: how their prompts were made (:class:`StepSettings` as a dict); None records nothing.
    """

    def write(partial: Path) -> None:
        shard = partial / shard_name(0)
        with pa.ipc.new_stream(str(shard), SCHEMA) as writer:
            writer.write_batch(make_batch(list(contexts)))
        write_metadata(partial, [shard.name], digest_of([digest_file(shard)]))

    _save(write, folder, card, config)


def save_dataset(
    data: Dataset, folder: Path, card: str, config: Mapping[str, Any] | None = None
) -> None:
    """The same for rows that are a data set, whatever its columns."""
    _save(lambda partial: data.save_to_disk(str(partial)), folder, card, config)


def _save(
    write: Callable[[Path], None], folder: Path, card: str, config: Mapping[str, Any] | None
) -> None:
    partial = folder.with_name(f".{folder.name}.saving")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    write_atomic(partial / "README.md", card)
    if config is not None:
        claim(partial, config)
    move_into_place(partial, folder)
