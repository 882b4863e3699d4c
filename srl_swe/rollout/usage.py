"""``replies.jsonl``: tokens, seconds and cuts of each reply of a run, and their sums."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles

from srl_swe.files import append_line, damage_named, drop_torn_line, read_json_lines
from srl_swe.rollout.episode import Completion

REPLIES_FILE = "replies.jsonl"
_PER_MILLION = 1e6
_REMEDY = "delete that line; only the sums of tokens and seconds lose it"


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens."""

    prompt: float
    completion: float


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
    cuts = quantiles(seconds, n=20, method="inclusive") if len(seconds) > 1 else seconds * 19
    usd = prompt * prices.prompt + completion * prices.completion if prices else None
    return Usage(
        len(seconds),
        prompt,
        completion,
        truncated,
        seconds_p50=cuts[9],
        seconds_p95=cuts[18],
        usd=usd / _PER_MILLION if usd is not None else None,
    )
