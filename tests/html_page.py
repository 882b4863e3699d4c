"""Reads the pages that reports write, for the tests of every page."""

from __future__ import annotations

from html.parser import HTMLParser

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
