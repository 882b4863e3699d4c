"""The pictures of the documentation, from a finished demo: ``make pictures``.

docs/images/demo-report.png   the demo's page
docs/images/view-*.png        the pages of docs/viewer.md
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

from srl_swe.cli.view import make_sources
from srl_swe.view.collect import collect
from srl_swe.view.page import link, write_page
from srl_swe.view.records import Episode, Target

IMAGES = Path(__file__).parent / "images"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: a page at a fragment, with the parts unfolded that ``click`` selects."""

    name: str
    page: Path
    fragment: str = ""
    click: tuple[str, ...] = ()
    width: int = 1100
    height: int = 760
    colours: Literal["light", "dark"] = "light"


def pictures_of(demo: Path, page: Path) -> list[Picture]:
    """The pictures of a demo's folder and of its viewer's ``page``."""
    items = list(collect([demo], make_sources("starter", None)))
    failed = next(i for i in items if isinstance(i, Episode) and _failed(i))
    near = next(
        (s.index for s in failed.steps if s.pairing and 0.5 < s.pairing.similarity < 1),
        0,
    )
    group = next(i for i in items if isinstance(i, Target) and any(s.kept for s in i.samples))
    unfold = (f"#step-{near} summary:has-text('Beside the expert')",)
    return [
        Picture("demo-report", demo / "report.html", width=1000, height=1000),
        Picture("view-list", page),
        Picture("view-episode", page, link(failed.key)),
        Picture("view-expert", page, link(failed.key, near), unfold),
        Picture("view-samples", page, link(group.key)),
        Picture("view-phone", page, link(failed.key, near), unfold, 400, 800, "dark"),
    ]


def _failed(episode: Episode) -> bool:
    return bool(episode.tests and episode.tests.outcome == "unresolved" and episode.expert)


def take(browser: Browser, picture: Picture) -> None:
    """Open the page and write ``docs/images/NAME.png``."""
    page = browser.new_page(
        viewport={"width": picture.width, "height": picture.height}, color_scheme=picture.colours
    )
    page.goto(f"file://{picture.page.resolve()}{picture.fragment}")
    page.wait_for_selector("h1")
    for selector in picture.click:
        page.locator(selector).first.click()
    page.screenshot(path=IMAGES / f"{picture.name}.png")
    page.close()


def main() -> None:
    """Take all pictures of the demo that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, nargs="?", default=Path("runs/demo"))
    demo = parser.parse_args().demo
    path = next(found for name in CHROMIUMS if (found := shutil.which(name)))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "view.html"
        write_page(collect([demo], make_sources("starter", None)), page, demo.resolve().name)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for picture in pictures_of(demo, page):
            if picture.page.is_file():
                take(browser, picture)
        browser.close()


if __name__ == "__main__":
    main()
