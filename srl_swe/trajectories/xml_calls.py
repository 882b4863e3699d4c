"""``<function=...>`` blocks in a reply's text, as OpenHands, R2E-Gym and SWE-smith write them.

    I look first.

    <function=execute_bash>
    <parameter=command>ls</parameter>
    </function>

Qwen3-Coder puts each block into ``<tool_call>``. The last block may lack its closing tags or
have half of one: they are stop words of some harnesses. A block with a parameter that is never
closed is no call, except in ``<tool_call>``, where Qwen's own parser lets it end with the
block. What a value may hold besides is free: a ``</function>`` within a parameter belongs to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from srl_swe.types import Action

_OPEN = re.compile(r"<function=([^<>\n]*)>")
_PARAMETER = re.compile(r"\s*<parameter=([^<>\n]+)>")
_PARAMETER_END = "</parameter>"
_WRAPPER = "<tool_call>"
_NEAR = len(_WRAPPER) + 10
"""A wrapper stands within so many characters before its block."""
_HALF_TAG = r"(?:<(?:/[a-z_]{0,10})?)?\s*\Z"
_CLOSE = re.compile(rf"\s*(?:</function>|(?=</tool_call>)|{_HALF_TAG})")
_HALF_PARAMETER_END = re.compile(r"</[a-z]{0,9}\Z")
_CALL_END = re.compile(rf"\n?(?:</function>\s*)?(?:</tool_call>|{_HALF_TAG})")


def strip_one_newline(value: str) -> str:
    r"""The value without the one newline on each side that was put there to wrap it.

    >>> strip_one_newline("\n\n    x = 1\n\n")
    '\n    x = 1\n'
    """
    return value.removeprefix("\n").removesuffix("\n")


def read_xml_calls(
    text: str, unwrap: Callable[[str], str] = strip_one_newline
) -> tuple[str, list[Action]]:
    r"""The thought before the first call, and all calls; without one all text is the thought.

    A call without a name, R2E-Gym's way to write that there was none, counts as none. Takes
    time in proportion to the text, whatever it holds.

    >>> read_xml_calls("Look.\n\n<function=bash>\n<parameter=command>ls</parameter>\n")
    ('Look.', [Action(tool='bash', arguments={'command': 'ls'})])
    """
    actions: list[Action] = []
    thought, at, last_end = text, _end_of_thinking(text), text.rfind(_PARAMETER_END)
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
    """The arguments of the block that was opened before ``at``, and where it ends."""
    arguments: dict[str, str] = {}
    while parameter := _PARAMETER.match(text, at):
        name, start = parameter[1].strip(), parameter.end()
        if start > last_end:
            end = _cut_end(text, start, wrapped=wrapped)
            if end is None:
                return None
            return {**arguments, name: unwrap(text[start:end])}, len(text)
        end = text.index(_PARAMETER_END, start)
        arguments[name] = unwrap(text[start:end])
        at = end + len(_PARAMETER_END)
    closed = _CLOSE.match(text, at)
    return (arguments, closed.end()) if closed else None


def _cut_end(text: str, start: int, *, wrapped: bool) -> int | None:
    """Where the last value of the text ends, whose own closing tag is cut; None if unknown."""
    half = _HALF_PARAMETER_END.search(text, max(start, len(text) - len(_PARAMETER_END)))
    if half and _PARAMETER_END.startswith(half[0]):
        return half.start()
    if not wrapped:
        return None
    end = _CALL_END.search(text, start)
    return end.start() if end else None


def _end_of_thinking(text: str) -> int:
    """Where calls may begin: a call that is only thought about is none."""
    return max(text.find("</think>"), 0) if text.lstrip().startswith("<think>") else 0
