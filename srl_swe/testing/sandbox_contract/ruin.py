"""Destructive commands: each gets an answer and leaves a usable shell."""

from __future__ import annotations

import time

import pytest

from srl_swe.sandbox import Sandbox
from srl_swe.testing.sandbox_contract.fixtures import folder_of, needs_boundary

RUINOUS = {
    "an unbalanced quote": "echo 'unbalanced",
    "an unbalanced backquote": "echo `",
    "an unfinished heredoc": "cat <<'EOF'\nno end",
    "an unfinished if": "if true",
    "a stray closing": "done; }; )",
    "only a comment": "# nothing",
    "a trailing backslash": "echo x \\",
    "nothing": "",
    "NUL": "echo a\0b",
    "a lone surrogate": "echo \ud800",
    "control characters": "echo \x03\x04\x1a\x1b[2J",
    "carriage returns": "if true\r\nthen\r\necho x\r\nfi\r\n",
    "exit": "exit 7",
    "exit from a pipe of functions": "f() { exit 3; }; f | cat; f",
    "the shell replaced": "exec sleep 0.1",
    "the shell replaced by nothing": "exec no-such-program",
    "errexit": "set -e; false",
    "nounset": "set -u; echo $nope",
    "a required variable": "echo ${nope:?}",
    "a readonly variable": "readonly r=1; r=2",
    "no execution": "set -n",
    "posix mode": "set -o posix; set --",
    "tracing": "set -xv",
    "break outside of a loop": "break; continue; return 3",
    "the shell killed": "kill -9 $$",
    "the shell interrupted": "kill -INT $$",
    "its group killed": "kill -9 0",
    "its parent killed": "kill -9 $PPID",
    "output closed": "exec >&- 2>&-",
    "output elsewhere": "exec >/dev/null 2>&1 </dev/zero",
    "every open file closed": 'for f in {3..99}; do eval "exec $f>&-"; done',
    "builtins redefined": 'for f in echo printf eval read cd export; do eval "$f() { :; }"; done',
    "aliases": "alias read=false eval=false builtin=false export=false",
    "a trap on every command": "trap 'echo trapped' DEBUG; trap 'echo left' EXIT",
    "no path": "PATH=; unset PWD IFS",
    "strange separators": "IFS=0123456789abcdef; set -f",
    "no folder": "mkdir -p gone; cd gone; rmdir ../gone",
    "no files": "ulimit -n 3",
    "a background process with our output": "(while sleep 0.2; do echo x; done) &",
    "a background process that kills the shell": "(sleep 0.1; kill -9 $$) & ",
}


@pytest.mark.parametrize("command", RUINOUS.values(), ids=RUINOUS.keys())
def test_whatever_is_run_gets_an_answer_and_leaves_a_usable_shell(
    used_sandbox: Sandbox, command: str
) -> None:
    used_sandbox.exec("export KEPT=kept")
    assert not used_sandbox.exec(command, timeout_s=30).timed_out
    after = used_sandbox.exec(r'\builtin echo "usable $KEPT"', timeout_s=30)
    assert "usable kept" in after.output


def test_ending_the_shell_is_said_and_keeps_folder_and_exports(used_sandbox: Sandbox) -> None:
    used_sandbox.exec("mkdir -p 'in ner'; cd 'in ner'; export MULTI=$'two\\nlines \"$x\"'")
    result = used_sandbox.exec("echo last words; exit 7")
    assert result.exit_code == 7
    assert result.restarted
    assert result.output.startswith("last words\n")
    after = used_sandbox.exec('echo "${PWD##*/} $MULTI"')
    assert (after.output, after.restarted) == ('in ner two\nlines "$x"\n', False)


def test_a_shell_that_dies_between_two_commands_is_replaced_and_it_is_said(
    used_sandbox: Sandbox,
) -> None:
    used_sandbox.exec("export KEPT=kept; (sleep 0.3; kill -9 $$) >/dev/null 2>&1 &")
    used_sandbox.exec("sleep 20", timeout_s=30, keep_state=False)
    after = used_sandbox.exec("echo $KEPT")
    assert after.output.endswith("kept\n")


def test_files_can_be_had_from_behind_a_ruined_shell(used_sandbox: Sandbox) -> None:
    folder = folder_of(used_sandbox)
    used_sandbox.exec("PATH=; cat() { :; }; mv() { :; }; head() { :; }; cd /; set -u")
    used_sandbox.write_file(f"{folder}/file", b"still")
    assert used_sandbox.read_file(f"{folder}/file") == b"still"


@needs_boundary("it would end every process of whoever runs the tests")
@pytest.mark.parametrize(
    "command",
    [
        pytest.param("kill -9 -1", id="at once"),
        pytest.param("(sleep 0.1; kill -9 -1)", id="by a child"),
        pytest.param("for p in /proc/[0-9]*; do kill -9 ${p#/proc/}; done", id="one by one"),
    ],
)
def test_killing_everything_leaves_a_usable_sandbox(sandbox: Sandbox, command: str) -> None:
    sandbox.exec("cd /tmp; export KEPT=kept", timeout_s=30)
    sandbox.exec(command, timeout_s=30)
    assert sandbox.exec("echo $PWD $KEPT", timeout_s=30).output == "/tmp kept\n"
    sandbox.write_file("/tmp/file", b"x")
    assert sandbox.read_file("/tmp/file") == b"x"


@needs_boundary("nothing limits the number of its processes")
def test_a_fork_bomb_is_survived(sandbox: Sandbox) -> None:
    sandbox.exec("bomb() { bomb | bomb & }; bomb; sleep 1; sleep 60", timeout_s=2)
    assert sandbox.exec("command -v bomb; builtin echo ok", timeout_s=60).output.endswith("ok\n")
    assert sandbox.exec("true").exit_code == 0


@needs_boundary("nothing limits its memory")
def test_a_memory_hog_is_ended_and_its_shell_goes_on(sandbox: Sandbox) -> None:
    sandbox.exec("cd /tmp; export KEPT=kept")
    hog = sandbox.exec("head -c 16G /dev/zero | tail", timeout_s=60)
    assert hog.exit_code not in {0, None}
    assert sandbox.exec("echo $PWD $KEPT").output.endswith("/tmp kept\n")


@needs_boundary("its network is the machine's")
def test_there_is_no_way_out_to_a_network(used_sandbox: Sandbox) -> None:
    connect = "timeout 10 bash -c 'echo >/dev/tcp/192.0.2.1/80'"  # TEST-NET-1, RFC 5737
    result = used_sandbox.exec(connect)
    assert result.exit_code not in {0, 124}
    assert used_sandbox.exec("getent hosts localhost").exit_code == 0


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("seq 1 1000000 | head -1", id="a broken pipe"),
        *(
            pytest.param(f"bash -c 'kill -{name} $$'; echo 1", id=name)
            for name in ("TERM", "SEGV", "KILL", "ABRT", "HUP", "INT", "USR1", "PIPE")
        ),
        pytest.param("(kill -9 $BASHPID) | cat; (kill -15 $BASHPID); echo 1", id="subshells"),
        pytest.param("timeout -s KILL 0.1 sleep 9; timeout 0.1 sleep 9; echo 1", id="timeout"),
    ],
)
def test_a_process_that_dies_of_a_signal_adds_nothing_to_the_output(
    used_sandbox: Sandbox, command: str
) -> None:
    assert used_sandbox.exec(command).output == "1\n"
    assert used_sandbox.exec(command, keep_state=False).output == "1\n"


RUINS_THE_SHELL = [
    "readonly REPLY=1",
    "readonly REPLY",
    "declare -u REPLY",
    "declare -l REPLY",
    "declare -i REPLY",
    "declare -a REPLY; readonly REPLY",
    "declare -A REPLY",
    "declare -n REPLY=nowhere",
    "for name in $(compgen -v); do readonly $name; done 2>/dev/null; true",
    *(f"enable -n {name}" for name in ("printf", "eval", "builtin", "read", "export")),
    "enable -n $(compgen -b)",
    "builtin() { :; }",
    "builtin() { echo no; }",
    "builtin() { return 1; }",
    "eval() { :; }; read() { :; }; printf() { :; }; export() { :; }",
    "alias builtin=: eval=: read=: printf=: export=:",
    "trap 'echo trapped: $BASH_COMMAND' DEBUG; true",
    "trap 'echo trapped: $BASH_COMMAND >&2' DEBUG; true",
    "trap 'echo returned' RETURN; trap 'echo trapped' ERR; true",
    "set -e",
    "set -u",
    "set -o pipefail; set -C; set -f; set -k; set -p",
    "set -o posix",
    "shopt -s extglob nullglob failglob nocasematch lastpipe",
    "IFS=; GLOBIGNORE='*'; LC_ALL=tr_TR.UTF-8",
]


@pytest.mark.parametrize("command", RUINS_THE_SHELL)
def test_a_ruined_shell_answers_right_or_is_said_to_have_been_restarted(
    used_sandbox: Sandbox, command: str
) -> None:
    started = time.monotonic()
    used_sandbox.exec("export KEPT=kept; f() { echo called; }; echo -n >count")
    ruining = used_sandbox.exec(f"echo x >>count; {command}", timeout_s=60)
    assert (ruining.exit_code, ruining.timed_out) == (0, False)
    again = used_sandbox.exec(r"\builtin echo usable; (exit 3)", timeout_s=60)
    assert again.output.splitlines()[-1:] == ["usable"] or "trapped" in again.output
    assert (again.exit_code, again.timed_out) == (3, False)
    state = used_sandbox.exec('\\builtin echo "$KEPT"; f', timeout_s=60)
    assert "kept\n" in state.output
    assert ("called\n" in state.output) != (ruining.restarted or again.restarted)
    assert used_sandbox.exec("wc -l <count", timeout_s=60).output.split()[-1:] == ["1"]
    assert not any("REPLY" in text.output or "((" in text.output for text in (ruining, again))
    assert time.monotonic() - started < 30


@needs_boundary("it would take the machine's")
@pytest.mark.parametrize(
    "command",
    ["rm /dev/null", "rm /dev/null; echo text >/dev/null", "rm /dev/null; mkdir /dev/null"],
)
def test_a_lost_dev_null_does_not_matter_to_the_shell(sandbox: Sandbox, command: str) -> None:
    assert sandbox.exec(f"f() {{ echo called; }}; {command}").exit_code == 0
    assert sandbox.exec("cat; f").output == "called\n"
    assert sandbox.exec("exit 7").restarted
    result = sandbox.exec("echo usable; cat; (exit 3)")
    assert (result.output, result.exit_code, result.restarted) == ("usable\n", 3, False)
    sandbox.write_file("/tmp/file", b"x")
    assert sandbox.read_file("/tmp/file") == b"x"
