"""A timeout ends all processes of its command, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from srl_swe.sandbox import Sandbox
from srl_swe.testing.sandbox_contract.fixtures import Open, lives, needs_boundary

# Many sandboxes, and many callers of one sandbox.


@pytest.fixture(scope="module")
def twenty_sandboxes(open_sandbox: Open) -> Iterator[list[Sandbox]]:
    """Sandboxes opened and closed by four threads."""
    with ThreadPoolExecutor(4) as pool, ExitStack() as closing:
        stacks = [closing.enter_context(ExitStack()) for _ in range(20)]
        opened = list(pool.map(lambda stack: stack.enter_context(open_sandbox()), stacks))
        yield opened
        list(pool.map(ExitStack.close, stacks))


def test_a_hundred_commands_at_once_in_twenty_sandboxes_get_their_own_answers(
    twenty_sandboxes: list[Sandbox],
) -> None:
    def run(number: int) -> str:
        command = f"for i in {{1..50}}; do echo {number}; done; sleep 0.2; echo last {number}"
        return twenty_sandboxes[number % 20].exec(command).output

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(run, range(100)))
    assert answers == [f"{number}\n" * 50 + f"last {number}\n" for number in range(100)]


def test_no_sandbox_sees_what_another_has_written(twenty_sandboxes: list[Sandbox]) -> None:
    for number, sandbox in enumerate(twenty_sandboxes):
        sandbox.exec(f"export NUMBER={number}; echo {number} >>number; echo {number} >>/tmp/number")
    for number, sandbox in enumerate(twenty_sandboxes):
        printed = sandbox.exec("echo $NUMBER; cat number /tmp/number").output
        assert printed == f"{number}\n" * 3


def test_callers_of_one_sandbox_take_turns(used_sandbox: Sandbox) -> None:
    def add_one(_: int) -> None:
        used_sandbox.exec("n=$(cat n); sleep 0.01; echo $((n + 1)) >n")

    used_sandbox.exec("echo 0 >n")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_one, range(24)))
    assert used_sandbox.exec("cat n").output == "24\n"


def test_callers_of_one_sandbox_read_and_write_in_turns(used_sandbox: Sandbox) -> None:
    folder = used_sandbox.exec("pwd").output.strip()

    def write_and_read(number: int) -> bool:
        data = bytes([number]) * 10_000
        used_sandbox.write_file(f"{folder}/{number}", data)
        return used_sandbox.read_file(f"{folder}/{number}") == data

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write_and_read, range(24)))


COUNT_OTHERS = (
    "n=0; for p in /proc/[0-9]*; do read -r s <$p/stat; "
    "[[ $s == *') '[RSDT]' '* && ${p#/proc/} != @(1|$$|$PPID) ]] && ((n += 1)); "
    "done 2>/dev/null; echo $n"
)
"""Prints the number of processes beside PID 1, the shell and its keeper."""
SLACK_S = 2.5
"""Allowance for a loaded machine, added to the half second for ending a command."""


def test_a_timeout_is_said_and_what_was_printed_is_kept(used_sandbox: Sandbox) -> None:
    started = time.monotonic()
    result = used_sandbox.exec("echo before; sleep 60; echo after", timeout_s=0.5)
    assert (result.exit_code, result.timed_out) == (None, True)
    assert "before\n" in result.output
    assert "after" not in result.output
    assert time.monotonic() - started < 20


def test_a_timeout_ends_all_that_the_command_started(used_sandbox: Sandbox) -> None:
    command = (
        "sleep 60 & echo $! >pids; setsid sleep 60 & echo $! >>pids;"
        "(setsid bash -c 'echo $$ >>pids; sleep 60; true' &) ; sleep 0.3; sleep 60"
    )
    assert used_sandbox.exec(command, timeout_s=1.5).timed_out
    pids = used_sandbox.exec("cat pids").output
    assert len(pids.split()) == 3
    assert not lives(used_sandbox, pids)


@pytest.mark.parametrize(
    "started",
    [
        pytest.param("bash beat", id="in the foreground"),
        pytest.param("bash beat & wait", id="in the background"),
        pytest.param("setsid bash beat & sleep 60", id="in a session of its own"),
        pytest.param("(setsid bash -c 'bash beat & ' &) ; sleep 60", id="forked twice"),
        pytest.param("nohup bash beat >/dev/null 2>&1 & sleep 60", id="deaf to the hang-up"),
        pytest.param("trap '' INT TERM; bash beat; sleep 60", id="deaf to signals"),
        pytest.param("trap 'echo no' INT; . ./beat", id="the shell itself, trapping"),
        pytest.param("yes | bash beat", id="in a pipe"),
    ],
)
def test_a_timeout_ends_a_process_within_half_a_second(used_sandbox: Sandbox, started: str) -> None:
    beat = "date +%s.%N >beats; while :; do date +%s.%N >>beats; sleep 0.05; done"
    used_sandbox.exec(f"echo '{beat}' >beat")
    assert used_sandbox.exec(started, timeout_s=0.5).timed_out
    beats = used_sandbox.exec("cat beats").output.split()
    assert len(beats) > 1
    assert float(beats[-1]) - float(beats[0]) < 0.5 + 0.5 + SLACK_S
    assert used_sandbox.exec("sleep 0.2; cat beats").output.split() == beats


def test_a_timeout_spares_what_an_earlier_command_left_running(used_sandbox: Sandbox) -> None:
    pid = used_sandbox.exec("sleep 60 >/dev/null & echo $! >pid; cat pid").output.split()[-1]
    assert used_sandbox.exec("sleep 60", timeout_s=0.5).timed_out
    assert lives(used_sandbox, pid)


@pytest.mark.parametrize(
    "command",
    [
        "sleep 60",
        "while true; do sleep 0.1; done",
        "trap '' INT TERM; while :; do :; done",
        "exec sleep 60",
        "kill -STOP $$",
        "builtin() { :; }; sleep 60",
        "(trap '' INT; sleep 60)",
        "sleep 60 | sleep 60",
        "read -r line <>fifo",
        "while :; do (sleep 60 &); sleep 0.01; done",
    ],
)
def test_a_timeout_leaves_a_usable_shell_with_its_folder_and_exports(
    used_sandbox: Sandbox, command: str
) -> None:
    used_sandbox.exec("mkdir -p inner; cd inner; mkfifo fifo; export KEPT=kept")
    assert used_sandbox.exec(command, timeout_s=0.5).timed_out
    assert used_sandbox.exec("echo ${PWD##*/} $KEPT").output == "inner kept\n"


@pytest.mark.parametrize("command", ["sleep 60", "while :; do :; done", "kill -STOP $$; sleep 60"])
def test_a_timeout_keeps_functions_where_the_shell_can_be_interrupted(
    used_sandbox: Sandbox, command: str
) -> None:
    used_sandbox.exec("f() { echo called; }")
    assert not used_sandbox.exec(f"{command}; echo more", timeout_s=0.5).restarted
    assert used_sandbox.exec("f").output == "called\n"


@needs_boundary("its processes are known by their environment, and these have cleared it")
def test_a_timeout_ends_processes_that_cleared_their_environment(used_sandbox: Sandbox) -> None:
    command = "env -i setsid sleep 60 & echo $! >pid; sleep 60"
    assert used_sandbox.exec(command, timeout_s=0.5).timed_out
    assert not lives(used_sandbox, used_sandbox.exec("cat pid").output)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("for i in {1..32}; do (while :; do :; done) & done; wait", id="32 busy"),
        pytest.param(
            "for i in {1..300}; do setsid bash -c 'while :; do :; done' & done; wait",
            id="300 busy in sessions of their own",
        ),
        pytest.param("bomb() { bomb; bomb & }; for i in {1..9}; do bomb & done; wait", id="forks"),
        pytest.param("(setsid bash -c 'while :; do kill -STOP -1; done' &); sleep 100", id="stops"),
        pytest.param("(trap '' INT TERM HUP; while :; do kill -STOP $PPID; done)", id="stops us"),
        pytest.param("while :; do (trap '' INT; sleep 60); done", id="deaf, one by one"),
    ],
)
@needs_boundary("it would stop or starve whoever runs the tests")
def test_a_deadline_holds_whatever_runs(sandbox: Sandbox, command: str) -> None:
    sandbox.exec("cd /tmp; export KEPT=kept")
    started = time.monotonic()
    assert sandbox.exec(command, timeout_s=1).timed_out
    assert time.monotonic() - started < 1 + 0.5 + SLACK_S
    after = sandbox.exec(f"echo $PWD $KEPT; {COUNT_OTHERS}", timeout_s=30)
    assert (after.output, after.exit_code) == ("/tmp kept\n0\n", 0)


@needs_boundary("it would stop whoever runs the tests")
def test_what_a_background_process_stops_is_freed_at_the_next_deadline(sandbox: Sandbox) -> None:
    sandbox.exec("cd /tmp; (setsid bash -c 'sleep 1; while :; do kill -STOP -1; done' &)")
    time.sleep(1.5)
    started = time.monotonic()
    sandbox.exec("sleep 1", timeout_s=0.5)
    assert time.monotonic() - started < 0.5 + 5 + SLACK_S
    assert sandbox.exec("echo $PWD", timeout_s=30).output == "/tmp\n"
    sandbox.write_file("/tmp/file", b"x")
    assert sandbox.read_file("/tmp/file") == b"x"


@pytest.mark.parametrize(
    "command", ["echo a; sleep 60; echo b", "for i in 1 2 3; do sleep 60; echo b; done"]
)
def test_an_interrupted_command_does_not_go_on(used_sandbox: Sandbox, command: str) -> None:
    result = used_sandbox.exec(f"f() {{ :; }}; {command}", timeout_s=0.5)
    assert result.timed_out
    assert not result.restarted
    assert "b" not in result.output
