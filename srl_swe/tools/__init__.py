"""The tools that expert trajectories call, each a plain function over a Sandbox.

They run outside the sandbox (read a file, edit, write it back): images need none of our code.
A :class:`Toolbox` holds the tools of one tool set for one episode.
"""

from __future__ import annotations

from srl_swe.tools.toolbox import (
    SUBMIT,
    Tool,
    Toolbox,
    find_tool,
    open_recorded_toolbox,
    open_toolbox,
)

__all__ = ["SUBMIT", "Tool", "Toolbox", "find_tool", "open_recorded_toolbox", "open_toolbox"]
