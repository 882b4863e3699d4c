from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from srl_swe.errors import UserError
from srl_swe.trajectories import save_jsonl
from srl_swe.view.collect import Sources, collect
from srl_swe.view.page import as_json, encode_chunk, encode_rows, link, write_page

from ..commands import invoke
from ..html_page import HOSTILE, HtmlPage
from .conftest import STARTER, make_episode_record


def blocks(html: str) -> dict[str, object]:
    found = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', html, re.S)
    return {name: json.loads(text) for name, text in found}


def test_the_policy_names_the_digests_of_the_script_and_the_style(stored_page: Path) -> None:
    html = stored_page.read_text("utf-8")
    (policy,) = re.findall(r'Security-Policy" content="([^"]+)"', html)
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"sha256-{digest}" in policy
    assert policy.startswith("default-src &#39;none&#39;")
    assert "unsafe" not in policy


def test_nothing_of_a_run_is_markup(hostile_page: Path) -> None:
    html = hostile_page.read_text("utf-8")
    tags = HtmlPage(html).tags
    assert tags.count("script") == 2 + len(blocks(html)) - 1
    assert not {"img", "iframe", "object", "embed"} & set(tags)
    assert HOSTILE not in re.sub(r"<title>.*?</title>", "", html)
    assert not re.search(r"\son\w+=", re.sub(r"<script.*?</script>", "", html, flags=re.S))


def test_a_repeated_text_is_written_once() -> None:
    long = "x" * 100
    text = encode_chunk([{"a": long, "b": [long, "short", "short"]}])
    assert text.count(long) == 1
    assert json.loads(text)["items"] == [{"a": {"$": 0}, "b": [{"$": 0}, "short", "short"]}]


def test_a_prompt_costs_no_second_copy_of_its_texts(stored_page: Path) -> None:
    html = stored_page.read_text("utf-8")
    assert html.count("You fix bugs in a repository at /testbed") <= 2


def test_rows_are_written_by_columns() -> None:
    found = json.loads(encode_rows([{"a": 1, "b": "x"}]))
    assert found == {"names": ["a", "b"], "values": [[1, "x"]]}
    assert json.loads(encode_rows([])) == {"names": [], "values": []}


def test_large_data_lies_beside_the_page_in_chunks(tmp_path: Path, sources: Sources) -> None:
    out = tmp_path / "page.html"
    written = write_page(collect([STARTER], sources), out, "t", inline_bytes=0)
    assert written.data == tmp_path / "page-data"
    assert [path.name for path in written.data.iterdir()] == ["chunk-0.js"]
    assert (written.data / "chunk-0.js").read_text().startswith("srlViewChunk(0, {")
    facts = blocks(out.read_text("utf-8"))["facts"]
    assert isinstance(facts, dict)
    assert (facts["chunks"], facts["data"]) == (1, "page-data")
    small = write_page(collect([STARTER], sources), out, "t")
    assert small.data is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html"]


def test_only_data_of_pages_is_replaced(tmp_path: Path, sources: Sources) -> None:
    mine = tmp_path / "page-data" / "mine.csv"
    mine.parent.mkdir()
    mine.write_text("1")
    write_page(collect([STARTER], sources), tmp_path / "page.html", "t")
    with pytest.raises(UserError, match=r"page-data is not of a page.*--out"):
        write_page(collect([STARTER], sources), tmp_path / "page.html", "t", inline_bytes=0)
    assert [path.read_text() for path in mine.parent.iterdir()] == ["1"]


def test_numbers_that_json_lacks_and_names_of_references_do_not_break_a_page(
    tmp_path: Path,
) -> None:
    enforced = {"limit": math.inf, "$": 0}
    save_jsonl(tmp_path / "rollouts.jsonl", [make_episode_record(enforced=enforced)])
    (item,) = collect([tmp_path])
    text = encode_chunk([as_json(replace(item, seconds=math.nan))])
    (found,) = json.loads(text, parse_constant=pytest.fail)["items"]
    assert found["enforced"] == {"limit": None, "$$": 0}
    assert found["seconds"] is None


def test_links_survive_any_key() -> None:
    assert link("run/a b&c=d#e") == "#key=run/a%20b%26c%3Dd%23e"


def test_the_command_writes_a_page(tmp_path: Path, stored: Path) -> None:
    out = tmp_path / "view.html"
    result = invoke("view", stored / "rollout", "--out", out)
    assert result.output == f"{out}: 1 item\n"
    told = invoke("view", stored / "rollout", "--out", out, "--json")
    assert json.loads(told.output) == {"path": str(out), "items": 1, "data": None}


def test_the_command_refuses_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing does not exist"):
        invoke("view", tmp_path / "missing")
