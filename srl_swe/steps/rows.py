"""The columns of a data set of step contexts, and their uses.

| column | its use |
|---|---|
| `prompt`, `completion` | messages: the input of SFT and SRL; the target of SFT |
| `expert_action` | target of the similarity reward |
| `instance_id` | splits and rates by instance |
| `step_index`, `n_steps` | similarity by position in the trajectory |
| `tool` | similarity by tool |
| `trajectory_id` | the steps of one attempt, among several at an instance |
| `observations` | `replayed` in a container of ours, or as `recorded` at the source |
| `source`, `model` | mixing and comparing families and teachers |
| `prompt_tokens`, `completion_tokens` | sorting and filtering by length; null without a tokenizer |
| `elided` | number of parts left out for the token budget, to filter or inspect such rows |
| `has_thought` | SFT leaves out replies without a thought, which the format does not allow |
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from srl_swe.errors import UserError
from srl_swe.files import CONFIG_FILE, claim, read_object, refuse_other, write_atomic
from srl_swe.steps.contexts import StepContext
from srl_swe.steps.prompt import Window

if TYPE_CHECKING:
    from datasets import Dataset

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        ("prompt", _MESSAGES),
        ("completion", _MESSAGES),
        ("expert_action", pa.string()),
        ("instance_id", pa.string()),
        ("step_index", pa.int64()),
        ("n_steps", pa.int64()),
        ("tool", pa.string()),
        ("trajectory_id", pa.string()),
        ("observations", pa.string()),
        ("source", pa.string()),
        ("model", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("elided", pa.int64()),
        ("has_thought", pa.bool_()),
    ]
)


def make_batches(contexts: Sequence[StepContext]) -> Iterator[Any]:
    """Record batches of :data:`SCHEMA`: one row per context, most columns by its fields.

    A column of a batch holds at most 2 GiB, which few prompts of a long trajectory reach.
    """
    for start in range(0, len(contexts), _BATCH_ROWS):
        rows = []
        for context in contexts[start : start + _BATCH_ROWS]:
            row = {name: getattr(context, name, None) for name in SCHEMA.names}
            row["completion"] = [{"role": "assistant", "content": context.expert_reply}]
            rows.append(row)
        yield pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


_BATCH_ROWS = 128


@dataclass(frozen=True, slots=True)
class Recorded:
    """Settings recorded with a data set; None if not recorded.

    ``window``: of its prompts. ``tokenizer_sha256``: ``TokenCounter.digest`` of the tokenizer
    that counted ``prompt_tokens`` and ``completion_tokens``.
    """

    window: Window | None = None
    tokenizer_sha256: str | None = None


def recorded_settings(folder: Path) -> Recorded:
    """Read them. All are None for a folder without a config, or with another program's."""
    config = read_object(folder / CONFIG_FILE)
    tokenizer = config.get("tokenizer")
    digest = tokenizer.get("sha256") if isinstance(tokenizer, dict) else None
    try:
        window = TypeAdapter(Window | None).validate_python(config.get("window"))
    except ValidationError:
        window = None
    return Recorded(window, digest if isinstance(digest, str) else None)


def save_step_contexts(
    contexts: Iterable[StepContext],
    folder: Path,
    card: str,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Save them with their card into ``folder``, replacing all of its content or nothing.

    ``config``: the settings of their prompts (:class:`StepSettings` as a dict); None: no config.
    """
    with _replacing(folder, card, config) as made:
        shard = made / shard_name(0)
        with pa.ipc.new_stream(str(shard), SCHEMA) as writer:
            for batch in make_batches(list(contexts)):
                writer.write_batch(batch)
        write_metadata(made, [shard.name], digest_of([digest_file(shard)]))


def save_dataset(
    data: Dataset, folder: Path, card: str, config: Mapping[str, Any] | None = None
) -> None:
    """Save a data set with any columns in the same way."""
    with _replacing(folder, card, config) as made:
        data.save_to_disk(str(made))


@contextmanager
def _replacing(folder: Path, card: str, config: Mapping[str, Any] | None) -> Iterator[Path]:
    """A new folder, which gets the card and the config, and then replaces ``folder``."""
    made = folder.with_name(f".{folder.name}.saving")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    yield made
    write_atomic(made / "README.md", card)
    if config is not None:
        claim(made, config)
    move_into_place(made, folder)


def is_finished(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether the folder holds a finished data set of that config; False if it is empty or missing.

    Raises UserError if it holds one of another config, naming the differing keys, or anything
    else.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG_FILE).exists():
        raise UserError(f"{folder} holds something else than step contexts; name another folder.")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder.")
    return refuse_other(folder, config)


def check_data_folder(folder: Path) -> None:
    """Raise UserError if the folder holds no data set, without importing ``datasets``."""
    of_rows = all((folder / name).is_file() for name in ("dataset_info.json", "state.json"))
    if not (of_rows or (folder / "dataset_dict.json").is_file()):
        raise UserError(f"{folder} holds no step contexts; make them with `srl-swe steps`.")


def load_rows(folder: Path) -> Any:
    """Load the folder's data set with ``datasets``.

    Raises UserError if it is damaged, FileNotFoundError if it is missing, and IndexError if it
    has no rows, hence no table, as ``datasets`` 5 does.
    """
    from datasets import load_from_disk

    try:
        return load_from_disk(str(folder))
    except (FileNotFoundError, IndexError):
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"{folder}: damaged ({why}); delete it and make the step contexts again."
        ) from error


def write_metadata(folder: Path, shards: Sequence[str], sha256: str) -> None:
    """Make the tables a Hugging Face data set; its fingerprint is a digest of their content.

    If there are no shards, an empty one is written, as a data set needs a table.
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


def shard_name(index: int) -> str:
    """The file name of a shard; training finds the tables of a data set by ``data-*``."""
    return f"data-{index:05d}.arrow"


def digest_file(path: Path) -> str:
    """SHA-256 of the file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(shard_digests: Sequence[str]) -> str:
    """SHA-256 of the shards' digests."""
    return hashlib.sha256("\n".join(shard_digests).encode()).hexdigest()


def move_into_place(made: Path, folder: Path) -> None:
    """Move a finished folder to its place; an old one is removed afterwards."""
    old = _replaced(folder)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    made.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def restore_moved(folder: Path) -> None:
    """Undo :func:`move_into_place` if a kill has left it between its two moves."""
    old = _replaced(folder)
    if old.is_dir() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _replaced(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")
