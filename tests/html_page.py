"""Reads the pages that reports write, for the tests of every page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs

HOSTILE = "<script>alert('\"x\"')</script>&[bold]"
_VOID = {"meta", "link", "br", "hr", "img", "input"}


class HtmlPage(HTMLParser):
    """The text, tags and attributes of a page; fails if a tag is left open or closed twice."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.opened = "", list[str]()
        self.tags, self.attributes = list[str](), list[tuple[str, str]]()
        self.feed(html)
        self.close()
        assert self.opened == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in _VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def dead_links(page: Path) -> list[str]:
    """The addresses of a page without a file, a place in it, or an item of a viewer."""
    hrefs = [value for name, value in HtmlPage(page.read_text()).attributes if name == "href"]
    return [href for href in hrefs if not _leads_somewhere(page, href)]


def _leads_somewhere(page: Path, href: str) -> bool:
    path, _, place = href.partition("#")
    target = page.parent / path if path else page
    if not target.is_file():
        return False
    html, asked = target.read_text(), parse_qs(place)
    if not asked:
        return not place or f'id="{place}"' in html
    rows = re.search(r'<script type="application/json" id="rows">(.*?)</script>', html, re.DOTALL)
    assert rows is not None
    names, values = json.loads(rows[1]).values()
    items = [dict(zip(names, row, strict=True)) for row in values]
    return any(all(item[name] in wanted for name, wanted in asked.items()) for item in items)
