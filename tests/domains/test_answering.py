"""Problems in one reply: an endpoint and a local policy, verified, reported and continued."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from srl_swe.cli.main import app
from srl_swe.domains import MATH, domain_of_bench
from srl_swe.errors import UserError

from ..openai_server import OpenAiServer, refusal, reply
from .conftest import WriteRows

PROBLEMS = (
    {"problem": "Find $xy$.", "answer": "25"},
    {"question": "Halve one.", "gt": r"\frac{1}{2}", "solution": "So it is."},
    {"problem": "Where?", "solution": r"It is \boxed{\text{east}}.", "url": "x"},
)
RIGHT = (r"So $\boxed{25}$.", r"First \boxed{2}, then \boxed{0.5}", r"\boxed{East}")


@pytest.fixture(autouse=True)
def _needs_math_verify() -> None:
    pytest.importorskip("math_verify", reason="needs the extra `math`")


@pytest.fixture
def bench(write_rows: WriteRows) -> Path:
    return write_rows(*PROBLEMS, name="three.jsonl")


def evaluate(*words: object) -> dict[str, Any]:
    ended = CliRunner().invoke(app, ["eval", *map(str, words), "--json", "--workers", "1"])
    assert ended.exit_code in {0, 1}, ended.output
    fields: dict[str, Any] = json.loads(ended.stdout)
    return fields


def test_an_endpoint_is_evaluated_greedily_and_a_killed_run_continues(
    bench: Path, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "eval", "--attempts", "1", "--bench", bench)
    answers = (reply(RIGHT[0]), refusal(400, "no"), reply("I do not know."))
    with OpenAiServer(*answers, reply(RIGHT[1])).running() as server:
        first = evaluate(server.url, *out)
        assert first["infra_failure_ids"] == ["three-2"], "a failed endpoint is no wrong answer"
        assert first["resolved_rate"] is None
        second = evaluate(server.url, *out)
    assert second["resolved_ids"] == ["three-1", "three-2"]
    assert second["unresolved_ids"] == ["three-3"]
    assert second["failure_reasons"]["three-3"] == "no answer in the reply"
    assert second["grader"].startswith("math-verify ")
    system, user = server.bodies()[0]["messages"]
    assert system["content"] == (
        r"Please reason step by step, and put your final answer within \boxed{}."
    )
    assert user == {"role": "user", "content": "Find $xy$."}
    assert server.bodies()[0]["temperature"] == 0.0
    assert server.bodies()[0]["max_tokens"] == 4096
    config = json.loads((tmp_path / "eval/config.json").read_text())
    assert (config["domain"], config["setting"]) == ("math", "answer")
    assert config["answer_prompt"].startswith("math_answer@")
    page = (tmp_path / "eval/report.html").read_text()
    assert "<summary>answer</summary>" in page


def test_samples_give_avg_and_pass_at_k_with_intervals(bench: Path, tmp_path: Path) -> None:
    script = [*RIGHT, r"\boxed{26}", RIGHT[1], r"\boxed{west}"]
    words = ("--samples", 2, "--temperature", 0.6, "--best-of", "majority")
    replies = {text: reply(text) for text in script}
    with OpenAiServer(*(replies[text] for text in script)).running() as server:
        report = evaluate(server.url, "--bench", bench, "--out", tmp_path / "eval", *words)
    assert report["pass_at"]["1"]["rate"] == pytest.approx(4 / 6)
    assert report["pass_at"]["2"]["rate"] == pytest.approx(1.0)
    assert len(report["pass_at"]["1"]["rate_95"]) == 2
    assert {body["temperature"] for body in server.bodies()} == {0.6}
    kept = json.loads((tmp_path / "eval/sample-1/report.json").read_text())
    assert kept["resolved_ids"] == ["three-1", "three-2", "three-3"]


@pytest.mark.slow
def test_a_local_policy_is_evaluated_and_its_right_solutions_are_kept(
    bench: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="needs the extra `train`")
    from srl_swe.training.tiny_policy import make_tiny_policy

    policy = make_tiny_policy(["Find."], tmp_path / "policy", hidden=64, layers=1)
    kept = tmp_path / "kept.jsonl"
    words = ("--max-new-tokens", 4, "--keep-resolved", kept, "--filter", "instance=three-[12]")
    report = evaluate(policy, "--bench", bench, "--out", tmp_path / "eval", *words)
    assert report["unresolved_ids"] == ["three-1", "three-2"]
    assert report["stop_reasons"]["token_limit"] == 2
    assert kept.read_text() == ""


@pytest.mark.parametrize("name", ["amc23", "aime24", "aime25", "minerva"])
def test_the_four_benches_are_of_math_and_load_from_local_files(
    name: str, write_rows: WriteRows
) -> None:
    assert domain_of_bench(name) == "math"
    path = write_rows(*PROBLEMS, name=f"{name}.jsonl")
    assert domain_of_bench(str(path)) == "math"
    problems = MATH.load_problems(str(path))
    assert [problem.instance_id for problem in problems] == [f"{name}-{n}" for n in (1, 2, 3)]
    assert [getattr(p, "answer", "") for p in problems] == ["25", r"\frac{1}{2}", r"\text{east}"]


def test_a_bench_of_software_stays_one(write_rows: WriteRows) -> None:
    row = {"repo": "a/b", "problem_statement": "x", "instance_id": "a__b-1"}
    assert domain_of_bench(str(write_rows(row))) == "software"
    assert {domain_of_bench(name) for name in ("starter", "verfied", "hf:a/b")} == {"software"}


def test_a_misspelt_bench_of_math_is_refused_with_those_of_math() -> None:
    assert domain_of_bench("amie24") == "math"
    with pytest.raises(UserError, match="Did you mean 'aime24'"):
        MATH.load_problems("amie24")


def test_options_of_tests_are_refused_for_answers(bench: Path, tmp_path: Path) -> None:
    words = ["--bench", str(bench), "--out", str(tmp_path / "eval"), "--runner", "sandbox"]
    with (
        OpenAiServer().running() as server,
        pytest.raises(UserError, match="--verify-with is for the domain software"),
    ):
        words = ["eval", server.url, *words, "--verify-with", "swebench"]
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_problems_without_an_answer_are_left_out_and_counted(
    write_rows: WriteRows, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_rows(PROBLEMS[0], {"problem": "Prove it.", "solution": "A\nlong\nproof."})
    assert len(MATH.load_problems(str(path))) == 1
    assert "1 of 2 problems have no answer to verify" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--bench", "aime26", "--domain", "math"], "unknown bench 'aime26'. Did you mean 'aime2"),
        (["--bench", "aime24", "--setting", "gold"], "--setting and --trajectories are for the"),
        (["--bench", "aime24"], "name a POLICY"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], why: str, tmp_path: Path) -> None:

    with OpenAiServer().running() as server:
        command = [
            "eval",
            *([server.url] if "--domain" in words else []),
            *words,
            "--out",
            str(tmp_path / "o"),
        ]
        mistake = CliRunner().invoke(app, command).exception
    assert isinstance(mistake, UserError), mistake
    assert why in str(mistake)
