"""The tools of one tool set, with their state during one episode."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

from srl_swe.errors import UserError
from srl_swe.plugins import find_named
from srl_swe.sandbox import DIFF_TIMEOUT_S, Sandbox, enforced
from srl_swe.tools import search, windowed
from srl_swe.tools.bash import asks_for_more, run_bash
from srl_swe.tools.editor import start_history, str_replace_editor
from srl_swe.tools.recorded_paths import (
    PATH_ARGUMENTS,
    RecordedPaths,
    find_recorded_root,
    guess_root,
)
from srl_swe.tools.text_files import find_kind
from srl_swe.tools.toolsets import BUNDLED, MINI_IN_ATIF, TOOLSETS, Toolset
from srl_swe.tools.windowed import Windows
from srl_swe.types import Action, Instance, Observation, Trajectory

Tool = Callable[[Mapping[str, str], Sandbox], Observation]


def find_tool(name: str) -> tuple[str, Tool]:
    """A user's own tool (:mod:`srl_swe.plugins`), and the name by which a policy calls it.

    Raises UserError for a name that leads nowhere.
    """
    tool: Tool = find_named("tool", name, {})
    return name.rpartition(":")[2].rpartition(".")[2], tool


# Tools that end an episode, or have no effect.

SUBMIT = "submit"
"""The tool that ends an episode."""
_PATCH_FILE = "/tmp/.srl_swe.patch"
_REVIEW = """\
Thank you for your work on this issue. Please carefully follow the steps below to help review \
your changes.

1. If you made any changes to your code after running the reproduction script, please run the \
reproduction script again.
  If the reproduction script is failing, please revisit your changes and make sure they are \
correct.
  If you have already removed your reproduction script, please ignore this step.
2. Remove your reproduction script (if you haven't done so already).
3. If you have modified any TEST files, please revert them to the state they had before you \
started fixing the issue.
  You can do this with `git checkout -- /path/to/test/file.py`. Use below <diff> to find the \
files you need to revert.
4. Run the submit command again to confirm.

Here is a list of all of your changes:

<diff>
{diff}
</diff>
"""


@dataclass(slots=True)
class SubmitOfSweAgent:
    """SWE-agent's ``submit``, which answers with the patch, optionally after a review.

    The review (``tools/review_on_submit_m``) shows the diff and asks to submit again.
    """

    workdir: str
    reviews: bool

    def __call__(self, arguments: Mapping[str, str], sandbox: Sandbox) -> Observation:
        """The review or the patch for the policy to read; ``take_patch`` takes the one to grade.

        Stages all files, like SWE-agent. The patch is passed in a file, as a command's output may
        be truncated. It is empty if git refuses.
        """
        git = f"command git -C {shlex.quote(self.workdir)}"
        shown = "--cached --no-color --no-ext-diff --src-prefix=a/ --dst-prefix=b/ HEAD"
        command = f"{git} add -A && {git} diff {shown} > {_PATCH_FILE}"
        patch = ""
        if sandbox.exec(command, DIFF_TIMEOUT_S, keep_state=False).exit_code == 0:
            with suppress(OSError):
                patch = sandbox.read_file(_PATCH_FILE).decode("utf-8", errors="replace")
        if self.reviews:
            self.reviews = False
            return Observation(_REVIEW.format(diff=patch))
        return Observation(f"\n{patch}")


def keep_list(arguments: Mapping[str, str], sandbox: Sandbox) -> Observation:
    """OpenHands' ``task_tracker``: a list that only the policy reads."""
    if arguments.get("command") == "view":
        return Observation('No task list found. Use the "plan" command to create one.')
    return Observation("Task list has been updated.")


def _answering(text: str) -> Tool:
    """A tool that does nothing but answer."""
    return lambda arguments, sandbox: Observation(text)


_ENDS: Mapping[str, Tool] = {
    SUBMIT: _answering("Submitted."),  # the caller takes the diff and ends the episode
    "finish": _answering(""),  # OpenHands': its message is for the user
    "think": _answering("Your thought has been logged."),
    "task_tracker": keep_list,
}
_ENDS_OF_R2E: Mapping[str, Tool] = dict.fromkeys(("finish", SUBMIT), _answering("<<< Finished >>>"))
"""With the answer of R2E's harness."""

# Tool sets.

WORKDIR = "/testbed"

_WINDOWED: Mapping[str, Callable[..., Observation]] = {
    "set_cursors": windowed.set_cursors,
    "open": windowed.open_file,
    "goto": windowed.goto,
    "scroll_up": partial(windowed.scroll, lines=windowed.OVERLAP - windowed.WINDOW),
    "scroll_down": partial(windowed.scroll, lines=windowed.WINDOW - windowed.OVERLAP),
    "create": windowed.create,
    "edit": windowed.edit,
    "insert": windowed.insert,
    "find_file": search.find_file,
    "search_dir": search.search_dir,
    "search_file": search.search_file,
}
_EXACT = {
    **dict.fromkeys(search.READERS, search.read_whole_file),
    **dict.fromkeys(search.WRITERS, search.write_whole_file),
    **dict.fromkeys(search.EDITORS, search.edit_exactly),
}
_EDITOR_COMMANDS = frozenset({"view", "create", "str_replace", "insert", "undo_edit"})
_VERSION_0_MARKS = ("correct (correct indentation", "(1 lines total)]\n1:")
"""SWE-agent 0.x's words about an edit, and the window after its ``create``."""


@dataclass(slots=True, eq=False)
class Toolbox:
    """The tools of one episode, from :func:`open_toolbox`. Not to be shared between sandboxes.

    ``windows``: the state of SWE-agent's windows; None if the tool set has no windows.
    """

    toolset: Toolset
    tools: Mapping[str, Tool]
    paths: RecordedPaths
    workdir: str
    windows: Windows | None
    guessed_root: str | None
    _is_set_up: bool = field(default=False, init=False)

    def has_equal(self, action: Action) -> bool:
        """Whether a tool here has the call's intended effect.

        Our own tools always do, even if they refuse the call.
        """
        given, toolset = action.arguments, self.toolset
        if action.tool not in self.tools or toolset is BUNDLED:
            return action.tool in self.tools
        if action.tool in toolset.shell_names:
            typed = {"is_input"} if toolset.shell.takes_input else set()
            more = asks_for_more({n: v for n, v in given.items() if n not in typed})
            return not more and not given.keys().isdisjoint({"command", "cmd"})
        if action.tool in toolset.editors and action.tool != "read":
            return given.get("command") in _EDITOR_COMMANDS
        return True

    def perform(self, action: Action, sandbox: Sandbox) -> Observation:
        """Carry out one action and return the policy's observation.

        A mistake of the policy, such as an unknown tool, is an observation. Raises SandboxError
        if the infrastructure fails, and nothing else.
        """
        tool = self.tools.get(action.tool)
        if tool is None:
            known = ", ".join(self.tools)
            return Observation(f"Unknown tool {action.tool!r}. Known: {known}.", exit_code=1)
        self.set_up(sandbox)
        seen = tool(self.arguments(action), sandbox)
        text = self.paths.to_recorded(seen.text)
        return Observation(text, seen.exit_code, seen.truncated, seen.timed_out)

    def set_up(self, sandbox: Sandbox) -> None:
        """Before the first call: export the harness's variables, link recorded paths."""
        if self._is_set_up:
            return
        root = self.guessed_root
        if root and find_kind(root, sandbox) is None:
            self.paths = RecordedPaths({root: self.workdir})
        is_local = enforced(sandbox).get("sandbox") == "local"
        links = [] if is_local else self.paths.link_commands()  # no links on this machine itself
        environment = self.toolset.environment
        exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
        if exports or links:
            sandbox.exec("; ".join([*exports, *links]))
        self._is_set_up = True

    def arguments(self, action: Action) -> dict[str, str]:
        """The call's arguments, with the sandbox's paths."""
        # halves of surrogate pairs, which files can't hold, are replaced
        given = {
            name: value.encode("utf-8", errors="surrogatepass").decode("utf-8", errors="replace")
            for name, value in action.arguments.items()
        }
        return {
            name: self.paths.to_sandbox(value) if name in PATH_ARGUMENTS else value
            for name, value in given.items()
        }


def open_toolbox(
    name: str = "srl-swe",
    *,
    workdir: str = WORKDIR,
    recorded_paths: Mapping[str, str] | None = None,
    guessed_root: str | None = None,
    reviews: bool = False,
    cursors: bool = False,
    more: Mapping[str, Tool] = MappingProxyType({}),
) -> Toolbox:
    """The tools of a tool set, by its name in :data:`TOOLSETS`, fresh for one episode.

    ``recorded_paths`` maps recorded folders to the sandbox's; ``guessed_root`` is a folder
    that means ``workdir`` unless it exists in the sandbox. ``reviews``: SWE-agent's first
    ``submit`` shows a review, only the second submits. ``cursors``: SWE-agent's windows show the
    cursors between which ``edit`` writes. ``more``: tools by name, besides those of the set.
    Raises UserError for an unknown name.
    """
    toolset = TOOLSETS.get(name)
    if toolset is None:
        known = ", ".join(TOOLSETS)
        raise UserError(f"unknown tool set {name!r}. Known: {known}.")
    windows = Windows(workdir, toolset.windows) if toolset.windows else None
    if windows and cursors:
        windows.cursors = (1, 1)
    tools = _make_tools(toolset, workdir, windows, reviews=reviews)
    paths = RecordedPaths(recorded_paths or {})
    return Toolbox(toolset, {**tools, **more}, paths, workdir, windows, guessed_root)


def open_recorded_toolbox(trajectory: Trajectory, instance: Instance) -> Toolbox:
    """The tools that the trajectory was recorded with, for the instance's folder.

    SWE-agent's version, its review and the repository's folder are found in the record. An
    unknown source gets the bundled tools.
    """
    name = trajectory.source if trajectory.source in TOOLSETS else "srl-swe"
    actions = [step.action for step in trajectory.steps if step.action and step.executed]
    answers = [step.observation.text for step in trajectory.steps if step.observation]
    cursors = any(map(windowed.uses_cursors, actions))
    if name == "swe-agent" and (
        cursors or any(mark in text for text in answers for mark in _VERSION_0_MARKS)
    ):
        name = "swe-agent-0"
    root, guess = None, None
    if TOOLSETS[name] is not BUNDLED:
        paths = [a.arguments.get(name, "") for a in actions for name in PATH_ARGUMENTS]
        root = find_recorded_root([*paths, *answers], instance.repo, instance.workdir)
        guess = None if root else guess_root(trajectory.steps, instance.workdir)
    return open_toolbox(
        name,
        workdir=instance.workdir,
        recorded_paths={root: instance.workdir} if root else None,
        guessed_root=guess,
        reviews=sum(action.tool == SUBMIT for action in actions) > 1,
        cursors=cursors,
    )


def _make_tools(
    toolset: Toolset, workdir: str, windows: Windows | None, *, reviews: bool
) -> dict[str, Tool]:
    tools: dict[str, Tool] = {
        name: partial(run_bash, shell=toolset.shell) for name in toolset.shell_names
    }
    if MINI_IN_ATIF in tools:
        tools[MINI_IN_ATIF] = partial(run_bash, shell=replace(toolset.shell, keep_state=False))
    histories = {style: start_history(style) for style in toolset.editors.values()}
    for name, style in toolset.editors.items():
        tools[name] = partial(
            str_replace_editor,
            style=style,
            history=histories[style],
            workdir=workdir,
            command="view" if name == "read" else None,
        )
    if windows:
        for name, tool in _WINDOWED.items():
            tools[name] = partial(tool, windows=windows)
            if windows.style.is_version_0:
                tools[name] = partial(_print_line, tools[name])
    if toolset.edits_exactly:
        tools |= {name: partial(tool, workdir=workdir) for name, tool in _EXACT.items()}
    ends = dict(_ENDS)
    if toolset.searches:
        tools["search"] = partial(search.search_repository, workdir=workdir)
        ends |= _ENDS_OF_R2E
    if toolset.submit_shows_patch:
        ends[SUBMIT] = SubmitOfSweAgent(workdir, reviews)
    return tools | {name: ends[name] for name in toolset.ends}


def _print_line(tool: Tool, arguments: Mapping[str, str], sandbox: Sandbox) -> Observation:
    seen = tool(arguments, sandbox)
    return replace(seen, text=f"{seen.text}\n")
