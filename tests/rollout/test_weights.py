from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from srl_swe.errors import UserError
from srl_swe.rollout.weights import check_folder, find_weights, fingerprint

pytestmark = pytest.mark.slow


def make_model(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("runs/srl/final", "srl/final"),
        ("runs/srl/best", "srl/best"),
        ("runs/srl/checkpoint-20", "srl/checkpoint-20"),
        ("models/Qwen2.5-0.5B", "Qwen2.5-0.5B"),
    ],
)
def test_a_policys_name_tells_runs_and_weights_apart(tmp_path: Path, place: str, name: str) -> None:
    found = find_weights(str(make_model(tmp_path / place)))
    assert found.label == f"{name}@{found.fingerprint[:12]}"
    other = find_weights(str(make_model(tmp_path / "elsewhere" / place, b"weightz")))
    assert other.label.partition("@")[0] == name
    assert other.label != found.label


@pytest.mark.parametrize(
    "file", ["model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"]
)
def test_every_file_that_decides_a_reply_counts_whatever_its_times(
    tmp_path: Path, file: str
) -> None:
    folder = make_model(tmp_path / "model", b"a" * 1000)
    before = fingerprint(folder)
    path = folder / file
    stat = path.stat() if path.exists() else (folder / "config.json").stat()
    path.write_bytes((path.read_bytes()[:-1] if path.exists() else b"") + b"b")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(folder) != before


def test_what_decides_no_reply_does_not_count(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "checkpoint-1")
    before = fingerprint(folder)
    for name in ("optimizer.pt", "trainer_state.json", "prompting.json", "best.json", "README.md"):
        (folder / name).write_text("anything")
    assert fingerprint(folder) == before
    assert fingerprint(make_model(tmp_path / "the same elsewhere")) == before


def test_an_adapter_alone_is_of_its_base_too(tmp_path: Path) -> None:
    base, adapter = make_model(tmp_path / "base"), tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"adapter")
    named = {"base_model_name_or_path": str(base)}
    (adapter / "adapter_config.json").write_text(json.dumps(named))
    before = fingerprint(adapter)
    (base / "model.safetensors").write_bytes(b"others")
    assert fingerprint(adapter) != before
    for damaged in ("{", "{}", "[]"):
        (adapter / "adapter_config.json").write_text(damaged)
        with pytest.raises(UserError, match=r"damaged .*; save the adapter again"):
            fingerprint(adapter)


def test_large_files_are_read_once_and_again_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cache = tmp_path / "cache" / "srl-swe" / "weights.json"
    folder = make_model(tmp_path / "model")
    weights = folder / "model.safetensors"
    os.truncate(weights, 256 * 2**20)
    at_once = fingerprint(folder)
    assert not cache.exists(), "it may change within the same tick of its clock"
    time.sleep(2.1)
    assert fingerprint(folder) == at_once
    held = json.loads(cache.read_text())
    assert list(held) == [str(weights)]
    held[str(weights)][-1] = "another digest"
    cache.write_text(json.dumps(held))
    assert fingerprint(folder) != at_once, "the digest is taken from the cache"
    (tmp_path / "full").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "full"))
    assert fingerprint(folder) == at_once, "without a cache that can be written"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with weights.open("r+b") as file:
        file.write(b"x")
    assert fingerprint(folder) not in {at_once, ""}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_model(tmp_path / "runs/srl/final")
    (tmp_path / "runs/empty").mkdir()
    (tmp_path / "runs/half").mkdir()
    (tmp_path / "runs/half/config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(("policy", "said"), [
    ("runs/srl/finl", "no model folder at runs/srl/finl. Did you mean 'final'?"),
    ("runs/srl", "runs/srl is not a model folder: config.json is missing. Its policy is "
     "runs/srl/final."),
    ("runs/empty", "runs/empty is not a model folder: config.json is missing."),
    ("runs/half", "runs/half is not a model folder: it has no weights (model.safetensors)."),
    ("./nowhere", "no model folder at ./nowhere."),
    ("nowhere", "no model folder at nowhere."),
])  # fmt: skip
def test_a_mistyped_policy_is_one_sentence_with_the_way_out(policy: str, said: str) -> None:
    for find in (find_weights, check_folder):
        with pytest.raises(UserError) as caught:
            find(policy)
        assert str(caught.value) == said


@pytest.mark.parametrize("command", ["rollout", "eval"])
def test_a_mistyped_policy_claims_no_folder_loads_no_torch_and_asks_no_engine(
    runs: Path, command: str
) -> None:
    pytest.importorskip("transformers", reason="a local policy needs the extra `train`")
    script = (
        "import sys\n"
        "from srl_swe.cli.main import app\n"
        "from srl_swe.errors import UserError\n"
        "try:\n"
        f"    app([{command!r}, 'runs/srl/finl', '--out', 'out'], standalone_mode=False)\n"
        "except UserError as error:\n"
        "    print(error)\n"
        "print('torch' in sys.modules)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "DOCKER_HOST": "unix:///nowhere.sock"},
        cwd=runs,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert ended.stdout.splitlines() == [
        "no model folder at runs/srl/finl. Did you mean 'final'?",
        "False",
    ]
    assert ended.stderr == ""
    assert not (runs / "out").exists()
