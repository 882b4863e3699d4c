"""Results that can't be written: one line with the way out, before the work if it can be known."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from srl_swe.errors import UserError
from srl_swe.files import (
    append_line,
    check_output_file,
    check_output_folder,
    write_atomic,
    written_whole,
)

from ..commands import assert_mistake, srl_swe, srl_swe_process

pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[2]
STARTER = str(ROOT / "trajectories/starter.jsonl")
LOCAL = ["--sandbox", "local", "--limit", "1", "--until", "1"]


COMMANDS = [
    ["replay", "--out"],
    ["grade", "gold", "--out"],
    ["self-check", "--out"],
    ["steps", "--out"],
    ["convert", STARTER, "--to", "traj"],
    ["runs", "compare", "a", "b", "--out"],
    ["images", "build", "--rows"],
]
OF_POLICIES = [
    ["demo", "--out"],
    ["study", "--out"],
    ["rollout", "nowhere", "--out"],
    ["eval", "nowhere", "--out"],
    ["profile", "data", "--policy", "nowhere", "--out"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_file_where_a_folder_has_to_be_is_named_at_once(
    command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    result = srl_swe(*command, "file/out", cwd=tmp_path)
    assert_mistake(result, "file/out")
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.usefixtures("train_extra")
@pytest.mark.parametrize("command", OF_POLICIES, ids=" ".join)
@pytest.mark.parametrize("place", ["file/out", "/dev/full"])
def test_so_it_is_of_the_commands_that_run_policies(
    command: list[str], place: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert_mistake(srl_swe(*command, place, cwd=tmp_path), place)


@pytest.mark.parametrize("command", [*COMMANDS[:4], ["replay", *LOCAL, "--out"]], ids=" ".join)
def test_a_device_is_no_folder(command: list[str], tmp_path: Path) -> None:
    assert_mistake(srl_swe(*command, "/dev/full", cwd=tmp_path), "/dev/full is a file")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="takes no files"):
        check_output_folder(tmp_path / "new" / "out")


def test_a_read_only_file_system_is_known_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        check_output_folder(Path("/proc/self/status/out"))
    with pytest.raises(UserError, match="can't be written"):
        write_atomic(Path("/proc/nothing/out"), "x")
    check_output_folder(tmp_path / "a" / "b")
    check_output_file(tmp_path / "a" / "b")
    with pytest.raises(UserError, match="name a file"):
        check_output_file(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000])
def test_a_name_that_is_too_long_is_named(name: str, tmp_path: Path) -> None:
    check_output_folder(tmp_path / name)  # not known without trying
    with pytest.raises(UserError, match="can't be written"):
        append_line(tmp_path / name, "x")
    with pytest.raises(UserError, match="can't be written"), written_whole(tmp_path / name):
        pass


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(pipe, "text")
    assert os.read(reader, 10) == b"text"
    os.close(reader)
    assert pipe.is_fifo()


def test_what_is_printed_to_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        result = srl_swe_process("train", "--list", stdout=full.fileno(), cwd=tmp_path)
    assert_mistake(result, "what is printed", "No space left on device")
    assert len(result.stderr.splitlines()) == 1


def with_at_most(kilobytes: int) -> tuple[str, ...]:
    """Files of at most so much: what a full disk is, for each of them."""
    return ("bash", "-c", f'ulimit -f {kilobytes} && exec "$@"', "bash")


def test_an_append_that_finds_no_room_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    probe = (
        "import sys; from pathlib import Path; from srl_swe.errors import UserError\n"
        "from srl_swe.files import append_line\n"
        "path = Path(sys.argv[1])\n"
        "append_line(path, 'a' * 1000)\n"
        "try: append_line(path, 'b' * 5000)\nexcept UserError as error: print(error)\n"
        "append_line(path, 'c' * 10)"
    )
    path = tmp_path / "lines"
    result = subprocess.run(
        [*with_at_most(4), sys.executable, "-c", probe, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "File too large" in result.stdout
    assert "make room and run the same command again" in result.stdout
    assert path.read_text() == "a" * 1000 + "\n" + "c" * 10 + "\n"


@pytest.mark.parametrize(
    "command",
    [
        ["steps", "--out", "out", "--workers", "1"],
        ["convert", STARTER, "out.jsonl"],
        ["convert", STARTER, "out.parquet", "--to", "parquet"],
        ["convert", STARTER, "out", "--to", "traj"],
        ["convert", STARTER, "out", "--to", "atif"],
    ],
    ids=lambda words: words[-1],
)
def test_a_disk_that_fills_up_is_one_line_and_half_a_result_is_none(
    command: list[str], tmp_path: Path
) -> None:
    result = srl_swe_process(*command, prefix=with_at_most(1), cwd=tmp_path)
    assert_mistake(result, "File too large")
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_real_full_disk_is_gone_on_from_once_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        'mount -t tmpfs -o size=4k none disk || exit 99; "$@"; echo "rc $?"; '
        'mount -o remount,size=10m disk; "$@"; echo "rc $?"; ls disk/out'
    )
    hide = ["unshare", "--mount", "sh", "-c", script, "sh"]
    if not shutil.which("unshare"):
        pytest.skip("no right to mount here")
    command = ["replay", STARTER, *LOCAL, "--trust-commands", "--out", "disk/out"]
    result = srl_swe_process(*command, cwd=tmp_path, prefix=tuple(hide))
    if result.returncode == 99 or "unshare" in result.stderr:
        pytest.skip("no right to mount here")
    assert result.stdout.count("rc 2") == 1
    assert "No space left on device): make room" in result.stderr
    assert "Traceback" not in result.stderr
    assert "report.html" in result.stdout
