"""Rows of tables: parquet files, and data sets of the Hugging Face hub, streamed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from srl_swe.errors import UserError

_ROWS_AT_ONCE = 16
"""A row is a whole trajectory, often a megabyte."""


def read_parquet(file: Path | BinaryIO, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows with their places in ``name``, counted from 1.

    Raises ValueError if it is not parquet.
    """
    import pyarrow.parquet  # type: ignore[import-untyped]

    number = 0
    with pyarrow.parquet.ParquetFile(file) as table:
        for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE):
            for row in batch.to_pylist():
                number += 1
                yield f"{name}:{number}", row


def read_hub(source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of ``hf:OWNER/NAME[:split]``, ``train`` where no split is named.

    In place of a name on the hub, a local folder of a data set's files does as well. Raises
    UserError where it can't be had.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    name, _, split = source.removeprefix("hf:").partition(":")
    try:
        rows = datasets.load_dataset(name, split=split or "train", streaming=True)
        for number, row in enumerate(rows, 1):
            yield f"{source}:{number}", row
    except (OSError, ValueError, DatasetsError) as error:
        raise UserError(
            f"{source} can't be had from the Hugging Face hub ({str(error).splitlines()[0]}); "
            "check name, split and network, or download its parquet files and name their folder."
        ) from error
