"""Experts' steps for the page: rows of a data set, and the samples of a training run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srl_swe.errors import UserError
from srl_swe.files import CONFIG_FILE, read_object
from srl_swe.reports.record import MANIFEST, read_manifest, reward_weights
from srl_swe.reports.replies import describe_ending, rewards_of, total_reward, written_steps
from srl_swe.types import Message
from srl_swe.view.pairing import pair_actions
from srl_swe.view.records import SampleView, Target, repo_of

if TYPE_CHECKING:
    from datasets import Dataset

_FACTS = (
    "trajectory_id",
    "observations",
    "prompt_tokens",
    "completion_tokens",
    "elided",
    "has_thought",
)


def read_data_set(folder: Path) -> Dataset:
    """A data set of step contexts, mapped into memory. Raises UserError for another one."""
    import datasets

    try:
        rows = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} can't be read as a data set ({error}).") from error
    if not isinstance(rows, datasets.Dataset) or "expert_action" not in rows.column_names:
        raise UserError(f"{folder} is a data set without step contexts (see docs/steps.md).")
    return rows


def data_set_targets(folder: Path, run: str) -> Iterator[Target]:
    """A target per row, without samples."""
    for number, row in enumerate(read_data_set(folder)):
        yield Target(
            key=f"{run}/row-{number}",
            run=run,
            instance_id=row["instance_id"],
            repo=repo_of(row["instance_id"]),
            model=row["model"] or "",
            source=row["source"],
            step_index=row["step_index"],
            n_steps=row["n_steps"],
            tool=row["tool"],
            expert_action=row["expert_action"],
            expert_reply=_reply(row),
            prompt=_messages(row["prompt"]),
            facts={name: row.get(name) for name in _FACTS if row.get(name) is not None},
        )


def _reply(row: Mapping[str, Any]) -> str:
    return str(row["completion"][0]["content"]) if row["completion"] else ""


def _messages(rows: Iterable[Mapping[str, Any]]) -> tuple[Message, ...]:
    return tuple({"role": row["role"], "content": row["content"]} for row in rows)


class _Prompts:
    """The rows of the data set that a run trained on, if it is still at its place."""

    def __init__(self, run_folder: Path) -> None:
        self._rows: Dataset | None = None
        self._places: dict[tuple[str, int], list[int]] = {}
        named = read_object(run_folder / CONFIG_FILE).get("data")
        data = Path(named) if isinstance(named, str) and named else run_folder
        for folder in (data, run_folder / data, run_folder.parent / data.name):
            if not (folder / "dataset_info.json").is_file():
                continue
            with suppress(UserError):
                rows = read_data_set(folder)
                self._rows = rows
                keys = zip(rows["instance_id"], rows["step_index"], strict=True)
                for place, key in enumerate(keys):
                    self._places.setdefault(key, []).append(place)
                break

    def find(self, sample: Mapping[str, Any]) -> tuple[tuple[Message, ...], str]:
        """The prompt and the expert's reply of a sample; empty if its row is not found."""
        key = (str(sample.get("instance_id")), int(sample.get("step_index") or 0))
        for place in self._places.get(key, ()):
            assert self._rows is not None, "places are of rows"
            row = self._rows[place]
            if row["expert_action"] == sample.get("expert_action"):
                return _messages(row["prompt"]), _reply(row)
        return (), ""


def training_targets(run_folder: Path, run: str) -> Iterator[Target]:
    """A target per group of samples, in the order of training.

    Read from ``completions/step-*.parquet``. Raises UserError for a damaged file.
    """
    prompts = _Prompts(run_folder)
    weights = reward_weights(read_manifest(run_folder / MANIFEST))
    for _, path in sorted(written_steps(run_folder).items()):
        rows = sorted(_read_table(path), key=_group_of)
        for key, group in groupby(rows, _group_of):
            yield _group_target(key, list(group), run, prompts, weights)


def _read_table(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:  # its name may not be UTF-8, as pyarrow wants it
            rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} can't be read as sampled replies ({error}).") from error
    return rows


def _group_of(row: Mapping[str, Any]) -> tuple[int, int, int]:
    return (int(row["step"]), int(row.get("round") or 0), int(row.get("group") or 0))


def _group_target(
    key: tuple[int, int, int],
    rows: list[dict[str, Any]],
    run: str,
    prompts: _Prompts,
    weights: Mapping[str, float],
) -> Target:
    step, round_, group = key
    first = rows[0]
    expert = first.get("expert_action") or ""
    prompt, reply = prompts.find(first)
    instance_id = str(first.get("instance_id") or "")
    return Target(
        key=f"{run}/step-{step}/group-{round_}.{group}",
        run=run,
        instance_id=instance_id,
        repo=repo_of(instance_id),
        model="",
        source="training",
        step_index=first.get("step_index"),
        n_steps=int(first.get("n_steps") or 0),
        tool=str(first.get("tool") or ""),
        expert_action=expert,
        expert_reply=reply,
        prompt=prompt,
        samples=tuple(_sample(number, row, expert, weights) for number, row in enumerate(rows)),
        training_step=step,
        facts={"round": round_, "group": group},
    )


def _sample(
    number: int, row: Mapping[str, Any], expert: str, weights: Mapping[str, float]
) -> SampleView:
    action = row.get("action")
    return SampleView(
        number=number,
        text=str(row.get("completion") or ""),
        format=str(row.get("format") or ""),
        rewards=rewards_of(row),
        advantage=row.get("advantage"),
        kept=bool(row.get("kept")),
        tokens=row.get("tokens"),
        truncated=bool(row.get("truncated")),
        pairing=pair_actions(action, expert) if action and expert else None,
        ended=describe_ending(row) if row.get("ended") or row.get("outcome") else "",
        reward=total_reward(row, weights),
    )
