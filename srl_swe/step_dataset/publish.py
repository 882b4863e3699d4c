"""A finished data set on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from srl_swe.errors import UserError
from srl_swe.step_dataset.card import CARD, README
from srl_swe.step_dataset.making import Split


def push(folders: Mapping[Split, Path], repository: str) -> None:
    """Upload the data sets as splits of ``OWNER/NAME``, with the training split's card.

    The card goes first: `push_to_hub` then adds the splits to its front matter. An existing
    repository keeps its other files, a new one is private. Raises UserError where the hub
    won't have it.
    """
    from datasets import load_from_disk
    from huggingface_hub import HfApi, errors

    not_to_be_had = (errors.HTTPError, errors.LocalTokenNotFoundError)  # type: ignore[attr-defined]
    api = HfApi()
    try:
        api.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(
            folder_path=folders["train"],
            allow_patterns=[README, CARD],
            repo_id=repository,
            repo_type="dataset",
        )
        for split, folder in folders.items():
            load_from_disk(str(folder)).push_to_hub(repository, split=split, private=True)
    except (*not_to_be_had, OSError, ValueError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{repository} can't be pushed to the hub ({why}); "
            "log in with `hf auth login`, check OWNER/NAME, and run the same command again."
        ) from error
