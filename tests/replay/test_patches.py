from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.replay.patches import PatchComparison, compare_patches, edited_files, parse_patch


def changed(path: str, line: str = "+y", *, context: str = "") -> str:
    return (
        f"diff --git a/{path} b/{path}\nindex 123..456 100644\n--- a/{path}\n+++ b/{path}\n"
        f"@@ -1,2 +1,3 @@{context}\n x\n{line}\n z\n"
    )


def new(path: str, line: str = "+y", mode: str = "100644") -> str:
    return (
        f"diff --git a/{path} b/{path}\nnew file mode {mode}\nindex 000..456\n--- /dev/null\n"
        f"+++ b/{path}\n@@ -0,0 +1 @@\n{line}\n"
    )


def new_binary(path: str, content: str = "zcmV") -> str:
    return (
        f"diff --git a/{path} b/{path}\nnew file mode 100644\nindex 000..456\n"
        f"GIT binary patch\nliteral 5\n{content}\n\nliteral 0\nHcmV?d00001\n\n"
    )


@pytest.mark.parametrize(
    ("recorded", "fresh"),
    [
        ("\r\n" + changed("x").replace("\n", "\r\n"), changed("x")),  # submitted through a pty
        (changed("x").replace("index 123..456", "index 1234567..4567890"), changed("x")),
        (changed("a") + changed("b"), changed("b") + changed("a")),
        (changed("x", context=" def f():"), changed("x")),
        (changed("x").replace("index", "old mode 100644\nnew mode 100755\nindex"), changed("x")),
        (new("x", mode="100755"), new("x")),
        (changed("x").strip(), changed("x")),
        (changed("x").split("\n", 2)[2], changed("x")),  # without git's headers
        (changed("x").replace(" z", "\n z"), changed("x").replace(" z", " \n z")),  # stripped
        ("", ""),
        (changed("x").replace("a/", "").replace("b/", ""), changed("x")),  # diff.noprefix
        (changed("x").replace("a/", "i/").replace("b/", "w/"), changed("x")),  # mnemonicPrefix
        (new("caf\u00e9.py"), new("X").replace("b/X", r'"b/caf\303\251.py"')),
        (
            "diff --git a/a.pyc b/a.pyc\nnew file mode 100644\nindex 0..1\n"
            "Binary files /dev/null and b/a.pyc differ\n",
            new_binary("a.pyc"),
        ),
    ],
)
def test_what_does_not_count_makes_no_difference(recorded: str, fresh: str) -> None:
    assert compare_patches(recorded, fresh) == PatchComparison()


def test_files_that_differ_are_named() -> None:
    recorded = changed("a") + changed("b") + changed("c") + new("d")
    seen = compare_patches(recorded, changed("b", "+other") + changed("c") + changed("e"))
    assert not seen.equal
    assert (seen.missing, seen.differing, seen.extra) == (("a", "d"), ("b",), ("e",))


def test_the_same_line_elsewhere_is_another_edit() -> None:
    assert not compare_patches(changed("x"), changed("x").replace("@@ -1,2", "@@ -7,2")).equal


def test_a_script_that_both_left_behind_counts_like_any_file() -> None:
    # nebius_openhands_hf: patches hold reproduce.py
    recorded = changed("x") + new("reproduce.py")
    assert compare_patches(recorded, changed("x") + new("reproduce.py")).equal
    assert not compare_patches(recorded, changed("x") + new("reproduce.py", "+other")).equal
    assert not compare_patches(recorded, changed("x")).equal


def test_new_files_that_the_record_leaves_out_are_left_over() -> None:
    seen = compare_patches(changed("x"), changed("x") + new("reproduce.py"))
    assert seen.equal
    assert seen.left_over == ("reproduce.py",)


def test_the_patch_that_sweagent_wrote_into_the_repository_is_left_over() -> None:
    seen = compare_patches(changed("x") + new("model.patch"), changed("x"))
    assert seen.equal
    assert seen.left_over == ("model.patch",)


def test_of_binary_files_only_the_name_counts_and_new_ones_are_left_over() -> None:
    both = compare_patches(new_binary(".coverage"), new_binary(".coverage", "other"))
    assert both == PatchComparison()
    seen = compare_patches(changed("x") + new_binary(".coverage"), changed("x"))
    assert seen.equal
    assert seen.left_over == (".coverage",)


def test_a_patch_that_was_cut_is_compared_on_the_files_that_it_still_shows() -> None:
    cut = changed("a") + changed("b")[:60] + "\n[9000 characters elided]\n"
    seen = compare_patches(cut, changed("a") + changed("b") + changed("c"))
    assert seen.equal
    assert not seen.complete
    assert not compare_patches(cut, changed("a", "+other")).equal


def test_edited_files_are_read_off_the_patch() -> None:
    assert edited_files(changed("src/x.py") + new("y y")) == ("src/x.py", "y y")
    assert edited_files(None) == edited_files("no patch at all") == ()


LINES = st.lists(
    st.sampled_from(changed("x").splitlines() + new("y").splitlines() + ["", "@@", "--- ", "+"])
)


@given(LINES, LINES)
def test_whatever_passes_for_a_patch_is_compared(one: list[str], other: list[str]) -> None:
    first, second = "\n".join(one), "\n".join(other)
    compare_patches(first, second)
    assert compare_patches(first, first).equal
    assert parse_patch(first) == parse_patch(first.replace("\n", "\r\n"))
    assert all(path == file.path for path, file in parse_patch(first).items())
