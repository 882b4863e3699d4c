from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from srl_swe.errors import EngineUnavailable, ImageMissing, SandboxDied, SandboxError, UserError
from srl_swe.replay import Ending, attempt_all, replay_all
from srl_swe.replay.batch import Attempt
from srl_swe.replay.normalise import Match
from srl_swe.sandbox import ExecResult, Sandbox
from srl_swe.testing import FakeSandbox
from srl_swe.types import Action, Instance, Step, Trajectory

NAMES = ("a__b-1", "a__b-2", "a__b-3")
INSTANCES = {name: Instance(name, "a/b", "HEAD", "issue", f"image-{name}") for name in NAMES}


def trajectory(name: str) -> Trajectory:
    return Trajectory(name, (Step("t", Action("bash", {"command": f"ls {name}"})),))


TRAJECTORIES = [trajectory(name) for name in NAMES]


class Held(FakeSandbox):
    enforced: ClassVar = {"network": "none", "image_digest": "sha256:1", "disk_bytes": None}


class Opener:
    """Opens sandboxes; ``broken`` says what is raised for whom."""

    def __init__(self, broken: Mapping[str, Exception] | None = None) -> None:
        self.opened: list[str] = []
        self.broken = dict(broken or {})

    def __call__(self, instance: Instance) -> AbstractContextManager[Sandbox]:
        self.opened.append(instance.instance_id)
        if error := self.broken.get(instance.instance_id):
            raise error
        return closing(Held())


def run(folder: Path | None, opener: Opener, **options: object) -> list[Attempt]:
    return attempt_all(TRAJECTORIES, INSTANCES, opener, folder, **options)  # type: ignore[arg-type]


def test_what_the_sandbox_was_held_to_is_on_record_and_read_back(tmp_path: Path) -> None:
    opener = Opener()
    fresh = run(tmp_path, opener)
    assert [one.replay and one.replay.enforced for one in fresh] == [Held.enforced] * 3
    again = run(tmp_path, opener)
    assert [one.replay for one in again] == [one.replay for one in fresh]
    assert len(opener.opened) == 3


def test_a_replay_under_other_conditions_is_another_one(tmp_path: Path) -> None:
    opener = Opener()
    for conditions, opened in [(None, 3), ({}, 3), ({"limits": 1}, 6), ({"limits": 1}, 6)]:
        run(tmp_path, opener, conditions=conditions)
        assert len(opener.opened) == opened
    run(tmp_path, opener, until=1)
    assert len(opener.opened) == 9


def test_a_replay_is_repeated_if_the_row_has_other_files(tmp_path: Path) -> None:
    opener = Opener()
    run(tmp_path, opener)
    changed = {name: replace(one, bug_patch="a bug") for name, one in INSTANCES.items()}
    for _ in range(2):
        attempt_all(TRAJECTORIES[:1], changed, opener, tmp_path)
        assert len(opener.opened) == 4
    path = tmp_path / "replays.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    older = [{k: v for k, v in line.items() if k != "state"} for line in lines]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in older))
    run(tmp_path, opener)
    assert len(opener.opened) == 4, "lines of earlier versions count"


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (SandboxDied("gone"), Ending.BROKEN_SANDBOX),
        (SandboxError("no disk"), Ending.BROKEN_SANDBOX),
        (ImageMissing("not here"), Ending.IMAGE_MISSING),
    ],
)
def test_one_that_breaks_stops_no_other_and_is_tried_again(
    tmp_path: Path, error: Exception, ending: Ending
) -> None:
    opener = Opener({"a__b-2": error})
    attempts = run(tmp_path, opener)
    assert [one.ending for one in attempts] == [Ending.REPLAYED, ending, Ending.REPLAYED]
    assert attempts[1].reason == str(error)
    opener.broken.clear()
    opener.opened.clear()
    assert [one.ending for one in run(tmp_path, opener)] == [Ending.REPLAYED] * 3
    assert opener.opened == ["a__b-2"]
    endings = [json.loads(line)["ending"] for line in (tmp_path / "replays.jsonl").open()]
    assert sorted(endings) == sorted([*["replayed"] * 3, str(ending)])


def test_a_sandbox_that_dies_at_work_is_broken_and_not_unfaithful() -> None:
    def die(command: str) -> ExecResult:
        raise SandboxDied("killed")

    attempts = attempt_all(TRAJECTORIES[:1], INSTANCES, lambda _: closing(FakeSandbox(die)))
    assert (attempts[0].ending, attempts[0].replay) == (Ending.BROKEN_SANDBOX, None)


def test_what_no_attempt_could_survive_stops_them_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no engine"):
        run(tmp_path, Opener({"a__b-1": EngineUnavailable("no engine")}), workers=1)


def test_an_instance_that_the_bench_lacks_is_listed_with_the_reason() -> None:
    attempts = attempt_all([trajectory("other"), *TRAJECTORIES], INSTANCES, Opener())
    assert [one.ending for one in attempts] == [Ending.NOT_IN_BENCH, *[Ending.REPLAYED] * 3]
    assert "does not hold" in attempts[0].reason


def test_who_needs_every_replay_hears_of_one_that_did_not_run() -> None:
    assert len(replay_all(TRAJECTORIES, INSTANCES, Opener())) == 3
    with pytest.raises(SandboxError, match="a__b-2: broken_sandbox: gone"):
        replay_all(TRAJECTORIES, INSTANCES, Opener({"a__b-2": SandboxDied("gone")}))


def test_a_line_that_a_kill_cut_short_is_replayed_again(tmp_path: Path) -> None:
    opener = Opener()
    run(tmp_path, opener)
    path = tmp_path / "replays.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    run(tmp_path, opener)
    assert len(opener.opened) == 4
    assert len(path.read_text().splitlines()) == 3


def test_lines_of_another_version_are_not_read(tmp_path: Path) -> None:
    opener = Opener()
    run(tmp_path, opener)
    path = tmp_path / "replays.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        del line["schema"]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    run(tmp_path, opener)
    assert len(opener.opened) == 6


def test_equal_trajectories_are_replayed_once() -> None:
    opener = Opener()
    attempts = attempt_all([TRAJECTORIES[0]] * 3, INSTANCES, opener)
    assert len(attempts) == 3
    assert opener.opened == ["a__b-1"]


@pytest.mark.parametrize("text", ["\ud800", "\udce9", "\x00\x1b[2J", "é\r\n"])
def test_whatever_is_printed_can_be_kept(tmp_path: Path, text: str) -> None:
    def answer(command: str) -> ExecResult:
        return ExecResult(text, 0)

    def open_one(instance: Instance) -> AbstractContextManager[Sandbox]:
        patch = f"diff --git a/x b/x\n+{text}\n".encode(errors="surrogatepass")
        return closing(FakeSandbox(answer, {"/tmp/.srl_swe.patch": patch}))

    opened: Callable[[Instance], AbstractContextManager[Sandbox]] = open_one
    (fresh,) = attempt_all(TRAJECTORIES[:1], INSTANCES, opened, tmp_path)
    (again,) = attempt_all(TRAJECTORIES[:1], INSTANCES, Opener(), tmp_path)
    assert fresh.replay is not None
    assert again.replay == fresh.replay
    assert fresh.replay.steps[0].match is Match.NOT_RECORDED
