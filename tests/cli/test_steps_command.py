from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk
from typer.testing import CliRunner, Result

from srl_swe.bundled import bundled
from srl_swe.cli.main import app
from srl_swe.errors import UserError
from srl_swe.steps import Pace
from srl_swe.steps.dataset import Part, Shard
from srl_swe.trajectories import ReadReport, load_trajectories, save_jsonl
from srl_swe.trajectories.jsonl import render_line
from srl_swe.types import Action, Observation, Step, Trajectory

from ..commands import invoke

STARTER = bundled("trajectories") / "starter.jsonl"


def run(*options: object, text: str | None = None) -> Result:
    result = invoke("steps", *options, text=text)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One token a byte, with a chat template of its own."""
    pytest.importorskip("transformers", reason="needs the extra `train`")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>")
    fast.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    folder = tmp_path_factory.mktemp("policy") / "tokenizer"
    fast.save_pretrained(folder)
    return folder


def test_examples_are_shown_without_writing_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = run("--show", "2").output
    assert shown.count("expert's reply: the target") == 2
    assert "starter__inikit-1, step 1 of 7" in shown
    assert list(tmp_path.iterdir()) == []


def test_what_a_record_holds_is_shown_to_the_letter(tmp_path: Path) -> None:
    steps = (Step("\x1b]0;mine\x07", Action("submit")), Step("t", Action("submit")))
    save_jsonl(tmp_path / "theirs.jsonl", [Trajectory("a[/red]b", steps, "issue")])
    shown = run("--show", "1", "--source", str(tmp_path / "theirs.jsonl")).output
    assert "a[/red]b, step 0 of 2" in shown
    assert "␛]0;mine" in shown
    assert "\x1b]" not in shown


def test_codes_of_emoji_in_a_record_stay_text(tmp_path: Path) -> None:
    steps = (Step("foo.py:100: a[:x:]", Action("submit")), Step("t", Action("submit")))
    save_jsonl(tmp_path / "theirs.jsonl", [Trajectory("a__b-1", steps, "issue")])
    shown = run("--show", "1", "--source", str(tmp_path / "theirs.jsonl")).output
    assert "foo.py:100: a[:x:]" in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--target", "solution"], "--target is for --domain math"),
        (["--unverified"], "--unverified is for --domain math"),
        (["--domain", "math", "--reader", "chat"], "--reader is for the domain software"),
        (["--domain", "math", "--dialect", "xml", "--pairs", "3"], "--pairs is for the domain"),
        (["--episodes", "2"], "--episodes is for --on-policy"),
        (["--brief"], "--brief is for --on-policy"),
    ],
)
def test_an_option_that_would_be_ignored_is_a_mistake(
    options: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        run(str(STARTER), "--out", str(tmp_path / "out"), *options)
    assert not (tmp_path / "out").exists()


def test_where_there_is_no_example_that_is_said(tmp_path: Path) -> None:
    save_jsonl(tmp_path / "none.jsonl", [Trajectory("a__b-1", (Step("t", Action("submit")),))])
    with pytest.raises(UserError, match="no step of it gives"):
        run("--show", "1", "--source", str(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match="8 held out for validation"):
        run("--out", str(tmp_path / "out"), "--validation", "1")


def test_a_name_that_no_data_set_can_have_is_a_mistake_before_anything_is_made(
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match="OWNER/NAME"):
        run("--out", str(tmp_path / "out"), "--push", "contexts")
    assert list(tmp_path.iterdir()) == []


def test_with_a_tokenizer_they_are_what_the_policy_reads(tokenizer: Path) -> None:
    shown = run("--show", "1", "--tokenizer", str(tokenizer)).output
    assert "[system] You fix bugs" in shown
    assert "<|end|>[assistant]" in shown
    assert "</function><|end|>" in shown, "the target ends as the template ends a reply"


def test_difficulty_is_known_by_its_old_names_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    helps = [
        CliRunner().invoke(app, [*words, "--help"]).output.partition("\n")[2]
        for words in (["difficulty"], ["profile"], ["steps", "profile"])
    ]
    assert "--policy" in helps[0]
    assert helps == [helps[0]] * 3
    asked = CliRunner().invoke(app, ["steps", "profile"])
    assert asked.exit_code == 2
    assert list(tmp_path.iterdir()) == [], "no data set in ./profile"


def test_a_folder_may_still_be_called_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run("--out", "./profile")
    assert load_from_disk("profile")


def test_neither_a_folder_nor_examples_is_a_mistake() -> None:
    for options in ((), ("--show", "1", "--push", "someone/contexts")):
        with pytest.raises(UserError, match="--out"):
            run(*options)


def test_the_tokens_are_those_of_the_policys_template(tmp_path: Path, tokenizer: Path) -> None:
    out = tmp_path / "steps"
    run("--out", str(out), "--tokenizer", str(tokenizer), "--pairs", "-1")
    from transformers import AutoTokenizer

    loaded: Any = AutoTokenizer.from_pretrained(tokenizer)
    for row in load_from_disk(str(out)):
        prompt = loaded.apply_chat_template(
            row["prompt"], add_generation_prompt=True, return_dict=False
        )
        whole = loaded.apply_chat_template(row["prompt"] + row["completion"], return_dict=False)
        assert row["prompt_tokens"] == len(prompt)
        assert row["completion_tokens"] == len(whole) - len(prompt)
    known = json.loads((out / "card.json").read_text())["config"]["tokenizer"]
    assert known["name"] == "tokenizer", "and not where it lies on this machine"


def test_a_budget_holds_and_says_what_it_took(tmp_path: Path, tokenizer: Path) -> None:
    options = ("--tokenizer", str(tokenizer), "--pairs", "-1", "--token-budget", "3000")
    run("--out", str(tmp_path / "steps"), *options)
    rows = load_from_disk(str(tmp_path / "steps"))
    assert max(rows["prompt_tokens"]) <= 3000
    cut = [row for row in rows if row["elided"]]
    assert cut
    assert all(
        "(old observation left out)" in str(row["prompt"]) or len(row["prompt"]) == 2 for row in cut
    )


def test_thoughts_are_kept_on_request(tmp_path: Path) -> None:
    run("--out", str(tmp_path / "steps"), "--thoughts", "keep")
    past = load_from_disk(str(tmp_path / "steps"))[1]["prompt"][2]["content"]
    assert past.startswith("<think>")


def test_another_dialect_by_name(tmp_path: Path) -> None:
    run("--out", str(tmp_path / "steps"), "--dialect", "bash_block")
    rows = load_from_disk(str(tmp_path / "steps"))
    assert all("```bash" in row["completion"][0]["content"] for row in rows)
    with pytest.raises(UserError, match="xml"):
        run("--out", str(tmp_path / "other"), "--dialect", "bsh_block")


def test_the_same_command_again_leaves_all_as_it_is(tmp_path: Path) -> None:
    run("--out", str(tmp_path / "steps"))
    assert "left as it is" in run("--out", str(tmp_path / "steps"), "--workers", "2").output
    with pytest.raises(UserError, match="seed: 0 -> 1"):
        run("--out", str(tmp_path / "steps"), "--seed", "1")


def test_a_misspelt_source_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"name a folder by --out"):
        run("teachr")
    with pytest.raises(UserError, match=r"teachr: no such file or folder of trajectories"):
        run("teachr", "--show", "1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("total", "line"),
    [
        (100, "steps 20/100: 2 trajectories, 7 examples (ETA 0:00:00)"),
        (None, "steps: 2 trajectories, 7 examples"),
        (5, "steps: 2 trajectories, 7 examples"),
    ],
)
def test_progress_shows_the_time_left_if_the_total_is_known(
    total: int | None, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = ReadReport()
    pace = Pace(report, total)
    for rows in (3, 4):
        report.records += 10
        pace(Shard(0, "", {"train": Part(rows, None, 1, {}, {}, {})}))
    assert capsys.readouterr().err.splitlines()[-1] == line


def instances(out: Path) -> set[str]:
    return set(load_from_disk(str(out))["instance_id"])


def line(instance_id: str, *, resolved: bool | None = True, model: str = "m") -> str:
    step = Step("t", Action("bash", {"command": "ls"}), Observation("x"))
    made = Trajectory(instance_id, (step, step), "Crash.", resolved=resolved, model=model)
    return render_line(made)


def test_steps_are_made_of_what_is_piped_in(tmp_path: Path) -> None:
    run(tmp_path / "out", "--source", "-", text=line("a") + line("b"))
    assert instances(tmp_path / "out") == {"a", "b"}


def test_a_folder_of_foreign_trajectories_needs_no_conversion(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "<pr_description>\nCrash.\n</pr_description>"},
        {"role": "assistant", "content": "Look.\n\n<function=bash>\n<parameter=command>ls"
         "</parameter>\n</function>"},
        {"role": "user", "content": "OBSERVATION:\nx.py"},
        {"role": "assistant", "content": "Done.\n\n<function=submit>\n</function>"},
    ]  # fmt: skip
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a__b-1.json").write_text(json.dumps({"messages": messages}))
    run(tmp_path / "out", "--source", str(tmp_path / "runs"))
    (example,) = load_from_disk(str(tmp_path / "out"))
    assert example["instance_id"] == "a__b-1"
    assert example["expert_action"] == (
        "<function=bash>\n<parameter=command>ls</parameter>\n</function>"
    )


def test_broken_records_are_fatal_or_counted(tmp_path: Path) -> None:
    text = line("a") + "broken\n" + line("b")
    with pytest.raises(UserError, match="stdin:2: not JSON"):
        run(tmp_path / "out", "--source", "-", text=text)
    result = run(tmp_path / "out", "--source", "-", "--skip-broken", text=text)
    assert "2 of 3 trajectories; dropped: 1 broken" in result.output
    assert "stdin:2: not JSON" in result.output
    assert "| records dropped | broken 1 |" in (tmp_path / "out" / "README.md").read_text()


def test_why_records_are_broken_is_said_even_if_none_is_left(tmp_path: Path) -> None:
    broken = "".join(f"{{broken {n}\n" for n in range(12))
    result = CliRunner().invoke(
        app, ["steps", str(tmp_path / "out"), "--source", "-", "--skip-broken"], input=broken
    )
    assert isinstance(result.exception, UserError)
    assert "12 broken" in str(result.exception)
    assert "stdin:1: not JSON" in result.output
    assert "and 2 more" in result.output


def chat_line(**row: object) -> str:
    call = {"id": "1", "function": {"name": "bash", "arguments": {"command": "ls"}}}
    messages = [
        {"role": "user", "content": "Crash."},
        {"role": "assistant", "content": "Look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "a.py"},
        {"role": "assistant", "content": "End.", "tool_calls": [{**call, "id": "2"}]},
    ]
    return json.dumps({"messages": messages, **row}) + "\n"


def test_an_evaluated_instance_is_left_out_whatever_column_names_it(tmp_path: Path) -> None:
    evaluated = load_trajectories(STARTER)[0].instance_id
    text = chat_line(trajectory_id=f"{evaluated}_run1") + chat_line(id="a__b-1_run2_0")
    result = run(tmp_path / "out", "--source", "-", "--not-in", "starter", text=text)
    assert "1 of an evaluated instance" in result.output
    assert instances(tmp_path / "out") == {"a__b-1"}


def test_runs_of_no_named_instance_are_refused_or_told_apart_by_hand(tmp_path: Path) -> None:
    options, text = ("--source", "-", "--not-in", "starter"), chat_line() + chat_line(id="a__b-1")
    with pytest.raises(UserError, match="1 of 2 records name no instance"):
        run(tmp_path / "out", *options, text=text)
    kept = run(tmp_path / "kept", *options, "--unnamed", "keep", text=text)
    assert "1 of 2 records name no instance, which --not-in needs." in kept.output
    dropped = run(tmp_path / "dropped", *options, "--unnamed", "drop", text=text)
    assert "1 of no named instance" in dropped.output
    run(tmp_path / "named", *options, "--instance", "c__d-2", text=text)
    assert instances(tmp_path / "named") == {"a__b-1", "c__d-2"}


def test_a_run_without_steps_is_counted_as_such(tmp_path: Path) -> None:
    text = line("a") + render_line(Trajectory("b", (), "Crash."))
    result = run(tmp_path / "out", "--source", "-", text=text)
    assert "1 of 2 trajectories; dropped: 1 without a step" in result.output
    assert "| records dropped | without a step 1 |" in (tmp_path / "out" / "README.md").read_text()


def test_the_papers_selection_is_asked_for_by_options(tmp_path: Path) -> None:
    bundled_id = load_trajectories(STARTER)[0].instance_id
    text = line("a") + line("a") + line("b", resolved=False) + line("c", model="other")
    text += line("d") + line(bundled_id)
    result = run(
        tmp_path / "out",
        *("--source", "-", "--resolved-only", "--model", "m", "--per-instance", "1"),
        *("--not-in", "starter"),
        text=text,
    )
    assert instances(tmp_path / "out") == {"a", "d"}
    for count in ("1 not resolved", "1 of another model", "1 more of one", "1 of an evaluated"):
        assert count in result.output


def test_whole_instances_are_held_out_for_validation(tmp_path: Path) -> None:
    text = "".join(line(f"a__b-{n}") for n in range(40))
    options = ("--source", "-", "--validation", "0.3", "--seed", "5")
    run(tmp_path / "out", *options, text=text)
    trained, held = instances(tmp_path / "out"), instances(tmp_path / "out-validation")
    assert held
    assert not trained & held
    assert len(trained | held) == 40


def test_a_part_in_another_order(tmp_path: Path) -> None:
    options = ("--filter", "instance=*1*", "--shuffle", "--slice", "1:", "--limit", "2")
    text = "".join(line(f"a__b-{n}") for n in range(15))
    run(tmp_path / "out", "--source", "-", *options, text=text)
    assert len(instances(tmp_path / "out")) == 2
    assert all("1" in name for name in instances(tmp_path / "out"))


@pytest.mark.parametrize("part", ["x", "3:1", "-1:", "1"])
def test_a_slice_that_is_none_is_a_mistake(tmp_path: Path, part: str) -> None:
    with pytest.raises(UserError, match="--slice"):
        run("--out", tmp_path / "out", f"--slice={part}")


def test_nothing_selected_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 not resolved"):
        run(tmp_path / "out", "--source", "-", "--resolved-only", text=line("a", resolved=False))


@pytest.mark.docker
def test_replay_takes_the_same_options(tmp_path: Path) -> None:
    first = load_trajectories(STARTER)[0]
    options = ["--filter", f"instance={first.instance_id}", "--limit", "1", "--until", "1"]
    result = invoke("replay", STARTER, *options)
    assert result.exit_code == 0, result.output
    assert result.output.count(first.instance_id) >= 1
