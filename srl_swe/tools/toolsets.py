"""What each family of trajectories was recorded with: shell, environment, tools.

The keys of :data:`TOOLSETS` are the values of ``Trajectory.source``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from srl_swe.tools.bash import (
    LIST_SHELLS,
    SWITCHES,
    OpenHandsFrame,
    Output,
    Shell,
    as_plain_call,
    asks_for_more,
)
from srl_swe.tools.editor_styles import (
    ACI_0_3,
    ANTHROPIC,
    R2E,
    SWE_AGENT,
    SWE_MASTER,
    EditorStyle,
)
from srl_swe.tools.windowed import VERSION_0, VERSION_1, WindowStyle
from srl_swe.types import Action, Observation

_EDITORS = ("str_replace_editor", "file_editor", "str_replace_based_edit_tool")


@dataclass(frozen=True, slots=True)
class Toolset:
    """The tools that an expert had. ``environment`` is what its harness added to the image's."""

    shell: Shell
    shell_names: tuple[str, ...] = ("bash",)
    editors: Mapping[str, EditorStyle] = field(default_factory=dict)
    windows: WindowStyle | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    ends: tuple[str, ...] = ("submit",)
    """Of finish, submit and think those that it has."""
    submit_shows_patch: bool = False
    searches: bool = False
    """R2E's ``search``."""
    edits_exactly: bool = False
    """The file tools of other agents: ``Read``, ``edit``, ``write_file`` and the like."""


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
    # runtime/utils/bash.py: it gives up after 30 s without output, which is not told apart
    # here from slowness; run_infer.py sets 120 s in all
    Shell(
        timeout_s=120,
        output=OpenHandsFrame.V0_17,
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
    shell=replace(OPENHANDS.shell, output=OpenHandsFrame.V0_13),
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

GENERIC = Toolset(
    # unknown agents: most start a shell for each command (FORMATS: mini, R2E, hermes)
    Shell(keep_state=False, timeout_s=120),
    shell_names=(
        *("bash", "execute_bash", "Bash", "terminal", "run", "run_shell_command", *LIST_SHELLS),
    ),
    editors=dict.fromkeys(_EDITORS, ACI_0_3),
    ends=("submit", "finish", "think", "task_tracker"),
    edits_exactly=True,
)
HARBOR = replace(GENERIC, shell=Shell(timeout_s=120))
"""ATIF comes mostly of agents with one terminal."""

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
"""``swe-agent-0`` is no source: :func:`srl_swe.tools.toolbox.toolbox_for` tells it apart."""


# An expert's call as the same call of our own tools: ``bash``, ``str_replace_editor``, ``submit``.
#
# A policy is trained to call tools that it has. If a family only has other names for them, its
# calls are those; if a tool does something else (``think``, a window of SWE-agent's, OpenHands's
# ``run_ipython``), or a call has arguments that ours refuse, there is none.


FOREIGN_SHELL = "foreign_shell"
"""The tool of a command that only runs in the shell of the harness, with its own programs."""

_WITHOUT_EFFECT = SWITCHES | {
    *("security_risk", "summary", "description", "explanation", "instruction", "justification"),
    *("timeout", "timeout_ms", "yield_time_ms", "max_output_tokens", "blocking", "login"),
    *("with_escalated_permissions", "sandbox_permissions", "dangerouslyDisableSandbox"),
}
"""Arguments that change nothing in the container; :data:`SWITCHES` only if they are false."""
_CONTROL_KEYS = re.compile(r"(?:C-|ctrl\+|\^)[a-z]", re.IGNORECASE)
_EDITOR_ARGUMENTS = frozenset(
    {"command", "path", "file_text", "old_str", "new_str", "insert_line", "view_range"}
)
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "view": ("path",),
    "create": ("path", "file_text"),
    "str_replace": ("path", "old_str"),
    "insert": ("path", "insert_line", "new_str"),
    "undo_edit": ("path",),
}
_RANGE = re.compile(r"\[\s*\d{1,9}\s*,\s*-?\d{1,9}\s*\]")
_ENDS = frozenset({"submit", "finish", "mark_task_complete"})
_MARK = r"echo ['\"]?(?:COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT|MINI_SWE_AGENT_FINAL_OUTPUT)['\"]?"
_SUBMITS = re.compile(  # what mini's prompts let follow only prints the patch
    rf"\s*{_MARK}(?:\s*&&\s*git add (?:-A|--all|\.)\s*&&\s*git diff --cached"
    r"|\s*&&\s*cat [\w./-]+)?\s*"
)
_ENDS_WITHIN = re.compile(rf"(?:^|[;&|\n])[ \t]*{_MARK}")
_WINDOW_TOOLS = frozenset(
    {
        *("open", "goto", "scroll_up", "scroll_down", "create", "edit", "insert", "set_cursors"),
        *("find_file", "search_dir", "search_file", "filemap", "submit", "str_replace_editor"),
        "exit_forfeit",
    }
)
"""Programs that SWE-agent puts into its containers."""
_COMMAND_START = re.compile(r"(?:^|&&|\|\|?|[;\n(])[ \t]*([a-z_]+)(?=\s|\Z)")


def is_own_call(action: Action) -> bool:
    """Whether it is a call that our own tools carry out.

    >>> is_own_call(Action("submit")), is_own_call(Action("bash", {"restart": "true"}))
    (True, False)

    Our own ``undo_edit`` never has a history, and refuses each call.
    """
    match action.tool:
        case "bash":
            return action.arguments.keys() == {"command"} and _is_command(action.arguments)
        case "str_replace_editor":
            undoes = action.arguments.get("command") == "undo_edit"
            return _is_edit(action.arguments) and not undoes
        case "submit":
            return not action.arguments
    return False


def as_own_call(action: Action, source: str, answer: Observation | None = None) -> Action:
    """The same call by our names; ``action`` itself if it is one, or has no equal.

    ``answer`` tells whether a call that writes a whole file made a new one. A command that runs
    SWE-agent's own programs, or ends a run of mini's and does more, is one of ``FOREIGN_SHELL``.

    >>> as_own_call(Action("execute_bash", {"command": "ls", "security_risk": "LOW"}), "openhands")
    Action(tool='bash', arguments={'command': 'ls'})
    >>> as_own_call(Action("finish", {"message": "Done."}), "openhands")
    Action(tool='submit', arguments={})
    """
    toolset = TOOLSETS.get(source)
    if toolset is None:
        return action
    plain = as_plain_call(action)
    given = {n: v for n, v in plain.arguments.items() if n not in _WITHOUT_EFFECT}
    found = None
    if plain.tool in _ENDS and plain.tool in toolset.ends:
        found = None if "flag" in given else Action("submit")
    elif asks_for_more(plain.arguments):
        return action
    elif plain.tool in toolset.shell_names:
        found = _as_bash(given, toolset)
    elif plain.tool in toolset.editors:
        found = _as_edit(given, toolset)
    elif toolset.edits_exactly:
        found = _as_exact_edit(plain.tool, given, answer)
    return found or action


def _is_command(given: Mapping[str, str]) -> bool:
    command = given["command"].strip()
    return bool(command) and not _CONTROL_KEYS.fullmatch(command)


def _is_edit(given: Mapping[str, str]) -> bool:
    needed = _REQUIRED.get(given.get("command", ""), ("",))
    if not given.keys() <= _EDITOR_ARGUMENTS or not given.keys() >= set(needed):
        return False
    bounds, line = given.get("view_range"), given.get("insert_line", "0").strip()
    in_bounds = bounds is None or _RANGE.fullmatch(bounds.strip()) is not None
    return in_bounds and line.isascii() and line.isdecimal() and given["path"].startswith("/")


def _as_bash(given: Mapping[str, str], toolset: Toolset) -> Action | None:
    if len(given) != 1 or given.keys().isdisjoint({"command", "cmd"}):
        return None
    (command,) = given.values()
    if toolset is not BUNDLED and _SUBMITS.fullmatch(command):
        return Action("submit")
    ends_and_more = toolset is MINI and _ENDS_WITHIN.search(command)
    if ends_and_more or (toolset.windows and _runs_window_tools(command)):
        return Action(FOREIGN_SHELL, {"command": command})
    own = Action("bash", {"command": command})
    return own if is_own_call(own) else None


def _runs_window_tools(command: str) -> bool:
    """Whether a program of SWE-agent's stands where a command begins, above any here-document."""
    return any(word in _WINDOW_TOOLS for word in _command_words(command.partition("<<")[0]))


def _command_words(text: str) -> Iterator[str]:
    bare = re.sub(r"'[^']*'|\"(?:\\.|[^\"\\])*\"", "''", text, flags=re.DOTALL)
    yield from _COMMAND_START.findall(bare)


def _as_edit(given: Mapping[str, str], toolset: Toolset) -> Action | None:
    path = given.get("path", "")
    if toolset.searches and path and not path.startswith("/"):  # R2E's run in the repository
        given = {**given, "path": f"/testbed/{path.removeprefix('./')}".removesuffix("/.")}
    own = Action("str_replace_editor", dict(given))
    return own if is_own_call(own) else None


_OWN_EDITORS = frozenset({"Edit", "MultiEdit", "edit", "patch", "replace"})
_WRITERS = frozenset({"Write", "write", "write_file", "create_file"})
_READERS = frozenset({"Read", "read", "read_file"})
_PATHS = ("file_path", "filePath", "absolute_path", "path")
_OLD = ("old_string", "oldString", "oldText", "old_str")
_NEW = ("new_string", "newString", "newText", "new_str")
_ONCE = {"replace_all": "false", "replaceAll": "false", "expected_replacements": "1"}
"""What a replacement of one place says, if it says it."""
_MADE = re.compile(r"\b(?:created|new file)\b", re.IGNORECASE)
_OVERWROTE = re.compile(r"\b(?:overw\w+|updated|replaced)\b", re.IGNORECASE)


def _as_exact_edit(
    tool: str, given: Mapping[str, str], answer: Observation | None
) -> Action | None:
    """A call of the file tools of Claude Code, Gemini CLI, opencode, pi or hermes."""
    path = next((given[name] for name in _PATHS if given.get(name)), "")
    rest = {name: value for name, value in given.items() if name not in _PATHS}
    own: dict[str, str] | None = None
    if tool in _READERS and not rest:
        own = {"command": "view", "path": path}
    elif tool in _WRITERS and rest.keys() == {"content"} and _made_a_file(answer):
        own = {"command": "create", "path": path, "file_text": rest["content"]}
    elif tool in _OWN_EDITORS:
        own = _as_replacement(path, rest, answer)
    found = Action("str_replace_editor", own) if own else None
    return found if found and is_own_call(found) else None


def _as_replacement(
    path: str, given: Mapping[str, str], answer: Observation | None
) -> dict[str, str] | None:
    """One text for another at one place; an empty text for another makes a file."""
    edit = _single_edit(given)
    old, new = (_first(edit, names) for names in (_OLD, _NEW))
    others = {n: v for n, v in edit.items() if n not in {*_OLD, *_NEW} and v is not None}
    once = all(str(value).lower() == _ONCE.get(name) for name, value in others.items())
    if old is None or new is None or not once:
        return None
    if old:
        return {"command": "str_replace", "path": path, "old_str": old, "new_str": new}
    made = {"command": "create", "path": path, "file_text": new}
    return made if _made_a_file(answer) else None


def _single_edit(given: Mapping[str, str]) -> Mapping[str, object]:
    """What is replaced; empty if the call replaces at several places, or does something else."""
    given = {n: v for n, v in given.items() if (n, v) != ("mode", "replace")}
    if "edits" not in given:
        return given
    try:
        edits = json.loads(given["edits"])
    except (ValueError, RecursionError):
        return {}
    rest = {n: v for n, v in given.items() if n != "edits"}
    alone = isinstance(edits, list) and len(edits) == 1 and isinstance(edits[0], Mapping)
    return {**rest, **edits[0]} if alone else {}


def _first(edit: Mapping[str, object], names: tuple[str, ...]) -> str | None:
    return next((value for name in names if isinstance(value := edit.get(name), str)), None)


def _made_a_file(answer: Observation | None) -> bool:
    text = answer.text[:300] if answer else ""
    return bool(_MADE.search(text)) and not _OVERWROTE.search(text)
