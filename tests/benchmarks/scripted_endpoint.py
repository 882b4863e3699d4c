"""An OpenAI-compatible endpoint in a process of its own, which replies after a fixed delay.

It knows an episode by its messages alone: the reply after n assistant messages holds action n. An
agent that offers tools gets tool calls (mini-swe-agent), any other text in our ``xml`` dialect.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aiohttp import web

DELAY_S = 0.05
_COMMANDS = (
    "ls",
    "cat pyproject.toml",
    "git status --short",
    "ls -l */",
    "grep -rn 'import ' --include='*.py' . | head -5",
    "echo 'x = 1' >> note.py",
    "cat note.py",
    "sed -i 's/x/y/' note.py",
    "wc -l note.py",
    "python3 --version",
)
ACTIONS = tuple(f"{command}; echo action {number}" for number, command in enumerate(_COMMANDS * 2))
"""The 20 short actions of an episode."""
SUBMISSION = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT; git add -A && git diff --cached"
"""mini-swe-agent's last command. Our harness takes the patch by itself."""


@contextmanager
def running() -> Iterator[str]:
    """Serve inside the block; yields the URL."""
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin and process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(timeout=30)


def message(messages: Sequence[dict[str, Any]], *, by_tool: bool) -> dict[str, Any]:
    """The next message of the assistant."""
    number = sum(message["role"] == "assistant" for message in messages)
    is_last = number >= len(ACTIONS)
    if not by_tool:
        name, value = ("submit", "") if is_last else ("bash", ACTIONS[number])
        parameter = f"<parameter=command>{value}</parameter>\n" if value else ""
        text = f"<think>\nstep {number}\n</think>\n\n<function={name}>\n{parameter}</function>"
        return {"role": "assistant", "content": text}
    command = SUBMISSION if is_last else ACTIONS[number]
    function = {"name": "bash", "arguments": json.dumps({"command": command})}
    call = {"id": f"call_{number}", "type": "function", "function": function}
    return {"role": "assistant", "content": f"step {number}", "tool_calls": [call]}


async def _complete(request: web.Request) -> web.Response:
    body = await request.json()
    await asyncio.sleep(DELAY_S)
    reply = message(body["messages"], by_tool="tools" in body)
    finish = "tool_calls" if "tool_calls" in reply else "stop"
    return web.json_response(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "finish_reason": finish, "message": reply}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050},
        }
    )


async def _models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})


async def _serve() -> None:
    app = web.Application(client_max_size=2**26)
    app.add_routes([web.post("/v1/chat/completions", _complete), web.get("/v1/models", _models)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert runner.addresses
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve())
