"""Collects output of any length in bounded memory: the beginning and the end are kept."""

from __future__ import annotations

import codecs


class ClippedText:
    r"""Bytes go in, at most ``limit_chars`` characters of text come out.

    Decoded as UTF-8 with replacement, across the borders of chunks.

    >>> clipped = ClippedText(limit_chars=6)
    >>> clipped.feed(b"abc...xyz")
    >>> clipped.finish()
    ('abc\n[3 characters left out]\nxyz', 3)
    """

    def __init__(self, limit_chars: int) -> None:
        self._half = limit_chars // 2
        self._head = ""
        self._tail = ""
        self._total = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._take(self._decoder.decode(data))

    def finish(self) -> tuple[str, int]:
        """The text, with a note where its middle was cut, and how many characters that were."""
        self._take(self._decoder.decode(b"", final=True))
        elided = self._total - len(self._head) - len(self._tail)
        note = f"\n[{elided} characters left out]\n" if elided else ""
        return f"{self._head}{note}{self._tail}", elided

    def _take(self, text: str) -> None:
        self._total += len(text)
        room = self._half - len(self._head)
        self._head += text[:room]
        rest = text[room:]
        if rest:
            self._tail = (self._tail + rest)[-self._half :]
