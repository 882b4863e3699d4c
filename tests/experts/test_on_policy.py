"""Step contexts in the states that a policy reaches, and their share of a data set."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from srl_swe.dialects import get_dialect
from srl_swe.errors import UserError
from srl_swe.experts import Expert, LabellingAgent
from srl_swe.rollout.episode import Agent, EpisodeLimits, Rules
from srl_swe.steps import StepMaker, StepSettings
from srl_swe.steps.contexts import Dropped, DropReason, StepContext, make_step_contexts
from srl_swe.steps.source import MixedSource
from srl_swe.testing import ScriptedPolicy
from srl_swe.trajectories import ReadReport
from srl_swe.trajectories.jsonl import parse_line, render_line, save_jsonl
from srl_swe.types import Action, ExpertReply, Observation, Step, Trajectory
from srl_swe_envs.local import open_local_sandbox

from ..commands import invoke
from ..openai_server import OpenAiServer, reply
from .conftest import INSTANCES, RULES

XML = get_dialect("xml")


def written(command: str, thought: str = "hm") -> str:
    return XML.render_reply(thought, Action("bash", {"command": command}))


SUBMIT = XML.render_reply("done", Action("submit"))
WRONG = written("sed -i 's/room = width/room = 0/' texttable/width.py")


def labelled(number: int, steps: int = 4, same: bool = False) -> Trajectory:
    def step(index: int) -> Step:
        acted = Action("bash", {"command": "ls" if same else f"policy {number} {index}"})
        wanted = ExpertReply("why", Action("bash", {"command": "x" if same else f"expert {index}"}))
        return Step("", acted, Observation("out"), expert=wanted)

    return Trajectory(
        f"a__b-{number}", tuple(map(step, range(steps))), "Issue.", source="on-policy", model="p@1"
    )


def contexts(trajectory: Trajectory, include_last: bool = False) -> list[StepContext]:
    items = make_step_contexts(trajectory, XML, include_last=include_last)
    return [item for item in items if isinstance(item, StepContext)]


@pytest.mark.slow
def test_an_example_has_the_prompt_that_the_policy_saw_and_the_experts_reply() -> None:
    replies = [written("ls"), "nothing usable", WRONG, SUBMIT]
    policy, expert = ScriptedPolicy(replies), Expert(0)
    agent = LabellingAgent(Agent(policy, RULES), expert)
    with open_local_sandbox(INSTANCES["texttable-1"]) as sandbox:
        rollout = agent(INSTANCES["texttable-1"], sandbox)
    found = contexts(rollout, include_last=True)
    assert [list(context.prompt) for context in found] == policy.prompts
    answers = [step.expert for step in rollout.steps if step.expert]
    assert [context.expert_action for context in found] == [a.action.text for a in answers]
    assert "git diff" in answers[3].action.text, "the policy's wrong edit is looked at"
    assert {context.source for context in found} == {"on-policy"}
    assert parse_line(render_line(rollout), "here") == rollout


@pytest.mark.slow
def test_the_experts_actions_are_executed_by_chance() -> None:
    limited = Rules(RULES.replies, limits=EpisodeLimits(steps=4))
    agent = LabellingAgent(Agent(ScriptedPolicy([]), limited), Expert(0), 1.0)
    with open_local_sandbox(INSTANCES["texttable-1"]) as sandbox:
        rollout = agent(INSTANCES["texttable-1"], sandbox)
    assert [step.action for step in rollout.steps] == [
        s.expert.action for s in rollout.steps if s.expert
    ]


def test_every_state_gives_an_example_but_repeated_ones_and_those_without_an_answer() -> None:
    assert [context.step_index for context in contexts(labelled(1))] == [0, 1, 2, 3]
    repeated = list(make_step_contexts(labelled(1, 5, same=True), XML))
    reasons = [item.reason for item in repeated if isinstance(item, Dropped)]
    assert reasons == [DropReason.REPEATED] * 2, "the window of two pairs is full"
    first, *rest = labelled(1).steps
    partly = Trajectory(
        "a__b-1", (first, Step("", first.action, first.observation), *rest), "Issue."
    )
    reasons = [i.reason for i in make_step_contexts(partly, XML) if isinstance(i, Dropped)]
    assert reasons == [DropReason.NOT_ASKED]


def test_the_experts_submit_is_a_target_only_on_request() -> None:
    (first, *_) = labelled(1).steps
    last = Step("", first.action, first.observation, expert=ExpertReply("done", Action("submit")))
    trajectory = Trajectory("a__b-1", (first, last), "Issue.")
    assert [c.step_index for c in contexts(trajectory)] == [0]
    assert [c.step_index for c in contexts(trajectory, include_last=True)] == [0, 1]


@pytest.mark.parametrize(
    ("share", "kept"),
    [(0.5, (40, 40)), (0.2, (12, 49)), (0.9, (40, 4)), (1.0, (40, 0)), (0.0, (0, 49))],
)
def test_rows_of_the_other_kind_are_left_out_until_the_share_is_met(
    tmp_path: Path, share: float, kept: tuple[int, int]
) -> None:
    def expert(number: int) -> Trajectory:
        steps = [
            Step("t", Action("bash", {"command": f"c{n}"}), Observation("o")) for n in range(8)
        ]
        return Trajectory(f"a__b-{number}", tuple(steps), "Issue.", model="gold-expert")

    save_jsonl(tmp_path / "experts.jsonl", map(expert, range(7)))
    source = MixedSource(
        str(tmp_path / "experts.jsonl"), rollouts=tuple(map(labelled, range(10))), share=share
    )
    mixed, maker = source.mix(StepMaker(StepSettings()), seed=3)
    counts: Counter[str] = Counter()
    for trajectory in mixed.stream(ReadReport()):
        counts[trajectory.source] += len(maker.rows(trajectory))
    assert (counts["on-policy"], counts["srl-swe"]) == kept
    rows = mixed.describe()["on_policy"]["rows"]
    assert (rows["on_policy_kept"], rows["experts_kept"]) == kept
    assert rows["on_policy"] == 40


@pytest.mark.slow
def test_the_command_rolls_out_once_and_the_card_names_the_policy(tmp_path: Path) -> None:
    replies = [reply(text) for text in (written("ls"), WRONG, SUBMIT) * 2]
    out = tmp_path / "steps"
    ids = ("--id", "starter__texttable-1", "--id", "starter__inikit-1")
    local = ("--sandbox", "local", "--trust-commands", "--containers", "1")
    options = ("--bench", "starter", *ids, *local, "--include-submit")
    with OpenAiServer(*replies).running() as server:
        command = ("steps", "--on-policy", server.url, *options)
        first = invoke(*command, "--out", out, "--on-policy-share", "0.25")
        asked = len(server.bodies())
        again = invoke(*command, "--out", out, "--on-policy-share", "0.25", "--json")
        rollouts = (tmp_path / "steps-on-policy").rename(tmp_path / "alone-on-policy")
        invoke(*command, "--out", tmp_path / "alone", "--on-policy-share", "1")
    assert first.exit_code == again.exit_code == 0
    assert asked == len(server.bodies()) == 6, "rollouts that are there are kept"
    (card,) = json.loads(again.stdout)["data_sets"]
    assert card["config"]["on_policy"]["weights"] == "served:m"
    assert card["facts"]["by_source"]["on-policy"] == 6
    assert "0.25: 6 of 6 in states of m (served:m)" in (out / "README.md").read_text()
    alone = json.loads((tmp_path / "alone" / "card.json").read_text())
    assert alone["facts"]["by_source"] == {"on-policy": 6}
    assert (rollouts / "sample-1" / "rollouts.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--out", "x"), "--bench"),
        (("--bench", "starter", "--show", "1"), "--out"),
        (("--bench", "starter", "--out", "x", "--dialect", "bash_block"), "--dialect xml"),
        (("-", "--bench", "starter", "--out", "x"), "stdin"),
    ],
)
def test_a_mistake_is_found_before_the_policy_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        invoke("steps", *options, "--on-policy", "http://localhost:1/v1")
    assert list(tmp_path.iterdir()) == []
