"""The tools of each format of trajectories, with their shell and environment.

The keys of :data:`TOOLSETS` are the values of ``Trajectory.source``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from srl_swe.tools.bash import LIST_SHELLS, Output, Shell
from srl_swe.tools.editor_styles import ACI_0_3, ANTHROPIC, R2E, SWE_AGENT, SWE_MASTER, EditorStyle
from srl_swe.tools.windowed import VERSION_0, VERSION_1, WindowStyle

_EDITORS = ("str_replace_editor", "file_editor", "str_replace_based_edit_tool")


@dataclass(frozen=True, slots=True)
class Toolset:
    """The tools of one agent. ``environment`` extends the image's."""

    shell: Shell
    shell_names: tuple[str, ...] = ("bash",)
    editors: Mapping[str, EditorStyle] = field(default_factory=dict)
    windows: WindowStyle | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    ends: tuple[str, ...] = ("submit",)
    """Its tools among finish, submit, think and similar ones."""
    submit_shows_patch: bool = False
    searches: bool = False
    """It has R2E's ``search``."""
    edits_exactly: bool = False
    """It has the file tools of other agents, such as ``Read``, ``edit`` and ``write_file``."""


_SWE_AGENT_TIMEOUT = (
    "The command was cancelled because it took more than {seconds:g} seconds. Please try a "
    "different command that completes more quickly. Note: A common source of this error is if "
    "the command is interactive or requires user input (it is impossible to receive user input "
    "in the current environment, so the command will never complete)."
)
_QUIET = MappingProxyType(
    {
        "PAGER": "cat",
        "MANPAGER": "cat",
        "LESS": "-R",
        "PIP_PROGRESS_BAR": "off",
        "TQDM_DISABLE": "1",
    }
)

BUNDLED = Toolset(Shell(), editors={"str_replace_editor": SWE_AGENT})
"""This project's own rollouts and trajectories: the tools of SWE-smith's experts."""

SWE_AGENT_1 = Toolset(
    Shell(timeout_s=30, timeout_message=_SWE_AGENT_TIMEOUT),  # config/default.yaml, 1.0.1
    editors={"str_replace_editor": SWE_AGENT},
    windows=VERSION_1,
    environment={**_QUIET, "GIT_PAGER": "cat"},  # config/default.yaml: env_variables
    submit_shows_patch=True,
)
SWE_AGENT_0 = replace(
    SWE_AGENT_1,
    shell=Shell(
        timeout_s=25,  # environment/swe_env.py, 0.7: SWE_AGENT_ACTION_TIMEOUT
        timeout_message=(
            "EXECUTION TIMED OUT BECAUSE THE COMMAND WAS RUNNING FOR MORE THAN {seconds:.1f} "
            "SECONDS.\nPLEASE REFINE YOUR RUNNING COMMAND SO IT WILL COMPLETE IN THE SPECIFIED "
            "TIME FRAME."
        ),
        output=Output.WHOLE,
    ),
    editors={},
    windows=VERSION_0,
    environment={},
)
SWE_SMITH = replace(
    SWE_AGENT_1,
    # agent/_gen_trajs.sh and the replay_config of its .traj files: execution_timeout
    shell=replace(SWE_AGENT_1.shell, timeout_s=300),
)

MINI = Toolset(
    # config/extra/swebench.yaml, 1.15: a docker exec for each action, 60 s
    Shell(keep_state=False, timeout_s=60, output=Output.WHOLE),
    environment=_QUIET,
)

_OPENHANDS_TIMEOUT = (
    "[The command timed out after {seconds:g} seconds. You may wait longer to see additional "
    "output by sending empty command '', send other commands to interact with the current "
    'process, or send keys ("C-c", "C-z", "C-d") to interrupt/kill the previous command before '
    "sending your new command.]"
)
OPENHANDS = Toolset(
    # runtime/utils/bash.py: it gives up after 30 s without output, which is not distinguished
    # from slowness here; run_infer.py sets 120 s in all
    Shell(
        timeout_s=120,
        output=Output.OPENHANDS_0_17,
        timeout_message=_OPENHANDS_TIMEOUT,
        takes_input=True,
    ),
    shell_names=("execute_bash", "run", "bash", "terminal"),
    editors=dict.fromkeys((*_EDITORS, "edit", "read"), ACI_0_3),
    ends=("think", "finish", "task_tracker"),
)
SWE_GYM = replace(
    OPENHANDS,
    # runtime/plugins of 0.13 to 0.15: pexpect, 120 s
    shell=replace(OPENHANDS.shell, output=Output.OPENHANDS_0_13),
    editors=dict.fromkeys(_EDITORS, ANTHROPIC),
)

R2E_GYM = Toolset(
    # agenthub/runtime/docker.py: /bin/sh -c, CMD_TIMEOUT; max_exec_time 90 in published rows
    Shell(
        keep_state=False,
        timeout_s=90,
        interpreter="sh",
        output=Output.STREAMS,
        timeout_message="The command took too long to execute (>{seconds:g}s)",
    ),
    shell_names=("execute_bash",),
    editors={"file_editor": R2E, "str_replace_editor": SWE_MASTER},
    ends=("finish", "submit"),
    searches=True,
)

MINI_IN_ATIF = "bash_command"
"""Harbor's name for mini-swe-agent's tool, which starts a shell for each command."""
GENERIC = Toolset(
    # unknown agents: most start a shell for each command (FORMATS: mini, R2E, hermes)
    Shell(keep_state=False, timeout_s=120),
    shell_names=(
        *("bash", "execute_bash", "Bash", "terminal", "run", "run_shell_command", *LIST_SHELLS),
        MINI_IN_ATIF,
    ),
    editors=dict.fromkeys(_EDITORS, ACI_0_3),
    ends=("submit", "finish", "think", "task_tracker"),
    edits_exactly=True,
)
HARBOR = replace(GENERIC, shell=Shell(timeout_s=120))
"""Most ATIF files are from agents with one terminal."""

TOOLSETS: Mapping[str, Toolset] = MappingProxyType(
    {
        "srl-swe": BUNDLED,
        "expert-script": BUNDLED,
        "swe-agent": SWE_AGENT_1,
        "swe-agent-0": SWE_AGENT_0,
        "nebius-swe-agent": SWE_AGENT_0,
        "swe-smith": SWE_SMITH,
        "mini-swe-agent": MINI,
        "openhands": OPENHANDS,
        "openhands-text": OPENHANDS,
        "nebius-openhands": OPENHANDS,
        "swe-gym": SWE_GYM,
        "r2e-gym": R2E_GYM,
        "r2e-gym-sft": R2E_GYM,
        "atif": HARBOR,
        "chat": GENERIC,
        "responses": GENERIC,
        "sharegpt": GENERIC,
    }
)
"""``swe-agent-0`` is not a source: :func:`~.toolbox.open_recorded_toolbox` detects it."""
