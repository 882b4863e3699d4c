"""One HTML page of items: script, style and data inside, nothing fetched from elsewhere.

The page's content policy allows exactly its own script and style, by their digests. All text of
runs is data that the script puts into text nodes. If the data is large, it lies beside the page in
chunks: script files that a page opened from disk can load, which the policy allows the page's own
script only (``strict-dynamic``). :func:`save_viewer` writes a page for links from a report.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from srl_swe.errors import UserError
from srl_swe.files import check_output_file, write_atomic
from srl_swe.reports.page import templates
from srl_swe.steps.rows import move_into_place
from srl_swe.view.collect import Sources, collect
from srl_swe.view.records import Episode, Item, Target, make_row

SCRIPTS = ("text.js", "compare.js", "list.js", "episode.js", "target.js", "app.js")
"""The parts of the page's script, in their order; they share one scope."""
INLINE_BYTES = 16_000_000
"""Larger data lies beside the page."""
CHUNK_BYTES = 1_000_000
_CHUNK_FILE = re.compile(r"chunk-\d+\.js")
_SHARED_CHARS = 60
"""Shorter strings are written where they occur, even if they repeat."""


def link(key: str) -> str:
    """The fragment of an address that opens an item; ``&step=3`` after it, at a step.

    >>> link("demo/measured-srl/a b")
    '#key=demo/measured-srl/a%20b'
    """
    return f"#key={quote(key, safe='/')}"


@dataclass(frozen=True, slots=True)
class WrittenPage:
    """A written page. ``data`` is the folder beside it; None if all data is inside."""

    path: Path
    items: int
    data: Path | None = None


def write_page(
    items: Iterable[Item],
    out: Path,
    title: str,
    *,
    inline_bytes: int = INLINE_BYTES,
    version: int | None = None,
) -> WrittenPage:
    """Write the page of the items; they are read one after the other, and not held.

    Data larger than ``inline_bytes`` goes into ``OUT-data``, beside the page. ``version``: of a
    page that a server offers: it asks for newer ones, and all its data lies beside it. Raises
    UserError if the page can't be written.
    """
    inline_bytes = inline_bytes if version is None else -1
    check_output_file(out)
    data = out.with_name(f"{out.stem}-data")
    chunks = _Chunks(out.with_name(f".{data.name}.partial"), inline_bytes)
    try:
        for item in items:
            chunks.add(item)
        chunks.flush()
        if chunks.spilled:
            if data.exists() and not _holds_chunks(data):
                raise UserError(
                    f"{data} is not of a page, and would be replaced; name another --out."
                )
            move_into_place(chunks.folder, data)
        elif _holds_chunks(data):
            shutil.rmtree(data)
    finally:
        shutil.rmtree(chunks.folder, ignore_errors=True)
    blocks = {"rows": encode_rows(chunks.rows)}
    blocks |= {f"chunk-{number}": text for number, text in enumerate(chunks.inline)}
    beside = data.name if chunks.spilled else ""
    facts = {"title": title, "chunks": chunks.count, "data": beside, "version": version}
    write_atomic(out, render_app(facts, blocks))
    return WrittenPage(out, len(chunks.rows), data if chunks.spilled else None)


def _holds_chunks(folder: Path) -> bool:
    """Whether the folder holds chunks of a page, or nothing, and may go."""
    return folder.is_dir() and all(_CHUNK_FILE.fullmatch(path.name) for path in folder.iterdir())


@dataclass
class _Chunks:
    """Collects items into chunks: in memory at first, in files once they are many."""

    folder: Path
    inline_bytes: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    inline: list[str] = field(default_factory=list)
    count: int = 0
    spilled: bool = False
    _held: list[dict[str, Any]] = field(default_factory=list)
    _held_bytes: int = 0

    def add(self, item: Item) -> None:
        row = make_row(item)
        self.rows.append({**as_json(row), "chunk": self.count, "place": len(self._held)})
        held = {"kind": row.kind, **as_json(item)}
        self._held.append(held)
        self._held_bytes += sum(map(len, _strings(held)))
        if self._held_bytes > CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        """End the chunk."""
        if not self._held:
            return
        text = encode_chunk(self._held)
        self._held, self._held_bytes = [], 0
        if self.spilled:
            self._save(self.count, text)
        else:
            self.inline.append(text)
        self.count += 1
        if not self.spilled and sum(map(len, self.inline)) > self.inline_bytes:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.spilled = True
            for number, held in enumerate(self.inline):
                self._save(number, held)
            self.inline = []

    def _save(self, number: int, text: str) -> None:
        write_atomic(self.folder / f"chunk-{number}.js", f"srlViewChunk({number}, {text});\n")


def as_json(value: Any) -> Any:
    """A record with all inner ones as dicts and lists; the strings are not copied.

    Numbers that are not finite, which JSON can't spell, become None.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: as_json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {name: as_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def encode_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same fields as JSON by columns."""
    names = list(rows[0]) if rows else []
    return json.dumps({"names": names, "values": [[row[name] for name in names] for row in rows]})


def encode_chunk(items: Sequence[Mapping[str, Any]]) -> str:
    """Items as JSON; a long string that repeats is written once, and referred to as ``{"$": n}``.

    A name that begins with ``$`` gets another one.

    >>> encode_chunk([{"text": "ab"}])
    '{"texts": [], "items": [{"text": "ab"}]}'
    """
    counts = Counter(text for text in _strings(items) if len(text) >= _SHARED_CHARS)
    texts = [text for text, count in counts.items() if count > 1]
    number = {text: index for index, text in enumerate(texts)}

    def shared(value: Any) -> Any:
        if isinstance(value, str):
            return {"$": number[value]} if value in number else value
        if isinstance(value, Mapping):
            names = {name: f"${name}" if str(name).startswith("$") else name for name in value}
            return {names[name]: shared(inner) for name, inner in value.items()}
        return [shared(inner) for inner in value] if isinstance(value, list | tuple) else value

    return json.dumps({"texts": texts, "items": [shared(item) for item in items]}, default=str)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def render_app(facts: Mapping[str, Any], blocks: Mapping[str, str]) -> str:
    """The page: ``facts`` for its script (``title`` for people too), and blocks of JSON by id."""
    live = facts.get("version") is not None
    script, style = app_script(live), app_style()
    held = {"facts": json.dumps(facts), **blocks}
    return (
        templates("srl_swe.view", "static")
        .get_template("view.html")
        .render(
            title=facts["title"],
            policy=content_policy(script, style) + ("; connect-src 'self'" if live else ""),
            script=script,
            style=style,
            blocks={name: _inert(text) for name, text in held.items()},
        )
    )


def content_policy(script: str, style: str) -> str:
    """Forbids all but this script, this style, and script files that this script loads."""
    return (
        f"default-src 'none'; script-src {_digest(script)} 'strict-dynamic'; "
        f"style-src {_digest(style)}; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _inert(text: str) -> str:
    r"""JSON that can't end its element.

    >>> _inert('"</script>"')
    '"\\u003c/script>"'
    """
    return text.replace("<", "\\u003c")


@cache
def app_script(live: bool = False) -> str:
    """The script of every page, and more for a ``live`` one."""
    folder = resources.files("srl_swe.view").joinpath("static")
    names = (*SCRIPTS, "live.js") if live else SCRIPTS
    parts = [folder.joinpath(name).read_text("utf-8") for name in names]
    return "\n".join(['(() => {\n"use strict";', *parts, "})();\n"])


@cache
def app_style() -> str:
    """The style of reports, and that of these pages."""
    shared = resources.files("srl_swe.reports").joinpath("templates", "style.css")
    own = resources.files("srl_swe.view").joinpath("static", "view.css")
    return f"{shared.read_text('utf-8')}\n{own.read_text('utf-8')}"


VIEWER_FILE = "view.html"


Place = tuple[int, int, int]
"""A group of sampled replies: its training step, its round and its number."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """A written page, and where its items are.

    ``keys``: of all items. ``by_path``: keys of the episodes directly in one of the paths, by path
    and instance. ``groups``: keys of sampled replies, by the run's name in the page.
    """

    path: Path
    keys: frozenset[str]
    by_path: Mapping[tuple[Path, str], str]
    groups: Mapping[str, Mapping[Place, str]]

    def href(self, key: str, folder: str = "") -> str:
        """The address of an item for a page in the viewer's folder; empty if it has no such item.

        ``folder``: the way from the page to the viewer's folder, such as ``../``.
        """
        return f"{folder}{self.path.name}{link(key)}" if key in self.keys else ""

    def listed(self, run: str) -> str:
        """The address of the list of a run's items, for a page in the viewer's folder."""
        return f"{self.path.name}#run={quote(run, safe='')}"

    def group_hrefs(self, run: str, folder: str) -> dict[Place, str]:
        """The addresses of a training run's groups; ``folder`` as in :meth:`href`."""
        return {place: self.href(key, folder) for place, key in self.groups.get(run, {}).items()}


def save_viewer(paths: Sequence[Path], out: Path, sources: Sources, title: str) -> Viewer:
    """Write the page of all items of the paths. Raises UserError if a path has nothing to show."""
    keys: set[str] = set()
    by_path: dict[tuple[Path, str], str] = {}
    groups: dict[str, dict[Place, str]] = {}

    def noted() -> Iterator[Item]:
        for path in paths:
            for item in collect([path], sources):
                key = item.key
                while key in keys:  # two folders of the same name
                    key += "~"
                keys.add(key)
                match item:
                    case Episode():
                        if item.run == path.resolve().name:
                            by_path[path, item.instance_id] = key
                    case Target():
                        if item.training_step is not None:
                            place = (item.training_step, item.facts["round"], item.facts["group"])
                            groups.setdefault(item.run, {})[place] = key
                yield replace(item, key=key)

    write_page(noted(), out, title)
    return Viewer(out, frozenset(keys), by_path, groups)
