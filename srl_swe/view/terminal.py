"""The viewer in a terminal: the list of items with search, and each item step by step.

All text of runs is shown as text, without markup and with its control characters made visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Input, OptionList, Static
from textual.widgets.option_list import Option

from srl_swe.reports.page import counted, cut_long
from srl_swe.view.records import Episode, Item, Row, SampleView, StepView, Target, make_row

_COLUMNS = ("instance", "outcome", "ended by", "steps", "score", "run")
_STYLES = {0: "bold red", 1: "yellow", 2: "", 3: "green"}
"""Styles of outcomes by :attr:`Row.rank`; the words alone have all the meaning."""
_SHOWN_CHARS = 20_000


def plain(text: str) -> str:
    """The text for a terminal: control characters visible, a long text cut in its middle."""
    return cut_long(text, _SHOWN_CHARS)


class Browser(App[None]):
    """Shows items, failures first; all are held in memory."""

    TITLE = "srl-swe view"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #search { dock: top }
    #count { height: 1; padding: 0 1 }
    DataTable { height: 1fr }
    #parts { height: 100%; max-height: 100%; min-width: 20; width: 34% }
    #parts { text-overflow: ellipsis; text-wrap: nowrap }
    ItemScreen { layout: horizontal }
    #text { padding: 0 1 }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("q", "quit", "Quit")]

    def __init__(self, items: Iterable[Item]) -> None:
        super().__init__()
        self._items = {item.key: item for item in items}

    def on_mount(self) -> None:
        """Begin with the list."""
        self.push_screen(ListScreen(self._items))


class ListScreen(Screen[None]):
    """The list, with a search for all words that are typed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "go('#search')", "Search"),
        Binding("f", "failures", "Failures only"),
        Binding("j", "table('cursor_down')", "Next", show=False),
        Binding("k", "table('cursor_up')", "Previous", show=False),
        Binding("escape", "go('#list')", "Back to the list", show=False),
    ]

    def __init__(self, items: Mapping[str, Item]) -> None:
        super().__init__()
        self._items, self._failures = items, False
        self._rows = sorted(map(make_row, items.values()), key=lambda row: row.rank)
        self._chosen: list[Row] = []

    def compose(self) -> ComposeResult:
        """Search, count, table and keys."""
        yield Input(placeholder="search: id, model, issue, tool, outcome, run", id="search")
        yield Static(id="count", markup=False)
        yield DataTable[Text](id="list", cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        """Fill the table."""
        self._table.add_columns(*_COLUMNS)
        self._choose("")
        self._table.focus()

    @property
    def _table(self) -> DataTable[Text]:
        return self.query_one(DataTable)

    def _choose(self, search: str) -> None:
        words = search.lower().split()
        self._chosen = [
            row
            for row in self._rows
            if (not self._failures or row.rank == 0) and all(word in _words(row) for word in words)
        ]
        self._table.clear()
        for row in self._chosen:
            self._table.add_row(*_cells(row))
        shown = "" if len(self._chosen) == len(self._rows) else f"{len(self._chosen)} of "
        empty = "" if self._chosen else ": none fits the search"
        count = counted(len(self._rows), "item")
        self.query_one("#count", Static).update(f"{shown}{count}{empty}")

    def on_input_changed(self, event: Input.Changed) -> None:
        """Search with each letter."""
        self._choose(event.value)

    def on_input_submitted(self) -> None:
        """Return to the table."""
        self._table.focus()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Open the row; its neighbours are those of the list."""
        items = [self._items[row.key] for row in self._chosen]
        self.app.push_screen(ItemScreen(items, event.cursor_row))

    def action_go(self, to: str) -> None:
        """Move to the search or to the table."""
        self.query_one(to).focus()

    def action_table(self, name: str) -> None:
        """Move in the table."""
        getattr(self._table, f"action_{name}")()

    def action_failures(self) -> None:
        """Show failures only, or all again."""
        self._failures = not self._failures
        self._choose(self.query_one(Input).value)


class ItemScreen(Screen[None]):
    """An item: its parts on the left, the chosen one on the right."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "part(1)", "Next step"),
        Binding("k", "part(-1)", "Previous step"),
        Binding("right", "item(1)", "Next item", priority=True),
        Binding("left", "item(-1)", "Previous item", priority=True),
        Binding("escape", "app.pop_screen", "List"),
    ]

    def __init__(self, items: Sequence[Item], at: int) -> None:
        super().__init__()
        self._items, self._at = items, at
        self._parts: list[tuple[str, Text]] = []

    def compose(self) -> ComposeResult:
        """Parts, text and keys."""
        yield OptionList(id="parts", markup=False)
        with VerticalScroll():
            yield Static(id="text", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        """Show the item."""
        self._show()

    def _show(self) -> None:
        item = self._items[self._at]
        self._parts = episode_parts(item) if isinstance(item, Episode) else target_parts(item)
        parts = self.query_one(OptionList)
        parts.clear_options()
        parts.add_options([Option(Text(title)) for title, _ in self._parts])
        parts.highlighted = 0
        parts.focus()

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Show the part from its top."""
        self.query_one("#text", Static).update(self._parts[event.option_index][1])
        self.query_one(VerticalScroll).scroll_home(animate=False)

    def action_part(self, by: int) -> None:
        """Move to another part."""
        parts = self.query_one(OptionList)
        at = (parts.highlighted or 0) + by
        parts.highlighted = max(0, min(len(self._parts) - 1, at))

    def action_item(self, by: int) -> None:
        """Move to another item of the list."""
        at = self._at + by
        if 0 <= at < len(self._items):
            self._at = at
            self._show()


def _words(row: Row) -> str:
    held = (row.instance_id, row.title, row.model, row.run, row.outcome, row.stop, *row.tools)
    return "\n".join(held).replace("_", " ").lower() + "\n" + "\n".join(held).lower()


def _cells(row: Row) -> list[Text]:
    marked = " (marked)" if row.marked else ""
    score = "" if row.score is None else f"{row.score:.3f}"
    stop = row.stop.replace("_", " ")
    texts = (
        row.instance_id + marked,
        row.outcome,
        stop,
        str(row.steps) if row.kind == "episode" else "",
        score,
        row.run,
    )
    cells = [Text(plain(text.replace("\n", " "))) for text in texts]
    cells[1] = Text(plain(row.outcome.replace("_", " ")), style=_STYLES[row.rank])
    return cells


# The texts of an item, each with a short title.


def episode_parts(episode: Episode) -> list[tuple[str, Text]]:
    """Overview, issue, each step, patches and tests of an episode; absent ones are left out."""
    overview = _text(
        (episode.instance_id, f"{episode.model or 'unknown model'}; {episode.run}"),
        *episode.glance,
        ("Marked as suspicious", "\n".join(episode.marks)),
        ("Notes", "\n".join(episode.notes)),
    )
    parts = [("Overview", overview), ("Issue", _text(("Issue", episode.issue or "not recorded")))]
    parts += [(_step_title(step), _step_text(step)) for step in episode.steps]
    parts.append(("Patch", _text(("Patch", episode.patch or "no patch"))))
    if episode.gold_patch:
        parts.append(("Gold patch", _text(("Gold patch", episode.gold_patch))))
    if tests := episode.tests:
        verdict = _text(
            ("Outcome", " ".join((tests.outcome.replace("_", " "), tests.detail))),
            (f"{counted(len(tests.failed), 'failing test')}", "\n".join(tests.failed) or "none"),
            ("Log", episode.test_log or f"not at hand: {tests.log_path or 'not recorded'}"),
        )
        parts.append(("Tests", verdict))
    return parts


def target_parts(target: Target) -> list[tuple[str, Text]]:
    """The expert's action, the prompt, and each sampled reply."""
    place = f"{target.place}; {target.run}"
    expert = _text((target.instance_id, place), ("The expert's action", target.expert_action))
    parts = [("Expert", expert)]
    if target.prompt:
        messages = [(message["role"], message["content"]) for message in target.prompt]
        parts.append(("Prompt", _text(*messages)))
    return [*parts, *((_sample_title(each), _sample_text(each)) for each in target.samples)]


def _step_title(step: StepView) -> str:
    words = " ".join(plain(" ".join(step.arguments.values())).split())
    return f"{step.index} {plain(step.tool) or 'no action'} {words[:60]}"


def _step_text(step: StepView) -> Text:
    parts: list[tuple[str, str]] = [("Thought", step.thought), ("Action", step.action or "none")]
    if step.edit:
        parts.append((f"Change of {step.edit.path}", step.edit.diff))
    if seen := step.seen:
        code = "" if seen.exit_code is None else f", exit code {seen.exit_code}"
        parts.append((f"Observation{code}", seen.text or "empty"))
    if pairing := step.pairing:
        of = f"2M/T = 2*{pairing.matched}/{pairing.total} = {pairing.similarity:.3f}"
        parts.append((f"The expert's action; {of}", "".join(text for text, _ in pairing.expert)))
    if replay := step.replay:
        fresh = replay.fresh.text if replay.fresh else "not executed"
        cause = f", {replay.cause}" if replay.cause else ""
        parts.append((f"Replay: {replay.match}{cause}", fresh))
    return _text((f"Step {step.index}", step.tool or "no action"), *parts)


def _sample_title(sample: SampleView) -> str:
    rewards = ", ".join("–" if v is None else f"{v:.2f}" for v in sample.rewards.values())
    return f"Reply {sample.number}: {rewards}"


def _sample_text(sample: SampleView) -> Text:
    advantage = "none" if sample.advantage is None else f"{sample.advantage:+.2f}"
    group = "kept" if sample.kept else "dropped"
    lines = (
        f"format: {sample.format}\nadvantage: {advantage}\ngroup: {group}\ntokens: {sample.tokens}"
    )
    return _text((_sample_title(sample), lines), ("Reply", sample.text))


def _text(*parts: tuple[str, str]) -> Text:
    """Headings, each with its text; those without a text are left out."""
    text = Text()
    for heading, body in parts:
        if body:
            text.append(f"{plain(heading)}\n", style="bold")
            text.append(f"{plain(body)}\n\n")
    return text
