"""Finds, fingerprints and names a policy's weights, without torch.

The fingerprint is the SHA-256 of every file that affects replies: the weights in full, config,
tokenizer and chat template. Weights are read at about a gigabyte per second and core; digests of
files of 256 MiB or more are cached in ``~/.cache/srl-swe/weights.json`` by path, size, inode and
time of change. Smaller files are read each time. The fingerprint of a hub model is its commit.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from srl_swe.errors import UserError, did_you_mean
from srl_swe.files import damage_named, read_object, write_atomic

CONFIG, ADAPTER = "config.json", "adapter_config.json"
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf", "*.pt", "*.pth")
_OTHERS = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py")
_DECIDES_NOTHING = frozenset(
    {"prompting.json", "best.json", "trainer_state.json", "training_args.bin"}
    | {"optimizer.pt", "scheduler.pt", "optimizer.bin", "README.md"}
)
"""Other files of a run. Prompting is an option of a rollout."""
_LARGE_BYTES = 256 * 2**20
_SETTLED_S = 2.0
"""A file that changed less than this ago may change again within one tick of its clock."""
_HUB_TIMEOUT_S = 10.0
_SHORT = 12
"""Hex digits of a fingerprint in a name."""


@dataclass(frozen=True, slots=True)
class PolicyWeights:
    """An existing policy. ``fingerprint``: of the folder's files, or the hub's commit."""

    source: str
    fingerprint: str

    @property
    def label(self) -> str:
        """The name for predictions and trajectories, such as ``srl/final@1a2b3c4d5e6f``.

        A folder is named by its last part, preceded by its parent's for names such as ``final``.
        """
        name = self.source
        if Path(name).is_dir():
            folder = Path(name).resolve()
            is_common = folder.name in {"final", "best"} or folder.name.startswith("checkpoint-")
            name = f"{folder.parent.name}/{folder.name}" if is_common else folder.name
        return f"{name}@{self.fingerprint[:_SHORT]}"


def find_weights(policy: str) -> PolicyWeights:
    """The weights of a folder or a hub name.

    Raises UserError if there is no such model, before torch is imported.
    """
    is_local = check_folder(policy)
    return PolicyWeights(policy, fingerprint(Path(policy)) if is_local else _commit(policy))


def check_folder(policy: str) -> bool:
    """True for the folder of a model, False for a possible name on the hub.

    Raises UserError for a path without a model. Hashes nothing and does not contact the hub.
    """
    folder = Path(policy)
    if folder.is_dir():
        if not any((folder / name).is_file() for name in (CONFIG, ADAPTER)):
            nested = next((name for name in ("final", "best") if (folder / name).is_dir()), None)
            hint = f" Its policy is {folder / nested}." if nested else ""
            raise UserError(f"{folder} is not a model folder: {CONFIG} is missing.{hint}")
        if not any(next(folder.glob(pattern), None) for pattern in _WEIGHTS):
            raise UserError(
                f"{folder} is not a model folder: it has no weights (model.safetensors)."
            )
        return True
    beside, hint = folder.parent, ""
    if beside.is_dir() and beside != folder:
        hint = did_you_mean(folder.name, [path.name for path in beside.iterdir() if path.is_dir()])
    is_path = policy.startswith((".", "/", "~")) or policy.count("/") != 1 or folder.exists()
    if is_path or hint:
        raise UserError(f"no model folder at {policy}.{hint}")
    return False


def hide_weight_bars() -> None:
    """Hide transformers' bars of loading and writing weights; those of downloads stay."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    downloads_shown = not are_progress_bars_disabled()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    if downloads_shown:
        enable_progress_bars()


def fingerprint(folder: Path) -> str:
    """SHA-256 over names and contents of the folder's files that affect replies.

    An adapter's also covers its base model.
    """
    files = sorted(
        {
            file
            for pattern in (*_WEIGHTS, *_OTHERS)
            for file in folder.glob(pattern)
            if file.is_file() and file.name not in _DECIDES_NOTHING
        }
    )
    cache = _Cache()
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        digests = list(pool.map(cache.digest, files))
    cache.save()
    whole = hashlib.sha256()
    if not (folder / CONFIG).is_file():
        with damage_named(str(folder / ADAPTER), "save the adapter again"):
            base = json.loads((folder / ADAPTER).read_text("utf-8"))["base_model_name_or_path"]
        whole.update(find_weights(str(base)).fingerprint.encode())
    for file, digest in zip(files, digests, strict=True):
        whole.update(f"{file.name}\0{digest}\n".encode())
    return whole.hexdigest()


@cache
def _commit(name: str) -> str:
    """The model's commit on the hub, or in its cache if the hub can't be reached."""
    from huggingface_hub import HfApi, errors, hf_hub_download

    try:
        return str(HfApi().model_info(name, timeout=_HUB_TIMEOUT_S).sha)
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise UserError(f"no model {name!r}: neither a folder here nor on the hub.") from None
    except (errors.HTTPError, OSError):  # type: ignore[attr-defined]
        pass
    try:
        return Path(hf_hub_download(name, CONFIG, local_files_only=True)).parent.name
    except (OSError, ValueError):
        raise UserError(
            f"no model {name!r}: neither a folder here nor in the hub's cache, and the hub can't "
            "be reached."
        ) from None


class _Cache:
    """Digests of large unchanged files; without effect if the cache can't be written."""

    def __init__(self) -> None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self._path = Path(home) / "srl-swe" / "weights.json"
        self._held = read_object(self._path)
        self._new: dict[str, list[Any]] = {}

    def digest(self, file: Path) -> str:
        """SHA-256 of the file."""
        stat, key = file.stat(), str(file.resolve())
        settled = time.time() - max(stat.st_mtime, stat.st_ctime) > _SETTLED_S
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        held = self._held.get(key)
        if held and held[:-1] == state:
            return str(held[-1])
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if stat.st_size >= _LARGE_BYTES and settled:
            self._new[key] = [*state, found]
        return found

    def save(self) -> None:
        """Save new digests, if any."""
        if self._new:
            with suppress(UserError):
                write_atomic(
                    self._path, json.dumps({**read_object(self._path), **self._new}, indent=1)
                )
