from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from srl_swe.reports.page import TextTable, render_page

from ..html_page import HOSTILE, HtmlPage


def page(title: str, caveat: str = "") -> str:
    table = TextTable(("name", caveat), [(caveat, "1")])
    return render_page(
        "study.html", title=title, budget="", caveat=caveat, results=table, charts=[]
    )


def test_all_text_is_escaped() -> None:
    html = page("a < b", HOSTILE)
    assert "<title>a &lt; b</title>" in html
    assert "<script" not in html
    assert HtmlPage(html).text.count(HOSTILE) == 3


def test_halves_of_surrogate_pairs_are_replaced_and_bytes_kept() -> None:
    html = page("a \ud800 b \udce9")
    assert "a \ufffd b \udce9" in html
    html.encode("utf-8", "surrogateescape")


def test_scripts_and_addresses_are_forbidden() -> None:
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'\"" in page("t")


def test_the_stylesheet_is_in_the_page_as_it_is_written() -> None:
    assert ".results thead th + th { text-align: right }" in page("t")


def test_a_page_that_lacks_a_value_is_not_written() -> None:
    with pytest.raises(UndefinedError, match="results"):
        render_page("study.html", title="t", budget="", caveat="", charts=[])
