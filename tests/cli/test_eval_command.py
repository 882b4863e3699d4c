"""``srl-swe eval`` with a scripted server: samples, kills and reports."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srl_swe.dialects import get_dialect
from srl_swe.errors import UserError
from srl_swe.instances import load_instances
from srl_swe.types import Action, Instance

from ..commands import invoke
from ..openai_server import Answer, OpenAiServer, refusal, reply

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


class FaultyServer(OpenAiServer):
    """Gives each instance, known by its issue, the answers of its own script."""

    def __init__(self, scripts: dict[Instance, list[Answer]]) -> None:
        super().__init__()
        self._scripts = {
            instance.problem_statement.strip(): iter(script) for instance, script in scripts.items()
        }

    def answer(self, path: str, body: dict[str, Any]) -> Answer:
        if not path.endswith("completions"):
            return super().answer(path, body)
        self.requests.append((path, body))
        asked = body["messages"][1]["content"]
        (script,) = [script for issue, script in self._scripts.items() if issue in asked]
        return next(script)


def acts(command: str) -> Answer:
    return reply(get_dialect("xml").render_reply("next", Action("bash", {"command": command})))


@pytest.mark.docker
def test_a_server_with_every_fault_costs_no_instance_and_no_wrong_verdict(tmp_path: Path) -> None:
    faulty, full, refused, cut = load_instances("starter")[:4]
    fixes = {each: acts(f"git apply <<'END'\n{each.gold_patch}END") for each in (faulty, full)}
    fixes[refused] = acts(f"git apply <<'END'\n{refused.gold_patch}END")
    scripts = {
        faulty: [
            refusal(500, "out of memory", retry_after="0.1"),
            refusal(429, "slow down", retry_after="0.1"),
            fixes[faulty],
            replace(SUBMIT, is_cut=True),
            replace(SUBMIT, after_s=1.5),  # later than --reply-timeout
            SUBMIT,
        ],
        full: [fixes[full], refusal(400, "too long", code="context_length_exceeded")],
        refused: [acts("ls"), refusal(403, "not now"), fixes[refused], SUBMIT],
        cut: [reply("I would look at", finish="length")] * 3,
    }
    command = ("--limit", "4", "--workers", "4", "--runner", "sandbox", "--reply-timeout", "1")
    with FaultyServer(scripts).running() as server:
        assert invoke("eval", server.url, *command, "--out", tmp_path).exit_code == 1
        first = report_of(tmp_path)
        assert invoke("eval", server.url, *command, "--out", tmp_path).exit_code == 0
        second = report_of(tmp_path)
    assert first["infra_failure_ids"] == [refused.instance_id]
    assert first["resolved_rate"] is None, "one of four is too many for a rate"
    assert first["resolved_ids"] == sorted([faulty.instance_id, full.instance_id])
    assert second["resolved_ids"] == sorted(each.instance_id for each in fixes)
    assert second["empty_patch_ids"] == [cut.instance_id]
    assert (second["resolved_rate"], second["infra_failure_ids"]) == (0.75, [])
    ended = Counter(
        json.loads(line)["stop_reason"] for line in (tmp_path / "rollouts.jsonl").open()
    )
    assert ended == Counter(submitted=2, token_limit=1, format_errors=1, policy_error=1)
    replies = [json.loads(line) for line in (tmp_path / "replies.jsonl").open()]
    assert Counter(row["truncated"] for row in replies) == {False: 6, True: 3}
    assert len(server.bodies()) == sum(map(len, scripts.values())), "none is asked for again"


@pytest.mark.train
def test_a_local_policy_is_evaluated_and_the_size_of_its_batches_decides_nothing(
    tmp_path: Path,
) -> None:
    pytest.importorskip("torch", reason="needs the extra `train`")
    from srl_swe.training.tiny_policy import make_tiny_policy

    texts = [instance.problem_statement for instance in load_instances("starter")]
    policy = make_tiny_policy(texts, tmp_path / "policy", vocab_size=800, hidden=64, layers=1)
    options = ("--sandbox", "local", "--trust-commands", "--max-new-tokens", "12")
    runs = {}
    for name, size in {"together": ("--workers", "4"), "alone": ("--batch-size", "1")}.items():
        command = ("eval", policy, *options, *size, "--temperature", "1", "--seed", "5")
        assert "resolved 0 of 10" in invoke(*command, "--out", tmp_path / name).stdout
        lines = (tmp_path / name / "rollouts.jsonl").read_text().splitlines()
        runs[name] = {
            row["instance_id"]: (row["stop_reason"], [step["thought"] for step in row["steps"]])
            for row in map(json.loads, lines)
        }
        replies = (tmp_path / name / "replies.jsonl").read_text().splitlines()
        assert len(replies) == 3 * len(runs[name]) == 30, "its weights are random"
    assert runs["together"] == runs["alone"]
    configs = [(tmp_path / name / "config.json").read_text() for name in runs]
    assert configs[0] == configs[1]
