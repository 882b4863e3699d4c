"""Validation on instances: real sandboxes and tests, with replies from a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from accelerate import Accelerator

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import SandboxError
from srl_swe.instances import load_instances
from srl_swe.rollout import EpisodeLimits, Rules
from srl_swe.sandbox import OpenSandbox, Sandbox
from srl_swe.steps.prompt import Window
from srl_swe.swe_env import SweEnv
from srl_swe.training.validate_episodes import InstanceEpisodes
from srl_swe.trajectories import load_jsonl
from srl_swe.types import Action, Instance, Message, StopReason
from srl_swe_envs.local import open_local_sandbox

pytestmark = pytest.mark.train

XML = get_dialect("xml")
FIX = 'sed -i \'s/encoding="utf-8"/encoding="utf-8-sig"/\' /testbed/inikit/reader.py'
INSTANCES = load_instances("starter", ids=["starter__inikit-1", "starter__inikit-2"])


def episodes(
    tmp_path: Path, open_sandbox: OpenSandbox = open_local_sandbox, steps: int = 4, workers: int = 2
) -> InstanceEpisodes:
    rules = Rules(ReplyFormat(XML), Window(), EpisodeLimits(steps=steps))
    make_env = partial(SweEnv, INSTANCES, open_sandbox, rules)
    ids = [one.instance_id for one in INSTANCES]
    return InstanceEpisodes(Accelerator(cpu=True), make_env, ids, workers, tmp_path)


def fixer(seen: list[int]) -> Callable[[Sequence[Sequence[Message]]], list[str]]:
    """Edits first and submits then; ``seen`` gets how many prompts it was asked about at once."""

    def reply(prompts: Sequence[Sequence[Message]]) -> list[str]:
        seen.append(len(prompts))
        edit = XML.render_reply("fix", Action("bash", {"command": FIX}))
        submit = XML.render_reply("done", Action("submit"))
        return [submit if len(prompt) > 2 else edit for prompt in prompts]

    return reply


def test_the_tests_say_how_many_are_resolved_and_the_trajectories_are_kept(tmp_path: Path) -> None:
    asked: list[int] = []
    figures = episodes(tmp_path)(fixer(asked), step=20)
    assert figures == {"resolved": 0.5, "submitted": 1.0, "broken_sandboxes": 0.0}
    assert asked == [2, 2], "the episodes take their turns together"
    first, second = load_jsonl(tmp_path / "step-000020.jsonl")
    assert (first.instance_id, first.resolved, second.resolved) == (
        "starter__inikit-1",
        True,
        False,
    )
    assert "utf-8-sig" in (first.patch or "")


def test_no_more_sandboxes_are_open_than_workers(tmp_path: Path) -> None:
    asked: list[int] = []
    figures = episodes(tmp_path, workers=1)(fixer(asked), step=1)
    assert figures["resolved"] == 0.5
    assert asked == [1, 1, 1, 1]


def test_a_policy_that_never_submits_is_tested_too(tmp_path: Path) -> None:
    figures = episodes(tmp_path, steps=1)(fixer([]), step=1)
    assert figures == {"resolved": 0.5, "submitted": 0.0, "broken_sandboxes": 0.0}


def test_a_broken_sandbox_is_in_no_share(tmp_path: Path) -> None:
    @contextmanager
    def one_breaks(instance: Instance) -> Iterator[Sandbox]:
        if instance.instance_id == "starter__inikit-2":
            raise SandboxError("no room")
        with open_local_sandbox(instance) as sandbox:
            yield sandbox

    figures = episodes(tmp_path, one_breaks)(fixer([]), step=1)
    assert figures == {"resolved": 1.0, "submitted": 1.0, "broken_sandboxes": 1.0}
    _, broken = load_jsonl(tmp_path / "step-000001.jsonl")
    assert (broken.stop_reason, broken.resolved) == (StopReason.SANDBOX_ERROR, None)


def test_of_sandboxes_that_are_all_broken_nothing_is_known(tmp_path: Path) -> None:
    @contextmanager
    def breaks(instance: Instance) -> Iterator[Sandbox]:
        raise SandboxError("no room")
        yield

    assert episodes(tmp_path, breaks)(fixer([]), step=1) == {"broken_sandboxes": 2.0}
