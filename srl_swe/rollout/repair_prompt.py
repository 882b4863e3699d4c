"""The prompt of a one-reply repair: the issue and the files to change (oracle setting)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import resources

from unidiff.patch import PatchSet

from srl_swe.context_window import CountTokens, OverBudget
from srl_swe.errors import SandboxError
from srl_swe.sandbox import Sandbox
from srl_swe.types import Instance, Message

SYSTEM_PROMPT = resources.files("srl_swe").joinpath("prompts/search_replace.md").read_text("utf-8")
_CUT = "(the rest of the file is left out)"
_SHORTEST_CHARS = 200


def oracle_paths(gold_patch: str) -> list[str]:
    """The files that the gold patch changes: its ``.py`` files, or all where it has none.

    Files that it adds are not there to be shown.
    """
    changed = [file.path for file in PatchSet(gold_patch) if not file.is_added_file]
    return [path for path in changed if path.endswith(".py")] or changed


def oracle_files(instance: Instance, sandbox: Sandbox) -> dict[str, str]:
    """The text of those files at the base commit, by path. Raises SandboxError.

    What is no file in UTF-8 can't be shown and is left out.
    """
    files: dict[str, str] = {}
    for path in oracle_paths(instance.gold_patch):
        try:
            files[path] = sandbox.read_file(f"{instance.workdir}/{path}").decode("utf-8")
        except FileNotFoundError as error:
            raise SandboxError(f"{instance.instance_id}: its image has no {path}") from error
        except (OSError, UnicodeDecodeError):
            continue
    return files


def repair_messages(
    issue: str,
    files: Mapping[str, str],
    token_budget: int | None = None,
    count_tokens: CountTokens | None = None,
) -> list[Message]:
    """The issue and each file whole; where the budget is too small, the longest are cut at the end.

    Raises OverBudget if it can't be met, ValueError if it comes without ``count_tokens``.
    """
    if token_budget is None:
        return _render(issue, files)
    if count_tokens is None:
        raise ValueError("a token budget needs count_tokens")
    for longest_chars in _shorter_and_shorter(files):
        messages = _render(issue, {path: _cut(text, longest_chars) for path, text in files.items()})
        if count_tokens(messages) <= token_budget:
            return messages
    raise OverBudget(f"the issue and the beginnings of its files are over {token_budget} tokens")


def _shorter_and_shorter(files: Mapping[str, str]) -> Iterator[int]:
    longest = max(map(len, files.values()), default=0)
    yield longest
    while longest > _SHORTEST_CHARS:
        longest = longest * 4 // 5
        yield longest


def _cut(text: str, chars: int) -> str:
    """Whole lines, so that nothing is shown which does not stand in the file."""
    if len(text) <= chars:
        return text
    return f"{text[: text.rfind(chr(10), 0, chars) + 1]}{_CUT}\n"


def _render(issue: str, files: Mapping[str, str]) -> list[Message]:
    shown = "\n\n".join(f"### {path}\n```\n{text}```" for path, text in files.items())
    return [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": f"{issue.strip()}\n\nThe files:\n\n{shown}"},
    ]
