"""Loads instances from a benchmark, a data set on the hub, a file, or a task repo.

:func:`instance_from_row` converts a row, and :func:`row_from_instance` converts it back for the
swebench harness. Rows of data sets with another schema are converted to swebench's by ``adapt``.
"""

from __future__ import annotations

import ast
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from srl_swe.bundled import bundled
from srl_swe.errors import UserError, did_you_mean
from srl_swe.files import first_words, parse_json, read_lines
from srl_swe.types import Instance

Row = Mapping[str, Any]
Adapt = Callable[[Row, str], Row]
"""Converts a row to swebench's schema; takes the name of its data set on the hub, or ''."""

HUB_BENCHES = {
    "verified": "SWE-bench/SWE-bench_Verified",
    "lite": "SWE-bench/SWE-bench_Lite",
    "full": "SWE-bench/SWE-bench",
    "multilingual": "SWE-bench/SWE-bench_Multilingual",
    "multimodal": "SWE-bench/SWE-bench_Multimodal",
    "swe-gym": "SWE-Gym/SWE-Gym:train",
    "swe-smith": "SWE-bench/SWE-smith:train",
    "swe-rebench": "nebius/SWE-rebench:filtered",
}
"""Data sets on the hub, with their split if it is not ``test``. That of SWE-rebench is the part
whose rows have images."""
BENCHES = ("starter", *HUB_BENCHES)
"""The benchmark names of :func:`load_instances`; all else is ``hf:...`` or a path."""

NETWORK_REPOS = frozenset({"psf/requests"})
"""Repositories whose tests ask servers on the Internet: 8 instances of SWE-bench Verified."""

_COLUMNS = {"gold_patch": "patch", "fail_to_pass": "FAIL_TO_PASS", "pass_to_pass": "PASS_TO_PASS"}
_NEEDED = ("instance_id", "repo", "base_commit", "problem_statement")
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FILE_SUFFIXES = (".json", ".jsonl", ".parquet")


def load_instances(
    name: str,
    *,
    split: str = "test",
    ids: Sequence[str] | None = None,
    adapt: Adapt = lambda row, _: row,
) -> list[Instance]:
    """The instances of ``name``, in its order; with ``ids``, those only.

    ``name`` is one of :data:`BENCHES`, ``hf:OWNER/NAME[:split]``, or a path: a .json, .jsonl
    or .parquet file (``split`` does not apply), a folder with ``{split}.parquet``, or a task
    repo of swebench 5 (``sweb.yaml`` and ``tasks/``). In a task repo, ``ids`` may be of any split,
    as in swebench. ``adapt`` handles the schemas and image names of other data sets
    (:func:`srl_swe_envs.image_names.adapt_row`); without it, rows need swebench's fields. Raises
    UserError if anything is missing.
    """
    dataset = _hub_name(name)[0]
    instances = []
    for where, row in _rows(name, split, ids):
        if not isinstance(row, dict):
            raise UserError(f"{where}: an instance is a JSON object, not {type(row).__name__}.")
        instance = instance_from_row(adapt(row, dataset), where)
        # The commands that build an image are run for files of the user's only.
        instances.append(replace(instance, built_from="") if dataset else instance)
    known = [instance.instance_id for instance in instances]
    if len(set(known)) < len(known):
        twice = sorted(name for name, count in Counter(known).items() if count > 1)
        raise UserError(f"{name} holds the instance {twice[0]!r} more than once; keep one of them.")
    if ids is None:
        return instances
    wanted = set(ids)
    if unknown := sorted(wanted.difference(known)):
        hint = did_you_mean(unknown[0], known)
        raise UserError(f"{name} has no instance {', '.join(map(repr, unknown))}.{hint}")
    return [instance for instance in instances if instance.instance_id in wanted]


def load_splits(name: str) -> dict[str, str]:
    """The split that the row of each instance of :func:`load_instances` states, '' if none."""
    rows = (row for _, row in _rows(name, "test", None))
    return {row["instance_id"]: str(row.get("split") or "") for row in rows}


def instance_from_row(row: Row, where: str = "row") -> Instance:
    """Converts one row of swebench 5's schema; ``where`` names the row in errors.

    The fields for a rollout are required, including the image: a guessed name could be that of
    another instance.
    """
    for field in _NEEDED:
        if not isinstance(row.get(field), str) or (field == "instance_id" and not row[field]):
            raise UserError(
                f"{where} has no {field!r}; an instance needs {', '.join(_NEEDED)} as text "
                "(the fields of SWE-bench's data sets)."
            )
    instance_id = row["instance_id"]
    if not _SAFE_ID.fullmatch(instance_id):
        raise UserError(
            f"{where}: the instance_id {instance_id!r} can't name a folder or a container; "
            "use letters, digits and . _ - only."
        )
    image = row.get("image") or row.get("docker_image")
    if not image:
        raise UserError(
            f"{where} has no image, and the image names of its data set are unknown; add the field "
            "'image'."
        )
    assets = row.get("image_assets") or ""
    return Instance(
        instance_id=instance_id,
        repo=row["repo"],
        base_commit=row["base_commit"],
        problem_statement=row["problem_statement"],
        image=image,
        workdir=row.get("workdir") or "/testbed",
        version=str(row.get("version") or ""),
        gold_patch=row.get("patch") or "",
        test_patch=row.get("test_patch") or "",
        fail_to_pass=_test_names(row, "FAIL_TO_PASS", where),
        pass_to_pass=_test_names(row, "PASS_TO_PASS", where),
        eval_script=row.get("eval_script") or "",
        log_parser=row.get("log_parser") or "",
        eval_type=row.get("eval_type") or "",
        image_assets=assets if isinstance(assets, str) else json.dumps(assets),
        bug_patch=row.get("bug_patch") or "",
        built_from=row.get("built_from") or "",
    )


def row_from_instance(instance: Instance) -> dict[str, Any]:
    """The row for the swebench harness; inverse of :func:`instance_from_row`."""
    row = {_COLUMNS.get(name, name): value for name, value in asdict(instance).items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in row.items()}


def read_test_names(value: Any) -> tuple[str, ...] | None:
    """Test names from a list as in newer data sets, JSON text as in older, or Python's as in a few.

    None for anything else.
    """
    if not value:
        return ()
    for read in (json.loads, ast.literal_eval) if isinstance(value, str) else ():
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = read(value)
            break
    is_list = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    return tuple(value) if is_list else None


def _test_names(row: Row, field: str, where: str) -> tuple[str, ...]:
    names = read_test_names(row.get(field))
    if names is None:
        raise UserError(f"{where}: {field} must be a list of test names, or its JSON text.")
    return names


def _rows(name: str, split: str, ids: Sequence[str] | None) -> Iterator[tuple[str, Any]]:
    """Every row with its place, for errors."""
    dataset, named_split = _hub_name(name)
    path = bundled("starter") if name == "starter" else Path(name)
    if dataset:
        return _hub_rows(dataset, named_split or split)
    if (path / "sweb.yaml").is_file():
        return _task_repo_rows(path, split, ids)
    if path.is_dir():
        if (path / f"{split}.parquet").is_file():
            return _file_rows(path / f"{split}.parquet")
        there = ", ".join(sorted(file.stem for file in path.glob("*.parquet")))
        raise UserError(
            f"{path} holds neither {split}.parquet nor a task repo (sweb.yaml); "
            + (f"it has the splits {there}." if there else "name another folder.")
        )
    if path.is_file():
        return _file_rows(path)
    if "/" in name or path.suffix in _FILE_SUFFIXES:
        raise UserError(f"{name} does not exist; name a file or a folder that holds instances.")
    hint = did_you_mean(name, BENCHES)
    raise UserError(
        f"unknown bench {name!r}.{hint} Known: {', '.join(BENCHES)}, hf:OWNER/NAME, or a path."
    )


def _hub_name(name: str) -> tuple[str, str]:
    """The data set on the hub and the split in the name itself; each may be empty."""
    named = HUB_BENCHES.get(name, name.removeprefix("hf:") if name.startswith("hf:") else "")
    dataset, _, split = named.partition(":")
    return dataset, split


def _task_repo_rows(repo: Path, split: str, ids: Sequence[str] | None) -> Iterator[tuple[str, Row]]:
    import yaml
    from swebench.task.repo import load_task, task_dirs

    try:
        folders = task_dirs(repo)
        rows = [(f"{folder}", load_task(folder)) for folder in folders]
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"the task repo {repo} can't be read: {error}.") from error
    wanted = [(where, row) for where, row in rows if ids is not None or row.get("split") == split]
    if not wanted:
        there = ", ".join(sorted({str(row.get("split")) for _, row in rows})) or "none"
        raise UserError(f"{repo} has no tasks in the split {split!r}. It has: {there}.")
    return iter(wanted)


def _file_rows(path: Path) -> Iterator[tuple[str, Any]]:
    match path.suffix:
        case ".jsonl":
            for where, line in read_lines(path, "save it as UTF-8"):
                yield where, parse_json(line, where)
            return
        case ".json":
            rows = parse_json(path.read_bytes(), str(path))
            if not isinstance(rows, list):
                raise UserError(f"{path} must hold a list of instances.")
        case ".parquet":
            import pyarrow.parquet

            try:
                rows = pyarrow.parquet.read_table(path).to_pylist()
            except (OSError, ValueError) as error:
                raise UserError(f"{path} is not a readable parquet file: {error}") from error
        case _:
            raise UserError(f"{path} is not a {', '.join(_FILE_SUFFIXES)} file.")
    for number, row in enumerate(rows, start=1):
        yield f"{path}, row {number}", row


def _hub_rows(dataset: str, split: str) -> Iterator[tuple[str, Row]]:
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        rows = datasets.load_dataset(dataset, split=split)
    except (OSError, ValueError, DatasetsError) as error:
        raise UserError(
            f"the split {split!r} of {dataset} can't be loaded from the Hugging Face hub "
            f"({first_words(error)}); check name, split and network, or download its "
            "parquet file elsewhere and name that path."
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{dataset} ({split}), row {number}", row


_FILTERED: Mapping[str, Callable[[Instance], str]] = {
    "instance": lambda instance: instance.instance_id,
    "repo": lambda instance: instance.repo,
    "version": lambda instance: instance.version,
}


@dataclass(frozen=True, slots=True)
class InstanceSelection:
    """Conditions on the instances of a bench, applied in the order of the fields.

    ``filters``: a name (instance, repo, version) and a glob each; all must hold. ``last``: None is
    the end. The defaults keep all.
    """

    filters: tuple[tuple[str, str], ...] = ()
    exclude: frozenset[str] = frozenset()
    shuffle_seed: int | None = None
    first: int = 0
    last: int | None = None
    limit: int | None = None

    def select(self, instances: Sequence[Instance]) -> list[Instance]:
        """The selected instances, in their order unless shuffled."""
        kept = [
            instance
            for instance in instances
            if instance.instance_id not in self.exclude
            and all(fnmatchcase(_FILTERED[name](instance), glob) for name, glob in self.filters)
        ]
        if self.shuffle_seed is not None:
            random.Random(self.shuffle_seed).shuffle(kept)
        return kept[self.first : self.last][: self.limit]


def parse_instance_filter(text: str) -> tuple[str, str]:
    """Parse one filter of :class:`InstanceSelection`. Raises UserError.

    >>> parse_instance_filter("repo=django/*")
    ('repo', 'django/*')
    """
    name, equals, glob = text.partition("=")
    if not equals or name not in _FILTERED:
        known = ", ".join(f"{name}=..." for name in _FILTERED)
        raise UserError(f"Invalid --filter {text!r}. Known: {known}, with * for any text.")
    return name, glob


def read_ids(path: Path) -> list[str]:
    """Instance ids from a file: one per line, a JSON list, or rows with ``instance_id``.

    Blank lines and text after ``#`` are skipped. Raises UserError if it can't be read.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no list of instances ({error}).") from None
    if text.lstrip().startswith("["):
        items = parse_json(text, str(path))
    elif text.lstrip().startswith("{"):
        items = [parse_json(line, str(path)) for line in text.split("\n") if line.strip()]
    else:
        items = [line for row in text.splitlines() if (line := row.partition("#")[0].strip())]
    named = [item.get("instance_id") if isinstance(item, dict) else item for item in items]
    ids = [name for name in named if isinstance(name, str)]
    if len(ids) < len(named):
        raise UserError(f"{path}: name instances by one id per line, or by instance_id.")
    return ids


def evenly_spread(count: int, wanted: int | None) -> list[int]:
    """``wanted`` indices below ``count``, evenly spread; all of them if None.

    >>> evenly_spread(10, 3)
    [0, 3, 6]
    """
    chosen = min(wanted or count, count)
    return [index * count // chosen for index in range(chosen)]
