"""The pages in a real browser, opened from disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from srl_swe.trajectories.jsonl import save_jsonl
from srl_swe.types import Outcome, Trajectory, Verdict
from srl_swe.view.collect import Sources, collect
from srl_swe.view.page import link, write_page
from srl_swe.view.pairing import compare_lines, find_forgiven
from srl_swe.view.records import Episode, Item

from .conftest import ATTACKS, AXE, STARTER, Opened, make_episode_record

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Opened]
EPISODE = "stored_0_1/rollout/starter__lrucache-1"
REPLAY = "stored_0_1/replay/starter__lrucache-1"
GROUP = "stored_0_1/srl/step-1/group-0.0"
EXPERT = "starter.jsonl/starter__inikit-1"
PLACES = {
    "list": "",
    "episode": link(EXPERT) + "&step=3",
    "replay": link(REPLAY),
    "group": link(GROUP),
    "row": link("stored_0_1/steps/row-2"),
    "graded": link("stored_0_1/grade/starter__lrucache-1"),
    "unknown": "#key=nothing",
}


def names(opened: Opened) -> list[str]:
    return opened.page.locator("main tbody th a").all_inner_texts()


def unfold(page: Page) -> None:
    """Opens all folded parts."""
    page.evaluate(
        "document.querySelectorAll('main details').forEach((part) => { part.open = true })"
    )
    page.locator("main details[open]:not(:has(:nth-child(2)))").first.wait_for(state="detached")


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_each_page_opens_from_disk_and_asks_for_nothing(
    open_page: OpenPage, stored_page: Path, place: str
) -> None:
    opened = open_page(stored_page)
    opened.go(place)
    assert opened.problems == []
    assert len(opened.asked) == 1  # the page itself


def test_failures_come_first_and_any_column_sorts(open_page: OpenPage, stored_page: Path) -> None:
    opened = open_page(stored_page)
    page = opened.go()
    assert page.locator("tbody tr.current").inner_text().startswith("starter__lrucache-1")
    assert "step limit" in page.locator("tbody tr.current").inner_text()
    page.get_by_role("button", name="Instance").click()
    assert names(opened) == sorted(names(opened))
    page.get_by_role("button", name="Instance").click()
    assert names(opened) == sorted(names(opened), reverse=True)
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Instance")


def test_search_and_filters_narrow_the_list_and_stay_in_the_address(
    open_page: OpenPage, stored_page: Path
) -> None:
    opened = open_page(stored_page)
    page = opened.go()
    page.get_by_label("Search").fill("INIKIT notepad")
    assert names(opened) == ["starter__inikit-1"]
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Run", exact=True).select_option("stored_0_1/steps")
    page.get_by_label("Tool").select_option("submit")
    assert len(names(opened)) == 1
    assert page.url.endswith("#run=stored_0_1%2Fsteps&tool=submit")
    page.reload()
    page.wait_for_selector("main tbody tr:not(.spacer)")
    assert len(names(opened)) == 1
    page.get_by_label("Search").fill("nothing has this word")
    assert page.locator("td.empty").inner_text() == "No item fits the search and the filters."


def test_keys_move_open_go_back_and_search(open_page: OpenPage, stored_page: Path) -> None:
    page = open_page(stored_page).go()
    for key, row in (("j", 1), ("ArrowDown", 2), ("k", 1), ("End", 21), ("Home", 0), ("j", 1)):
        page.keyboard.press(key)
        assert page.locator("tr.current").get_attribute("aria-rowindex") == str(row + 2), key
    opened = page.locator("tr.current a").inner_text()
    page.keyboard.press("Enter")
    page.locator("h1", has_text=opened).wait_for()
    page.keyboard.press("ArrowRight")
    page.locator(".crumbs", has_text="3 of").wait_for()
    page.keyboard.press("Escape")
    page.wait_for_selector("main tbody tr:not(.spacer)")
    assert page.locator("tr.current").get_attribute("aria-rowindex") == "4"
    page.keyboard.press("/")
    page.locator("#search:focus").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.get_by_role("heading", name="Keys").is_visible()
    page.get_by_role("button", name="Close").click()
    assert page.get_by_role("heading", name="Keys").is_hidden()


def test_a_link_opens_a_step_and_keys_move_between_steps(
    open_page: OpenPage, stored_page: Path
) -> None:
    page = open_page(stored_page).go(link(EXPERT) + "&step=3")
    page.locator("#step-3:focus").wait_for()
    assert page.locator("#step-3").bounding_box()["y"] < 200  # type: ignore[index]
    page.keyboard.press("j")
    page.wait_for_url(lambda url: url.endswith(link(EXPERT) + "&step=4"))
    page.keyboard.press("k")
    page.keyboard.press("k")
    page.locator("#step-2:focus").wait_for()


def test_the_prompt_of_a_step_is_that_of_training(
    open_page: OpenPage, stored_page: Path, sources: Sources
) -> None:
    page = open_page(stored_page).go(link(EXPERT) + "&step=3")
    assert page.locator(".messages").count() == 0  # made on demand
    page.locator("#step-3 summary", has_text="Exact prompt").click()
    page.locator("#step-3 .messages").wait_for()
    texts = page.locator("#step-3 .messages pre").all_text_contents()
    (episode,) = [
        item
        for item in collect([STARTER], sources)
        if isinstance(item, Episode) and item.instance_id == "starter__inikit-1"
    ]
    assert texts == [message["content"] for message in episode.steps[3].prompt]


def test_a_failed_episode_answers_why_what_and_which_test(
    open_page: OpenPage, tmp_path: Path, sources: Sources
) -> None:
    record = make_episode_record(
        "starter__lrucache-1", ("\x1b[31mFAILED\x1b[0m <response clipped> end",), patch=""
    )
    (episode,) = _episodes(tmp_path, record, sources)
    tests = Verdict(episode.instance_id, Outcome.UNRESOLVED, ("t::a",), ("t::b",))
    episode = replace(episode, tests=tests, test_log="log of b", fail_to_pass=("t::b",))
    out = tmp_path / "page.html"
    write_page([episode], out, "t")
    page = open_page(out).go(link(episode.key))
    assert page.locator(".glance dd").first.inner_text() == "It submitted its changes after 1 step."
    row = page.locator(".tests tbody tr").first.inner_text()
    assert row.split("\t") == ["t::b", "\u2717 failed", "has to make it pass"]
    page.get_by_text("Log of the tests").click()
    assert page.locator("pre.log").inner_text() == "log of b"
    assert page.locator(".observation .fg1").inner_text() == "FAILED"
    assert page.locator(".observation mark.cut").inner_text() == "<response clipped>"
    page.locator("summary", has_text="Beside the expert's step 0").click()
    pair = episode.steps[0].pairing
    assert pair is not None
    formula = page.locator(".formula").inner_text()
    assert f"2 \u00d7 {pair.matched} / {pair.total} = {pair.similarity:.3f}" in formula


def _episodes(folder: Path, record: Trajectory, sources: Sources) -> Iterator[Episode]:
    save_jsonl(folder / "run" / "rollouts.jsonl", [record])
    return (item for item in collect([folder / "run"], sources) if isinstance(item, Episode))


def test_a_group_shows_every_sample_with_reward_and_advantage(
    open_page: OpenPage, stored_page: Path
) -> None:
    page = open_page(stored_page).go(link(GROUP))
    heads = page.locator("main thead th").all_inner_texts()
    assert heads == [
        *("sample", "reward: similarity", "advantage", "similarity", "format", "tokens"),
        "trained on",
    ]
    assert page.locator("main tbody tr").count() == 2
    page.get_by_role("link", name="sample 1", exact=True).click()
    page.locator("#step-1:focus").wait_for()


def test_a_replay_shows_both_texts_and_the_forgiving_rule(
    open_page: OpenPage, tmp_path: Path, stored: Path, sources: Sources
) -> None:
    (episode,) = [i for i in collect([stored / "replay"], sources) if isinstance(i, Episode)]
    step = episode.steps[0]
    assert step.replay is not None
    old, new = "a\n1 passed in 0.10s", "a\n1 passed in 0.25s"
    changed = replace(
        step.replay,
        match="normalised",
        diff=compare_lines(old, new),
        forgiven=find_forgiven(old, new),
    )
    steps = (replace(step, replay=changed), *episode.steps[1:])
    out = tmp_path / "page.html"
    write_page([replace(episode, steps=steps)], out, "t")
    page = open_page(out).go(link(episode.key) + "&step=0")
    assert page.locator("#step-0 mark.differs").all_inner_texts() == ["10", "25"]
    rule = page.locator("#step-0 .replay table").nth(1).locator("tbody tr").inner_text()
    assert rule.split("\t") == ["duration", "duration", "0.10s", "0.25s"]


@pytest.fixture(scope="module")
def many_rows(tmp_path_factory: pytest.TempPathFactory, sources: Sources) -> Path:
    """10,000 episodes, with their data beside the page."""
    (first, *_) = collect([STARTER], sources)
    assert isinstance(first, Episode)
    small = replace(first, steps=(), patch="x" * 400)

    def items() -> Iterator[Item]:
        for number in range(10_000):
            yield replace(small, key=f"run/{number}", instance_id=f"starter__many-{number:05}")

    out = tmp_path_factory.mktemp("many") / "many.html"
    write_page(items(), out, "many", inline_bytes=100_000)
    return out


@pytest.mark.slow
def test_ten_thousand_rows_exist_only_where_they_are_seen(
    open_page: OpenPage, many_rows: Path
) -> None:
    opened = open_page(many_rows)
    page = opened.go()
    assert page.locator("main table").get_attribute("aria-rowcount") == "10001"
    assert page.locator("tbody tr").count() < 60
    page.keyboard.press("End")
    assert names(opened)[-1] == "starter__many-09999"
    last = page.locator("tr.current").bounding_box()
    box = page.locator(".list-box").bounding_box()
    assert last is not None
    assert box is not None
    assert last["y"] + last["height"] <= box["y"] + box["height"] + 1
    assert "beside this page, in many-data/" in page.locator(".count").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('many-09999')")
    assert len(opened.asked) == 2  # the page, and the one chunk that holds the episode
    assert opened.problems == []


@pytest.mark.slow
def test_a_missing_chunk_is_named(open_page: OpenPage, many_rows: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.html"
    alone.write_bytes(many_rows.read_bytes())
    page = open_page(alone).go(link("run/5"))
    assert "chunk-0.js can't be loaded. It must lie beside" in page.locator("main").inner_text()


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_a_phone_needs_no_sideways_scroll(
    open_page: OpenPage, stored_page: Path, place: str
) -> None:
    page = open_page(stored_page, width=400, height=800).go(place)
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_hostile_text_is_shown_and_not_obeyed(
    open_page: OpenPage, hostile_page: Path, hostile_run: Path
) -> None:
    opened = open_page(hostile_page)
    page = opened.go()
    for number, attack in enumerate(ATTACKS):
        name = f"starter__attack-{number}"
        page.goto(f"file://{hostile_page}{link(f'{hostile_run.name}/{name}')}")
        page.wait_for_selector(f"h1:has-text('{name}')")
        unfold(page)
        shown = page.locator("main").inner_text()
        if attack.isprintable():
            assert attack in shown
        assert page.evaluate("window.attacked") is None
        assert page.locator("main img, main iframe, main script, main style").count() == 0
        links = page.locator("main a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
        assert all(address.startswith("#") for address in links)
        assert page.locator("main").is_visible()
    assert "[U+202E]" in shown
    assert opened.problems == []
    assert {address.partition("#")[0] for address in opened.asked} == {f"file://{hostile_page}"}


def test_the_policy_stops_what_would_slip_through(open_page: OpenPage, stored_page: Path) -> None:
    opened = open_page(stored_page)
    page = opened.go()
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', "
        '\'<img src=x onerror="window.attacked = 1"><p style="color: red" id=p>p</p>\')'
    )
    page.wait_for_timeout(100)
    assert page.evaluate("window.attacked") is None
    assert page.locator("#p").evaluate("p => getComputedStyle(p).color") != "rgb(255, 0, 0)"
    assert len(opened.problems) >= 2  # the browser reports each refusal


def test_print_shows_long_texts_whole(open_page: OpenPage, stored_page: Path) -> None:
    page = open_page(stored_page).go(link(EXPERT))
    page.emulate_media(media="print")
    assert page.locator("pre").first.evaluate("pre => getComputedStyle(pre).maxHeight") == "none"
    assert page.locator(".crumbs").is_hidden()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "dark"),
    [
        *(("list", False), ("list", True), ("episode", False), ("episode", True)),
        *(("replay", False), ("group", False), ("graded", False)),
    ],
)
def test_axe_finds_no_serious_fault(
    open_page: OpenPage, stored_page: Path, place: str, dark: bool
) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not here: `make browser` gets it by npm")
    page = open_page(stored_page, dark=dark).go(PLACES[place])
    unfold(page)
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    faults = [
        (fault["id"], fault["nodes"][0]["html"][:200], fault["nodes"][0]["failureSummary"])
        for fault in found
        if fault["impact"] in {"serious", "critical"}
    ]
    assert not faults, json.dumps(faults, indent=1)
