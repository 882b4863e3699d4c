"""The public API: lazy, typed, and from data to a graded policy in ten lines."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import srl_swe
from srl_swe.engines import SandboxSettings
from srl_swe.errors import UserError

from .openai_server import OpenAiServer, reply

TEN_LINES = re.search(
    r"^```python\n(import srl_swe as srl\n.*?)^```",
    (Path(__file__).parents[1] / "README.md").read_text("utf-8"),
    re.MULTILINE | re.DOTALL,
)


def python(code: str, folder: Path | None = None) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_import_is_fast_and_loads_nothing() -> None:
    code = (
        "import sys, time; began = time.process_time(); import srl_swe\n"
        "took = time.process_time() - began\n"
        "print(sorted(m for m in sys.modules if m.startswith(('srl_swe.', 'torch', 'rich'))), took)"
    )
    times = []
    for _ in range(3):
        loaded, took = python(code).rsplit(" ", 1)
        assert loaded == "[]"
        times.append(float(took))
    assert min(times) < 0.05


def test_every_public_name_is_listed_and_there() -> None:
    assert {*srl_swe.__all__} < {*dir(srl_swe)}
    assert all(getattr(srl_swe, name) is not None for name in srl_swe.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'grad'"):
        srl_swe.grad  # type: ignore[attr-defined]  # noqa: B018


def test_starter_names_the_bundled_data() -> None:
    assert len(srl_swe.load_trajectories("starter")) == 8
    assert len(srl_swe.load_instances("starter", limit=3)) == 3


def test_steps_are_kept_and_those_of_other_trajectories_refused(tmp_path: Path) -> None:
    trajectories = srl_swe.load_trajectories("starter")
    assert srl_swe.make_steps(trajectories, out=tmp_path / "steps") == tmp_path / "steps"
    made = (tmp_path / "steps/card.json").stat().st_mtime_ns
    srl_swe.make_steps(trajectories, out=tmp_path / "steps")
    assert (tmp_path / "steps/card.json").stat().st_mtime_ns == made
    with pytest.raises(UserError, match="another config"):
        srl_swe.make_steps(trajectories[:2], out=tmp_path / "steps")


@pytest.mark.usefixtures("train_extra")
@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda: srl_swe.train("srl-dmo", model="a", output="b"), "Did you mean 'srl-demo'"),
        (lambda: srl_swe.train("srl-demo", model="a", output="b"), "data"),
        (
            lambda: srl_swe.train("srl-demo", model="a", data="c", output="b", rewards="x:y"),
            "no module 'x'",
        ),
        (lambda: srl_swe.run_rollouts("nowhere/", []), "nowhere"),
    ],
)
def test_a_mistake_is_one_sentence(call: Callable[[], object], why: str) -> None:
    with pytest.raises(UserError) as mistake:
        call()
    assert why in str(mistake.value)
    assert "\n" not in str(mistake.value)


def test_an_evaluation_is_one_call_and_a_second_call_asks_the_policy_nothing(
    tmp_path: Path,
) -> None:
    submit = reply("<think>\nDone.\n</think>\n\n<function=submit>\n</function>")
    settings = srl_swe.EvalSettings(sandboxes=SandboxSettings("local"))
    instances = srl_swe.load_instances("starter", limit=2)
    with OpenAiServer(submit, submit).running() as server:
        for _ in range(2):
            report = srl_swe.evaluate(server.url, instances, tmp_path / "eval", settings)
            assert "resolved 0 of 2" in str(report)
    assert len(server.bodies()) == 2
    assert (tmp_path / "eval/report.html").is_file()


@pytest.mark.train
@pytest.mark.docker
def test_ten_lines_lead_from_data_to_a_graded_policy(tmp_path: Path) -> None:
    """As README has them, with two instances and two updates of a tiny policy."""
    assert TEN_LINES is not None
    short = TEN_LINES[1]
    for old, new in (
        ('load_instances("starter")', 'load_instances("starter", limit=2)'),
        ('output="run")', 'output="run", max_steps=2, save_steps=1)'),
    ):
        assert old in short
        short = short.replace(old, new)
    policy = (
        "from pathlib import Path; from srl_swe.training.tiny_policy import make_tiny_policy\n"
        "import srl_swe as srl\n"
        "texts = [step.action.text for t in srl.load_trajectories() for step in t.steps]\n"
        "make_tiny_policy(texts, Path('policy'), hidden=64, layers=1, max_positions=8192)\n"
    )
    printed = python(policy + short, tmp_path)
    assert "resolved 0 of 2" in printed
    assert (tmp_path / "runs/grade/report.html").is_file()
    assert (tmp_path / "run/final/config.json").is_file()
