"""Episodes of 20 short actions, 16 at a time: ours against mini-swe-agent's batch runner.

Both ask one scripted endpoint, which takes 50 ms for a reply, and use the same images on the same
engine, in turns. Both send the whole past in each prompt and submit a patch. An episode is lost
if an action of it was not executed or its patch is missing.

A local policy's replies in batches of 8 are compared with batches of 1, on random weights.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import docker
import scripted_endpoint
from bench_table import Row, publish, row, seconds
from peer_process import QUIET, install_peers
from scripted_endpoint import ACTIONS

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.engines import sandboxes_for
from srl_swe.instances import load_instances
from srl_swe.rollout import Agent, Rules, rollout_all
from srl_swe.rollout.endpoint import find_endpoint
from srl_swe.rollout.served_policy import ServedPolicy
from srl_swe.steps.prompt import Window, make_messages
from srl_swe.types import Instance, StopReason, Trajectory

WIDE = 16
LOCAL_WIDE = 8
TURNS = 3
MINI_CONTAINERS = "minisweagent-"


def rows(quick: bool) -> list[Row]:
    """Every metric; ``quick`` takes a tenth of the episodes."""
    ours, theirs = (WIDE, WIDE) if quick else (7 * WIDE, 2 * WIDE)
    python, mini, _ = install_peers()
    our_rates, their_rates, lost, their_lost = [], [], 0, 0
    with (
        scripted_endpoint.running() as url,
        closing(docker.from_env()) as client,
        tempfile.TemporaryDirectory() as scratch,
    ):
        for turn in range(1 if quick else TURNS):
            folder = Path(scratch) / str(turn)
            rate, missed = our_episodes(url, instances(ours), folder / "ours")
            our_rates.append(rate)
            lost += missed
            rate, missed = mini_episodes(python, url, instances(theirs), folder / "mini")
            wait_for_removal(client)
            their_rates.append(rate)
            their_lost += missed
    n = ours * len(our_rates)
    measured = row("episodes_per_min", "1/min", our_rates, their_rates, mini)
    return [
        replace(measured, ratio=measured.ours / (measured.peer or 1), n=n),
        Row("episodes_lost", "of them", lost, their_lost, mini, None, n),
        *local_rows(2 if quick else 6),
    ]


def instances(count: int) -> list[Instance]:
    """The bundled instances in turn, each under an id of its own."""
    bundled = load_instances("starter")
    return [
        replace(bundled[number % len(bundled)], instance_id=f"bench__episode-{number}")
        for number in range(count)
    ]


def our_episodes(url: str, episodes: Sequence[Instance], folder: Path) -> tuple[float, int]:
    """Episodes per minute of ``rollout_all``, and those lost."""
    policy = ServedPolicy(find_endpoint(url))
    rules = Rules(ReplyFormat(get_dialect("xml"), "strict"), Window(pairs=None, thoughts=True))
    open_sandbox = sandboxes_for(episodes)
    folder.mkdir(parents=True)
    ended: list[Trajectory] = []
    took_s = seconds(
        lambda: ended.extend(
            rollout_all(Agent(policy, rules), episodes, open_sandbox, folder, workers=WIDE)
        )
    )
    lost = [episode for episode in ended if not is_whole(episode)]
    for episode in lost[:5]:
        last = episode.steps[-1].observation if episode.steps else None
        print(f"lost: {episode.stop_reason}: {last}", file=sys.stderr)
    return 60 * len(episodes) / took_s, len(episodes) - len(ended) + len(lost)


def is_whole(episode: Trajectory) -> bool:
    """Whether all actions were executed and the patch was taken."""
    printed = [step.observation.text if step.observation else "" for step in episode.steps]
    return (
        episode.stop_reason is StopReason.SUBMITTED
        and len(printed) == len(ACTIONS) + 1
        and all(f"action {number}" in text for number, text in enumerate(printed[:-1]))
        and "note.py" in (episode.patch or "")
    )


def mini_episodes(
    python: Path, url: str, episodes: Sequence[Instance], folder: Path
) -> tuple[float, int]:
    """Episodes per minute of mini-swe-agent's batch runner, and those lost."""
    data, results = folder / "data", folder / "results"
    data.mkdir(parents=True)
    fields = [
        {
            "instance_id": episode.instance_id,
            "image_name": episode.image,
            "problem_statement": episode.problem_statement,
        }
        for episode in episodes
    ]
    (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in fields))
    settings = {
        "model.model_kwargs.api_base": url,
        "model.cost_tracking": "ignore_errors",
        "environment.run_args": '["--rm", "--network", "none"]',
        "environment.env.BASH_ENV": "",  # the bundled images have no conda environment
    }
    changes = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    script = Path(__file__).with_name("peer_mini_batch.py")
    command = [python, script, "--subset", data, "--split", "test", "--output", results]
    command += ["--workers", str(WIDE), "--model", "openai/m", "-c", "swebench.yaml", *changes]
    ended = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **QUIET, "OPENAI_API_KEY": "none", "HF_HOME": str(folder / "hub")},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(f"mini-swe-agent has failed: {ended.stderr[-2000:]}")
    took_s = json.loads(ended.stdout.splitlines()[-1])["seconds"]
    whole = [path for path in results.glob("*/*.traj.json") if mini_is_whole(path)]
    return 60 * len(episodes) / took_s, len(episodes) - len(whole)


def mini_is_whole(path: Path) -> bool:
    """As :func:`is_whole`, of a trajectory of mini-swe-agent."""
    held = json.loads(path.read_text("utf-8"))
    printed = [item["content"] for item in held["messages"] if item["role"] == "tool"]
    return (
        held["info"]["exit_status"] == "Submitted"
        and len(printed) == len(ACTIONS)
        and all(f"action {number}" in text for number, text in enumerate(printed))
        and "note.py" in held["info"]["submission"]
    )


def wait_for_removal(client: docker.DockerClient) -> None:
    """mini-swe-agent leaves the removal of its containers to the background."""
    while client.containers.list(all=True, filters={"name": MINI_CONTAINERS}):
        time.sleep(0.5)


def local_rows(turns: int) -> list[Row]:
    """Replies of 128 tokens that 8 threads ask a local policy for; none without torch."""
    try:
        from srl_swe.rollout.local_policy import LocalPolicy
        from srl_swe.training.tiny_policy import make_tiny_policy
    except ModuleNotFoundError:
        return []
    dialect = get_dialect("xml")
    prompts = [make_messages(i.problem_statement, [], dialect) for i in load_instances("starter")]
    rates: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(LOCAL_WIDE) as pool:
        texts = [message["content"] for prompt in prompts for message in prompt]
        folder = make_tiny_policy(texts, Path(scratch) / "policy")
        policies = [
            LocalPolicy(folder, max_new_tokens=128, batch_size=size) for size in (LOCAL_WIDE, 1)
        ]
        for _ in range(turns):
            for policy, held in zip(policies, rates, strict=True):
                asked = prompts[:LOCAL_WIDE] * 3
                took_s = seconds(lambda: list(pool.map(policy.reply, asked)))  # noqa: B023
                held.append(60 * len(asked) / took_s)
    measured = row("local_replies_per_min", "1/min", *rates, "batches of 1")
    return [replace(measured, ratio=measured.ours / (measured.peer or 1))]


if __name__ == "__main__":
    publish("Short episodes: ours, mini-swe-agent", rows)
