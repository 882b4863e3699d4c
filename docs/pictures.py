"""The pictures of the documentation, from finished runs: ``make pictures``.

docs/images/demo-*.png                 the demo's page
docs/images/training*.png              the page of its SRL
docs/images/compare-*.png              the pages of two runs and of two evaluations, compared
docs/images/view-*.png                 the pages of docs/viewer.md
docs/images/evaluation.png, study.png  the pages of an evaluation and of a study
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from srl_swe.cli.view import make_sources
from srl_swe.evaluation.compare import (
    compare_evaluations,
    load_evaluation,
    render_comparison_page,
)
from srl_swe.evaluation.report import Report, save_report
from srl_swe.experiments.policy_evaluation import load_result
from srl_swe.reports.record import load_run
from srl_swe.reports.runs import render_comparison
from srl_swe.view.collect import collect
from srl_swe.view.page import link, write_page
from srl_swe.view.records import Episode, Item, Target
from srl_swe.view.terminal import Browser as TerminalBrowser

IMAGES = Path(__file__).parent / "images"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
MOST_BYTES = 150_000


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: a page at a fragment, with the parts unfolded that ``click`` selects.

    ``top``: a selector of the part to begin with; empty is the page's beginning.
    """

    name: str
    page: Path
    fragment: str = ""
    click: tuple[str, ...] = ()
    width: int = 1100
    height: int = 760
    colours: Literal["light", "dark"] = "light"
    top: str = ""


def pictures_of_reports(demo: Path) -> list[Picture]:
    """The pictures of the demo's page, of a training's, and of comparisons."""
    report, srl, learning = demo / "report.html", demo / "srl" / "report.html", "main h2"
    return [
        Picture("demo-report", report, height=1680),
        Picture("training", srl, height=880, top=learning),
        Picture("training-replies", srl, height=800, top="#step-10"),
        Picture("compare-evaluations", demo / "evaluations.html", height=800),
    ]


def pictures_of_viewer(items: list[Item], page: Path) -> list[Picture]:
    """The pictures of the viewer's ``page`` of these items."""
    failed = next(i for i in items if isinstance(i, Episode) and _failed(i))
    near = next(
        (s.index for s in failed.steps if s.pairing and 0.5 < s.pairing.similarity < 1),
        0,
    )
    group = next(i for i in items if isinstance(i, Target) and any(s.kept for s in i.samples))
    replay = next(i for i in items if isinstance(i, Episode) and i.replay)
    unfold = (f"#step-{near} summary:has-text('Beside the expert')",)
    return [
        Picture("view-list", page),
        Picture("view-episode", page, link(failed.key)),
        Picture("view-expert", page, link(failed.key, near), unfold),
        Picture("view-samples", page, link(group.key)),
        Picture("view-replay", page, link(replay.key, 1), height=900, top="#step-1"),
        Picture("view-phone", page, link(failed.key, near), unfold, 400, 800, "dark"),
    ]


def _failed(episode: Episode) -> bool:
    return bool(episode.tests and episode.tests.outcome == "unresolved" and episode.expert)


def save_comparisons(demo: Path) -> None:
    """Write ``runs.html`` and ``evaluations.html`` into the folder."""
    runs = render_comparison(load_run(demo / "sft"), load_run(demo / "srl"))
    (demo / "runs.html").write_text(runs)
    sides = []
    for name in ("measured-sft", "measured-srl"):
        save_report(Report(load_result(demo / name).verdicts), demo / name / "report.json")
        sides.append(load_evaluation(demo / name))
    episodes = {(side.name, name): "view.html" for side in sides for name in side.outcomes}
    page = render_comparison_page(compare_evaluations(*sides), episodes)
    (demo / "evaluations.html").write_text(page)


def take(browser: Browser, picture: Picture) -> None:
    """Open the page and write ``docs/images/NAME.png``."""
    page = browser.new_page(
        viewport={"width": picture.width, "height": picture.height}, color_scheme=picture.colours
    )
    page.goto(f"file://{picture.page.resolve()}{picture.fragment}")
    page.wait_for_selector("h1")
    for selector in picture.click:
        page.locator(selector).first.click()
    if picture.top:
        scroll = "part => scrollTo(0, part.getBoundingClientRect().top + scrollY - 8)"
        page.locator(picture.top).first.evaluate(scroll)
    page.wait_for_timeout(300)  # until the page has scrolled to its place
    page.screenshot(path=IMAGES / f"{picture.name}.png")
    page.close()


def take_terminal(browser: Browser, items: list[Item]) -> None:
    """Write ``view-terminal.png``: a step of the first episode, drawn as SVG by Textual."""

    async def draw() -> str:
        app = TerminalBrowser(items)
        async with app.run_test(size=(110, 30)) as pilot:
            await pilot.pause()
            await pilot.press("enter", "j", "j", "j")
            await pilot.pause()
            return app.export_screenshot()

    with ThreadPoolExecutor(1) as other:  # playwright's own loop runs in this thread
        drawn = other.submit(lambda: asyncio.run(draw())).result()
    page = browser.new_page(viewport={"width": 1000, "height": 620})
    page.set_content(f"<body style='margin: 0'>{drawn}")
    page.locator("svg").first.screenshot(path=IMAGES / "view-terminal.png")
    page.close()


def shrink(image: Path) -> None:
    """Give the picture 256 colours: a third of the bytes, and no difference to be seen."""
    drawn = Image.open(image).convert("RGB")
    drawn.quantize(256, Image.Quantize.MAXCOVERAGE).save(image, optimize=True)
    if image.stat().st_size > MOST_BYTES:
        sys.exit(f"{image} is larger than {MOST_BYTES:,} bytes")


def main() -> None:
    """Take all pictures of the folders that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("study", type=Path)
    folders = parser.parse_args()
    named: Path = folders.demo
    path = next(found for name in CHROMIUMS if (found := shutil.which(name)))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        demo = Path(folder) / named.resolve().name
        unseen = shutil.ignore_patterns("checkpoint-*", "*.safetensors")
        shutil.copytree(named, demo, ignore=unseen)
        page, items = (
            Path(folder) / "view.html",
            list(collect([demo], make_sources("starter", None))),
        )
        write_page(items, page, demo.name)
        save_comparisons(demo)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        others = [
            Picture("evaluation", folders.evaluation / "report.html", height=900),
            Picture("study", folders.study / "report.html", height=900),
        ]
        for picture in [*pictures_of_reports(demo), *pictures_of_viewer(items, page), *others]:
            take(browser, picture)
        take_terminal(browser, items)
        browser.close()
    for image in IMAGES.glob("*.png"):
        shrink(image)


if __name__ == "__main__":
    main()
