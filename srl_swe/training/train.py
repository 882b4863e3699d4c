"""One entrance to training: find a recipe, run its method."""

from __future__ import annotations

import difflib
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from srl_swe.errors import UserError
from srl_swe.training.recipe import Recipe, SrlRecipe


def recipe_path(name: str) -> Path:
    """A recipe's file: a path as it is, or the name of one that ships, such as ``srl-paper``."""
    if Path(name).suffix in {".yaml", ".yml"}:
        return Path(name)
    folder = Path(str(resources.files("srl_swe"))) / "recipes"
    shipped = sorted(path.stem for path in folder.glob("*.yaml"))
    if name in shipped:
        return folder / f"{name}.yaml"
    near = difflib.get_close_matches(name, shipped, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(f"no recipe {name!r}.{hint} Those that ship: {', '.join(shipped)}.")


def need_train_extra() -> None:
    """Raises UserError where the extra ``train`` is not installed."""
    missing = [name for name in ("torch", "transformers", "trl") if find_spec(name) is None]
    if missing:
        raise UserError(f"training needs {', '.join(missing)}: pip install 'srl-swe[train]'.")


def train(recipe: Recipe) -> Path:
    """Train as the recipe says, or go on; returns the folder of the final policy."""
    if isinstance(recipe, SrlRecipe):
        from srl_swe.training.srl import train_srl

        return train_srl(recipe)
    from srl_swe.training.sft import train_sft

    return train_sft(recipe)


def leave_process_group() -> None:
    """Call it last in a run of several processes: one that exits inside its group may abort."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
