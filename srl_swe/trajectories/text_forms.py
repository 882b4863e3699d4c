"""How agents without native tool calls write theirs, and how their harness answers.

Three forms are told apart by what stands before an observation: OpenHands'
``EXECUTION RESULT of [tool]:``, R2E-Gym's ``Execution output of [tool]:`` and none of both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from srl_swe.trajectories.json_calls import read_json_calls
from srl_swe.trajectories.mini_output import is_output, read_output
from srl_swe.trajectories.observed import observed
from srl_swe.trajectories.turns import Call, Turn
from srl_swe.trajectories.xml_calls import read_xml_calls, strip_one_newline
from srl_swe.types import Observation

_OPENHANDS_HEAD = re.compile(r"(?:OBSERVATION:\n|EXECUTION RESULT of \[[^\]\n]*\]:\n)")
_OPENHANDS_CODE = re.compile(r"\[Command finished with exit code (-?\d{1,9})\]\s*\Z")
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
"""The last line, about the exit code or the steps remaining, is never longer."""


@dataclass(frozen=True, slots=True)
class TextForm:
    """``one_call``: the harness ran the first call of a reply and no other."""

    unwrap: Callable[[str], str]
    read_answer: Callable[[str], Observation]
    one_call: bool = False

    def read_reply(self, text: str) -> Turn:
        """The reply as a turn, without calls where it holds none."""
        thought, actions = read_xml_calls(text, self.unwrap)
        in_json = not actions
        if in_json:
            thought, actions = read_json_calls(text)
        calls = (Call(a, runnable=not (self.one_call and i)) for i, a in enumerate(actions))
        return Turn(plain_thought(thought), tuple(calls), answered_as_one=in_json)


def read_plain_answer(text: str) -> Observation:
    """An observation of OpenHands or of an unknown harness, without what announces it.

    Output in mini-swe-agent's template is taken out of it. The text keeps OpenHands' lines about
    directory, interpreter and exit code at its end.
    """
    if is_output(text):
        return read_output(text)
    code = _OPENHANDS_CODE.search(text[-_TAIL:])
    head = _OPENHANDS_HEAD.match(text)
    known = int(code[1]) if code and code[1] != "-1" else None
    return observed(text[head.end() :] if head else text, known)


def read_r2e_answer(text: str) -> Observation:
    r"""An observation of R2E-Gym or SWE-Master, without what the harness put around it.

    >>> text = "Exit code: 0\nExecution output of [execute_bash]:\nhi\nSteps Remaining: 3"
    >>> read_r2e_answer(text)
    Observation(text='hi', exit_code=0, truncated=False, timed_out=False)
    """
    tail = _R2E_TAIL.search(text, max(0, len(text) - _TAIL))
    text = text[: tail.start()] if tail else text
    head = _R2E_HEAD.match(text)
    if not head:
        return observed(text)
    code = int(head[1]) if head[1] and head[1] != "-1" else None
    return observed(text[head.end() :], code)


PLAIN = TextForm(strip_one_newline, read_plain_answer)
OPENHANDS = TextForm(strip_one_newline, read_plain_answer, one_call=True)
R2E_GYM = TextForm(str.strip, read_r2e_answer, one_call=True)


def find_form(texts: Iterable[str]) -> TextForm:
    """The form that a conversation is written in, by the first observation that tells."""
    for text in texts:
        if text.startswith("EXECUTION RESULT of ["):
            return OPENHANDS
        if _R2E_HEAD.match(text):
            return R2E_GYM
    return PLAIN


def plain_thought(text: str) -> str:
    r"""The thought without the tags around its hidden part and around calls.

    A chat template may have written the opening ``<think>``, so that it is not in the text.

    >>> plain_thought("<think>Maybe.</think> Yes.\n<tool_call>")
    'Maybe.\n\nYes.'
    """
    text = _CALL_TAGS.sub("", text).strip()
    hidden, closed, shown = text.removeprefix("<think>").partition("</think>")
    if not text.startswith("<think>") and (not closed or "<think>" in hidden):
        return text
    return "\n\n".join(part.strip() for part in (hidden, shown) if part.strip())


def without_placeholder(thought: str, calls: Sequence[Call]) -> str:
    """The thought, empty if a converter only filled the field, as with the name of the call.

    >>> from srl_swe.types import Action
    >>> without_placeholder("Executed Bash toolu_1", [Call(Action("Bash"), "toolu_1")])
    ''
    """
    words = thought.split()
    if calls and thought.strip().lower() in _PLACEHOLDERS:
        return ""
    named = any(words[1:] in ([c.action.tool], [c.action.tool, c.id]) for c in calls)
    return "" if words[:1] == ["Executed"] and named else thought


def split_responses(text: str) -> list[str]:
    r"""What stands in the ``<tool_response>`` blocks that a message is made of; else all of it.

    >>> split_responses("<tool_response>\na\n</tool_response>\n<tool_response>\nb")
    ['a', 'b']
    """
    if not text.lstrip().startswith(_RESPONSE):
        return [text]
    blocks = text.split(_RESPONSE)[1:]
    return [strip_one_newline(block.rpartition(_RESPONSE_END)[0] or block) for block in blocks]
