"""The rows of a build as it grows: shards of Arrow, and a ledger of those that are whole.

.OUT.partial/config.json         what the build belongs to
.OUT.partial/ledger.jsonl        a line a stretch of trajectories: what it was, what it gave
.OUT.partial/train/data-00000.arrow, .OUT.partial/validation/...
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from srl_swe.errors import UserError
from srl_swe.files import append_line, damage_named, drop_torn_line, read_json_lines, write_atomic
from srl_swe.run_folder import CONFIG_FILE, claim, refuse_other
from srl_swe.steps.contexts import trajectory_id
from srl_swe.steps.rows import SCHEMA, Made, Split
from srl_swe.types import Trajectory

STRETCH = 256
"""Trajectories a shard is made of, and so the most that a kill makes undone."""
_LEDGER = "ledger.jsonl"


@dataclass(frozen=True, slots=True)
class Shard:
    """What a stretch gave to one split; ``file`` None where that is no row."""

    file: str | None
    rows: int
    sha256: str | None
    trajectories: int
    dropped: Mapping[str, int]
    not_writable: Mapping[str, int] = field(default_factory=dict)
    translated: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stretch:
    """So many trajectories in a row, what they were, and the shards that they gave."""

    trajectories: int
    sha256: str
    shards: Mapping[Split, Shard]


class PartialBuild:
    """A build that goes on where it was killed. Takes what trajectories gave, in their order.

    Raises UserError that names the differing keys where ``folder`` holds another build's
    shards. One that holds no whole shard is nobody's, and emptied.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], splits: Sequence[Split]) -> None:
        self.folder = folder
        self._config = config
        self.stretches = _read_ledger(folder / _LEDGER)
        if self.stretches:
            refuse_other(folder, config)
        else:
            shutil.rmtree(folder, ignore_errors=True)
        self._open = {split: _OpenShard(self._next_path(split)) for split in splits}
        self._ids: list[str] = []

    def skip_done(self, trajectories: Iterable[Trajectory]) -> Iterator[Trajectory]:
        """Those whose rows are not in whole shards yet. Raises UserError where others were."""
        left = iter(trajectories)
        for stretch in self.stretches:
            again = [trajectory_id(trajectory) for trajectory in islice(left, stretch.trajectories)]
            if _digest(again) != stretch.sha256:
                raise UserError(
                    f"{self.folder} was begun with other trajectories than the source gives now; "
                    "delete that folder to begin anew."
                )
        yield from left

    def add(self, made: Made) -> None:
        """Write the rows; every :data:`STRETCH` trajectories the shards are closed."""
        self._open[made.split].add(made)
        self._ids.append(made.trajectory_id)
        if len(self._ids) == STRETCH:
            self.close_stretch()

    def close_stretch(self) -> None:
        """Make whole shards of what was added since the last stretch; from then on it is kept."""
        if not self._ids:
            return
        claim(self.folder, self._config)
        shards = {split: shard.close() for split, shard in self._open.items()}
        stretch = Stretch(len(self._ids), _digest(self._ids), shards)
        append_line(self.folder / _LEDGER, json.dumps(asdict(stretch)))
        self.stretches.append(stretch)
        self._open = {split: _OpenShard(self._next_path(split)) for split in self._open}
        self._ids = []

    def abandon(self) -> None:
        """After a failure: only whole shards stay, and nothing at all where there are none."""
        for shard in self._open.values():
            shard.abandon()
        if not self.stretches:
            shutil.rmtree(self.folder, ignore_errors=True)

    def shards(self, split: Split) -> list[Shard]:
        """Of that split, one a stretch, those without rows included."""
        return [stretch.shards[split] for stretch in self.stretches]

    def _next_path(self, split: Split) -> Path:
        whole = sum(shard.file is not None for shard in self.shards(split))
        return self.folder / split / shard_name(whole)


def shard_name(index: int) -> str:
    """Of the shard with that number; training finds the tables of a data set by ``data-*``."""
    return f"data-{index:05d}.arrow"


def digest_file(path: Path) -> str:
    """SHA-256 of its content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(slots=True)
class _OpenShard:
    """A shard in the making; ``path`` is not there before it is whole."""

    path: Path
    rows: int = 0
    trajectories: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    not_writable: Counter[str] = field(default_factory=Counter)
    translated: Counter[str] = field(default_factory=Counter)
    writer: Any = None

    def add(self, made: Made) -> None:
        self.trajectories += 1
        self.dropped.update(made.dropped)
        self.not_writable.update(made.not_writable)
        self.translated.update(made.translated)
        if not made.rows:
            return
        self.rows += made.rows
        if self.writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.writer = pa.ipc.new_stream(str(self._hidden), SCHEMA)
        self.writer.write_batch(pa.ipc.read_record_batch(pa.py_buffer(made.batch), SCHEMA))

    def close(self) -> Shard:
        counts = (
            self.trajectories,
            dict(sorted(self.dropped.items())),
            dict(sorted(self.not_writable.items())),
            dict(sorted(self.translated.items())),
        )
        if self.writer is None:
            return Shard(None, 0, None, *counts)
        self.writer.close()
        self._hidden.replace(self.path)
        return Shard(self.path.name, self.rows, digest_file(self.path), *counts)

    def abandon(self) -> None:
        if self.writer is not None:
            with suppress(OSError):  # the disk may be full
                self.writer.close()
            self._hidden.unlink(missing_ok=True)

    @property
    def _hidden(self) -> Path:
        return self.path.with_name(f".{self.path.name}")


def _digest(trajectory_ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(trajectory_ids).encode()).hexdigest()


def _read_ledger(path: Path) -> list[Stretch]:
    drop_torn_line(path)
    remedy = f"delete the folder {path.parent} to build anew"
    stretches = []
    for where, line in read_json_lines(path, remedy):
        with damage_named(where, remedy):
            stretches.append(TypeAdapter(Stretch).validate_python(line))
    return stretches


# A finished data set: what `datasets.load_from_disk` reads, the card, and its move into place.


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
