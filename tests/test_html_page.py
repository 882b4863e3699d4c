from srl_swe.reports.page import page


def test_a_title_is_escaped_and_body_and_style_are_not() -> None:
    html = page("a < b", "<p>{body}</p>", "p { color: red }")
    assert "<title>a &lt; b</title>" in html
    assert "<body>\n<p>{body}</p></body>" in html
    assert "p { color: red }</style>" in html


def test_scripts_and_addresses_are_forbidden() -> None:
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'\"" in page("t", "")
