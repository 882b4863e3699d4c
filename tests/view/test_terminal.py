from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("textual", reason="needs the extra `view`")

from textual.pilot import Pilot
from textual.widgets import DataTable, OptionList, Static

from srl_swe.types import Verdict
from srl_swe.view.records import Episode, Item, Pairing, SampleView, Seen, StepView, Target
from srl_swe.view.terminal import Browser, episode_parts, plain

pytestmark = pytest.mark.slow

HOSTILE = "[bold red]not markup[/]\x1b[2J\u202e"
SHOWN = "[bold red]not markup[/]␛[2J<U+202E>"


def step(index: int, text: str = "out") -> StepView:
    return StepView(
        index=index,
        thought=f"thought {index}",
        tool="bash",
        action=f"action {index}",
        arguments={"command": "ls -la"},
        executed=True,
        seen=Seen(text, exit_code=1),
        pairing=Pairing((), (("expert's", -1),), 3, 10, 0.6, 0.0, ()),
    )


def episode(name: str, outcome: str, **fields: Any) -> Episode:
    held: dict[str, Any] = {
        "key": f"run/{name}",
        "run": "run",
        "instance_id": name,
        "repo": "a/b",
        "model": "policy",
        "source": "srl-swe",
        "issue": f"issue of {name}",
        "steps": (step(0), step(1)),
        "stop": "submitted",
        "glance": (("Why it ended", "It submitted."),),
        "patch": "+1",
        "tests": Verdict(name, outcome, failed=("test_x",)),  # type: ignore[arg-type]
        "test_log": "the log",
    }
    return Episode(**held | fields)


SAMPLE = SampleView(0, "a reply", "ok", {"similarity": 0.25}, 0.5, True, 9, False)
TARGET = Target(
    key="run/step-1/group-0.0",
    run="run",
    instance_id="c__d-1",
    repo="",
    model="",
    source="training",
    step_index=0,
    n_steps=7,
    tool="bash",
    expert_action="expert's own",
    samples=(SAMPLE,),
)
ITEMS = [episode("a__b-1", "resolved"), episode("a__b-2", "unresolved"), TARGET]

Check = Callable[[Browser, Pilot[None]], Awaitable[None]]


def drive(check: Check, items: list[Item] = ITEMS, width: int = 100) -> None:
    """Open the app without a terminal, as Textual's own tests do."""

    async def run() -> None:
        app = Browser(items)
        async with app.run_test(size=(width, 40)) as pilot:
            await pilot.pause()
            await check(app, pilot)

    asyncio.run(run())


def listed(app: Browser) -> list[str]:
    table: DataTable[Any] = app.screen.query_one(DataTable)
    return [str(table.get_row_at(row)[0]) for row in range(table.row_count)]


def shown(app: Browser) -> str:
    return str(app.screen.query_one("#text", Static).content)


def parts(app: Browser) -> list[str]:
    options = app.screen.query_one(OptionList).options
    return [str(option.prompt) for option in options]


def test_failures_stand_first() -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        assert listed(app) == ["a__b-2", "c__d-1", "a__b-1"]

    drive(check)


def test_a_search_finds_all_of_its_words_and_names_an_empty_result() -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"a__b resolved")
        assert listed(app) == ["a__b-2", "a__b-1"], "unresolved has the word in it too"
        await pilot.press("space", *"zz", "enter")
        assert listed(app) == []
        assert "none fits" in str(app.screen.query_one("#count", Static).content)

    drive(check)


def test_failures_alone_can_be_listed() -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await pilot.press("f")
        assert listed(app) == ["a__b-2"]
        await pilot.press("f")
        assert len(listed(app)) == 3

    drive(check)


def test_an_episode_is_read_part_by_part_by_keys() -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await pilot.pause()
        titles = ["Overview", "Issue", "0 bash ls -la", "1 bash ls -la", "Patch", "Tests"]
        assert parts(app) == titles
        assert "It submitted." in shown(app)
        await pilot.press("j", "j")
        await pilot.pause()
        assert "thought 0" in shown(app)
        assert "Observation, exit code 1" in shown(app)
        assert "2M/T = 2*3/10 = 0.600" in shown(app)
        await pilot.press("k")
        await pilot.pause()
        assert "issue of a__b-2" in shown(app)

    drive(check)


def test_the_next_item_is_that_of_the_list_and_escape_leads_back() -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await pilot.press("enter", "right")
        await pilot.pause()
        assert parts(app) == ["Expert", "Reply 0: 0.25"]
        await pilot.press("right", "right", "left", "left", "left")
        await pilot.pause()
        assert "a__b-2" in shown(app)
        await pilot.press("escape")
        assert listed(app) == ["a__b-2", "c__d-1", "a__b-1"]

    drive(check)


def test_a_sample_shows_reward_advantage_and_reply() -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await pilot.press("j", "enter", "j")
        await pilot.pause()
        for words in ("format: ok", "advantage: +0.50", "group: kept", "a reply"):
            assert words in shown(app)

    drive(check)


@pytest.mark.parametrize("width", [40, 200])
def test_hostile_text_is_shown_to_the_letter(width: int) -> None:
    bad = episode(
        HOSTILE, HOSTILE, run=HOSTILE, stop=HOSTILE, issue=HOSTILE, steps=(step(0, HOSTILE),)
    )

    async def check(app: Browser, pilot: Pilot[None]) -> None:
        assert listed(app) == [SHOWN]
        await pilot.press("enter", "j", "j")
        await pilot.pause()
        assert SHOWN in shown(app)
        assert "\x1b" not in shown(app)

    drive(check, [bad], width)


def test_an_episode_of_which_little_is_known_has_its_parts() -> None:
    bare = episode("a", "", steps=(), issue="", patch=None, tests=None, glance=())
    assert [title for title, _ in episode_parts(bare)] == ["Overview", "Issue", "Patch"]
    assert "not recorded" in str(episode_parts(bare)[1][1])


def test_a_long_text_is_cut_in_its_middle() -> None:
    assert "[10,000 characters left out]" in plain("a" * 30_000)
