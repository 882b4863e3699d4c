from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from srl_swe.errors import UserError
from srl_swe.files import (
    append_line,
    check_replaceable,
    claim,
    drop_torn_line,
    full_disk_named,
    held_alone,
    write_atomic,
    written_whole,
)
from srl_swe.progress import progress


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomic(path, "one")
    write_atomic(path, b"\xff")
    assert path.read_bytes() == b"\xff"
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")
    with pytest.raises(TypeError):
        write_atomic(path, 3)  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_piece_by_piece_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file, folder = tmp_path / "new" / "file", tmp_path / "new" / "folder"
    with written_whole(file) as target:
        target.write_text("one")
        assert not file.exists()
    with written_whole(folder) as target:
        target.mkdir()
        (target / "part").write_text("two")
    assert (file.read_text(), (folder / "part").read_text()) == ("one", "two")
    with pytest.raises(KeyboardInterrupt), written_whole(file) as target:
        target.write_text("half")
        raise KeyboardInterrupt
    assert file.read_text() == "one"
    assert set(file.parent.iterdir()) == {file, folder}


def test_a_line_that_a_kill_cut_short_is_dropped_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    drop_torn_line(path)
    append_line(path, "one")
    with path.open("a") as file:
        file.write("tw")
    drop_torn_line(path)
    append_line(path, "three\n")
    assert path.read_text() == "one\nthree\n"


def test_a_long_unfinished_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("one\n" + "x" * 200_000)
    drop_torn_line(path)
    assert path.read_text() == "one\n"
    path.write_text("{" + "x" * 200_000)
    drop_torn_line(path)
    assert path.read_text() == ""


def test_a_folder_belongs_to_one_config_and_the_differing_keys_are_named(tmp_path: Path) -> None:
    claim(tmp_path, {"policy": "a", "steps": 3, "window": (2, 600)})
    claim(tmp_path, {"policy": "a", "steps": 3, "window": (2, 600)})
    with pytest.raises(UserError, match=r"steps: 3 -> 4; extra: None -> 1") as error:
        claim(tmp_path, {"policy": "a", "steps": 4, "window": (2, 600), "extra": 1})
    assert "policy" not in str(error.value)


def test_progress_says_how_far_it_is_and_how_long_it_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress("replay", 2) as advance:
        advance("first")
        advance("second")
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("replay 1/2: first (ETA 0:00:0")
    assert second == "replay 2/2: second (ETA 0:00:00)"


def test_only_one_process_at_a_time_holds_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with held_alone(folder), pytest.raises(UserError, match="another process"), held_alone(folder):
        pass
    with held_alone(folder):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="name a folder below"), held_alone(Path("/")):
        pass


def test_a_file_system_without_locks_is_used_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with held_alone(tmp_path / "out"):
        pass


def test_links_and_mounts_are_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to("here")
    monkeypatch.chdir(tmp_path / "here")
    for fixed in (Path(), Path(".."), Path("/"), tmp_path / "here", tmp_path / "link"):
        with pytest.raises(UserError, match="can't be replaced as a whole"):
            check_replaceable(fixed)
    check_replaceable(tmp_path / "other")


def test_the_target_of_a_link_is_written_and_a_device_is_kept(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write_atomic(tmp_path / "link", "a")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "a"
    program = "from srl_swe.files import *; write_atomic(Path('/dev/stdout'), 'b')"
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "b"
    assert Path("/dev/stdout").is_symlink()


def test_what_is_written_has_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_atomic(tmp_path / "whole", "text")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_config_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match="name another folder"):
        claim(tmp_path, {"a": 1})


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_folder_whose_config_can_not_be_read_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="name another folder"):
        claim(tmp_path, {"a": 1})
    with pytest.raises(UserError, match="is a file"):
        claim(tmp_path / "config.json", {"a": 1})


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 13 vs 12"),
        ValueError("I/O error: No space left on device (os error 28)"),  # as safetensors words it
        OSError(errno.EDQUOT, "Disk quota exceeded"),
    ],
    ids=str,
)
def test_a_full_disk_is_known_by_whatever_library_meets_it(
    error: Exception, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="make room"), full_disk_named(tmp_path):
        raise error


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), UserError("mine"), OSError(2, "x")]
)
def test_no_other_error_is_taken_for_a_full_disk(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as raised, full_disk_named(tmp_path):
        raise error
    assert raised.value is error


def test_a_last_object_that_lacks_only_its_end_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text('{"a": 1}\n{"b": 2}')
    drop_torn_line(path)
    assert path.read_text() == '{"a": 1}\n{"b": 2}\n'
