"""The tools that expert trajectories call, each a plain function over a Sandbox.

They run outside the sandbox (read a file, edit, write it back): images need none of our code.
A :class:`Toolbox` holds the tools of one tool set for one episode.
"""

from __future__ import annotations

from srl_swe.sandbox import Sandbox
from srl_swe.tools.toolbox import (
    SUBMIT,
    Tool,
    Toolbox,
    find_tool,
    open_recorded_toolbox,
    open_toolbox,
)
from srl_swe.types import Action, Observation

__all__ = [
    "SUBMIT",
    "Tool",
    "Toolbox",
    "find_tool",
    "open_recorded_toolbox",
    "open_toolbox",
    "perform",
]


def perform(action: Action, sandbox: Sandbox) -> Observation:
    """Carry out one action with the bundled tools, without state between calls.

    A mistake of the policy, such as an unknown tool, is an observation. Raises SandboxError
    if the infrastructure fails, and nothing else.
    """
    return open_toolbox().perform(action, sandbox)
