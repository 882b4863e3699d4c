"""What every sandbox must do, as tests: run them over yours.

In a test module, with a fixture ``sandbox`` that gives a fresh one, opened in a folder that may
be written to (bash, git and the coreutils are expected inside)::

    pytest.register_assert_rewrite("srl_swe.testing.sandbox_contract")
    from srl_swe.testing.sandbox_contract import *
"""
# ruff: noqa: D103 - the names are the sentences

from __future__ import annotations

import time
import tracemalloc

import pytest

from srl_swe.errors import SandboxError
from srl_swe.sandbox import Sandbox, diff

RUINOUS = {
    "unbalanced quote": "echo 'unbalanced",
    "unbalanced backquote": "echo `",
    "unfinished heredoc": "cat <<'EOF'\nno end",
    "unfinished if": "if true",
    "stray closing": "done; }; )",
    "only a comment": "# nothing",
    "trailing backslash": "echo x \\",
    "nothing": "",
    "NUL": "echo a\0b",
    "lone surrogate": "echo \ud800",
    "control characters": "echo \x03\x04\x1a\x1b[2J",
    "exit": "exit 7",
    "exit from a pipe of functions": "f() { exit 3; }; f | cat; f",
    "the shell replaced": "exec sleep 0.1",
    "the shell replaced by nothing": "exec no-such-program",
    "errexit": "set -e; false",
    "nounset": "set -u; echo $nope",
    "required variable": "echo ${nope:?}",
    "a readonly variable": "readonly r=1; r=2",
    "no execution": "set -n",
    "posix mode": "set -o posix; set --",
    "tracing": "set -xv",
    "break outside of a loop": "break; continue; return 3",
    "the shell killed": "kill -9 $$",
    "the shell interrupted": "kill -INT $$",
    "everything killed": "kill -9 0",
    "output closed": "exec >&- 2>&-",
    "output elsewhere": "exec >/dev/null 2>&1 </dev/zero",
    "builtins redefined": 'for f in echo printf eval read cd export; do eval "$f() { :; }"; done',
    "aliases": "alias read=false eval=false builtin=false export=false",
    "a trap on every command": "trap 'echo trapped' DEBUG; trap 'echo left' EXIT",
    "no path": "PATH=; unset PWD IFS",
    "strange separators": "IFS=0123456789abcdef; set -f",
    "no folder": "mkdir -p gone; cd gone; rmdir ../gone",
    "a background process with our output": "(while sleep 0.2; do echo x; done) &",
}


def folder_of(sandbox: Sandbox) -> str:
    return sandbox.exec("pwd").output.strip()


def lives(sandbox: Sandbox, pids: str) -> bool:
    running = "grep -q '^State:[[:space:]]*[^ZX[:space:]]' /proc/{}/status"
    return any(sandbox.exec(running.format(pid)).exit_code == 0 for pid in pids.split())


def test_a_command_answers_with_its_output_and_its_exit_code(sandbox: Sandbox) -> None:
    result = sandbox.exec("echo out; echo err >&2; (exit 3)")
    assert (result.output, result.exit_code) == ("out\nerr\n", 3)
    assert not (result.timed_out or result.elided_chars or result.restarted)


def test_a_failing_command_is_a_result_not_an_exception(sandbox: Sandbox) -> None:
    result = sandbox.exec("no-such-program --at-all")
    assert result.exit_code == 127
    assert "no-such-program" in result.output


def test_output_is_exact_with_and_without_a_last_newline(sandbox: Sandbox) -> None:
    assert sandbox.exec("printf 'no newline'").output == "no newline"
    assert sandbox.exec("printf '\\n\\nthree\\n\\n'").output == "\n\nthree\n\n"
    assert sandbox.exec("true").output == ""


def test_stdout_and_stderr_come_in_the_order_they_were_written(sandbox: Sandbox) -> None:
    result = sandbox.exec("for i in {1..200}; do echo out $i; echo err $i >&2; done")
    assert result.output == "".join(f"out {i}\nerr {i}\n" for i in range(1, 201))


def test_folder_exports_and_functions_last(sandbox: Sandbox) -> None:
    sandbox.exec("mkdir inner; cd inner; export EXPORTED=1; local_one=2; f() { echo called; }")
    result = sandbox.exec("echo ${PWD##*/} $EXPORTED $local_one; f")
    assert result.output == "inner 1 2\ncalled\n"


def test_a_command_of_many_lines_is_run_as_one(sandbox: Sandbox) -> None:
    result = sandbox.exec("for i in 1 2\ndo\n  cat <<EOF\n$i 'it\"s'\nEOF\ndone")
    assert result.output == "1 'it\"s'\n2 'it\"s'\n"


def test_a_command_reads_no_input(sandbox: Sandbox) -> None:
    result = sandbox.exec("cat; read -r line; echo $?", timeout_s=20)
    assert (result.output, result.timed_out) == ("1\n", False)


def test_output_that_is_not_utf_8_is_replaced(sandbox: Sandbox) -> None:
    assert sandbox.exec("printf 'a\\377b\\303\\251'").output == "a\ufffdbé"


def test_whatever_is_run_gets_an_answer_and_leaves_a_usable_shell(sandbox: Sandbox) -> None:
    folder = folder_of(sandbox)
    for name, command in RUINOUS.items():
        sandbox.exec(f"cd {folder}; export KEPT=kept")
        sandbox.exec(command, timeout_s=20)
        after = sandbox.exec(r'\builtin echo "usable $KEPT"', timeout_s=20)
        assert "usable kept" in after.output, name
        sandbox.exec(r"\exit")  # the next one gets another shell


def test_ending_the_shell_is_said_and_keeps_folder_and_exports(sandbox: Sandbox) -> None:
    sandbox.exec("mkdir -p 'in ner'; cd 'in ner'; export MULTI=$'two\\nlines \"$x\"'")
    result = sandbox.exec("echo last words; exit 7")
    assert result.exit_code == 7
    assert result.restarted
    assert result.output.startswith("last words\n")
    after = sandbox.exec('echo "${PWD##*/} $MULTI"')
    assert (after.output, after.restarted) == ('in ner two\nlines "$x"\n', False)


def test_no_output_passes_for_the_end(sandbox: Sandbox) -> None:
    sandbox.exec("set -x; set -v")
    result = sandbox.exec(
        "set; declare -p; env; history; trap; fc -l; cat /proc/$$/cmdline | tr '\\0' '\\n';"
        "for i in {1..2000}; do printf '%032x 0\\n' $i; done; { echo the end; } 2>/dev/null"
    )
    assert result.output.endswith("the end\n")
    assert result.exit_code == 0
    assert "\n" + "7d0 0\n".rjust(35, "0") in result.output


def test_a_background_process_does_not_delay_the_answer(sandbox: Sandbox) -> None:
    started = time.monotonic()
    result = sandbox.exec("sleep 60 & (setsid sleep 60 &); echo at once")
    assert result.output.endswith("at once\n")
    assert time.monotonic() - started < 10


def test_a_command_of_five_megabytes_is_run(sandbox: Sandbox) -> None:
    text = "0123456789" * 500_000
    result = sandbox.exec(f"long='{text}'; echo ${{#long}}", timeout_s=100)
    assert result.output == "5000000\n"


def test_long_output_is_cut_in_its_middle_and_counted(sandbox: Sandbox) -> None:
    whole = "".join(f"{i}\n" for i in range(1, 1_000_001))
    result = sandbox.exec("seq 1 1000000")
    assert result.exit_code == 0
    assert 0 < result.elided_chars < len(whole)
    assert len(result.output) < len(whole)
    assert result.output[:1000] == whole[:1000]
    assert result.output[-1000:] == whole[-1000:]


def test_endless_output_is_ended_and_takes_no_memory_here(sandbox: Sandbox) -> None:
    tracemalloc.start()
    result = sandbox.exec("yes", timeout_s=2)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.timed_out
    assert result.elided_chars > 0
    assert peak_bytes < 16 * 2**20


def test_a_timeout_is_said_and_what_was_printed_is_kept(sandbox: Sandbox) -> None:
    started = time.monotonic()
    result = sandbox.exec("echo before; sleep 60; echo after", timeout_s=0.5)
    assert (result.exit_code, result.timed_out) == (None, True)
    assert "before\n" in result.output
    assert "after" not in result.output
    assert time.monotonic() - started < 15


def test_a_timeout_ends_all_that_the_command_started(sandbox: Sandbox) -> None:
    command = (
        "sleep 60 & echo $! >pids; setsid sleep 60 & echo $! >>pids;"
        "(setsid bash -c 'echo $$ >>pids; sleep 60; true' &) ; sleep 0.3; sleep 60"
    )
    assert sandbox.exec(command, timeout_s=1.5).timed_out
    pids = sandbox.exec("cat pids").output
    assert len(pids.split()) == 3
    assert not lives(sandbox, pids)


def test_a_timeout_spares_what_an_earlier_command_left_running(sandbox: Sandbox) -> None:
    pid = sandbox.exec("sleep 60 >/dev/null & echo $! >pid; cat pid").output.split()[-1]
    assert sandbox.exec("sleep 60", timeout_s=0.5).timed_out
    assert lives(sandbox, pid)


@pytest.mark.parametrize(
    "command",
    [
        "sleep 60",
        "while true; do sleep 0.1; done",
        "trap '' INT TERM; while :; do :; done",
        "exec sleep 60",
        "kill -STOP $$",
        "builtin() { :; }; sleep 60",
    ],
)
def test_a_timeout_leaves_a_usable_shell_with_its_folder_and_exports(
    sandbox: Sandbox, command: str
) -> None:
    sandbox.exec("mkdir -p inner; cd inner; export KEPT=kept")
    assert sandbox.exec(command, timeout_s=0.5).timed_out
    assert sandbox.exec("echo ${PWD##*/} $KEPT").output == "inner kept\n"


def test_a_timeout_keeps_functions_where_the_shell_could_be_interrupted(sandbox: Sandbox) -> None:
    sandbox.exec("f() { echo called; }")
    assert not sandbox.exec("sleep 60; echo more", timeout_s=0.5).restarted
    assert sandbox.exec("f").output == "called\n"


@pytest.mark.parametrize("data", [b"", b"text\n", bytes(range(256)) * 5, b"\n" * 3_000_000])
def test_what_is_written_is_read(sandbox: Sandbox, data: bytes) -> None:
    path = f"{folder_of(sandbox)}/file"
    sandbox.write_file(path, data)
    assert sandbox.read_file(path) == data


def test_commands_and_files_see_the_same(sandbox: Sandbox) -> None:
    folder = folder_of(sandbox)
    sandbox.write_file(f"{folder}/from-us", b"ours\n")
    assert sandbox.exec("cat from-us; echo theirs >from-them").output == "ours\n"
    assert sandbox.read_file(f"{folder}/from-them") == b"theirs\n"


def test_missing_parents_are_made_and_nothing_else(sandbox: Sandbox) -> None:
    folder = folder_of(sandbox)
    sandbox.write_file(f"{folder}/a/b/file", b"x")
    sandbox.write_file(f"{folder}/a/b/file", b"y")
    assert sandbox.exec("find a | sort").output == "a\na/b\na/b/file\n"


@pytest.mark.parametrize("name", ["two words", 'it\'s "$(quoted)" `so`', "-n", "lin\ne", "é*?[a]"])
def test_any_name_will_do(sandbox: Sandbox, name: str) -> None:
    path = f"{folder_of(sandbox)}/{name}"
    sandbox.write_file(path, b"named")
    assert sandbox.read_file(path) == b"named"
    assert sandbox.exec("cat ./*").output == "named"


def test_a_file_that_can_not_be_had_raises_what_python_raises(sandbox: Sandbox) -> None:
    folder = folder_of(sandbox)
    sandbox.exec("ln -s nowhere dangling; mkdir inner")
    for path in (f"{folder}/none", f"{folder}/none/none", f"{folder}/dangling"):
        with pytest.raises(FileNotFoundError):
            sandbox.read_file(path)
    with pytest.raises(IsADirectoryError):
        sandbox.read_file(f"{folder}/inner")
    with pytest.raises(IsADirectoryError):
        sandbox.write_file(f"{folder}/inner", b"")


def test_a_file_that_can_not_be_made_raises_what_python_raises(sandbox: Sandbox) -> None:
    folder = folder_of(sandbox)
    sandbox.write_file(f"{folder}/file", b"x")
    with pytest.raises((NotADirectoryError, FileExistsError)):
        sandbox.write_file(f"{folder}/file/inner", b"")
    assert sandbox.read_file(f"{folder}/file") == b"x"


def test_writing_keeps_the_mode_and_follows_a_link(sandbox: Sandbox) -> None:
    folder = folder_of(sandbox)
    sandbox.exec("echo 'echo old' >script; chmod 750 script; ln -s script link")
    sandbox.write_file(f"{folder}/link", b"echo new\n")
    assert sandbox.exec("./script; readlink link; stat -c %a script").output == "new\nscript\n750\n"


def test_files_can_be_had_from_behind_a_ruined_shell(sandbox: Sandbox) -> None:
    folder = folder_of(sandbox)
    sandbox.exec("PATH=; cat() { :; }; mv() { :; }; head() { :; }; cd /; set -u")
    sandbox.write_file(f"{folder}/file", b"still")
    assert sandbox.read_file(f"{folder}/file") == b"still"


def test_a_diff_holds_new_files_and_survives_redefined_tools(sandbox: Sandbox) -> None:
    folder = folder_of(sandbox)
    sandbox.exec(
        "git init -q .; git config user.name n; git config user.email e@example.invalid;"
        "echo old >file; git add -A; git commit -qm base; echo new >file; echo more >added"
    )
    base = sandbox.exec("git rev-parse HEAD").output.strip()
    sandbox.exec("git() { echo refused; }; set -e; cd /")
    patch = diff(sandbox, base, folder)
    assert patch is not None
    assert "+new" in patch
    assert "+more" in patch


def test_closing_twice_is_closing_once_and_a_closed_sandbox_says_so(sandbox: Sandbox) -> None:
    sandbox.close()
    sandbox.close()
    with pytest.raises(SandboxError):
        sandbox.exec("true")
    with pytest.raises(SandboxError):
        sandbox.read_file("/etc/passwd")
