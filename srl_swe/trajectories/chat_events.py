"""Chat messages as turns and answers: native calls if a message has them, else calls in its text.

In order: calls as JSON, calls as XML, the textual forms of a chat (:class:`TextForm`), and messages
(:func:`read_messages`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice, pairwise, takewhile
from typing import Any, TypeGuard

from srl_swe.tools.bash import as_plain_call
from srl_swe.trajectories.fields import Fields, parse_json, render_arguments
from srl_swe.trajectories.row_facts import find_issue, pick_task
from srl_swe.trajectories.turns import (
    Answer,
    Call,
    Turn,
    is_mini_output,
    make_observation,
    read_mini_output,
)
from srl_swe.types import Action, Observation

# Calls as JSON. Hermes, Qwen and Harbor's exports have ``<tool_call>`` blocks; LLaMA-Factory's
# ``function_call`` messages are the JSON alone; terminus-2's replies are ``{"analysis", "plan",
# "commands": [{"keystrokes", "duration"}], "task_complete"}``. A stop word may have truncated the
# last call.

_START, _END = "<tool_call>", "</tool_call>"
_CUT_END = re.compile(r"</?[a-z_]{0,10}\Z")
_MOST_OPEN = 20
_JSON_LINE = re.compile(r"^[^\S\n]*[\[{]", re.MULTILINE)


def read_json_calls(text: str) -> tuple[str, list[Call]]:
    """The thought and the calls of a reply; without a call, all text is the thought.

    A block that is not a call, beside one that is, is a call that never ran.

    >>> read_json_calls('Look.<tool_call>{"name": "ls", "arguments": {"a": 1}}</tool_call>')
    ('Look.', [Call(action=Action(tool='ls', arguments={'a': '1'}), id=None, runnable=True)])
    """
    text = text.strip()
    start = _shown_from(text, _START)
    hidden, shown = text[:start], text[start:]
    before, *blocks = shown.split(_START)
    calls: list[Call] = []
    for block in (block.partition(_END)[0].strip() for block in blocks):
        wrong = Call(Action("tool_call", {"arguments": block}), runnable=False)
        calls += list(map(Call, parse_calls(block))) or [wrong]
    if any(call.runnable for call in calls):
        return (hidden + before).strip(), calls
    thought, actions = _terminus_reply(shown.strip()) or (shown, [])
    return hidden + thought, list(map(Call, actions))


def _shown_from(text: str, opening: str) -> int:
    """The end of the hidden thought, in which a call does not count; 0 without one.

    Its own opening tag may stand in the prompt; then a call must follow it.
    """
    hidden, closed, shown = text.partition("</think>")
    is_hidden = hidden.lstrip().startswith("<think>") or (
        "<think>" not in hidden and opening in shown
    )
    return len(hidden) + len(closed) if closed and is_hidden else 0


def _split_calls(text: str) -> tuple[str, list[Action]]:
    """The thought before calls as JSON, and the calls; no calls if the text has none."""
    for start in islice(_JSON_LINE.finditer(text), _MOST_OPEN):
        if actions := parse_calls(text[start.end() - 1 :]):
            return text[: start.end() - 1], actions
    return text, []


def parse_calls(text: str) -> list[Action]:
    """The calls in JSON text, one object or a list; empty if it is something else.

    >>> parse_calls('[{"name": "ls", "arguments": {}}, {"name": "id", "arguments": {}')
    [Action(tool='ls', arguments={}), Action(tool='id', arguments={})]
    """
    value = _parse_cut(text.strip())
    actions = []
    for item in value if isinstance(value, list) else [value]:
        inner = item.get("function") if isinstance(item, Mapping) else None
        call = inner if isinstance(inner, Mapping) else item
        if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
            return []
        arguments = call.get("arguments")
        arguments = call.get("parameters") if arguments is None else arguments
        if arguments is None or arguments == "":
            arguments = {}
        arguments = _parse(arguments) if isinstance(arguments, str) else arguments
        if not isinstance(arguments, Mapping):
            return []
        actions.append(Action(call["name"], render_arguments(arguments)))
    return actions


def _parse_cut(text: str) -> Any:
    """The JSON value, also if the end of its objects and lists is missing; else None."""
    if text[:1] not in {"{", "["}:
        return None
    if (value := _parse(text)) is not None:
        return value
    text = _CUT_END.sub("", text).rstrip()
    closing: list[str] = []
    in_string = escaped = False
    for sign in text:
        if in_string:
            in_string = escaped or sign != '"'
            escaped = sign == "\\" and not escaped
        elif sign == '"':
            in_string = True
        elif sign in "{[":
            closing.append("}" if sign == "{" else "]")
        elif sign in "}]" and closing:
            closing.pop()
    if in_string or len(closing) > _MOST_OPEN:
        return None
    return _parse(text + "".join(reversed(closing)))


def _terminus_reply(text: str) -> tuple[str, list[Action]] | None:
    """Thought and calls, in the words of Harbor's converter for terminus-2."""
    reply = _parse(text) if text.startswith("{") else None
    commands = reply.get("commands") if isinstance(reply, Mapping) else None
    if not isinstance(reply, Mapping) or not isinstance(commands, list) or "plan" not in reply:
        return None
    actions = [
        Action("bash_command", render_arguments(command))
        for command in commands
        if isinstance(command, Mapping)
    ]
    if reply.get("task_complete") is True:
        actions.append(Action("mark_task_complete"))
    return f"Analysis: {reply.get('analysis', '')}\nPlan: {reply['plan']}", actions


def _parse(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return None


# Calls as XML, written by OpenHands, R2E-Gym and SWE-smith:
#
#     <function=execute_bash>
#     <parameter=command>ls</parameter>
#     </function>
#
# Qwen3-Coder puts each block into ``<tool_call>``. The last block may lack its closing tags or have
# half of one: they are stop words of some harnesses. A block whose parameter is never closed is not
# a call, except in ``<tool_call>``, where Qwen's parser ends the parameter with the block. Values
# may hold anything else: a ``</function>`` within a parameter belongs to it.

_OPEN = re.compile(r"<function=([^<>\n]*)>")
_PARAMETER = re.compile(r"\s*<parameter=([^<>\n]+)>")
_PARAMETER_END = "</parameter>"
_WRAPPER = "<tool_call>"
_NEAR = len(_WRAPPER) + 10
"""A wrapper lies within so many characters before its block."""
_HALF_TAG = r"(?:<(?:/[a-z_]{0,10})?)?\s*\Z"
_CLOSE = re.compile(rf"\s*(?:</function>|(?=</tool_call>)|{_HALF_TAG})")
_HALF_PARAMETER_END = re.compile(r"</[a-z]{0,9}\Z")
_CALL_END = re.compile(rf"\n?(?:</function>\s*)?(?:</tool_call>|{_HALF_TAG})")


def strip_one_newline(value: str) -> str:
    r"""The value without the newline on each side that wraps it.

    >>> strip_one_newline("\n\n    x = 1\n\n")
    '\n    x = 1\n'
    """
    if value.startswith("\r\n"):  # the whole message has these ends of lines
        value = value.replace("\r\n", "\n")
    return value.removeprefix("\n").removesuffix("\n")


def read_xml_calls(
    text: str, unwrap: Callable[[str], str] = strip_one_newline
) -> tuple[str, list[Action]]:
    r"""The thought before the first call, and all calls; without a call, all text is the thought.

    A call without a name (R2E-Gym's mark of a missing call) does not count. Takes time linear
    in the length of any text.

    >>> read_xml_calls("Look.\n\n<function=bash>\n<parameter=command>ls</parameter>\n")
    ('Look.', [Action(tool='bash', arguments={'command': 'ls'})])
    """
    actions: list[Action] = []
    at = _shown_from(text, "<function=")
    thought, last_end = text, text.rfind(_PARAMETER_END)
    while opened := _OPEN.search(text, at):
        at = opened.end()
        wrapped = text[max(0, opened.start() - _NEAR) : opened.start()].rstrip().endswith(_WRAPPER)
        block = _read_block(text, at, last_end, unwrap, wrapped=wrapped)
        if block is None:
            continue
        arguments, at = block
        thought = thought if actions else text[: opened.start()]
        if opened[1].strip():
            actions.append(Action(opened[1].strip(), arguments))
    return thought.strip(), actions


def _read_block(
    text: str, at: int, last_end: int, unwrap: Callable[[str], str], *, wrapped: bool
) -> tuple[dict[str, str], int] | None:
    """The arguments of the block opened before ``at``, and its end."""
    arguments: dict[str, str] = {}
    while parameter := _PARAMETER.match(text, at):
        name, start = parameter[1].strip(), parameter.end()
        if start > last_end:  # the last value of the text: its closing tag is truncated
            cut = _HALF_PARAMETER_END.search(text, max(start, len(text) - len(_PARAMETER_END)))
            if cut is None or not _PARAMETER_END.startswith(cut[0]):
                cut = _CALL_END.search(text, start) if wrapped else None
            if cut is None:
                return None
            return {**arguments, name: unwrap(text[start : cut.start()])}, len(text)
        end = text.index(_PARAMETER_END, start)
        arguments[name] = unwrap(text[start:end])
        at = end + len(_PARAMETER_END)
    closed = _CLOSE.match(text, at)
    return (arguments, closed.end()) if closed else None


# Forms of calls and answers without native tool calls, by the line before an observation:
# OpenHands' ``EXECUTION RESULT of [tool]:``, R2E-Gym's ``Execution output of [tool]:``, or neither.

_OPENHANDS_HEAD = re.compile(r"(?:OBSERVATION:\n|EXECUTION RESULT of \[[^\]\n]*\]:\n)")
_OPENHANDS_CODE = re.compile(r"\[Command finished with exit code (-?\d{1,9})\]\s*\Z")
_CODEX_HEAD = re.compile(
    r"(?:Chunk ID: [^\n]*\n)?(?:Exit code: (-?\d{1,9})\n)?Wall time: [^\n]*\n"
    r"(?:Process exited with code (-?\d{1,9})\n)?"
    r"(?:(?:Original token count|Total output lines): [^\n]*\n)*Output:\n"
)
_R2E_HEAD = re.compile(
    r"(?:Exit code: (?:Error: Exit code )?(-?\d{1,9})\n)?Execution output of \[[^\]\n]*\]:\n"
)
_R2E_TAIL = re.compile(
    r"\n(?:This is step \d+ of a maximum of \d+\. )?Steps Remaining: -?\d+\.?\s*\Z"
)
_CALL_TAGS = re.compile(r"</?tool_(?:call|response)>")
_PLACEHOLDERS = frozenset(
    {"(tool use)", "[tool use]", "(tool call)", "[tool call]", "(no content)"}
)
_RESPONSE, _RESPONSE_END = "<tool_response>", "</tool_response>"
_TAIL = 200
"""The last line (exit code, steps remaining) is never longer."""


@dataclass(frozen=True, slots=True)
class TextForm:
    """A textual form. ``one_call``: the harness ran only the first call of a reply."""

    unwrap: Callable[[str], str]
    read_answer: Callable[[str], Observation]
    one_call: bool = False

    def read_reply(self, text: str) -> Turn:
        """The reply as a turn."""
        thought, actions = read_xml_calls(text, self.unwrap)
        in_json, calls = not actions, list(map(Call, actions))
        if in_json:
            thought, calls = read_json_calls(text)
        if self.one_call:
            calls[1:] = [replace(call, runnable=False) for call in calls[1:]]
        return Turn(clean_thought(thought), tuple(calls), answered_as_one=in_json)


def read_plain_answer(text: str) -> Observation:
    """An observation of OpenHands or of an unknown harness, without the line before it.

    Output is taken out of mini-swe-agent's template and Codex' frame. OpenHands' last lines about
    directory, interpreter and exit code are kept.
    """
    if is_mini_output(text):
        return read_mini_output(text)
    if framed := _CODEX_HEAD.match(text):
        shown = framed[1] or framed[2]
        return make_observation(text[framed.end() :], int(shown) if shown else None)
    if text.startswith('{"output"') and isinstance(value := _parse(text), Mapping):
        output, facts = value["output"], value.get("metadata")
        shown = facts.get("exit_code") if isinstance(facts, Mapping) else None
        if isinstance(output, str) and type(shown) is int:  # Codex' older frame
            return make_observation(output, shown)
    code = _OPENHANDS_CODE.search(text[-_TAIL:])
    head = _OPENHANDS_HEAD.match(text)
    known = int(code[1]) if code and code[1] != "-1" else None
    return make_observation(text[head.end() :] if head else text, known)


def read_r2e_answer(text: str) -> Observation:
    r"""An observation of R2E-Gym or SWE-Master, without the harness's frame.

    >>> text = "Exit code: 0\nExecution output of [execute_bash]:\nhi\nSteps Remaining: 3"
    >>> read_r2e_answer(text)
    Observation(text='hi', exit_code=0, truncated=False, timed_out=False)
    """
    tail = _R2E_TAIL.search(text, max(0, len(text) - _TAIL))
    text = text[: tail.start()] if tail else text
    head = _R2E_HEAD.match(text)
    if not head:
        return make_observation(text)
    code = int(head[1]) if head[1] and head[1] != "-1" else None
    return make_observation(text[head.end() :], code)


PLAIN_FORM = TextForm(strip_one_newline, read_plain_answer)
OPENHANDS_FORM = TextForm(strip_one_newline, read_plain_answer, one_call=True)
R2E_GYM_FORM = TextForm(str.strip, read_r2e_answer, one_call=True)


def find_form(texts: Iterable[str]) -> TextForm:
    """The form of a conversation, by the first observation with a known line before it."""
    for text in texts:
        if text.startswith("EXECUTION RESULT of ["):
            return OPENHANDS_FORM
        if _R2E_HEAD.match(text):
            return R2E_GYM_FORM
    return PLAIN_FORM


def clean_thought(text: str) -> str:
    r"""The thought without the tags around its hidden part and around calls.

    The opening ``<think>`` may be missing: some chat templates write it into the prompt.

    >>> clean_thought("<think>Maybe.</think> Yes.\n<tool_call>")
    'Maybe.\n\nYes.'
    """
    text = _CALL_TAGS.sub("", text).strip()
    hidden, closed, shown = text.removeprefix("<think>").partition("</think>")
    if not text.startswith("<think>") and (not closed or "<think>" in hidden):
        return text
    return join_thoughts(hidden, shown)


def join_thoughts(*parts: str) -> str:
    """The parts of a thought that are not empty, a blank line between them."""
    return "\n\n".join(part.strip() for part in parts if part.strip())


def drop_placeholder(thought: str, calls: Sequence[Call]) -> str:
    """The thought; empty if a converter only filled the field, as with the call's name.

    >>> from srl_swe.types import Action
    >>> drop_placeholder("Executed Bash toolu_1", [Call(Action("Bash"), "toolu_1")])
    ''
    """
    words = thought.split()
    if calls and thought.strip().lower() in _PLACEHOLDERS:
        return ""
    named = any(words[1:] in ([c.action.tool], [c.action.tool, c.id]) for c in calls)
    return "" if words[:1] == ["Executed"] and named else thought


def split_responses(text: str) -> list[str]:
    r"""The contents of a message's ``<tool_response>`` blocks, or the whole message.

    >>> split_responses("<tool_response>\na\n</tool_response>\n<tool_response>\nb")
    ['a', 'b']
    """
    if not text.lstrip().startswith(_RESPONSE):
        return [text]
    blocks = text.split(_RESPONSE)[1:]
    return [strip_one_newline(block.rpartition(_RESPONSE_END)[0] or block) for block in blocks]


_CALLS_ALONE = frozenset({"function_call", "tool_call"})
"""Roles of messages that are calls as JSON and nothing else (LLaMA-Factory, ms-swift)."""
ASSISTANT = frozenset({"assistant", "gpt", "ai", "model", *_CALLS_ALONE})
_TOOL = frozenset(
    {"tool", "function", "observation", "tool_response", "function_response", "tool_result"}
    | {"ipython", "environment", "env"}
)
_USER = frozenset({"user", "human"})
_PROMPT = frozenset({"system", "developer"})
_EXAMPLE_END = "END OF EXAMPLE ---------------------"
_TASK = "NEW TASK DESCRIPTION ---------------------"
_TASK_END = "--------------------- END OF NEW TASK"
OPENING = 40
"""Formats are recognized within so many messages."""


def read_messages(messages: Iterable[Fields], form: TextForm) -> Iterator[Turn | Answer]:
    """Turns and answers, from the policy's first message on.

    A user's message is an answer only if it holds results of tools, if no call of the turn has an
    id, or if two users' messages or more follow calls and the record has no results of tools.
    Otherwise it is a nudge of the harness. A message that is a call alone belongs to the message
    before it. Raises BrokenRecord for an unknown role.
    """
    messages = list(messages)
    by_id = any(_role(m) in _TOOL or m.get("tool_call_id") for m in messages)
    by_id = by_id or any(_parts(message, "tool_result") for message in messages)
    called = (_role(b) in _USER and a.get("tool_calls") for a, b in pairwise(messages))
    by_id = by_id or sum(map(bool, called)) < 2
    turn: Turn | None = None
    is_open = False
    for message in messages:
        role = _role(message)
        if role in ASSISTANT:
            new = read_turn(message, form)
            if turn and is_open and role in _CALLS_ALONE:
                thought = join_thoughts(turn.thought, new.thought)
                turn = Turn(thought, turn.calls + new.calls, turn.answered_as_one)
                continue
            if turn and is_open:
                yield turn
            turn, is_open = new, True
            continue
        if role not in _TOOL | _USER | _PROMPT and turn:
            raise message.broken("role", f"unknown role {role[:40]!r}")
        answers = _read_answers(message, role, turn, form, by_id=by_id) if turn else []
        if turn and is_open and answers:
            yield turn
            is_open = False
        yield from answers
    if turn and is_open:
        yield turn


def _role(message: Fields) -> str:
    return message.text("role").lower()


def _read_answers(
    message: Fields, role: str, turn: Turn, form: TextForm, *, by_id: bool
) -> list[Answer]:
    if results := _parts(message, "tool_result"):
        ids = (result.optional_text("tool_use_id") for result in results)
        texts = (form.read_answer(result.content()) for result in results)
        return list(map(Answer, texts, ids))
    called = message.optional_text("tool_call_id")
    has_ids = by_id and any(call.id for call in turn.calls)
    if role not in _TOOL and (role not in _USER or (has_ids and not called)):
        return []
    return [Answer(form.read_answer(text), called) for text in split_responses(message.content())]


def read_turn(message: Fields, form: TextForm) -> Turn:
    """One message of the policy; recorded hidden reasoning comes first in its thought."""
    text = message.content()
    if _role(message) in _CALLS_ALONE:
        thought, actions = _split_calls(text)
        if actions:
            return Turn(clean_thought(thought), tuple(map(Call, actions)), answered_as_one=True)
    calls = [
        read_call(c.mapping("function"), c.optional_text("id")) for c in message.items("tool_calls")
    ]
    older = message.mapping("function_call") if message.get("function_call") else None
    if older and any(value is not None for value in older.values.values()):
        calls.append(read_call(older, None))
    for part in _parts(message, "tool_use"):
        calls.append(read_call(part, part.optional_text("id"), arguments="input"))
    turn = Turn(clean_thought(text), tuple(calls)) if calls else form.read_reply(text)
    thought = drop_placeholder(turn.thought, turn.calls)
    return replace(turn, thought=join_thoughts(hidden_thought(message), thought))


def hidden_thought(message: Fields) -> str:
    """The reasoning that an API returns beside the content; empty without any."""
    hidden = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(hidden, str):
        return hidden
    blocks = message.items("thinking_blocks") if message.get("thinking_blocks") else []
    parts = [*_parts(message, "thinking"), *blocks]
    return join_thoughts(*(part.optional_text("thinking") or "" for part in parts))


def _parts(message: Fields, kind: str) -> list[Fields]:
    """The content's parts of one type; empty if the content is not a list."""
    if not isinstance(message.get("content"), list | tuple):
        return []
    texts = {"content": [p for p in message.get("content") if not isinstance(p, str)]}
    parts = Fields(texts, message.where, message.path).items("content")
    return [part for part in parts if part.get("type") == kind]


def read_call(
    call: Fields, call_id: str | None, name: str = "name", arguments: str = "arguments"
) -> Call:
    """A native call: its name, and its arguments as an object or as JSON, from these fields.

    JSON may be encoded twice. Other arguments are kept under the name ``arguments``; such a call
    never ran.
    """
    tool, given = call.text(name), call.get(arguments)
    with suppress(ValueError):
        while isinstance(given, str):
            given = parse_json(given) if given.strip() else {}
    if given is None or isinstance(given, Mapping):
        return Call(as_plain_call(Action(tool, render_arguments(given or {}))), call_id)
    return Call(Action(tool, render_arguments({"arguments": given})), call_id, runnable=False)


def read_task(messages: Iterable[Fields]) -> str | None:
    """The issue in the user's messages before the policy's first; None without one."""
    before = takewhile(lambda message: _role(message) not in ASSISTANT, messages)
    task = pick_task([message.content() for message in before if _role(message) in _USER])
    return None if task is None else find_task(task)


def find_task(message: str) -> str:
    """The issue in the first message of a run.

    OpenHands puts a solved example before the task and instructions about the format after it.
    """
    text = message.rpartition(_EXAMPLE_END)[2]
    return find_issue(text.partition(_TASK)[2].partition(_TASK_END)[0] or text)


def has_role_messages(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether it is a list of messages with roles; looks only at the first few."""
    if not isinstance(value, list | tuple) or not value:
        return False
    return all(isinstance(item, Mapping) and "role" in item for item in value[:3])


def first_texts(messages: object) -> list[str]:
    """The texts of the first messages; empty if it is not a chat."""
    if not has_role_messages(messages):
        return []
    return [text_of(m.get("content")) for m in messages[:OPENING] if isinstance(m, Mapping)]


def text_of(content: object) -> str:
    """The text of a message's content, which may be a list of parts; others give none."""
    parts = content if isinstance(content, list) else [content]
    texts = (part.get("text") if isinstance(part, Mapping) else part for part in parts)
    return "".join(text for text in texts if isinstance(text, str))
