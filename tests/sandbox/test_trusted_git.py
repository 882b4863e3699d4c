from __future__ import annotations

import pytest

from srl_swe.sandbox.patches import diff_by_file, plain_diff
from srl_swe.sandbox.working_tree import Blob, Change

TEXT = Blob("100644", b"a\nb\nc\nd\ne\nf\n")
OTHER = Blob("100644", b"a\nb\nc\nd\ne\nF\n")
LINK = Blob("120000", b"elsewhere")


def test_no_change_is_no_diff() -> None:
    assert plain_diff([]) == b""
    assert plain_diff([Change(b"x", TEXT, TEXT)]) == b""


def test_a_rename_is_found_and_a_mode_is_shown() -> None:
    text = plain_diff(
        [
            Change(b"old", TEXT, None),
            Change(b"new", None, TEXT),
            Change(b"run", TEXT, Blob("100755", TEXT.data)),
        ]
    )
    assert b"rename from old\nrename to new\n" in text
    assert b"old mode 100644\nnew mode 100755\n" in text


@pytest.mark.parametrize(
    "path", [b"a b", b'\t\n"\\', b"caf\xe9", b"-x", b"$(x)", b"a/b/c", b":(x)"]
)
def test_any_name_is_kept_apart(path: bytes) -> None:
    parts = diff_by_file([Change(path, TEXT, OTHER), Change(b"m", TEXT, LINK)])
    assert {change.path: part.count(b"diff --git") for change, part in parts} == {
        path: 1,
        b"m": 2,
    }
    assert plain_diff([Change(path, TEXT, OTHER)]).isascii()


def test_a_line_that_looks_like_a_header_starts_no_file() -> None:
    lines = Blob("100644", b"\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n")
    changes = [Change(b"a", None, lines), Change(b"b", lines, None), Change(b"c", lines, OTHER)]
    assert [change.path for change, _ in diff_by_file(changes)] == [b"a", b"b", b"c"]
    joined = b"".join(part for _, part in diff_by_file(changes))
    assert joined.count(b"\ndiff --git a/") == 2


def test_as_binary_nothing_is_text() -> None:
    text = plain_diff([Change(b"x", Blob("100644", b"\xe9\n"), OTHER)], as_binary=True)
    assert b"GIT binary patch" in text
    assert text.isascii()


def test_git_of_this_machine_is_configured_by_nobody(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text("[diff]\nnoprefix = true\nexternal = /bin/false\n")
    for name, value in {
        "HOME": str(home),
        "GIT_EXTERNAL_DIFF": "/bin/false",
        "GIT_DIR": "/nowhere",
    }.items():
        monkeypatch.setenv(name, value)
    assert b"--- a/x\n+++ b/x\n" in plain_diff([Change(b"x", TEXT, OTHER)])
