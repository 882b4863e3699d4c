"""A viewer's page beside the report of a run, and the addresses of its items for that report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from srl_swe.view.collect import Sources, collect
from srl_swe.view.page import link, write_page
from srl_swe.view.records import Episode, Item, Target

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
