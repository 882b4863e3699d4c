"""Runs that are killed again and again, with a served policy that fails in every way it can.

The policy answers by the prompt alone: whatever is killed, tried again or run elsewhere, the same
prompt gets the same reply in the end.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from srl_swe.dialects import get_dialect
from srl_swe.instances import load_instances, row_from_instance
from srl_swe.types import Action, Instance
from srl_swe_envs.local import LocalSandbox, open_local_sandbox

from .openai_server import Answer, OpenAiServer, refusal, reply

MAX_STEPS = 5
PATIENCE_S = 1800.0
BUNDLED = "tests.chaos:open_bundled"
"""The --sandbox of runs without an engine."""
_FAILED = {"sandbox_error", "policy_error"}
_RESULTS = ("rollouts.jsonl", "verdicts.jsonl")
_ID = re.compile(r"^chaos-(\d+)$", re.MULTILINE)
_XML = get_dialect("xml")
_UNUSABLE = "I would look at the tests first."


def chaos_instances(count: int) -> list[Instance]:
    """The bundled instances again and again, under ids of their own: ``chaos-0`` and so on."""
    starter = load_instances("starter")
    chosen = [(f"chaos-{n}", starter[n % len(starter)]) for n in range(count)]
    return [
        replace(found, instance_id=name, problem_statement=f"{name}\n{found.problem_statement}")
        for name, found in chosen
    ]


def save_chaos_bench(path: Path, instances: list[Instance]) -> Path:
    path.write_text("".join(f"{json.dumps(row_from_instance(one))}\n" for one in instances))
    return path


def _bash(command: str) -> Answer:
    return reply(_XML.render_reply("next", Action("bash", {"command": command})))


SUBMIT = reply(_XML.render_reply("done", Action("submit", {})))


class ChaosServer(OpenAiServer):
    """``endings`` gives the stop reason that each instance has to end with.

    ``broken``: every so many instances, the first request is refused for good, which ends that
    attempt with ``policy_error``; 0: none.
    """

    def __init__(self, instances: list[Instance], *, seed: int = 0, broken: int = 13) -> None:
        super().__init__()
        self.instances = {one.instance_id: one for one in instances}
        self.faults: Counter[str] = Counter()
        self._seed, self._broken = seed, broken
        self._asked: Counter[tuple[int, int]] = Counter()

    def ending(self, instance_id: str) -> str:
        """The stop reason of an instance whose policy is not broken."""
        kinds = {3: "format_errors", 4: "token_limit", 6: "step_limit"}
        return kinds.get(_number(instance_id) % 7, "submitted")

    def answer(self, path: str, body: dict[str, Any]) -> Answer:
        if not path.endswith("completions"):
            return super().answer(path, body)
        messages = body["messages"]
        found = _ID.search(messages[1]["content"])
        assert found, "the prompt holds the issue"
        number, step = int(found[1]), len(messages) // 2 - 1
        with self._lock:
            self.requests.append((path, body))
            self._asked[number, step] += 1
            fault = self._fault(number, step, self._asked[number, step])
        if fault is not None:
            name, answer = fault
            self.faults[name] += 1
            return answer
        return self._reply(number, step)

    def _fault(self, number: int, step: int, asked: int) -> tuple[str, Answer] | None:
        """The fault of this request; each prompt has at most one of those that pass."""
        if step == 0 and asked == 1 and self._broken and number % self._broken == 5:
            return "refused", refusal(403, "not now")
        chance = random.Random(f"{self._seed} {number} {step}")
        faults = {
            "failed": refusal(500, "out of memory", retry_after="0.1"),
            "limited": refusal(429, "slow down", retry_after="0.2"),
            "gateway": Answer("<html>Bad gateway</html>", 502, {"retry-after": "0.1"}),
            "cut": replace(SUBMIT, is_cut=True),
            "stalled": replace(SUBMIT, after_s=1.5),
        }
        if asked > 1 or chance.random() > 0.2:
            return None
        name = chance.choice(list(faults))
        return name, faults[name]

    def _reply(self, number: int, step: int) -> Answer:
        """The next answer: the policy resolves, gives up, errs, overflows, is cut or never ends."""
        patch = self.instances[f"chaos-{number}"].gold_patch
        fixed = _bash(f"git apply <<'END'\n{patch}END")
        match number % 7:
            case 0:
                script = [fixed, SUBMIT]
            case 1:
                script = [SUBMIT]
            case 2:
                script = [_bash("echo '# nothing' >> README.md"), SUBMIT]
            case 3:
                script = [reply(_UNUSABLE)] * 3
            case 4:
                script = [fixed, refusal(400, "too long", code="context_length_exceeded")]
            case 5:
                script = [reply(_UNUSABLE, finish="length"), fixed, SUBMIT]
            case _:
                script = [_bash(f"echo step {step}") for step in range(MAX_STEPS)]
        return script[step]


@contextmanager
def open_deadly(instance: Instance) -> Iterator[LocalSandbox]:
    """As :func:`open_bundled`, but one instance ends the process that opens it."""
    if instance.instance_id == "chaos-3":
        os.kill(os.getpid(), signal.SIGKILL)
    with open_bundled(instance) as sandbox:
        yield sandbox


def _number(instance_id: str) -> int:
    return int(instance_id.removeprefix("chaos-"))


@contextmanager
def open_bundled(instance: Instance) -> Iterator[LocalSandbox]:
    """A local sandbox of the bundled instance behind a chaos instance; an extension's sandbox."""
    starter = load_instances("starter")
    behind = starter[_number(instance.instance_id) % len(starter)]
    with open_local_sandbox(behind) as sandbox:
        yield sandbox


@dataclass
class Run:
    """One run folder, continued until nothing is left to do; ``kills`` times it is killed."""

    server: ChaosServer
    folder: Path
    command: tuple[str, ...]
    kills: int = 0
    seed: int = 0
    pids: list[int] = field(default_factory=list)
    killed: int = 0

    def finish(self) -> None:
        chance, ended = random.Random(self.seed), False
        while not (ended and self._is_done()):
            assert len(self.pids) < self.kills + 9, self.log.read_text()[-2000:]
            with self.log.open("a") as log:
                process = subprocess.Popen(self._words(), stdout=log, stderr=log)
            self.pids.append(process.pid)
            if self.killed < self.kills:
                self.killed += self._kill_in_the_middle(process, chance)
            code = process.wait(PATIENCE_S)
            assert code in {0, 1, -9}, self.log.read_text()[-2000:]
            ended = code != -9

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    def _words(self) -> list[str]:
        bench = save_chaos_bench(
            self.folder.with_suffix(".jsonl"), list(self.server.instances.values())
        )
        command, *options = self.command
        policy = ("--pairs", "-1", "--max-steps", str(MAX_STEPS), "--reply-timeout", "1")
        words = (self.server.url, "--bench", str(bench), "--out", str(self.folder))
        return [sys.executable, "-m", "srl_swe", command, *words, *policy, *options]

    def _kill_in_the_middle(self, process: subprocess.Popen[bytes], chance: random.Random) -> bool:
        """Kill it after some more results, in whatever it does then; False if it ended first."""
        total = len(self.server.instances) * (2 if self.command[0] == "eval" else 1)
        results = self._count() + chance.randint(0, total // (self.kills + 1))
        while self._count() < results:
            if process.poll() is not None:
                return False
            time.sleep(0.005)
        time.sleep(chance.random() / 4)
        process.kill()
        return process.wait() == -9

    def _count(self) -> int:
        files = [self.folder / name for name in _RESULTS]
        return sum(file.read_bytes().count(b"\n") for file in files if file.exists())

    def _is_done(self) -> bool:
        """Every rollout is there and no infrastructure failed; with ``eval``, the report too."""
        if len(self.attempts(failed=False)) < len(self.server.instances):
            return False
        if self.command[0] == "rollout":
            return (self.folder / "predictions.jsonl").exists()
        report = self.folder / "report.json"
        return report.exists() and not json.loads(report.read_text())["infra_failure_ids"]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """A damaged line ends the test, except a last line that a kill has cut."""
        path = self.folder / name
        lines = path.read_text().split("\n") if path.exists() else [""]
        return [json.loads(line) for line in lines[:-1]]

    def attempts(self, *, failed: bool) -> dict[str, list[dict[str, Any]]]:
        found = defaultdict(list)
        for row in self.rows("rollouts.jsonl"):
            if (row["stop_reason"] in _FAILED) == failed:
                found[row["instance_id"]].append(row)
        return found

    def replies(self) -> dict[str, list[list[dict[str, Any]]]]:
        """The replies of each attempt at an instance, without their seconds."""
        found: dict[str, list[list[dict[str, Any]]]] = defaultdict(list)
        for row in self.rows("replies.jsonl"):
            del row["seconds"]
            attempts = found[row["instance_id"]]
            if row["reply"] == 0:
                attempts.append([])
            assert row["reply"] == len(attempts[-1]), "an attempt is written whole"
            attempts[-1].append(row)
        return found

    def results(self) -> dict[str, Any]:
        """All that has to be the same, in an order of its own."""
        kept = {name: rows[-1] for name, rows in self.attempts(failed=False).items()}
        report = self.folder / "report.json"
        verdicts = {row["key"]: row for row in self.rows("verdicts.jsonl")}
        return {
            "rollouts": {name: _timeless(kept[name]) for name in sorted(kept)},
            "predictions": sorted(self.rows("predictions.jsonl"), key=json.dumps),
            "replies": {name: made[-1] for name, made in sorted(self.replies().items())},
            "verdicts": [_timeless(verdicts[key]) for key in sorted(verdicts)],
            "report": _timeless(json.loads(report.read_text())) if report.exists() else None,
        }


_OF_THE_MOMENT = frozenset({"log_path", "image_digest", "notes"})
"""The path of a log holds its folder's own id; an image has another digest once someone pushes it;
on a busy machine a patch may be taken from a second sandbox, which is noted."""


def _timeless(value: Any) -> Any:
    """The value without all that may differ between two undisturbed runs."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if "second" not in k and k not in _OF_THE_MOMENT}
        return {name: _timeless(part) for name, part in kept.items()}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


def assert_nothing_is_lost_or_doubled(run: Run) -> None:
    names = set(run.server.instances)
    kept = run.attempts(failed=False)
    assert {name: len(rows) for name, rows in kept.items()} == dict.fromkeys(names, 1)
    assert {row["instance_id"] for row in run.rows("predictions.jsonl")} == names
    assert len(run.rows("predictions.jsonl")) == len(names)
    ended = {name: rows[0]["stop_reason"] for name, rows in kept.items()}
    assert ended == {name: run.server.ending(name) for name in names}
    # A kill between the two files may leave the replies of an attempt without its rollout.
    failed = run.attempts(failed=True)
    unknown = {
        name: len(made) - 1 - len(failed.get(name, ())) for name, made in run.replies().items()
    }
    assert sum(extra for extra in unknown.values() if extra > 0) <= run.kills
