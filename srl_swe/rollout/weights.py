"""Which weights a policy's name stands for: found, fingerprinted and named without torch.

The fingerprint is the SHA-256 of every file that decides a reply: the weights in full, config,
tokenizer and chat template. Weights are read at about a gigabyte per second and core, so that
the digests of files of 256 MiB or more are kept in ``~/.cache/srl-swe/weights.json`` by path,
size, inode and time of change; smaller ones are read anew each time. A model of the hub is known
by its commit.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from srl_swe.errors import UserError, did_you_mean
from srl_swe.files import write_atomic

CONFIG, ADAPTER = "config.json", "adapter_config.json"
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf", "*.pt", "*.pth")
_OTHERS = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py")
_DECIDES_NOTHING = frozenset(
    {"prompting.json", "best.json", "trainer_state.json", "training_args.bin"}
    | {"optimizer.pt", "scheduler.pt", "optimizer.bin", "README.md"}
)
"""Files of a run beside a policy's own. How it is prompted is an option of a rollout."""
_LARGE_BYTES = 256 * 2**20
_SETTLED_S = 2.0
"""A file that changed less than this ago may change again within one tick of its clock."""
_HUB_TIMEOUT_S = 10.0
_SHORT = 12
"""Hex digits of a fingerprint that go into a name."""


@dataclass(frozen=True, slots=True)
class PolicyWeights:
    """A policy that is there. ``fingerprint``: of the folder's files, or the hub's commit."""

    source: str
    fingerprint: str

    @property
    def label(self) -> str:
        """The name for predictions and trajectories, such as ``srl/final@1a2b3c4d5e6f``.

        Of a folder its last part, with the run's where it is one of the names that every run has.
        """
        name = self.source
        if Path(name).is_dir():
            folder = Path(name).resolve()
            is_common = folder.name in {"final", "best"} or folder.name.startswith("checkpoint-")
            name = f"{folder.parent.name}/{folder.name}" if is_common else folder.name
        return f"{name}@{self.fingerprint[:_SHORT]}"


def find_weights(policy: str) -> PolicyWeights:
    """The weights that a folder or a name on the hub stands for.

    Raises UserError if there is no such model: a mistyped name costs no import of torch.
    """
    is_local = check_folder(policy)
    return PolicyWeights(policy, fingerprint(Path(policy)) if is_local else _commit(policy))


def check_folder(policy: str) -> bool:
    """True for the folder of a model, False for what can only be a name on the hub.

    Raises UserError for a path with no model; nothing is hashed, and the hub is not asked.
    """
    folder = Path(policy)
    if folder.is_dir():
        _check_files(folder)
        return True
    hint = _neighbour(folder)
    is_path = policy.startswith((".", "/", "~")) or policy.count("/") != 1 or folder.exists()
    if is_path or hint:
        raise UserError(f"no model folder at {policy}.{hint}")
    return False


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names and contents of the files in the folder that decide a reply."""
    files = sorted(set(_deciding(folder)))
    cache = _Cache()
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        digests = list(pool.map(cache.digest, files))
    cache.save()
    whole = hashlib.sha256(_base_of_adapter(folder).encode())
    for file, digest in zip(files, digests, strict=True):
        whole.update(f"{file.name}\0{digest}\n".encode())
    return whole.hexdigest()


def _base_of_adapter(folder: Path) -> str:
    """The fingerprint of what an adapter is added to; empty for a whole model."""
    if (folder / CONFIG).is_file():
        return ""
    named = json.loads((folder / ADAPTER).read_text("utf-8"))["base_model_name_or_path"]
    return find_weights(str(named)).fingerprint


def _deciding(folder: Path) -> Iterator[Path]:
    for pattern in (*_WEIGHTS, *_OTHERS):
        for file in folder.glob(pattern):
            if file.is_file() and file.name not in _DECIDES_NOTHING:
                yield file


def _check_files(folder: Path) -> None:
    if not any((folder / name).is_file() for name in (CONFIG, ADAPTER)):
        nested = next((name for name in ("final", "best") if (folder / name).is_dir()), None)
        hint = f" Its policy is {folder / nested}." if nested else ""
        raise UserError(f"{folder} is not a model folder: {CONFIG} is missing.{hint}")
    if not any(next(folder.glob(pattern), None) for pattern in _WEIGHTS):
        raise UserError(f"{folder} is not a model folder: it has no weights (model.safetensors).")


def _neighbour(folder: Path) -> str:
    beside = folder.parent
    if not beside.is_dir() or beside == folder:
        return ""
    return did_you_mean(folder.name, [one.name for one in beside.iterdir() if one.is_dir()])


@cache
def _commit(name: str) -> str:
    """The commit that the hub, or its cache if the hub can't be reached, has of the model."""
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
    """Digests of large files that have not changed since; of no use where it can't be written."""

    def __init__(self) -> None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self._path = Path(home) / "srl-swe" / "weights.json"
        self._held = self._load()
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
        """Write down what was read, if anything."""
        if not self._new:
            return
        try:
            write_atomic(self._path, json.dumps({**self._load(), **self._new}, indent=1))
        except OSError:
            return

    def _load(self) -> dict[str, list[Any]]:
        try:
            held = json.loads(self._path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return held if isinstance(held, dict) else {}
