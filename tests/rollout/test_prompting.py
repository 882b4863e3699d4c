from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from srl_swe.dialects import bash_block, xml
from srl_swe.errors import UserError
from srl_swe.rollout.agents import AgentSettings, agent_settings
from srl_swe.rollout.prompting import (
    FILE,
    Prompting,
    differences,
    dump_prompting,
    load_prompting,
    prompt_version,
    version_of_text,
)
from srl_swe.steps.prompt import PAPER_WINDOW, Window

TRAINED = Prompting(
    "xml",
    "strict",
    Window(pairs=None, observation_chars=500, token_budget=900, thoughts=True),
    version_of_text(xml.SYSTEM_PROMPT),
    {"enable_thinking": True},
)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """No model that could be loaded, which is not needed to find out how it is prompted."""
    folder = tmp_path / "srl" / "final"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def settings(policy: Path, **options: object) -> AgentSettings:
    return agent_settings(  # type: ignore[call-overload, no-any-return]
        str(policy), max_steps=4, max_new_tokens=8, temperature=0.0, **options
    )


@pytest.mark.parametrize(
    "prompting", [TRAINED, Prompting("bash_block", "lenient"), replace(TRAINED, window=None)]
)
def test_it_is_read_back_as_it_was_written(policy: Path, prompting: Prompting) -> None:
    assert load_prompting(str(policy)) is None
    (policy / FILE).write_text(dump_prompting(prompting))
    assert load_prompting(str(policy)) == prompting


@pytest.mark.parametrize("text", ["", "{", "[]", '{"dialect": 1}', '{"dialect": "xml"}'])
def test_a_damaged_file_is_one_sentence(policy: Path, text: str) -> None:
    (policy / FILE).write_text(text)
    with pytest.raises(UserError) as caught:
        load_prompting(str(policy))
    assert str(policy / FILE) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_system_prompt_is_known_by_its_file_and_content() -> None:
    assert version_of_text(xml.SYSTEM_PROMPT).startswith("xml_system@")
    assert version_of_text(bash_block.SOLUTION_PROMPT).startswith("bash_block_solution@")
    assert version_of_text(xml.SYSTEM_PROMPT + " ").startswith("other@")
    assert prompt_version([{"role": "user", "content": "issue"}]) == prompt_version([]) == "none"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"window": None}, ""),
        ({"system_prompt": None}, ""),
        ({"dialect": "bash_block"}, "dialect xml in training, bash_block here"),
        ({"strictness": "lenient"}, "strictness strict in training, lenient here"),
        ({"template": {}}, 'template {"enable_thinking": true} in training, {} here'),
        ({"window": replace(TRAINED.window or PAPER_WINDOW, pairs=2)}, "pairs all in training, 2"),
        (
            {"window": Window(None, 600, 900, thoughts=False)},
            "observation_chars 500 in training, 600 here; thoughts true in training, false here",
        ),
    ],
)
def test_what_differs_is_named_with_both_values(change: dict[str, object], said: str) -> None:
    found = differences(TRAINED, replace(TRAINED, **change))  # type: ignore[arg-type]
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_a_policy_is_prompted_as_it_was_trained(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (policy / FILE).write_text(dump_prompting(TRAINED))
    assert settings(policy).prompting == TRAINED
    assert settings(policy, pairs=-1, thoughts="keep", dialect="xml").prompting == TRAINED
    assert capsys.readouterr().err == ""


def test_options_that_differ_from_training_are_warned_of(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (policy / FILE).write_text(dump_prompting(TRAINED))
    used = settings(policy, pairs=2, strictness="lenient").prompting
    assert used.window == Window(2, 500, 900, thoughts=True)
    assert used.strictness == "lenient"
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"warning: {policy} is not prompted as it was trained: strictness strict in training, "
        "lenient here; pairs all in training, 2 here"
    ]


def test_a_policy_trained_on_another_system_prompt_is_warned_of(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = replace(TRAINED, system_prompt=version_of_text(xml.SOLUTION_PROMPT))
    (policy / FILE).write_text(dump_prompting(whole))
    settings(policy)
    assert "system_prompt xml_solution@" in capsys.readouterr().err


def test_a_policy_that_carries_nothing_is_prompted_as_the_paper_has_it(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    used = settings(policy).prompting
    assert (used.dialect, used.strictness, used.window) == ("xml", "lenient", PAPER_WINDOW)
    assert settings(policy, dialect="bash_block").prompting.dialect == "bash_block"
    assert capsys.readouterr().err == ""


def test_the_settings_of_a_run_hold_weights_and_prompting(policy: Path) -> None:
    held = settings(policy)
    (policy / "model.safetensors").write_bytes(b"other weights")
    assert settings(policy).weights != held.weights
    json.dumps(held.prompting.template)


def test_an_unknown_dialect_is_refused_before_the_policy_is_looked_at(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown dialect 'xlm'"):
        settings(tmp_path / "nowhere", dialect="xlm")
