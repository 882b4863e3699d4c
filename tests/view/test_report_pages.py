"""The pages of reports in a real browser: the same look, a phone, keys, and accessibility."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from srl_swe.evaluation.compare import Comparison, Evaluation, render_comparison_page
from srl_swe.evaluation.report import Report, render_html
from srl_swe.experiments import demo_report
from srl_swe.experiments.demo_report import CurvePoint, DemoSummary
from srl_swe.experiments.policy_evaluation import PolicyResult
from srl_swe.files import write_atomic
from srl_swe.replay.certificate import Certificate, save_results, summarise
from srl_swe.reports.page import Way
from srl_swe.reports.record import load_run
from srl_swe.reports.runs import render_comparison, save_report
from srl_swe.types import Outcome, Verdict
from srl_swe.view.collect import Sources
from srl_swe.view.page import save_viewer
from srl_swe.view.serve import LiveServer, opened_server

from ..html_page import HOSTILE
from .conftest import AXE, Opened

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Opened]
PAGES = ("run", "comparison", "demo", "evaluation", "evaluations", "replay")
LONG = "starter__a_very_long_name_of_a_repository-" + "x" * 60
VERDICTS = (
    Verdict("starter__lrucache-1", Outcome.RESOLVED, ("test_a",)),
    Verdict(LONG, Outcome.UNRESOLVED, failed=(LONG,), detail=HOSTILE),
    Verdict(HOSTILE, Outcome.BROKEN_SANDBOX, detail="the engine ended"),
)


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory, stored: Path, sources: Sources) -> Path:
    """A folder with each page, NAME.html, and the viewer's beside them."""
    folder = tmp_path_factory.mktemp("reports")
    run = folder / "srl"
    shutil.copytree(stored / "srl", run)
    alarm = {"step": 1, "text": f"step 1: {HOSTILE}", "stopped": False}
    (run / "alarms.jsonl").write_text(json.dumps(alarm) + "\n")
    viewer = save_viewer([folder], folder / "view.html", sources, "reports")
    save_report(run, viewer.group_hrefs(f"{folder.name}/srl", "../"))
    (run / "report.html").rename(folder / "run.html")
    record = load_run(run)
    write_atomic(folder / "comparison.html", render_comparison(record, load_run(stored / "sft")))
    write_atomic(folder / "demo.html", make_demo())
    report = Report(VERDICTS)
    write_atomic(folder / "evaluation.html", render_html(report, {LONG: "+" + LONG * 4}))
    write_atomic(folder / "evaluations.html", make_evaluations())
    lines = (stored / "replay" / "certificates.jsonl").read_text().splitlines()
    certificates = [TypeAdapter(Certificate).validate_json(line) for line in lines]
    save_results(summarise(certificates), certificates, folder / "replay")
    (folder / "replay" / "report.html").rename(folder / "replay.html")
    return folder


def make_demo() -> str:
    policies = tuple(PolicyResult(label, 9, 0.5, 0.9, 0.2, VERDICTS) for label in ("SFT", "SRL"))
    names = tuple(verdict.instance_id for verdict in VERDICTS)
    curve = tuple(CurvePoint(n, n / 9, n / 9, 1.0, 0.5) for n in range(1, 9))
    stages = {"replay": 9.0, "SRL": 99.0}
    family = (names[:1], policies[0])
    summary = DemoSummary(
        names[:2], names[2:], 8, 63, 63, 59, 10**6, policies, *family, curve, stages
    )
    ways = [Way("Everything", "view.html", "Episodes and replies.")]
    hrefs = {("SRL", LONG): "view.html"}
    return demo_report.render_html(
        summary, ways=ways, stage_links={"SRL": "run.html"}, episodes=hrefs
    )


def make_evaluations() -> str:
    outcomes = {verdict.instance_id: verdict.outcome.value for verdict in VERDICTS}
    sides = [
        Evaluation(name, frozenset(ids), frozenset(outcomes), {}, outcomes)
        for name, ids in ((f"runs/{LONG}", [LONG]), ("runs/b", []))
    ]
    compared = Comparison(*sides, (), (LONG,), (), (HOSTILE,), ())
    return render_comparison_page(compared, {("runs/b", LONG): "view.html"})


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone_and_asks_for_nothing(
    open_page: OpenPage, reports: Path, name: str
) -> None:
    opened = open_page(reports / f"{name}.html", width=400)
    page = opened.go()
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert opened.problems == []
    assert len(opened.asked) == 1
    assert page.evaluate("window.attacked") is None


@pytest.mark.parametrize(
    ("name", "dark"), [*((name, False) for name in PAGES), ("run", True), ("demo", True)]
)
def test_axe_finds_no_serious_fault_in_reports(
    open_page: OpenPage, reports: Path, name: str, dark: bool
) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not here: `make browser` gets it by npm")
    page = open_page(reports / f"{name}.html", dark=dark).go()
    for summary in page.locator("summary").all():
        summary.click()
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    faults = [
        (fault["id"], fault["nodes"][0]["html"][:200], fault["nodes"][0]["failureSummary"])
        for fault in found
        if fault["impact"] in {"serious", "critical"}
    ]
    assert not faults, json.dumps(faults, indent=1)


def test_a_ring_leads_to_the_replies_and_from_there_to_their_group(
    open_page: OpenPage, reports: Path
) -> None:
    page = open_page(reports / "run.html").go()
    page.locator("a.sampled").first.click()
    assert page.url.endswith("#step-1")
    step = page.locator("#step-1")
    assert step.bounding_box()["y"] < 200  # type: ignore[index]
    assert step.get_by_text("Best: reward").is_visible()
    assert step.get_by_role("link", name="All replies of its group").first.is_visible()


def test_values_and_replies_are_reached_by_keys_alone(open_page: OpenPage, reports: Path) -> None:
    page = open_page(reports / "run.html").go()
    page.get_by_text("Values: Learning").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "region"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.url.endswith("#step-1")


def test_print_shows_folded_parts(open_page: OpenPage, reports: Path) -> None:
    page = open_page(reports / "run.html").go()
    recipe = page.locator("details").filter(has_text="Recipe").locator("table")
    assert not recipe.is_visible()
    page.emulate_media(media="print")
    assert recipe.is_visible()


@contextmanager
def serving(server: LiveServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield
    server.shutdown()
    thread.join()


def test_a_served_page_follows_its_run(open_page: OpenPage, stored: Path, tmp_path: Path) -> None:
    rollouts = tmp_path / "run" / "rollouts.jsonl"
    rollouts.parent.mkdir()
    line = (stored / "rollout" / "rollouts.jsonl").read_text().splitlines()[0]
    rollouts.write_text(line + "\n")
    with opened_server([tmp_path / "run"], Sources(), "run") as server, serving(server):
        opened = open_page(rollouts)
        opened.page.goto(server.url)
        opened.page.get_by_text("1 item, failures first.").wait_for()
        rollouts.write_text(line + "\n" + line.replace("lrucache-1", "lrucache-9") + "\n")
        opened.page.get_by_text("2 items, failures first.").wait_for(timeout=15_000)
        opened.page.get_by_role("link", name="starter__lrucache-9").click()
        rollouts.write_text(line + "\n")
        opened.page.get_by_role("button", name="Show it").click(timeout=15_000)
        opened.page.get_by_text("This page holds no item").wait_for()
    opened.page.get_by_text("The server has ended").wait_for(timeout=15_000)
