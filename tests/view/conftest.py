from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from srl_swe.instances import load_instances
from srl_swe.trajectories.jsonl import load_jsonl, save_jsonl
from srl_swe.types import Action, Observation, Outcome, Step, StopReason, Trajectory, Verdict
from srl_swe.view.collect import Sources, collect
from srl_swe.view.page import write_page

from ..html_page import HOSTILE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
STARTER = ROOT / "trajectories" / "starter.jsonl"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
AXE = ROOT / ".cache" / "axe-core" / "axe.min.js"

ATTACKS = (
    HOSTILE,
    "<img src=x onerror='window.attacked = 1'>",
    "<a href='javascript:window.attacked = 1'>here</a>",
    "</script><script>window.attacked = 1</script>",
    "\x1b]8;;https://example.com\x07a link\x1b]8;;\x07",
    "<style>body { display: none }</style>",
    "\u202egnp.exe",
)
"""Texts that a page must show, not obey."""


@pytest.fixture(scope="session")
def stored() -> Path:
    """What version 0.1.0 wrote: a run of each kind, with a data set and samples of training."""
    return ROOT / "tests" / "house" / "stored_0_1"


@pytest.fixture(scope="session")
def sources() -> Sources:
    experts = {trajectory.instance_id: trajectory for trajectory in load_jsonl(STARTER)}
    return Sources({i.instance_id: i for i in load_instances("starter")}, experts)


def make_episode_record(
    name: str = "starter__lrucache-1", texts: Sequence[str] = ("out",), **fields: object
) -> Trajectory:
    steps = [
        Step(f"I think: {text}", Action("bash", {"command": f"echo {n}"}), Observation(text, 0))
        for n, text in enumerate(texts)
    ]
    values = {"problem_statement": "An issue", "stop_reason": StopReason.SUBMITTED, **fields}
    return Trajectory(name, tuple(steps), **values)  # type: ignore[arg-type]


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of rollouts, with the verdicts of ``srl-swe eval`` and their log."""

    def make(
        rollouts: Sequence[Trajectory], verdicts: Sequence[Verdict] = (), **report: object
    ) -> Path:
        folder = tmp_path / "run"
        save_jsonl(folder / "rollouts.jsonl", rollouts)
        lines = [json.dumps({"key": "k", **asdict(verdict)}) for verdict in verdicts]
        (folder / "verdicts.jsonl").write_text("".join(f"{line}\n" for line in lines))
        ids: dict[str, list[str]] = {}
        for verdict in verdicts:
            ids.setdefault(f"{verdict.outcome.value}_ids", []).append(verdict.instance_id)
        (folder / "report.json").write_text(json.dumps({**ids, **report}))
        (folder / "tests.log").write_text("1 failed, 2 passed")
        return folder

    return make


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An episode per attack, each with the attack in every field that a policy can write."""
    folder = tmp_path_factory.mktemp("hostile")
    rollouts = []
    for number, attack in enumerate(ATTACKS):
        step = Step(
            attack, Action("bash", {"command": attack, attack: attack}), Observation(attack, 1)
        )
        rollouts.append(
            Trajectory(
                f"starter__attack-{number}",
                (step, Step(attack, None, Observation(attack), executed=False)),
                problem_statement=attack,
                stop_reason=StopReason.SUBMITTED,
                patch=f"diff --git a/{attack} b/{attack}\n+{attack}\n",
                model=attack,
                notes=(attack,),
                exit_status=attack,
            )
        )
    save_jsonl(folder / "rollouts.jsonl", rollouts)
    verdicts = [
        Verdict(t.instance_id, Outcome.UNRESOLVED, (attack,), (attack,), None, attack)
        for t, attack in zip(rollouts, ATTACKS, strict=True)
    ]
    result = {"verdicts": [asdict(verdict) for verdict in verdicts]}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


# A real browser, for tests marked `browser`.


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's chromium; `make browser` installs it."""
    api = pytest.importorskip("playwright.sync_api", reason="needs the extra `dev`: playwright")
    path = next((found for name in CHROMIUMS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no chromium here; `make browser` installs it on Debian")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """A page on disk in the browser; ``problems`` are its errors and refusals."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page, self.path = page, path
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda message: self.problems.append(message.text))
        page.on("request", self._note)
        self.asked: list[str] = []

    def _note(self, request: object) -> None:
        self.asked.append(request.url)  # type: ignore[attr-defined]

    def go(self, fragment: str = "") -> Page:
        self.page.goto(f"file://{self.path}{fragment}")
        self.page.wait_for_selector("main tbody tr:not(.spacer), main h1")
        return self.page


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Opened]]:
    contexts = []

    def open_(path: Path, width: int = 1280, height: int = 900, dark: bool = False) -> Opened:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
        )
        context.set_default_timeout(5000)
        contexts.append(context)
        return Opened(context.new_page(), path)

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def stored_page(tmp_path_factory: pytest.TempPathFactory, stored: Path, sources: Sources) -> Path:
    """A page of all that version 0.1.0 wrote, and of the bundled experts."""
    out = tmp_path_factory.mktemp("pages") / "view.html"
    write_page(collect([stored, STARTER], sources), out, "stored")
    return out


@pytest.fixture(scope="session")
def hostile_page(
    tmp_path_factory: pytest.TempPathFactory, hostile_run: Path, sources: Sources
) -> Path:
    out = tmp_path_factory.mktemp("pages") / "hostile.html"
    write_page(collect([hostile_run], sources), out, HOSTILE)
    return out
