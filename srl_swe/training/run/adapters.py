"""LoRA's adapters on disk: merged into the model, so that whatever loads a model loads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

ADAPTER = "adapter"


def save_whole_model(trainer: Any, folder: Path) -> None:
    """Save the live policy as a plain model with its tokenizer; called by every rank.

    One trained by LoRA is merged into the weights that it started from, as they are without
    quantisation; the adapter alone lies beside them in ``adapter/``.
    """
    if not isinstance(trainer.accelerator.unwrap_model(trainer.model), PeftModel):
        trainer.save_model(str(folder))
        return
    trainer.save_model(str(folder / ADAPTER))
    trainer.accelerator.wait_for_everyone()
    if trainer.accelerator.is_main_process:
        (folder / ADAPTER / "training_args.bin").unlink(missing_ok=True)
        with _on_this_rank_alone(trainer.accelerator):
            merge_adapter(folder / ADAPTER, folder, dict(trainer.args.model_init_kwargs or {}))
        trainer.processing_class.save_pretrained(str(folder))
    trainer.accelerator.wait_for_everyone()


def merge_adapter(adapter: Path, folder: Path, init_kwargs: dict[str, Any]) -> None:
    """Write the adapter's base model with the adapter added to its weights, on the CPU.

    The weights keep the ``dtype`` of ``init_kwargs``, or else the base model's own.
    """
    base = PeftConfig.from_pretrained(str(adapter)).base_model_name_or_path
    model: Any = AutoModelForCausalLM.from_pretrained(base, **{"dtype": "auto"} | init_kwargs)
    merged: Any = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    merged.save_pretrained(str(folder))


@contextmanager
def _on_this_rank_alone(accelerator: Any) -> Iterator[None]:
    """A model loaded inside is whole: ZeRO-3 would share it out, and wait for the other ranks."""
    plugin = accelerator.state.deepspeed_plugin
    unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if plugin is not None:
            plugin.set_deepspeed_weakref()
