"""``replies.jsonl`` and ``timings.jsonl``: tokens and seconds of replies and rollouts, and sums."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    damaged line.
    """
    replies, timings = _load_lines(folder)
    with damage_named(str(folder / REPLIES_FILE), _REMEDY):
        return {
            name: _rollout_usage(replies.get(name, []), timings.get(name))
            for name in {**replies, **timings}
        }


def load_reply_usage(folder: Path) -> dict[str, list[Completion]]:
    """The replies of the last rollout of each instance, without their texts, by instance id.

    Raises UserError for a damaged line.
    """
    replies, timings = _load_lines(folder)
    with damage_named(str(folder / REPLIES_FILE), _REMEDY):
        return {
            name: [
                Completion(
                    "",
                    int(row["prompt_tokens"]),
                    int(row["completion_tokens"]),
                    bool(row["truncated"]),
                    float(row["seconds"]),
                )
                for row in _last_rollout(rows, timings.get(name))
            ]
            for name, rows in replies.items()
        }


_Line = dict[str, Any]


def _load_lines(folder: Path) -> tuple[dict[str, list[_Line]], dict[str, _Line]]:
    """The lines of replies, and the last line of timings, by instance id."""
    replies: dict[str, list[_Line]] = {}
    timings: dict[str, _Line] = {}
    for where, row in read_json_lines(folder / REPLIES_FILE, _REMEDY):
        with damage_named(where, _REMEDY):
            replies.setdefault(row["instance_id"], []).append(row)
    for where, row in read_json_lines(folder / TIMINGS_FILE, _REMEDY):
        with damage_named(where, _REMEDY):
            timings[row["instance_id"]] = row
    return replies, timings


def _last_rollout(rows: Sequence[_Line], timing: _Line | None) -> Sequence[_Line]:
    """The last lines of an instance, which its last rollout wrote."""
    if timing is not None:
        first = len(rows) - int(timing["replies"])
    else:
        first = max((at for at, row in enumerate(rows) if row["reply"] == 0), default=0)
    return rows[max(first, 0) :]


def _rollout_usage(rows: Sequence[_Line], timing: _Line | None) -> RolloutUsage:
    own = _last_rollout(rows, timing)
    return RolloutUsage(
        len(own),
        sum(int(row["prompt_tokens"]) for row in own),
        sum(int(row["completion_tokens"]) for row in own),
        sum(bool(row["truncated"]) for row in own),
        sum(float(row["seconds"]) for row in own),
        float(timing["open_s"]) if timing else None,
        float(timing["act_s"]) if timing and timing["act_s"] is not None else None,
    )


def load_usage(folders: Path | Sequence[Path], prices: Prices | None = None) -> Usage | None:
    """The sums over all replies of one run or several; None before the first reply.

    Those of failed rollouts are included.
    Raises UserError for a damaged line.
    """
    prompt = completion = truncated = 0
    seconds: list[float] = []
    for folder in [folders] if isinstance(folders, Path) else folders:
        path = folder / REPLIES_FILE
        drop_torn_line(path)
        for where, row in read_json_lines(path, _REMEDY):
            with damage_named(where, _REMEDY):
                prompt += int(row["prompt_tokens"])
                completion += int(row["completion_tokens"])
                truncated += bool(row["truncated"])
                seconds.append(float(row["seconds"]))
    if not seconds:
        return None
    p50, p95 = median_and_p95(seconds)
    return Usage(
        len(seconds),
        prompt,
        completion,
        truncated,
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
