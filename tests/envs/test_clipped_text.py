from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from srl_swe_envs.shell import ClippedText

chunks = st.lists(st.binary(max_size=20), max_size=20)


def clip(parts: list[bytes], limit_chars: int) -> tuple[str, int]:
    clipped = ClippedText(limit_chars)
    for part in parts:
        clipped.feed(part)
    return clipped.finish()


@given(chunks)
def test_output_within_the_limit_is_decoded_as_a_whole_however_it_arrives(
    parts: list[bytes],
) -> None:
    assert clip(parts, 1000) == (b"".join(parts).decode("utf-8", "replace"), 0)


@given(chunks, st.integers(2, 50))
def test_beginning_and_end_are_kept_and_the_rest_is_counted(parts: list[bytes], limit: int) -> None:
    whole = b"".join(parts).decode("utf-8", "replace")
    text, elided = clip(parts, limit)
    half = limit // 2
    assert elided == max(0, len(whole) - 2 * half)
    if elided:
        assert text == f"{whole[:half]}\n[{elided} characters left out]\n{whole[-half:]}"
