"""The tools that expert trajectories call, each a plain function over a Sandbox.

They run on our side of the sandbox (read a file, edit, write it back), so an image needs
nothing of ours inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from srl_swe.sandbox import Sandbox
from srl_swe.tools.bash import bash
from srl_swe.tools.str_replace_editor import str_replace_editor
from srl_swe.tools.submit import submit
from srl_swe.types import Action, Observation

__all__ = ["SUBMIT", "TOOLS", "perform"]

SUBMIT = "submit"
"""The tool that ends an episode."""

TOOLS: dict[str, Callable[[Mapping[str, str], Sandbox], Observation]] = {
    "bash": bash,
    "str_replace_editor": str_replace_editor,
    SUBMIT: submit,
}


def perform(action: Action, sandbox: Sandbox) -> Observation:
    """Carry out one action and say what the policy sees of it.

    A mistake of the policy's, an unknown tool included, is an observation. Raises only
    SandboxError, when the infrastructure fails.
    """
    tool = TOOLS.get(action.tool)
    if tool is None:
        return Observation(f"Unknown tool {action.tool!r}. Known: {', '.join(TOOLS)}.", exit_code=1)
    return tool(action.arguments, sandbox)
