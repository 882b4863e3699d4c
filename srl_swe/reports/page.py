"""The frame of an HTML page that is complete in itself: no script, nothing fetched."""

from __future__ import annotations

from html import escape

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title><style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.55 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem }}
body {{ padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ border-bottom: 1px solid #8885; padding: .45rem .6rem; text-align: left }}
pre {{ background: #8881; margin: .3rem 0; max-height: 30rem; overflow: auto; padding: .6rem }}
{style}</style></head><body>
{body}</body></html>
"""


def page(title: str, body: str, style: str = "") -> str:
    """The whole page. ``title`` is escaped here; ``body`` (HTML) and ``style`` (CSS) go in as is.

    The policy in its head forbids scripts, images and every address, so what slips through
    an escape elsewhere still cannot run or call out.
    """
    return _PAGE.format(title=escape(title), body=body, style=style)
