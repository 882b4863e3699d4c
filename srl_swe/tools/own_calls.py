"""Calls of experts as calls of our own tools: ``bash``, ``str_replace_editor``, ``submit``.

A policy is trained to call its own tools. Most harnesses only have other names for them.
A tool with another effect (``think``, SWE-agent's windows, OpenHands' ``run_ipython``) and a call
with arguments refused by ours have no equal; :mod:`~srl_swe.tools.translation` then looks for a
call with the same effect on the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain

from srl_swe.tools.bash import SWITCHES, as_plain_call, asks_for_more
from srl_swe.tools.recorded_paths import RecordedPaths, guess_root
from srl_swe.tools.search import EDITORS, READERS, WRITERS
from srl_swe.tools.toolbox import WORKDIR
from srl_swe.tools.toolsets import BUNDLED, MINI, TOOLSETS, Toolset
from srl_swe.tools.translation import Untranslated, edit_call, translate_from_record
from srl_swe.types import Action, ExpertReply, Observation, Step, Trajectory, Translation

FOREIGN_SHELL = "foreign_shell"
"""The tool of a command that needs programs of its harness's shell."""

_WITHOUT_EFFECT = SWITCHES | {
    *("security_risk", "summary", "description", "explanation", "instruction", "justification"),
    *("timeout", "timeout_ms", "yield_time_ms", "max_output_tokens", "blocking", "login"),
    *("with_escalated_permissions", "sandbox_permissions", "dangerouslyDisableSandbox"),
}
"""Arguments without effect in the container; the ones in :data:`SWITCHES` only if false."""
_TYPED = re.compile(r"|(?:C-|ctrl\+|\^)[a-z]", re.IGNORECASE)
"""Nothing, or control keys."""
_EDITOR_ARGUMENTS = frozenset(
    {"command", "path", "file_text", "old_str", "new_str", "insert_line", "view_range"}
)
_REQUIRED: Mapping[str, set[str]] = {  # undo_edit is refused, as there is no history
    "view": {"path"},
    "create": {"path", "file_text"},
    "str_replace": {"path", "old_str"},
    "insert": {"path", "insert_line", "new_str"},
}
_RANGE = re.compile(r"\[\s*\d{1,9}\s*,\s*-?\d{1,9}\s*\]")
_ENDS = frozenset({"submit", "finish", "mark_task_complete"})
SUBMIT_MARK = (
    r"echo ['\"]?(?:COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT|MINI_SWE_AGENT_FINAL_OUTPUT)['\"]?"
)
"""mini-swe-agent's last command begins so: a regular expression."""
_SUBMITS = re.compile(  # mini's prompts allow a command after it to print the patch
    rf"\s*{SUBMIT_MARK}(?:\s*&&\s*git add (?:-A|--all|\.)\s*&&\s*git diff --cached"
    r"|\s*&&\s*cat [\w./-]+)?\s*"
)
_ENDS_WITHIN = re.compile(rf"(?:^|[;&|\n])[ \t]*{SUBMIT_MARK}")
_WINDOW_TOOLS = frozenset(
    {
        *("open", "goto", "scroll_up", "scroll_down", "create", "edit", "insert", "set_cursors"),
        *("find_file", "search_dir", "search_file", "filemap", "submit", "str_replace_editor"),
        "exit_forfeit",
    }
)
"""The programs in SWE-agent's containers."""
_COMMAND_START = re.compile(r"(?:^|&&|\|\|?|[;\n(])[ \t]*([a-z_]+)(?=\s|\Z)")


def is_own_call(action: Action) -> bool:
    """Whether our own tools carry out the call.

    >>> is_own_call(Action("submit")), is_own_call(Action("bash", {"restart": "true"}))
    (True, False)
    """
    given = action.arguments
    match action.tool:
        case "bash":
            command = given.get("command", "").strip()
            return given.keys() == {"command"} and not _TYPED.fullmatch(command)
        case "str_replace_editor":
            needed = _REQUIRED.get(given.get("command", ""), {""})
            if not needed <= given.keys() <= _EDITOR_ARGUMENTS:
                return False
            bounds, line = given.get("view_range", "[1, 2]"), given.get("insert_line", "0").strip()
            in_bounds = _RANGE.fullmatch(bounds.strip()) is not None
            return (
                in_bounds and line.isascii() and line.isdecimal() and given["path"].startswith("/")
            )
        case "submit":
            return not given
    return False


def as_own_call(action: Action, source: str, answer: Observation | None = None) -> Action:
    """The same call under our names; ``action`` itself if it is ours already or has no equal.

    ``answer`` shows whether a call that writes a whole file created it. A command that runs
    SWE-agent's programs, or submits in mini and does more, becomes one of ``FOREIGN_SHELL``.

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
    if plain.tool in _ENDS and plain.tool in toolset.ends:
        return action if "flag" in given else Action("submit")
    found = None
    if asks_for_more(plain.arguments):
        return action
    if plain.tool in toolset.shell_names:
        if len(given) == 1 and not given.keys().isdisjoint({"command", "cmd"}):
            (command,) = given.values()
            found = _as_bash(command, toolset)
    elif plain.tool in toolset.editors:
        path = given.get("path", "")
        if toolset.searches and path and not path.startswith("/"):  # R2E's run in the repository
            given["path"] = f"/testbed/{path.removeprefix('./')}".removesuffix("/.")
        found = Action("str_replace_editor", given)
    elif toolset.edits_exactly:
        found = _as_exact_edit(plain.tool, given, answer)
    return found if found and (is_own_call(found) or found.tool == FOREIGN_SHELL) else action


def _as_bash(command: str, toolset: Toolset) -> Action:
    """Our ``bash`` or ``submit``, or one of ``FOREIGN_SHELL``."""
    if toolset is not BUNDLED and _SUBMITS.fullmatch(command):
        return Action("submit")
    # programs of SWE-agent are looked for outside of quotes, and above any here-document
    text = command.partition("<<")[0] if toolset.windows else ""
    bare = re.sub(r"'[^']*'|\"(?:\\.|[^\"\\])*\"", "''", text, flags=re.DOTALL)
    is_foreign = any(word in _WINDOW_TOOLS for word in _COMMAND_START.findall(bare))
    is_foreign = is_foreign or (toolset is MINI and _ENDS_WITHIN.search(command) is not None)
    return Action(FOREIGN_SHELL if is_foreign else "bash", {"command": command})


_PATHS = ("file_path", "filePath", "absolute_path", "path")
_OLD = ("old_string", "oldString", "oldText", "old_str")
_NEW = ("new_string", "newString", "newText", "new_str")
_ONCE = {"replace_all": "false", "replaceAll": "false", "expected_replacements": "1"}
"""Values of these arguments that mean one replacement."""
_MADE = re.compile(r"\b(?:created|new file)\b", re.IGNORECASE)
_OVERWROTE = re.compile(r"\b(?:overw\w+|updated|replaced)\b", re.IGNORECASE)


def _as_exact_edit(
    tool: str, given: Mapping[str, str], answer: Observation | None
) -> Action | None:
    """A call of the file tools of Claude Code, Gemini CLI, opencode, pi or hermes.

    A replacement must be at one place; an empty old text creates a file.
    """
    path = next((given[name] for name in _PATHS if given.get(name)), "")
    rest = {name: value for name, value in given.items() if name not in _PATHS}
    if tool in READERS and not rest:
        return edit_call("view", path)
    if tool in WRITERS and rest.keys() == {"content"} and _made_a_file(answer):
        return edit_call("create", path, file_text=rest["content"])
    if tool not in EDITORS:
        return None
    edit = _single_edit(rest)
    texts = {name: value for name, value in edit.items() if isinstance(value, str)}
    old = next((texts[name] for name in _OLD if name in texts), None)
    new = next((texts[name] for name in _NEW if name in texts), None)
    others = {n: v for n, v in edit.items() if n not in {*_OLD, *_NEW} and v is not None}
    once = all(str(value).lower() == _ONCE.get(name) for name, value in others.items())
    if old is None or new is None or not once:
        return None
    if old:
        return edit_call("str_replace", path, old_str=old, new_str=new)
    return edit_call("create", path, file_text=new) if _made_a_file(answer) else None


def _single_edit(given: Mapping[str, str]) -> Mapping[str, object]:
    """The only edit of a call; empty if it has several or does something else."""
    given = {n: v for n, v in given.items() if (n, v) != ("mode", "replace")}
    if "edits" not in given:
        return given
    try:
        (edit,) = json.loads(given.pop("edits"))
    except (TypeError, ValueError, RecursionError):
        return {}
    return {**given, **edit} if isinstance(edit, Mapping) else {}


def _made_a_file(answer: Observation | None) -> bool:
    text = answer.text[:300] if answer else ""
    return bool(_MADE.search(text)) and not _OVERWROTE.search(text)


@dataclass(frozen=True, slots=True)
class OwnStep:
    """A step with a call of our own tools, or with the expert's call and a ``problem``.

    ``translated`` names the expert's tool if the call is a translation. ``problem`` is the
    reason why none of our calls has the same effect; empty if ``step`` holds such a call.
    """

    step: Step
    translated: str = ""
    problem: str = ""


def make_own_steps(trajectory: Trajectory) -> tuple[Trajectory, tuple[OwnStep, ...]]:
    """The trajectory with our own calls and folder, and the result for each step.

    A call is renamed, replaced by a replay's translation (``Step.translation``), or translated
    from the record alone. The recorded folder of the repository becomes the folder of prompts.
    """
    toolset = TOOLSETS.get(trajectory.source)
    shown: list[Translation | None] = [None] * len(trajectory.steps)
    if toolset is not None and toolset.windows:
        shown = translate_from_record(trajectory)
    made = [
        _own_step(step, step.translation or from_record, trajectory.source)
        for step, from_record in zip(trajectory.steps, shown, strict=True)
    ]
    root = guess_root(chain(trajectory.steps, (own.step for own in made)), WORKDIR)
    issue = trajectory.problem_statement
    if root is not None:
        move = RecordedPaths({root: WORKDIR}).to_sandbox
        made = [replace(own, step=_move(own.step, move)) for own in made]
        issue = issue and move(issue)
    steps = tuple(own.step for own in made)
    return replace(trajectory, steps=steps, problem_statement=issue), tuple(made)


def _own_step(step: Step, translation: Translation | None, source: str) -> OwnStep:
    if step.action is None:
        return OwnStep(step)
    if translation is not None and translation.action is not None:
        seen = translation.observation or step.observation
        own = replace(step, action=translation.action, observation=seen)
        return OwnStep(own, translated=step.action.tool)
    action = as_own_call(step.action, source, step.observation)
    problem = translation.reason if translation is not None else ""
    if not problem and not is_own_call(action) and source in TOOLSETS:
        problem = Untranslated.NO_EQUAL_TOOL.value
    return OwnStep(replace(step, action=action), problem=problem)


def _move(step: Step, move: Callable[[str], str]) -> Step:
    action, seen, expert = step.action, step.observation, step.expert
    action = action and _move_call(action, move)
    seen = seen and replace(seen, text=move(seen.text))
    if expert is not None:
        expert = ExpertReply(move(expert.thought), _move_call(expert.action, move))
    thought = move(step.thought)
    return replace(step, thought=thought, action=action, observation=seen, expert=expert)


def _move_call(action: Action, move: Callable[[str], str]) -> Action:
    return Action(action.tool, {name: move(value) for name, value in action.arguments.items()})
