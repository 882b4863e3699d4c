"""``srl-swe eval`` with a scripted server: samples, kills and reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from srl_swe.errors import UserError

from ..commands import invoke
from ..openai_server import OpenAiServer, reply

SUBMIT = reply("<think>\nDone.\n</think>\n\n<function=submit>\n</function>")
TWO = ("--limit", "2", "--sandbox", "local", "--trust-commands")
SAMPLED = ("--samples", "2", "--temperature", "0.8", "--seed", "7")


def report_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def test_each_sample_has_a_folder_and_a_seed(tmp_path: Path) -> None:
    with OpenAiServer(*[SUBMIT] * 4).running() as server:
        command = ("eval", server.url, *TWO, *SAMPLED, "--best-of", "majority", "--out", tmp_path)
        first = invoke(*command)
        again = invoke(*command, "--json")
    assert "pass@1 = 0.0 %" in (tmp_path / "report.html").read_text()
    assert "best of 2 by majority" in first.stdout
    seeds = {body["seed"] for body in server.bodies()}
    assert (len(server.bodies()), len(seeds)) == (4, 4), "two prompts, two seeds; none asked again"
    for number in (1, 2):
        folder = tmp_path / f"sample-{number}"
        config = json.loads((folder / "config.json").read_text())
        assert config["seed"] == 6 + number
        assert report_of(folder)["empty_patch_instances"] == 2
    fields = json.loads(again.stdout)
    assert fields == report_of(tmp_path)
    assert (fields["samples"], fields["pass_at"]["2"]["instances"]) == (2, 2)
    best = [json.loads(line) for line in (tmp_path / "best.jsonl").read_text().splitlines()]
    assert [row["model_name_or_path"] for row in best] == ["m", "m"]


def test_more_samples_are_added_to_those_there_and_a_single_one_is_another_run(
    tmp_path: Path,
) -> None:
    with OpenAiServer(*[SUBMIT] * 6).running() as server:
        command = ("rollout", server.url, *TWO, "--temperature", "1", "--out", tmp_path)
        invoke(*command, "--samples", "2")
        listed = invoke(*command, "--samples", "3").stdout.split()
        assert [Path(path).parent.name for path in listed] == ["sample-1", "sample-2", "sample-3"]
        with pytest.raises(UserError, match="samples"):
            invoke(*command)
    assert len(server.bodies()) == 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--samples", "3"), "3 samples at temperature 0 are equal"),
        (("--best-of", "tests"), "--samples"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    with OpenAiServer().running() as server, pytest.raises(UserError) as raised:
        invoke("eval", server.url, *TWO, *options, "--out", tmp_path / "out")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()
