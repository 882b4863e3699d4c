"""Pushing rows to a data set of the Hugging Face hub."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from srl_swe.errors import UserError

_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def check_name(name: str) -> None:
    """Raises UserError where no data set of the hub can be called so."""
    if not _NAME.fullmatch(name):
        raise UserError(f"--push {name!r}: a data set of the hub is named OWNER/NAME.")


def push_rows(path: Path, name: str) -> None:
    """Push a parquet file of rows as the split ``train``; a new data set is private.

    Raises UserError where the hub does not take it; the file stays.
    """
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    check_name(name)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".push.") as cache:
            rows = datasets.Dataset.from_parquet(str(path), cache_dir=cache)
            rows.push_to_hub(name, private=True)
    except (OSError, ValueError, DatasetsError, HfHubHTTPError, HFValidationError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} is written, but can't be pushed to {name} ({why}); log in with `hf auth "
            "login`, look at the network, and run it again with another OUT."
        ) from error
