"""Reads files and folders of any kind into items, one after the other.

A folder is searched for runs: rollouts and evaluations (``rollouts.jsonl``), graded predictions,
replays (``replays.jsonl``), samples of training (``completions/``) and data sets of step contexts.
Any other file is tried as trajectories of any family.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from srl_swe.dialects import get_dialect
from srl_swe.errors import UserError
from srl_swe.evaluation.compare import REPORT_FILE
from srl_swe.evaluation.predictions import load_predictions
from srl_swe.files import CONFIG_FILE, read_object
from srl_swe.replay.batch import REPLAYS_FILE, replay_key
from srl_swe.replay.certificate import Certificate, load_certificates
from srl_swe.replay.run import Replay
from srl_swe.reports.record import read_whole_lines
from srl_swe.reports.replies import written_steps
from srl_swe.rollout.batch import ROLLOUTS_FILE
from srl_swe.rollout.episode import Completion
from srl_swe.rollout.prompting import Prompting
from srl_swe.rollout.usage import load_reply_usage
from srl_swe.steps.contexts import trajectory_id
from srl_swe.steps.prompt import PAPER_WINDOW
from srl_swe.trajectories import Reading, ReadReport, stream_trajectories
from srl_swe.trajectories.jsonl import is_jsonl, read_jsonl
from srl_swe.types import Instance, Trajectory
from srl_swe.view.episodes import Beside, Prompts, make_episode
from srl_swe.view.records import Item
from srl_swe.view.targets import data_set_targets, training_targets
from srl_swe.view.verdicts import VERDICTS_FILE, Graded, read_grading


@dataclass(frozen=True, slots=True)
class Sources:
    """Knowledge from outside of the paths, by instance id: instances, and experts' trajectories."""

    instances: Mapping[str, Instance] = field(default_factory=dict)
    experts: Mapping[str, Trajectory] = field(default_factory=dict)


class Kind(StrEnum):
    """The kind of a part of the paths."""

    ROLLOUTS = "rollouts"
    PREDICTIONS = "predictions"
    REPLAY = "replay"
    TRAINING = "training"
    DATA_SET = "data set"
    TRAJECTORIES = "trajectories"


@dataclass(frozen=True, slots=True)
class Part:
    """One thing to show. ``run`` is its name in the page, its path from the given one on."""

    kind: Kind
    path: Path
    run: str


_PREDICTIONS = "predictions.jsonl"
_CERTIFICATES = "certificates.jsonl"
_NOT_SEARCHED = frozenset({"harness", "final", "best", "adapter", "logs", "policy", "grading"})
_OTHER_FILES = frozenset(
    {"replies.jsonl", "timings.jsonl", "metrics.jsonl", "verdicts.jsonl", "results.jsonl"}
    | {"instances.jsonl", "difficulty.jsonl", "profile.jsonl", "best.jsonl"}
    | {_PREDICTIONS, _CERTIFICATES, REPLAYS_FILE, ROLLOUTS_FILE}
)
"""Files of runs that hold no trajectories of their own."""
_TRAJECTORY_ENDINGS = frozenset({".jsonl", ".traj", ".parquet"})


def find_parts(path: Path) -> list[Part]:
    """The parts of a file or folder. Raises UserError if it does not exist.

    A folder without any run is one part, of trajectories at any depth.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; name a file or folder of a run.")
    if path.is_file():
        return [_part_of_file(path)]
    name = path.resolve().name
    found: list[Part] = []
    files: list[Part] = []
    for folder, folders, names in os.walk(path):
        place = Path(folder)
        inner = place.relative_to(path).as_posix()
        run = name if inner == "." else f"{name}/{inner}"
        kinds = _kinds_of_folder(place, frozenset(names))
        found += [Part(kind, place, run) for kind in kinds]
        skip = {*_NOT_SEARCHED, "completions"} if kinds else _NOT_SEARCHED
        keep = [] if Kind.DATA_SET in kinds else sorted(folders)
        folders[:] = [n for n in keep if n not in skip and not n.startswith((".", "checkpoint-"))]
        if Kind.DATA_SET not in kinds:
            files += [
                Part(Kind.TRAJECTORIES, place / file, f"{run}/{file}")
                for file in sorted(set(names) - _OTHER_FILES)
                if Path(file).suffix in _TRAJECTORY_ENDINGS
            ]
    return [*found, *files] if found else [Part(Kind.TRAJECTORIES, path, name)]


def _part_of_file(path: Path) -> Part:
    match path.name:
        case "rollouts.jsonl":
            return Part(Kind.ROLLOUTS, path.parent, path.resolve().parent.name)
        case "replays.jsonl" | "certificates.jsonl":
            return Part(Kind.REPLAY, path.parent, path.resolve().parent.name)
        case "predictions.jsonl" | "verdicts.jsonl":
            return Part(Kind.PREDICTIONS, path.parent, path.resolve().parent.name)
    if path.suffix == ".parquet" and path.parent.name == "completions":
        run = path.resolve().parent.parent
        return Part(Kind.TRAINING, run, run.name)
    return Part(Kind.TRAJECTORIES, path, path.name)


def _kinds_of_folder(folder: Path, names: frozenset[str]) -> list[Kind]:
    if {"dataset_info.json", "state.json"} <= names:
        return [Kind.DATA_SET]
    kinds = []
    if ROLLOUTS_FILE in names:
        kinds.append(Kind.ROLLOUTS)
    elif (VERDICTS_FILE in names or REPORT_FILE in names) and _predictions_file(folder):
        kinds.append(Kind.PREDICTIONS)
    if REPLAYS_FILE in names:
        kinds.append(Kind.REPLAY)
    if written_steps(folder):
        kinds.append(Kind.TRAINING)
    return kinds


def _predictions_file(folder: Path) -> Path | None:
    places = (folder / _PREDICTIONS, folder / "harness" / _PREDICTIONS)
    return next((place for place in places if place.is_file()), None)


def collect(paths: Sequence[Path], sources: Sources | None = None) -> Iterator[Item]:
    """The items of all paths, read lazily; keys are unique.

    Raises UserError for a missing path, and if nothing in the paths can be shown.
    """
    known = sources or Sources()
    parts = [part for path in paths for part in find_parts(path)]
    seen = Counter[str]()
    for part in parts:
        for item in _read_part(part, known):
            seen[item.key] += 1
            again = seen[item.key]
            yield item if again == 1 else replace(item, key=f"{item.key}~{again}")
    if not seen:
        raise UserError(
            f"{', '.join(map(str, paths))}: nothing to show; name a run folder, a data set of step "
            "contexts or trajectories."
        )


def _read_part(part: Part, sources: Sources) -> Iterator[Item]:
    match part.kind:
        case Kind.ROLLOUTS:
            yield from _rollouts(part, sources)
        case Kind.PREDICTIONS:
            yield from _predictions(part, sources)
        case Kind.REPLAY:
            yield from _replays(part, sources)
        case Kind.TRAINING:
            yield from training_targets(part.path, part.run)
        case Kind.DATA_SET:
            yield from data_set_targets(part.path, part.run)
        case Kind.TRAJECTORIES:
            yield from _trajectories(part, sources)


def _beside(trajectory: Trajectory, sources: Sources, graded: Graded, prompts: Prompts) -> Beside:
    name = trajectory.instance_id
    instance, expert = sources.instances.get(name), sources.experts.get(name)
    verdict = graded.verdict(name, trajectory.patch, instance)
    is_expert = expert is not None and trajectory_id(expert) == trajectory_id(trajectory)
    return Beside(
        instance=instance,
        expert=None if is_expert else expert,
        tests=verdict,
        test_log=graded.log(verdict.log_path) if verdict else "",
        marks=graded.marks.get(name, ()),
        prompts=prompts,
    )


def _rollouts(part: Part, sources: Sources) -> Iterator[Item]:
    """The last rollout of each instance, those that infrastructure ended too."""
    path = part.path / ROLLOUTS_FILE
    rollouts = [read_jsonl(row, str(path)) for row in read_whole_lines(path) if is_jsonl(row)]
    graded = read_grading(part.path, part.path.parent / "grading")
    prompts, usage = _prompts(part.path), _usage(part.path)
    for name, trajectory in {rollout.instance_id: rollout for rollout in rollouts}.items():
        beside = _beside(trajectory, sources, graded, prompts)
        beside = replace(beside, replies=usage.get(name, ()))
        yield make_episode(trajectory, f"{part.run}/{name}", part.run, beside)


def _usage(folder: Path) -> Mapping[str, Sequence[Completion]]:
    """Tokens and seconds by instance id; empty while a line is being written."""
    try:
        return load_reply_usage(folder)
    except UserError:
        return {}


def _prompts(folder: Path) -> Prompts:
    """How the run's policy was prompted, by its config."""
    config = read_object(folder / CONFIG_FILE)
    if config.get("setting", "agent") != "agent":
        return Prompts(problem=f"the setting {config['setting']} has prompts of its own")
    try:
        prompting = TypeAdapter(Prompting).validate_python(config["prompting"])
        dialect = get_dialect(prompting.dialect)
    except (KeyError, ValidationError, UserError):
        return Prompts(of_rollout=True)
    window = replace(prompting.window or PAPER_WINDOW, token_budget=None)
    return Prompts(dialect, window, of_rollout=True)


def _predictions(part: Part, sources: Sources) -> Iterator[Item]:
    """Graded patches without steps."""
    graded = read_grading(part.path)
    path = _predictions_file(part.path)
    patches = load_predictions(path, [], report=lambda line: None) if path else []
    by_id = {prediction.instance_id: prediction for prediction in patches}
    for name in {**by_id, **graded.lines, **graded.outcomes}:
        prediction = by_id.get(name)
        trajectory = Trajectory(
            name,
            (),
            patch=prediction.model_patch if prediction else None,
            model=prediction.model_name_or_path if prediction else None,
            source="predictions",
        )
        beside = replace(
            _beside(trajectory, sources, graded, Prompts(problem="no steps")), expert=None
        )
        yield make_episode(trajectory, f"{part.run}/{name}", part.run, beside)


def _trajectories(part: Part, sources: Sources) -> Iterator[Item]:
    """Those of any family; records that can't be read are skipped."""
    reading = Reading(on_broken="skip")
    for trajectory in stream_trajectories(part.path, reading, ReadReport()):
        beside = _beside(trajectory, sources, Graded(part.path), Prompts())
        key = f"{part.run}/{trajectory.instance_id}"
        yield make_episode(trajectory, key, part.run, beside)


def _replays(part: Part, sources: Sources) -> Iterator[Item]:
    """Each replay beside its recorded trajectory.

    A replay whose trajectory is not at hand has no steps to show, and states where it should be.
    """
    certificates = {held.key: held for held in load_certificates(part.path / _CERTIFICATES)}
    config = read_object(part.path / CONFIG_FILE)
    recorded = list(_recorded_trajectories(part.path, config, sources))
    rows = read_whole_lines(part.path / REPLAYS_FILE)
    for key, record in {str(row["key"]): row for row in rows if "key" in row}.items():
        certificate = certificates.get(key)
        name = str(record.get("instance_id"))
        candidates = [t for t in recorded if t.instance_id == name]
        trajectory = _recorded(key, record, candidates, certificate, config, sources)
        beside = _beside(trajectory, sources, Graded(part.path), Prompts())
        beside = replace(beside, expert=None, **_replay_of(record, certificate))
        yield make_episode(trajectory, f"{part.run}/{name}", part.run, beside)


def _recorded_trajectories(
    folder: Path, config: Mapping[str, Any], sources: Sources
) -> Iterable[Trajectory]:
    """The trajectories that may have been replayed: the config's source, and known experts."""
    source = config.get("source")
    found: Iterable[Trajectory] = ()
    if isinstance(source, str):
        for path in (Path(source), folder / source, folder.parent / source):
            if path.exists():
                found = stream_trajectories(path, Reading(on_broken="skip"))
                break
    return chain(found, sources.experts.values())


_NOT_CONDITIONS = frozenset({"source", "bench", "until"})


def _recorded(
    key: str,
    record: Mapping[str, Any],
    candidates: Sequence[Trajectory],
    certificate: Certificate | None,
    config: Mapping[str, Any],
    sources: Sources,
) -> Trajectory:
    """The replayed trajectory: by its key, else the only one of the instance and of that length."""
    name = str(record.get("instance_id"))
    instance = sources.instances.get(name)
    image = certificate.image if certificate else instance.image if instance else ""
    conditions = {n: value for n, value in config.items() if n not in _NOT_CONDITIONS}
    for trajectory in candidates:
        if replay_key(trajectory, image, config.get("until"), conditions) == key:
            return trajectory
    n_steps = len((record.get("replay") or {}).get("steps") or ())
    if certificate:
        n_steps = certificate.n_steps
    alike = [trajectory for trajectory in candidates if len(trajectory.steps) == n_steps]
    if len(alike) == 1:
        return alike[0]
    source = certificate.family if certificate else "replay"
    note = f"the recorded trajectory is not at hand: {config.get('source', 'name its file too')}"
    return Trajectory(name, (), source=source, notes=(note,))


def _replay_of(record: Mapping[str, Any], certificate: Certificate | None) -> dict[str, Any]:
    """The fields of :class:`Beside` about the replay."""
    try:
        replay = TypeAdapter(Replay | None).validate_python(record.get("replay"))
    except ValidationError:
        replay = None
    reason = str(record.get("reason") or record.get("ending") or "its record can't be read")
    return {
        "replay": replay,
        "replay_seconds": float(record.get("seconds") or 0.0),
        "replay_image": certificate.image if certificate else "",
        "not_replayed": "" if replay else reason,
    }
