"""``replies.jsonl`` and ``timings.jsonl``: tokens and seconds of replies and rollouts, and sums."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

from srl_swe.files import append_line, damage_named, drop_torn_line, read_json_lines
from srl_swe.rollout.episode import Completion

REPLIES_FILE = "replies.jsonl"
TIMINGS_FILE = "timings.jsonl"
_PER_MILLION = 1e6
_REMEDY = "delete that line; only the sums of tokens and seconds lose it"


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens."""

    prompt: float
    completion: float

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """US dollars."""
        spent = prompt_tokens * self.prompt + completion_tokens * self.completion
        return spent / _PER_MILLION


@dataclass(frozen=True, slots=True)
class Usage:
    """Sums over replies. ``truncated``: replies cut at the limit of new tokens.

    ``seconds_p50`` and ``seconds_p95`` are of one reply. ``usd`` is None without prices.
    """

    replies: int
    prompt_tokens: int
    completion_tokens: int
    truncated: int
    seconds_p50: float
    seconds_p95: float
    usd: float | None = None

    def __str__(self) -> str:
        """One line for people."""
        cut = f", {self.truncated} cut at the limit of new tokens" if self.truncated else ""
        cost = f"; {self.usd:,.2f} USD" if self.usd is not None else ""
        return (
            f"{self.replies:,} replies: {self.prompt_tokens:,} tokens in, "
            f"{self.completion_tokens:,} out{cut}; {self.seconds_p50:.1f} s a reply at the median, "
            f"{self.seconds_p95:.1f} s at p95{cost}"
        )


def append_replies(folder: Path, instance_id: str, replies: Sequence[Completion]) -> None:
    """Append a line per reply of a rollout, without the texts, which its trajectory holds.

    All of them in one write: after a kill, an attempt is counted whole or not at all.
    """
    rows = []
    for number, reply in enumerate(replies):
        fields = {key: value for key, value in asdict(reply).items() if key != "text"}
        rows.append(json.dumps({"instance_id": instance_id, "reply": number, **fields}))
    if rows:
        append_line(folder / REPLIES_FILE, "\n".join(rows))


def append_timing(
    folder: Path, instance_id: str, replies: int, open_s: float, act_s: float | None
) -> None:
    """Append the seconds of a rollout that asked for ``replies`` replies."""
    row = {"instance_id": instance_id, "replies": replies, "open_s": open_s, "act_s": act_s}
    append_line(folder / TIMINGS_FILE, json.dumps(row))


@dataclass(frozen=True, slots=True)
class RolloutUsage:
    """Tokens and seconds of one rollout; ``truncated``: replies cut at the limit of new tokens.

    ``open_s`` and ``act_s``, of opening the sandbox and acting in it, are None if they were not
    recorded, as by earlier versions.
    """

    replies: int
    prompt_tokens: int
    completion_tokens: int
    truncated: int
    policy_s: float
    open_s: float | None = None
    act_s: float | None = None


def load_rollout_usage(folder: Path) -> dict[str, RolloutUsage]:
    """The usage of the last rollout of each instance, by instance id.

    Replies of rollouts that failed, or that a kill lost, are left out. Raises UserError for a
    damaged line; one that a kill has torn is cut off.
    """
    for name in (REPLIES_FILE, TIMINGS_FILE):
        drop_torn_line(folder / name)
    replies, timings = load_reply_usage(folder), _load_timings(folder)
    usage = {}
    for name in {**replies, **timings}:
        own, timing = replies.get(name, []), timings.get(name)
        usage[name] = RolloutUsage(
            len(own),
            sum(reply.prompt_tokens for reply in own),
            sum(reply.completion_tokens for reply in own),
            sum(reply.truncated for reply in own),
            sum(reply.seconds for reply in own),
            timing.open_s if timing else None,
            timing.act_s if timing else None,
        )
    return usage


def load_reply_usage(folder: Path) -> dict[str, list[Completion]]:
    """The replies of the last rollout of each instance, without their texts, by instance id.

    Raises UserError for a damaged line.
    """
    replies: dict[str, list[tuple[int, Completion]]] = {}
    for where, row in read_json_lines(folder / REPLIES_FILE, _REMEDY):
        with damage_named(where, _REMEDY):
            numbered = int(row["reply"]), _read_reply(row)
            replies.setdefault(row["instance_id"], []).append(numbered)
    timings = _load_timings(folder)
    last: dict[str, list[Completion]] = {}
    for name, held in replies.items():
        if timing := timings.get(name):
            first = max(len(held) - timing.replies, 0)
        else:
            first = max((at for at, (number, _) in enumerate(held) if number == 0), default=0)
        last[name] = [reply for _, reply in held[first:]]
    return last


@dataclass(frozen=True, slots=True)
class _Timing:
    replies: int
    open_s: float
    act_s: float | None


def _load_timings(folder: Path) -> dict[str, _Timing]:
    """The last line of each instance, by its id."""
    timings: dict[str, _Timing] = {}
    for where, row in read_json_lines(folder / TIMINGS_FILE, _REMEDY):
        with damage_named(where, _REMEDY):
            act_s = None if row["act_s"] is None else float(row["act_s"])
            timing = _Timing(int(row["replies"]), float(row["open_s"]), act_s)
            timings[row["instance_id"]] = timing
    return timings


def _read_reply(row: Mapping[str, Any]) -> Completion:
    return Completion(
        "",
        int(row["prompt_tokens"]),
        int(row["completion_tokens"]),
        bool(row["truncated"]),
        float(row["seconds"]),
    )


def load_usage(folders: Path | Sequence[Path], prices: Prices | None = None) -> Usage | None:
    """The sums over all replies of one run or several; None before the first reply.

    Those of failed rollouts are included. Raises UserError for a damaged line.
    """
    replies: list[Completion] = []
    for folder in [folders] if isinstance(folders, Path) else folders:
        drop_torn_line(folder / REPLIES_FILE)
        for where, row in read_json_lines(folder / REPLIES_FILE, _REMEDY):
            with damage_named(where, _REMEDY):
                replies.append(_read_reply(row))
    if not replies:
        return None
    prompt = sum(reply.prompt_tokens for reply in replies)
    completion = sum(reply.completion_tokens for reply in replies)
    p50, p95 = median_and_p95([reply.seconds for reply in replies])
    return Usage(
        len(replies),
        prompt,
        completion,
        sum(reply.truncated for reply in replies),
        seconds_p50=p50,
        seconds_p95=p95,
        usd=prices.cost(prompt, completion) if prices else None,
    )


def median_and_p95(values: Sequence[float]) -> tuple[float, float]:
    """The median and the 95th percentile of at least one value.

    >>> median_and_p95([1.0]), median_and_p95([0.0, 10.0])
    ((1.0, 1.0), (5.0, 9.5))
    """
    cuts = quantiles(values, n=20, method="inclusive") if len(values) > 1 else [*values] * 19
    return cuts[9], cuts[18]
