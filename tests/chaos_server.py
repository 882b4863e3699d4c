"""A served policy that fails in every way a server can, and still answers by the prompt alone.

Whatever is killed, tried again or run elsewhere, the same prompt gets the same reply in the end.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from srl_swe.dialects import get_dialect
from srl_swe.instances import load_instances, row_from_instance
from srl_swe.types import Action, Instance
from srl_swe_envs.local import LocalSandbox, open_local_sandbox

from .openai_server import Answer, OpenAiServer, refusal, reply

MAX_STEPS = 5
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
        """What the policy does: it resolves, gives up, errs, overflows, is cut or never ends."""
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


def _number(instance_id: str) -> int:
    return int(instance_id.removeprefix("chaos-"))


@contextmanager
def open_bundled(instance: Instance) -> Iterator[LocalSandbox]:
    """A local sandbox of the bundled instance behind a chaos instance; an extension's sandbox."""
    starter = load_instances("starter")
    behind = starter[_number(instance.instance_id) % len(starter)]
    with open_local_sandbox(behind) as sandbox:
        yield sandbox
