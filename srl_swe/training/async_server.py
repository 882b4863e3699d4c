"""The vLLM server of asynchronous training: its settings, and how weights reach it.

The checks that a recipe and a server fit are here too.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import requests
import torch
from safetensors.torch import save_file
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig
from trl.experimental.async_grpo.async_grpo_config import AsyncGRPOConfig
from trl.experimental.async_grpo.vllm_client import VLLMClient
from trl.trainer.grpo_config import GRPOConfig

from srl_swe.errors import UserError
from srl_swe.rollout.local_policy import PLAIN
from srl_swe.training.data import max_positions
from srl_swe.training.recipe import SrlRecipe, field_names
from srl_swe.training.trl_config import ModelArguments

LOSSES = ("grpo", "dr_grpo", "bnpo", "dapo")
"""Losses whose denominators can be reached from TRL's, a micro-batch's tokens, by a factor."""
_HONOURED = {
    "loss_type", "scale_rewards", "shuffle_dataset", "steps_per_generation", "use_vllm",
    "vllm_max_model_length", "vllm_mode", "vllm_server_host", "vllm_server_port",
    "vllm_importance_sampling_correction", "vllm_importance_sampling_mode",
    "vllm_importance_sampling_clip_max", "vllm_importance_sampling_clip_min",
}  # fmt: skip
"""Fields of GRPOConfig that AsyncGRPOConfig lacks, and that are honoured or needless all the same:
PPO's ratio is to vLLM's log-probabilities, and so needs no correction for them."""
_WHY_NOT = {
    "beta": "no reference model is loaded",
    "num_iterations": "each reply is trained on once",
    "generation_batch_size": "each update takes the groups that have arrived",
    "use_liger_kernel": "TRL's AsyncGRPOTrainer refuses it",
    **dict.fromkeys(
        (*PLAIN, "min_p"), "replies are compared with the model's own distribution, uncut"
    ),
}
DOCS = "docs/performance.md, Asynchronous training"


def check_asynchronous(recipe: SrlRecipe, args: Any, model: ModelArguments) -> None:
    """Raise UserError for what asynchronous training can't honour."""
    if not args.use_vllm or args.vllm_mode != "server":
        raise UserError(
            "asynchronous: replies are sampled by a vLLM server: set `trainer: {use_vllm: true, "
            f"vllm_mode: server, vllm_server_base_url: ...}}` ({DOCS})."
        )
    if args.world_size > 1:
        raise UserError(
            f"asynchronous: the trainer runs in one process, not {args.world_size} ({DOCS})."
        )
    if model.quantization_config is not None:
        raise UserError(f"asynchronous: a quantised model can't be trained ({DOCS}).")
    if recipe.share_prompt_tokens is not None:
        raise UserError(
            "asynchronous: share_prompt_tokens can't be honoured: a micro-batch is packed into one "
            f"row; set a smaller trainer.per_device_train_batch_size ({DOCS})."
        )
    plain: Any = {field.name: field.default for field in dataclasses.fields(GRPOConfig)}
    shared = set(field_names(AsyncGRPOConfig)) - _WHY_NOT.keys()
    for name, value in recipe.trainer.items():
        if name in shared | _HONOURED or value == plain[name] or value == PLAIN.get(name):
            continue
        why = _WHY_NOT.get(name, "TRL's AsyncGRPOTrainer has no such setting")
        raise UserError(f"asynchronous: trainer.{name} {value} can't be honoured: {why} ({DOCS}).")
    if args.steps_per_generation != args.gradient_accumulation_steps:
        raise UserError(
            "asynchronous: trainer.steps_per_generation must be gradient_accumulation_steps "
            f"({args.gradient_accumulation_steps}) or left out: each update takes the groups that "
            f"have arrived ({DOCS})."
        )
    if args.loss_type not in LOSSES:
        raise UserError(
            f"asynchronous: trainer.loss_type must be one of {', '.join(LOSSES)}, not "
            f"{args.loss_type} ({DOCS})."
        )
    if args.scale_rewards not in {"group", "none", True, False}:
        raise UserError(
            "asynchronous: trainer.scale_rewards must be group or none: there is no batch of "
            f"generation to scale over ({DOCS})."
        )


@dataclass(frozen=True, slots=True)
class Server:
    """A vLLM server. ``most_tokens``: of prompt and reply; ``device``: such as ``cpu``."""

    url: str
    most_tokens: int
    device: str
    dtype: str


def find_server(url: str, model: str, timeout_s: float) -> Server:
    """Wait for the server and read its settings.

    Raises UserError if it does not answer, serves another model, or lacks an option that
    asynchronous training needs.
    """
    client = VLLMClient(url, timeout_s)
    try:
        client.wait_for_server_ready()
        listed = requests.get(f"{client.server_url}/v1/models", timeout=timeout_s).json()["data"]
        answer = requests.get(
            f"{client.server_url}/server_info", {"config_format": "json"}, timeout=timeout_s
        )
    except (TimeoutError, requests.RequestException, KeyError, ValueError) as error:
        raise UserError(f"asynchronous: no vLLM server answers at {url} ({error}).") from None
    served = {entry["id"]: entry for entry in listed}
    if model not in served:
        raise UserError(
            f"asynchronous: {url} serves {', '.join(served)}, not {model}: start it with `--model "
            f"{model}` or `--served-model-name {model}`."
        )
    if not answer.ok:
        raise UserError(
            f"asynchronous: {url} takes no weights: start vLLM with VLLM_SERVER_DEV_MODE=1 in its "
            f"environment ({DOCS})."
        )
    try:
        config = answer.json()["vllm_config"]
        settings, device = config["model_config"], config["device_config"]["device"]
        mode, dtype = settings["logprobs_mode"], settings["dtype"].removeprefix("torch.")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UserError(f"asynchronous: {url} does not answer as vLLM does ({DOCS}).") from None
    if mode != "processed_logprobs":
        raise UserError(
            f"asynchronous: {url} gives {mode}: start vLLM with "
            f"`--logprobs-mode processed_logprobs` ({DOCS})."
        )
    if device != "cpu" and (config.get("weight_transfer_config") or {}).get("backend") != "nccl":
        raise UserError(
            f"asynchronous: {url} takes no weights: start vLLM with `--weight-transfer-config "
            f'\'{{"backend": "nccl"}}\'` ({DOCS}).'
        )
    if config.get("lora_config"):
        raise UserError(
            f"asynchronous: {url} was started with --enable-lora: start it without, as an adapter "
            f"is sent merged into the weights ({DOCS})."
        )
    return Server(client.server_url, int(served[model]["max_model_len"]), device, dtype)


def check_fit(recipe: SrlRecipe, args: Any, model: ModelArguments, server: Server) -> None:
    """Raise UserError if the server can't serve the model, or take its weights."""
    positions = max_positions(recipe.model, model.init_kwargs)
    if positions and server.most_tokens < positions:
        served = getattr(args, "vllm_max_model_length", None)
        if served is None or served > server.most_tokens:
            raise UserError(
                f"asynchronous: {server.url} takes {server.most_tokens} tokens, the model "
                f"{positions}: set `trainer: {{vllm_max_model_length: {server.most_tokens}}}`, by "
                "which prompts are checked."
            )
    config = AutoConfig.from_pretrained(recipe.model, revision=model.init_kwargs.get("revision"))
    if server.device == "cpu" and config.get_text_config().tie_word_embeddings:
        raise UserError(
            "asynchronous: vLLM on a CPU does not reload an output layer that is tied to the "
            f"embedding; use a GPU, or a model with tie_word_embeddings false ({DOCS})."
        )
    if server.device != "cpu" and find_spec("kernels") is None:
        raise UserError(
            "asynchronous: TRL's attention over shared prompts needs FlashAttention 3: pip install "
            f"kernels ({DOCS})."
        )


def tree_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    tree_kv_index: torch.Tensor,
    tree_cu_seqlens_q: torch.Tensor,
    tree_cu_seqlens_k: torch.Tensor,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """TRL's ``tree_attention`` by SDPA, for a CPU: TRL's calls FlashAttention 3, a GPU's kernel.

    Each segment of the packed row, (1, heads, tokens, size), attends to the keys of its own path.
    """
    if sliding_window or softcap:
        raise UserError(f"{type(module).__name__}: only plain full attention can share prompts.")
    outputs = []
    queries, keys = tree_cu_seqlens_q.tolist(), tree_cu_seqlens_k.tolist()
    for (q_start, q_end), (k_start, k_end) in zip(pairwise(queries), pairwise(keys), strict=True):
        path = tree_kv_index[k_start:k_end]
        size = (q_end - q_start, k_end - k_start)
        seen = torch.ones(size, dtype=torch.bool, device=query.device).tril(size[1] - size[0])
        outputs.append(
            scaled_dot_product_attention(
                query[:, :, q_start:q_end],
                key[:, :, path],
                value[:, :, path],
                attn_mask=seen,
                scale=scaling,
                enable_gqa=True,
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2), None


class FolderTransfer:
    """Hands weights to a vLLM server by a folder that both read: TRL's WeightTransferProtocol.

    For a server without a GPU, which has no NCCL.
    """

    def __init__(self, client: VLLMClient, folder: Path, timeout_s: float) -> None:
        self._client, self._folder, self._timeout_s = client, folder, timeout_s
        self._sent = 0

    def init_weight_transfer(self) -> None:
        """Remove what a killed run has left."""
        self.destroy()

    def pause(self) -> None:
        """Stop the server between two tokens; it also drops its cached keys and values."""
        self._client.pause()

    def send_weights(self, iterator: Iterator[tuple[str, torch.Tensor]]) -> None:
        """Write the weights and have the server read them."""
        self._sent += 1
        folder = self._folder / str(self._sent)
        folder.mkdir(parents=True)
        weights = {name: tensor.cpu().contiguous() for name, tensor in iterator}
        save_file(weights, folder / "model.safetensors")
        call = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        answer = requests.post(
            f"{self._client.server_url}/collective_rpc", json=call, timeout=self._timeout_s
        )
        answer.raise_for_status()
        shutil.rmtree(self._folder / str(self._sent - 1), ignore_errors=True)

    def resume(self) -> None:
        """Let the server continue."""
        self._client.resume()

    def destroy(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
