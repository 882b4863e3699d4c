"""One run of ``srl-swe generate``: candidates are judged in order, and kept ones become rows.

Every judgement is appended to ``candidates.jsonl`` under a key of its inputs, and a killed run
continues there. Rows depend on the order of the candidates only, never on the workers.
"""

from __future__ import annotations

import hashlib
import json
import queue
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice, zip_longest
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import TypeAdapter

from srl_swe.errors import SandboxError, UserError
from srl_swe.files import (
    append_record,
    claim,
    damage_named,
    held_alone,
    load_records,
    write_atomic,
    written_whole,
)
from srl_swe.generation.bugs import Bug
from srl_swe.generation.issue_text import WriteText, make_issue
from srl_swe.generation.repositories import Source
from srl_swe.generation.rows import (
    DATASET,
    WORKDIR,
    hideable,
    make_row,
    repository_image,
    task_files,
)
from srl_swe.generation.validation import (
    CleanSuite,
    Judgement,
    Reason,
    SuiteSandbox,
    server_files,
)
from srl_swe.parallel import run_parallel
from srl_swe.progress import Advance, progress, say
from srl_swe.sandbox import Sandbox
from srl_swe.types import Instance

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")
CANDIDATES_FILE, SUMMARY_FILE = "candidates.jsonl", "summary.json"
OVERSAMPLED = 10
"""The most candidates tried per wanted instance."""
_TRIES = 2
_OVER: Any = object()
_REMEDY = "delete that line; its candidate is judged again"


class Engine(Protocol):
    """The part of a run that needs a container engine."""

    def build(self, source: Source) -> str:
        """Build the image of the clean source; returns its id. Raises UserError."""
        ...

    def open(self, instance: Instance) -> AbstractContextManager[Sandbox]:
        """A fresh sandbox of that image. Raises SandboxError."""
        ...

    def eval_script(self, source: Source, base_commit: str, test_patch: str) -> str:
        """The eval script of an instance."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A source, its candidates in the order in which they are tried, and its share of instances.

    ``split`` names the split of each instance by its bug. ``bugs`` is read as far as needed, once.
    """

    source: Source
    bugs: Iterable[Bug]
    wanted: int
    split: Callable[[Bug], str]


@dataclass(frozen=True, slots=True)
class Judged:
    """One line of ``candidates.jsonl``. ``row`` is None unless the candidate was kept."""

    key: str
    source: str
    bug_id: str
    reason: Reason
    detail: str = ""
    row: Mapping[str, Any] | None = None
    operators: tuple[str, ...] = ()
    issue_by: str = ""
    """``template``, ``endpoint``, or ``fallback`` if the endpoint failed or leaked."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    """The fates of the candidates of one source."""

    source: str
    split: Mapping[str, int]
    reasons: Mapping[str, int]
    flaky: int
    """Tests of the clean suite that were left out."""
    issues: Mapping[str, int] = field(default_factory=dict)
    operators: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By operator: the candidates kept, and all. A candidate of two edits counts for both."""
    seconds: float = 0.0
    """Of all candidates together, in as many sandboxes as there were workers."""

    @property
    def kept(self) -> int:
        """The number of instances."""
        return sum(self.split.values())


def generate(
    parts: Sequence[Part],
    folder: Path,
    engine: Engine,
    *,
    workers: int = 2,
    write: WriteText | None = None,
    writer: str = "",
) -> list[Summary]:
    """Judge the candidates of every part and write the rows; continues an earlier run there.

    Rows take turns by source, hence the rows of a run are the first ones of a run for more, which
    continues in the same folder. ``write`` asks the endpoint named ``writer`` for issue texts.
    Raises UserError if a source can't be used, or if ``folder`` holds a run of other settings, for
    more instances, or one that still runs.
    """
    with held_alone(folder):
        return _generate(parts, folder, engine, workers, write, writer)


def _generate(
    parts: Sequence[Part],
    folder: Path,
    engine: Engine,
    workers: int,
    write: WriteText | None,
    writer: str,
) -> list[Summary]:
    parts = [replace(part, bugs=iter(part.bugs)) for part in parts]
    first = [list(islice(part.bugs, OVERSAMPLED)) for part in parts]
    configs = [_config(part, bugs) for part, bugs in zip(parts, first, strict=True)]
    sources = {config["name"]: config for config in configs}
    count = sum(part.wanted for part in parts)
    claim(folder, {"issues": writer, "sources": sources, "count": count}, growing="count")
    judged_before = load_records(folder / CANDIDATES_FILE, Judged, _REMEDY)
    known = {judged.key: judged for judged in judged_before}
    kept = Counter(judged.source for judged in known.values() if judged.reason is Reason.KEPT)
    missing = sum(max(part.wanted - kept[part.source.name], 0) for part in parts)
    summaries: list[Summary] = []
    rows: list[list[dict[str, Any]]] = []
    with progress("generate", missing) as advance:
        for part, bugs in zip(parts, first, strict=True):
            if not part.wanted:
                continue
            whole = replace(part, bugs=chain(bugs, part.bugs))
            summary, made = _Run(whole, folder, engine, workers, write, known, advance).finish()
            summaries.append(summary)
            rows.append(made)
    write_rows(in_turns(rows), folder)
    write_atomic(folder / SUMMARY_FILE, json.dumps(summary_fields(summaries), indent=2) + "\n")
    return summaries


def in_turns(lists: Sequence[Sequence[T]]) -> list[T]:
    """The first item of each list, then the second ones, and so on.

    >>> in_turns(["ad", "b", "ce"])
    ['a', 'b', 'c', 'd', 'e']
    """
    turns = zip_longest(*lists, fillvalue=_OVER)
    return [item for turn in turns for item in turn if item is not _OVER]


def _config(part: Part, bugs: Sequence[Bug] = ()) -> dict[str, Any]:
    """The settings of a part; ``bugs`` stand for the seed, the operators and the splits."""
    source = asdict(part.source)
    del source["folder"]
    candidates = _digest(*(text for bug in bugs for text in (bug.patch, part.split(bug))))
    return {**source, "candidates": candidates}


class _Run:
    """The run of one part."""

    def __init__(
        self,
        part: Part,
        folder: Path,
        engine: Engine,
        workers: int,
        write: WriteText | None,
        known: dict[str, Judged],
        advance: Advance,
    ) -> None:
        self.part, self.source, self.folder = part, part.source, folder
        self.engine, self.workers, self.write, self.known = engine, workers, write, known
        self.advance = advance
        source = part.source
        self.instance = Instance(
            instance_id=f"generated__{source.name}",
            repo=f"generated/{source.name}",
            base_commit=source.commit,
            problem_statement="",
            image=repository_image(source),
            workdir=WORKDIR,
        )
        self.clean: CleanSuite | None = None
        self.idle: queue.SimpleQueue[SuiteSandbox] = queue.SimpleQueue()
        self.opened = ExitStack()

    def finish(self) -> tuple[Summary, list[dict[str, Any]]]:
        """Judge candidates until enough are kept; returns the rows in the candidates' order."""
        image_id = self.engine.build(self.source)
        stream = iter(self.part.bugs)
        keys: dict[str, Bug] = {}
        with self.opened:
            self.clean = self._clean_suite(image_id)
            while (missing := self.part.wanted - len(self._kept(keys))) > 0:
                batch = islice(stream, max(missing, self.workers))
                added = {self._key(bug, image_id): bug for bug in batch}
                if not added:
                    say(
                        f"{self.source.name}: {missing} instances are missing; no candidate is left"
                    )
                    break
                keys |= added
                self._judge_all(added)
        return self._outcome([self.known[key] for key in keys if key in self.known])

    def _kept(self, keys: Iterable[str]) -> list[Judged]:
        judged = (self.known.get(key, _OPEN) for key in keys)
        return [j for j in judged if j.reason is Reason.KEPT]

    def _judge_all(self, batch: Mapping[str, Bug]) -> None:
        def keep(key: str, judged: Judged) -> None:
            self.known[key] = judged
            append_record(self.folder / CANDIDATES_FILE, judged)
            if judged.row is not None:
                mine = [j for j in self.known.values() if j.source == self.source.name]
                kept = sum(j.reason is Reason.KEPT for j in mine)
                if kept > self.part.wanted:  # jobs that ran beside the last one
                    return
                share = f"{kept} of {len(mine)} candidates kept ({kept / len(mine):.0%})"
                failing = len(judged.row["FAIL_TO_PASS"])
                self.advance(f"{self.source.name} {judged.bug_id}: {failing} tests fail; {share}")

        left = [key for key in batch if self.known.get(key, _OPEN).reason is Reason.OPEN]
        run_parallel(lambda key: self._judge(batch[key], key), left, keep, workers=self.workers)

    def _judge(self, bug: Bug, key: str) -> Judged:
        """Judge one candidate, in another sandbox if the first breaks."""
        assert self.clean is not None
        started, judged = monotonic(), Judgement(bug.bug_id, Reason.OPEN)
        for _ in range(_TRIES):
            try:
                with self._suite() as suite:
                    judged = suite.judge(bug, self.clean)
                break
            except SandboxError as error:
                judged = replace(judged, detail=str(error))
        row, issue_by = None, ""
        if judged.reason is Reason.KEPT:
            judged, row, issue_by = self._row(bug, judged)
        spent = round(monotonic() - started, 3)
        return Judged(
            key=key,
            source=self.source.name,
            bug_id=bug.bug_id,
            reason=judged.reason,
            detail=judged.detail,
            row=row,
            operators=bug.operators,
            issue_by=issue_by,
            seconds=spent,
        )

    def _row(self, bug: Bug, judged: Judgement) -> tuple[Judgement, Mapping[str, Any] | None, str]:
        hidden = tuple(test for test in judged.fail_to_pass if hideable(test, bug))
        if not hidden:
            return replace(judged, reason=Reason.NOT_HIDEABLE), None, ""
        judged = replace(judged, fail_to_pass=hidden)
        judged = replace(judged, unnamed=tuple(t for t in judged.unnamed if hideable(t, bug)))
        failures = [failure for failure in judged.failures if failure.test in set(hidden)]
        issue = make_issue(bug, self.source, failures, (*hidden, *judged.unnamed), self.write)
        if issue is None:
            return replace(judged, reason=Reason.NO_ISSUE), None, ""
        row = make_row(
            self.source, bug, judged, issue.text, self.engine.eval_script, self.part.split(bug)
        )
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # a file in another encoding
            return replace(judged, reason=Reason.NOT_HIDEABLE), None, ""
        return judged, row, issue.written_by

    @contextmanager
    def _suite(self) -> Iterator[SuiteSandbox]:
        """An idle suite, or one in a sandbox of its own; it is given up if the sandbox breaks."""
        try:
            suite = self.idle.get_nowait()
        except queue.Empty:
            with ExitStack() as stack:
                sandbox = stack.enter_context(self.engine.open(self.instance))
                suite = SuiteSandbox(sandbox, self.source, WORKDIR)
                self.opened.push(stack.pop_all())
        try:
            yield suite
        except SandboxError:
            with suppress(SandboxError):
                suite.close()
            raise
        self.idle.put(suite)

    def _clean_suite(self, image_id: str) -> CleanSuite:
        """The clean suite's measurements, as an earlier run of the same image took them."""
        path = suite_path(self.folder, self.source, image_id)
        if path.exists():
            with damage_named(str(path), "delete it, and the clean suite runs again"):
                return TypeAdapter(CleanSuite).validate_json(path.read_bytes())
        say(f"{self.source.name}: running its tests, three times")
        for attempt in range(_TRIES):
            try:
                with self._suite() as suite:
                    clean = suite.measure()
                break
            except SandboxError as error:
                if attempt == _TRIES - 1:
                    raise UserError(f"{self.source.name}: its sandbox breaks: {error}") from error
        write_atomic(path, TypeAdapter(CleanSuite).dump_json(clean))
        say(
            f"{self.source.name}: {len(clean.passing)} tests in {clean.seconds:.1f} s, "
            f"left out: {len(clean.flaky)} flaky ones, {len(clean.unnamed)} without a readable name"
        )
        return clean

    def _key(self, bug: Bug, image_id: str) -> str:
        settings = json.dumps(_config(self.part), sort_keys=True)
        texts = server_files().values()
        return _digest(image_id, settings, *texts, bug.patch, self.part.split(bug))

    def _outcome(self, judged: Sequence[Judged]) -> tuple[Summary, list[dict[str, Any]]]:
        rows = [dict(line.row) for line in judged if line.row is not None][: self.part.wanted]
        tried = Counter(name for line in judged for name in set(line.operators))
        kept = Counter(name for line in judged if line.row for name in set(line.operators))
        summary = Summary(
            self.source.name,
            dict(Counter(str(row["split"]) for row in rows)),
            dict(Counter(line.reason.value for line in judged)),
            len(self.clean.flaky) if self.clean else 0,
            dict(Counter(line.issue_by for line in judged if line.issue_by)),
            {name: (kept[name], tried[name]) for name in sorted(tried)},
            round(sum(line.seconds for line in judged), 1),
        )
        return summary, rows


_OPEN = Judged("", "", "", Reason.OPEN)


def suite_path(folder: Path, source: Source, image_id: str) -> Path:
    """The file with the measurements of a clean suite."""
    key = _digest(image_id, source.test, source.log_parser, *server_files().values())
    return folder / "suites" / f"{source.name}-{key}.json"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def write_rows(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write a task repo, ``{split}.parquet`` and ``all.parquet``, of these rows alone.

    Raises UserError on failure.
    """
    import pyarrow
    import pyarrow.parquet

    tasks = {folder / "tasks" / row["instance_id"]: row for row in rows}
    for place in {*(folder / "tasks").glob("*")} - {*tasks}:
        if place.is_dir():
            shutil.rmtree(place)
    for place, row in tasks.items():
        texts = task_files(row).items()
        files = {name: text.encode("utf-8", "surrogateescape") for name, text in texts}
        if {path.name: path.read_bytes() for path in place.glob("*")} != files:
            shutil.rmtree(place, ignore_errors=True)
            with written_whole(place) as scratch:
                scratch.mkdir()
                for name, raw in files.items():
                    (scratch / name).write_bytes(raw)
    splits = sorted({str(row["split"]) for row in rows})
    lines = [f"datasets:\n- {DATASET}\nsplits:\n", *(f"- {split}\n" for split in splits)]
    write_atomic(folder / "sweb.yaml", "".join(lines))
    parts = {split: [row for row in rows if row["split"] == split] for split in splits}
    for name, part in {"all": rows, **parts}.items():
        table = pyarrow.Table.from_pylist(list(part))
        with written_whole(folder / f"{name}.parquet") as scratch:
            pyarrow.parquet.write_table(table, scratch, compression="zstd")


def summary_fields(summaries: Sequence[Summary]) -> dict[str, Any]:
    """The summaries for ``--json`` and ``summary.json``."""
    return {
        "instances": sum(summary.kept for summary in summaries),
        "sources": [{**asdict(summary), "kept": summary.kept} for summary in summaries],
    }


def summary_table(summaries: Sequence[Summary]) -> Table:
    """A row per source: candidates, instances by split, and the fates of the others."""
    from rich.table import Table

    reasons = [r for r in Reason if any(r.value in s.reasons for s in summaries)]
    table = Table(box=None)
    table.add_column("source")
    for column in ("candidates", "instances", *(reason.value for reason in reasons)):
        table.add_column(column, justify="right")
    for summary in summaries:
        counts = [str(summary.reasons.get(reason.value, 0)) for reason in reasons]
        tried = str(sum(summary.reasons.values()))
        table.add_row(summary.source, tried, str(summary.kept), *counts)
    return table
