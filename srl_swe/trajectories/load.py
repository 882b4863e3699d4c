"""Trajectories of any format from anywhere: read lazily, filtered, shuffled, sliced, counted.

A record is one parsed JSON value: a whole file, a line of JSONL, a row of a table, or all events of
one conversation. Unreadable records are yielded as exceptions, for the caller to count.
"""

from __future__ import annotations

import codecs
import gzip
import io
import random
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from glob import glob, has_magic
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

from srl_swe.errors import UserError
from srl_swe.trajectories import openhands
from srl_swe.trajectories.fields import BrokenRecord, Reader, first_line, parse_json, parse_yaml
from srl_swe.trajectories.readers import find_reader, named_reader, read_record
from srl_swe.trajectories.row_facts import with_instance
from srl_swe.trajectories.select import Filter, ReadReport
from srl_swe.types import Trajectory

_ROWS_AT_ONCE = 16
"""Few: a row is a whole trajectory, often a megabyte."""


@dataclass(frozen=True, slots=True)
class Record:
    """One parsed value. ``where`` is its file, with the line or row if it is one of several.

    ``stray``: not a trajectory, but a config or summary beside trajectories in a folder.
    """

    where: str
    value: Any
    stray: bool = False


Records = Iterator[Record | BrokenRecord]


def read_parquet(file: BinaryIO, name: str) -> Iterator[Record]:
    """The rows, at ``NAME:1`` and so on. Raises ValueError if it is not parquet."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as table:
        batches = table.iter_batches(batch_size=_ROWS_AT_ONCE)
        rows = chain.from_iterable(batch.to_pylist() for batch in batches)
        yield from (Record(f"{name}:{number}", row) for number, row in enumerate(rows, 1))


def read_hub(source: str) -> Iterator[Record]:
    """The rows of ``hf:OWNER/NAME[:split]``, by default of the split ``train``.

    OWNER/NAME may also be a local folder of a data set's files. Raises UserError if it can't be
    loaded.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    name, _, split = source.removeprefix("hf:").partition(":")
    try:
        rows = datasets.load_dataset(name, split=split or "train", streaming=True)
        yield from (Record(f"{source}:{number}", row) for number, row in enumerate(rows, 1))
    except (OSError, ValueError, DatasetsError) as error:
        raise UserError(
            f"{source} can't be loaded from the Hugging Face hub ({first_line(error)}); "
            "check name, split and network, or download its parquet files and pass their folder."
        ) from error


FILE_KINDS = (".json", ".jsonl", ".traj", ".yaml", ".yml", ".parquet", ".txt")
"""Endings of files to read in a folder, each also with .gz; .txt files are expert scripts."""

_MAY_BE_OTHERS = frozenset({".json", ".yaml", ".yml", ".txt"})
_BESIDE = ({"instance_id", "model_patch"}, {"instance_id", "repo", "base_commit"})
"""Fields of predictions and benchmark rows, which also lie beside trajectories as JSONL."""
_EVENT_FILE = re.compile(r"(event-)?(\d{1,9})(?:-[\w-]*)?\.json")
_STATE = "base_state.json"
_PAGES = "event_cache"
"""OpenHands' folder of copies of its events."""
_PARQUET = b"PAR1"
_LINES_TRIED = 20


def read_records(source: str | Path, *, shuffle_seed: int | None = None) -> Records:
    """The records of a file, folder, glob, ``-`` (stdin), or ``hf:OWNER/NAME[:split]``.

    Lines and rows are streamed; other files are held whole. Files are read in the order of
    their names, or shuffled by ``shuffle_seed``. Raises UserError if the source does not exist.
    """
    source = str(source)
    if source == "-":
        yield from read_stream(sys.stdin.buffer, "stdin")
    elif source.startswith("hf:"):
        yield from read_hub(source)
    else:
        units = list(_gather_conversations(find_files(source)).items())
        if shuffle_seed is not None:
            random.Random(shuffle_seed).shuffle(units)
        in_folder = Path(source).is_dir()
        for path, events in units:
            records = _read_conversation(path, events) if events else read_file(path)
            yield from map(_mark_stray, records) if in_folder else records


def _mark_stray(record: Record | BrokenRecord) -> Record | BrokenRecord:
    suffix = file_kind(Path(re.sub(r"(?::\d+)+\Z", "", record.where)))
    if isinstance(record, BrokenRecord):
        return Record(record.where, None, stray=True) if suffix == ".txt" else record
    if suffix == ".txt" and not record.value.lstrip().startswith("<think>"):
        return replace(record, stray=True)
    if find_reader(record.value) is not None:
        return record
    beside = isinstance(record.value, Mapping) and any(f <= record.value.keys() for f in _BESIDE)
    return replace(record, stray=True) if beside or suffix in _MAY_BE_OTHERS else record


def _gather_conversations(files: Iterable[Path]) -> dict[Path, list[Path]]:
    """The files by name. Files of OpenHands events are one unit: their conversation's folder."""
    found: dict[Path, list[Path]] = {path: [] for path in files}
    folders: dict[Path, list[tuple[int, Path]]] = {}
    for path in found:
        name = _EVENT_FILE.fullmatch(path.name)
        if name and (name[1] or path.parent.name == "events"):
            folders.setdefault(path.parent, []).append((int(name[2]), path))
    for folder, numbered in folders.items():
        home = folder.parent if folder.name == "events" else folder
        events = [path for _, path in sorted(numbered)]
        for path in (*events, home / _STATE):
            found.pop(path, None)
        found[home] = events
    return dict(sorted(found.items()))


def _read_conversation(home: Path, events: list[Path]) -> Records:
    """All events as one record; each file on its own if one of them is not an event."""
    state = home / _STATE
    values = []
    for path in events:
        found = list(read_file(path))
        if len(found) != 1 or not isinstance(found[0], Record) or not is_event(found[0].value):
            files = sorted([*events, *([state] if state.is_file() else [])])
            yield from chain.from_iterable(map(read_file, files))
            return
        values.append(found[0].value)
    about = next(read_file(state), None) if state.is_file() else None
    base_state = about.value if isinstance(about, Record) else None
    yield Record(str(home), {"history": values, "base_state": base_state})


def is_event(value: Any) -> bool:
    """Whether it is one event of an OpenHands conversation, not a trajectory by itself."""
    return isinstance(value, Mapping) and find_reader(value) is None and openhands.is_event(value)


def find_files(source: str) -> list[Path]:
    """The files of a path, a glob or a folder at any depth, sorted by name."""
    path = Path(source)
    if path.is_dir():
        found = [p for p in path.rglob("*") if file_kind(p) in FILE_KINDS and p.is_file()]
        found = [p for p in found if p.parent.name != _PAGES]
    elif path.exists():
        if file_kind(path) not in FILE_KINDS:
            known = ", ".join(FILE_KINDS)
            raise UserError(f"{path}: unknown kind of trajectory file. Known: {known}.")
        return [path]
    elif has_magic(source):
        names = glob(source, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute one
        found = [path for path in map(Path, names) if path.is_file()]
    else:
        raise UserError(f"{path}: no such file or folder of trajectories.")
    if not found:
        raise UserError(f"{source}: contains no files of trajectories ({', '.join(FILE_KINDS)}).")
    return sorted(found)


def file_kind(path: Path) -> str:
    """Its ending, below that of gzip.

    >>> file_kind(Path("runs/1.jsonl.gz"))
    '.jsonl'
    """
    return Path(path.name.removesuffix(".gz")).suffix


def read_file(path: Path) -> Records:
    """The records of one file, by its ending and then by its content."""
    kind, name = file_kind(path), str(path)
    try:
        with path.open("rb") as plain:
            file: Any = gzip.GzipFile(fileobj=plain) if path.suffix == ".gz" else plain
            if kind == ".parquet":
                yield from read_parquet(file, name)
            elif kind == ".jsonl":
                yield from read_lines(file, name)
            elif kind in {".yaml", ".yml"}:
                yield from _split(parse_yaml(_decode(file.read())), name)
            elif kind == ".txt":
                yield Record(name, _decode(file.read()).replace("\r\n", "\n"))
            else:
                yield from _parse_whole(file.read(), name)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        yield BrokenRecord(str(path), "", f"can't be read ({first_line(error)})")


def read_stream(stream: BinaryIO, name: str) -> Records:
    """The records of a stream of any kind.

    Lines are streamed if the first is a JSON value; otherwise the stream is read to its end, and
    is parquet, JSON, lines of JSON, an expert script or YAML, whichever fits first.
    """
    head: list[bytes] = []
    for line in stream:
        head.append(line)
        if line.strip():
            break
    if not head or _is_json(head[-1]):
        yield from _parse_lines(chain(head, stream), name)
        return
    data = b"".join([*head, *stream])
    try:
        if data.startswith(_PARQUET):
            yield from read_parquet(io.BytesIO(data), name)
            return
        text = _decode(data)
        if _is_json(data):
            yield from _split(parse_json(text), name)
        elif text.lstrip().startswith(("{", "[")) or any(
            map(_is_json, data.splitlines()[:_LINES_TRIED])
        ):
            yield from _parse_lines(io.BytesIO(data), name)
        elif find_reader(text) is not None:
            yield Record(name, text)
        else:
            yield from _split(parse_yaml(text), name)
    except (OSError, ValueError, RecursionError) as error:
        yield BrokenRecord(name, "", f"can't be read ({first_line(error)})")


def _is_json(data: bytes) -> bool:
    try:
        value = parse_json(_decode(data))
    except ValueError:
        return False
    return isinstance(value, dict | list)


def read_lines(lines: BinaryIO, name: str) -> Records:
    """One record per line; one value if the first line is only its beginning."""
    head: list[bytes] = []
    first = b""
    while not first and (line := next(lines, b"")):
        head.append(line)
        first = line.removeprefix(codecs.BOM_UTF8).strip()
    if first == b"{" or (first.startswith(b"[") and not _is_json(first)):
        yield from _parse_whole(b"".join([*head, lines.read()]), name)
    else:
        yield from _parse_lines(chain(head, lines), name)


def _parse_whole(data: bytes, name: str) -> Records:
    """One value, or lines of values if the data is not one value."""
    found = list(_parse_value(data, name))
    is_broken = isinstance(found[0], BrokenRecord)
    lines = _parse_lines(io.BytesIO(data), name) if is_broken else iter(())
    first = next(lines, None)
    yield from chain([first], lines) if isinstance(first, Record) else found


def _parse_value(data: bytes, where: str) -> Records:
    try:
        value = parse_json(_decode(data))
    except ValueError as error:
        yield BrokenRecord(where, "", f"not JSON ({error})")
    else:
        yield from _split(value, where)


def _split(value: Any, name: str) -> Iterator[Record]:
    """The value as one record, or one record per item of a list that is not a trajectory."""
    if isinstance(value, list) and value and find_reader(value) is None:
        yield from (Record(f"{name}:{row}", item) for row, item in enumerate(value, 1))
    else:
        yield Record(name, value)


def _parse_lines(lines: Iterable[bytes], name: str) -> Records:
    """One record per line, or one for all lines if they are events."""
    numbered = ((f"{name}:{number}", line) for number, line in enumerate(lines, 1) if line.strip())
    records = chain.from_iterable(_parse_value(line, where) for where, line in numbered)
    first = next(records, None)
    if isinstance(first, Record) and is_event(first.value):
        rest = list(records)
        broken = next((record for record in rest if isinstance(record, BrokenRecord)), None)
        events = [first.value, *(record.value for record in rest if isinstance(record, Record))]
        yield broken or Record(name, events)
    elif first is not None:
        yield first
        yield from records


def _decode(data: bytes) -> str:
    """UTF-8, without a byte order mark."""
    return data.decode("utf-8-sig")


SHUFFLE_BUFFER = 1000
"""Number of trajectories from which the next one is drawn."""
STRAY = "in files of another kind"
BEFORE = "before the slice"
BEYOND = "beyond the limit"


@dataclass(frozen=True, slots=True)
class Reading:
    """Which trajectories of a source to read, and how to treat broken records.

    Filters come first, then the shuffle, then the slice from ``first`` to before ``last``, then
    ``limit``. ``shuffle_seed`` None keeps the source's order. ``instance`` is the id for
    trajectories whose records name no instance. ``reader`` names the reader of all records
    (:func:`~srl_swe.trajectories.readers.named_reader`); None finds one for each.
    """

    on_broken: Literal["fail", "skip"] = "fail"
    filters: tuple[Filter, ...] = ()
    shuffle_seed: int | None = None
    first: int = 0
    last: int | None = None
    limit: int | None = None
    instance: str | None = None
    reader: str | None = None


def stream_trajectories(
    source: str | Path,
    reading: Reading | None = None,
    report: ReadReport | None = None,
    reader: Reader | None = None,
) -> Iterator[Trajectory]:
    """The trajectories of a source (see :func:`read_records`), read lazily.

    ``report`` is complete when the iterator is exhausted. ``reader`` reads all records; None: that
    of ``reading``. A shuffle mixes the order of files and
    a buffer of :data:`SHUFFLE_BUFFER` trajectories: a longer file is not mixed from end to end.
    Raises UserError if the source does not exist, and BrokenRecord unless broken records are
    skipped.
    """
    reading, report = reading or Reading(), ReadReport() if report is None else report
    found, waiting = _read(source, reading, report, reader), list[Trajectory]()
    if reading.shuffle_seed is not None:
        found = _shuffled(found, reading.shuffle_seed, waiting)
    for _ in islice(found, reading.first):
        report.drop(BEFORE)
    ends = (None if reading.last is None else reading.last - reading.first, reading.limit)
    yield from islice(found, min((end for end in ends if end is not None), default=None))
    report.drop(BEYOND, len(waiting))


def load_trajectories(
    source: str | Path, reading: Reading | None = None, report: ReadReport | None = None
) -> list[Trajectory]:
    """All trajectories of a source. Raises UserError also without a trajectory."""
    report = ReadReport() if report is None else report
    found = list(stream_trajectories(source, reading, report))
    if not found:
        why = f" ({report})" if report.records else ""
        raise UserError(f"{source}: contains no trajectories{why}.")
    return found


def _read(
    source: str | Path, reading: Reading, report: ReadReport, reader: Reader | None
) -> Iterator[Trajectory]:
    """The trajectories that pass the filters; all other records are counted."""
    if reader is None and reading.reader is not None:
        reader = named_reader(reading.reader)
    for record in read_records(source, shuffle_seed=reading.shuffle_seed):
        report.records += 1
        try:
            if isinstance(record, BrokenRecord):
                raise record
            if record.stray and not (reader and reader.recognizes(record.value)):
                report.drop(STRAY)
                continue
            read = reader.read if reader else read_record
            found = with_instance(read(record.value, record.where), reading.instance)
        except BrokenRecord as error:
            if reading.on_broken == "fail":
                raise
            report.drop_broken(error)
            continue
        report.sources[found.source] += 1
        failed = next((each for each in reading.filters if not each.holds(found)), None)
        if failed is None:
            yield found
        else:
            report.drop(f"not {failed}")


def _shuffled(
    found: Iterator[Trajectory], seed: int, waiting: list[Trajectory]
) -> Iterator[Trajectory]:
    """The trajectories, mixed; ``waiting`` holds those read and not yet given."""
    chance = random.Random(seed)
    waiting += islice(found, SHUFFLE_BUFFER)
    for trajectory in found:
        drawn = chance.randrange(len(waiting))
        given, waiting[drawn] = waiting[drawn], trajectory
        yield given
    chance.shuffle(waiting)
    while waiting:
        yield waiting.pop(0)
