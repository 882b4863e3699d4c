"""How the weights that are trained reach a vLLM in the same process.

On a GPU TRL's way is used, which loads one parameter after the other into vLLM's model. On a CPU
vLLM packs its matrices and drops the originals ('Parameter' object has no attribute
'weight_loader'), so that they are reloaded as a checkpoint would be, from memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def weight_sync(generation: Any) -> Callable[[], None]:
    """What ``sync_weights`` of TRL's VLLMGeneration is to be."""
    sync: Callable[[], None] = generation.sync_weights
    if generation.mode != "colocate" or not _runs_on_cpu():
        return sync
    return lambda: _reload(generation)


def _runs_on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _reload(generation: Any) -> None:
    """Cloned, as vLLM reads a padded matrix last, when TRL has taken a merged adapter out again."""
    runner = generation.llm.llm_engine.model_executor.driver_worker.model_runner
    weights = ((name, weight.clone()) for name, weight in generation._iter_named_params())
    runner.reload_weights(weights_iterator=weights)
    _pack_again(runner.model)
    generation.llm.reset_prefix_cache()


def _pack_again(model: Any) -> None:
    """Output layers tied to the embedding: theirs is no weight of the checkpoint, so vLLM skips."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    for layer in model.modules():
        if hasattr(layer, "cpu_linear") and layer.weight.numel() > 0:
            dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
