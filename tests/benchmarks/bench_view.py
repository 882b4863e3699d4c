"""A page of 10,000 episodes in a real browser: the first row, a key press, a letter of a search.

    make bench-view

The browser itself measures all times, with the page on disk and its data in chunks beside it: from
the start of the navigation until the first row is painted, and from a key or a letter until the
next frame. The viewers of mini-swe-agent and SWE-agent open one trajectory at a time: no peer.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench_table import Row, publish, seconds
from playwright.sync_api import Page, sync_playwright

from srl_swe.bundled import bundled
from srl_swe.view.collect import collect
from srl_swe.view.page import write_page
from srl_swe.view.records import Episode, Item

ROWS = 10_000
_CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
_NO_PEER = "shows no list"
_FIRST_ROW = """
new MutationObserver((changes, observer) => {
  if (!document.querySelector("main tbody tr:not(.spacer)")) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.firstRow = performance.now(); }));
}).observe(document, { childList: true, subtree: true });
"""
_NEXT_FRAME = """
async (act) => {
  const started = performance.now();
  new Function(act)();
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - started;
}
"""
_KEY = "document.body.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{}', bubbles: true }}))"
_LETTER = """
const search = document.getElementById("search");
search.value = "{}";
search.dispatchEvent(new Event("input"));
"""


def many_episodes() -> Iterator[Item]:
    """The bundled expert's first episode, 10,000 times under other names."""
    first = next(collect([bundled("trajectories") / "starter.jsonl"]))
    assert isinstance(first, Episode)
    for number in range(ROWS):
        name = f"starter__many-{number:05}"
        yield replace(first, key=f"run/{number}", instance_id=name, steps=first.steps[:2])


def open_page(page: Page, path: Path) -> float:
    """Milliseconds from the start of the navigation to the first row on screen."""
    page.goto(f"file://{path}")
    page.wait_for_function("window.firstRow")
    return float(page.evaluate("window.firstRow"))


def act(page: Page, script: str) -> float:
    """Milliseconds from an event to the next frame."""
    return float(page.evaluate(_NEXT_FRAME, script))


def measure(quick: bool) -> Sequence[Row]:
    """The times of one page, opened several times."""
    n = 3 if quick else 15
    found: dict[str, list[float]] = {}
    chromium = next(path for name in _CHROMIUMS if (path := shutil.which(name)))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        out = Path(folder) / "many.html"
        writing = 1000 * seconds(lambda: write_page(many_episodes(), out, "many"))
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(n):
            # The policy of the page forbids `new Function`, which the measurement needs.
            context: Any = browser.new_context(bypass_csp=True)
            context.add_init_script(_FIRST_ROW)
            page = context.new_page()
            found.setdefault("open: first row", []).append(open_page(page, out))
            found.setdefault("key j: next row", []).append(act(page, _KEY.format("j")))
            found.setdefault("key End: last row", []).append(act(page, _KEY.format("End")))
            found.setdefault("letter of a search", []).append(act(page, _LETTER.format("many-0")))
            context.close()
        browser.close()
    rows = [
        Row(f"{name}, {label}", "ms", of(times), None, _NO_PEER, None, n)
        for name, times in found.items()
        for label, of in (("median", statistics.median), ("worst", max))
    ]
    return [*rows, Row("write the page", "ms", writing, None, _NO_PEER, None, 1)]


if __name__ == "__main__":
    publish(f"a page of {ROWS:,} episodes in chromium", measure)
