"""The environment of a command, and its lasting effects."""

from __future__ import annotations

import re
import time
import tracemalloc

import pytest

from srl_swe.errors import SandboxError
from srl_swe.sandbox import Sandbox, diff, take_patch
from srl_swe.testing.sandbox_contract.fixtures import folder_of

# The output of commands.


def test_output_is_exact_with_and_without_a_last_newline(used_sandbox: Sandbox) -> None:
    assert used_sandbox.exec("printf 'no newline'").output == "no newline"
    assert used_sandbox.exec("printf '\\n\\nthree\\n\\n'").output == "\n\nthree\n\n"
    assert used_sandbox.exec("true").output == ""


def test_stdout_and_stderr_come_in_the_order_they_were_written(used_sandbox: Sandbox) -> None:
    result = used_sandbox.exec("for i in {1..200}; do echo out $i; echo err $i >&2; done")
    assert result.output == "".join(f"out {i}\nerr {i}\n" for i in range(1, 201))


@pytest.mark.parametrize(
    ("printed", "read"),
    [
        pytest.param(r"a\377b\303\251", "a\ufffdbé", id="bytes that are not UTF-8 are replaced"),
        pytest.param(r"a\0b", "a\0b", id="NUL is kept"),
        pytest.param(r"\033[31mred\033[0m\a", "\x1b[31mred\x1b[0m\a", id="ANSI is kept"),
        pytest.param(r"a\r\nb\rc\n", "a\r\nb\rc\n", id="CRLF is kept"),
        pytest.param(r"\342\202\254\360\237\231\202", "€🙂", id="long characters are kept"),
    ],
)
def test_whatever_bytes_are_printed_come_back_as_text(
    used_sandbox: Sandbox, printed: str, read: str
) -> None:
    assert used_sandbox.exec(f"printf '{printed}'").output == read


def test_no_output_passes_for_the_end(used_sandbox: Sandbox) -> None:
    used_sandbox.exec("set -x; set -v")
    result = used_sandbox.exec(
        "set; declare -p; env; history; trap; fc -l; cat /proc/$$/cmdline | tr '\\0' '\\n';"
        "for i in {1..2000}; do printf '%032x 0\\n' $i; done; { echo the end; } 2>/dev/null"
    )
    assert result.output.endswith("the end\n")
    assert result.exit_code == 0
    assert "\n" + "7d0 0\n".rjust(35, "0") in result.output


def test_a_command_sees_no_secret_of_the_protocol(used_sandbox: Sandbox) -> None:
    looked = "cat /proc/$$/environ /proc/$PPID/cmdline /proc/$$/cmdline | tr '\\0' '\\n'; env"
    used_sandbox.exec("echo first")
    found = re.findall(r"\b[0-9a-f]{32}\b", used_sandbox.exec(looked).output)
    for secret in found:
        result = used_sandbox.exec(f"echo '{secret} 0'; echo after")
        assert result.output == f"{secret} 0\nafter\n"


def test_a_million_lines_are_cut_in_the_middle_and_counted(used_sandbox: Sandbox) -> None:
    whole = "".join(f"{i}\n" for i in range(1, 1_000_001))
    result = used_sandbox.exec("seq 1 1000000")
    assert result.exit_code == 0
    assert 0 < result.elided_chars < len(whole)
    assert result.output[:1000] == whole[:1000]
    assert result.output[-1000:] == whole[-1000:]


def test_the_cut_is_said_where_it_is_and_nothing_else_is_lost(used_sandbox: Sandbox) -> None:
    result = used_sandbox.exec("yes é | head -n 500000")
    assert str(result.elided_chars) in result.output
    kept = result.output.count("é") + result.output.count("\n")
    assert 0 <= kept + result.elided_chars - 1_000_000 <= 3  # the note has lines of its own


def test_a_line_without_an_end_is_cut_as_well(used_sandbox: Sandbox) -> None:
    result = used_sandbox.exec("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end")
    assert result.elided_chars > 2_000_000
    assert result.output.endswith("x\nthe end\n")


def test_endless_output_is_ended_and_takes_no_memory_here(used_sandbox: Sandbox) -> None:
    tracemalloc.start()
    result = used_sandbox.exec("yes", timeout_s=2)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.timed_out
    assert result.elided_chars > 0
    assert peak_bytes < 16 * 2**20


# Commands that should leave only files behind.


def test_without_state_nothing_of_the_shell_lasts(used_sandbox: Sandbox) -> None:
    used_sandbox.exec("mkdir inner; export ONE=1")
    used_sandbox.exec(
        "cd inner; export ONE=2 TWO=2; f() { :; }; alias ls=false; set -u; umask 0; trap f EXIT",
        keep_state=False,
    )
    after = used_sandbox.exec(
        "echo ${PWD##*/} $ONE $TWO; umask; type f; alias ls; trap; [[ $- == *u* ]] && echo nounset"
    )
    assert "inner" not in after.output
    assert " 1\n00" in after.output
    assert not {"function", "false", "EXIT", "nounset"} & set(after.output.split())


def test_without_state_a_command_starts_from_what_has_been_kept(used_sandbox: Sandbox) -> None:
    used_sandbox.exec("mkdir inner; cd inner; export ONE=1; local_one=2; f() { echo called; }")
    result = used_sandbox.exec("echo ${PWD##*/} $ONE $local_one; f", keep_state=False)
    assert result.output == "inner 1 2\ncalled\n"


def test_without_state_output_exit_code_and_files_are_as_ever(used_sandbox: Sandbox) -> None:
    result = used_sandbox.exec(
        "echo text >file; cat file; echo err >&2; (exit 3)", keep_state=False
    )
    assert (result.output, result.exit_code) == ("text\nerr\n", 3)
    assert used_sandbox.exec("cat file").output == "text\n"


@pytest.mark.parametrize(
    ("command", "exit_code"),
    [
        pytest.param("exit 7", 7, id="exit 7"),
        pytest.param("exec sleep 0.1", 0, id="exec sleep"),
        pytest.param("exec no-such-program", 127, id="exec of nothing"),
        pytest.param("set -e; false; echo more", 1, id="errexit"),
        pytest.param("set -u; echo $nope", None, id="nounset"),
        pytest.param("echo ${nope:?}", None, id="a required variable"),
        pytest.param("kill -9 $BASHPID", 137, id="its own shell killed"),
        pytest.param("set -n; echo x", None, id="no execution"),
        pytest.param("echo 'unbalanced", None, id="an unbalanced quote"),
        pytest.param("exec >/dev/null 2>&1 </dev/zero", 0, id="output elsewhere"),
    ],
)
def test_without_state_a_command_that_ends_its_shell_ends_it_alone(
    used_sandbox: Sandbox, command: str, exit_code: int | None
) -> None:
    used_sandbox.exec("f() { echo kept; }")
    result = used_sandbox.exec(command, timeout_s=30, keep_state=False)
    assert not result.restarted
    assert exit_code is None or result.exit_code == exit_code
    after = used_sandbox.exec("f")
    assert (after.output, after.restarted) == ("kept\n", False)


def test_without_state_a_timeout_leaves_the_shell_as_it_was(used_sandbox: Sandbox) -> None:
    used_sandbox.exec("f() { echo kept; }")
    result = used_sandbox.exec("cd /; sleep 60; echo more", timeout_s=0.5, keep_state=False)
    assert (result.timed_out, result.exit_code, result.restarted) == (True, None, False)
    assert used_sandbox.exec("f; [[ $PWD != / ]]").output == "kept\n"


def test_a_command_answers_with_its_output_and_its_exit_code(used_sandbox: Sandbox) -> None:
    result = used_sandbox.exec("echo out; echo err >&2; (exit 3)")
    assert (result.output, result.exit_code) == ("out\nerr\n", 3)
    assert not (result.timed_out or result.elided_chars or result.restarted)


def test_a_failing_command_is_a_result_not_an_exception(used_sandbox: Sandbox) -> None:
    result = used_sandbox.exec("no-such-program --at-all")
    assert result.exit_code == 127
    assert "no-such-program" in result.output


def test_a_command_that_dies_of_a_signal_says_which(used_sandbox: Sandbox) -> None:
    assert used_sandbox.exec("bash -c 'kill -TERM $$'").exit_code == 128 + 15


def test_folder_exports_and_functions_last(used_sandbox: Sandbox) -> None:
    used_sandbox.exec("mkdir inner; cd inner; export EXPORTED=1; local_one=2; f() { echo called; }")
    result = used_sandbox.exec("echo ${PWD##*/} $EXPORTED $local_one; f")
    assert result.output == "inner 1 2\ncalled\n"


def test_an_activated_environment_lasts_until_it_is_left(used_sandbox: Sandbox) -> None:
    used_sandbox.exec(
        "mkdir -p venv/bin; printf '#!/bin/sh\\necho from the venv\\n' >venv/bin/tool;"
        "chmod +x venv/bin/tool; cat >venv/bin/activate <<'EOF'\n"
        '_OLD_PATH=$PATH; PATH="$PWD/venv/bin:$PATH"; export PATH; hash -r\n'
        "deactivate() { PATH=$_OLD_PATH; unset -f deactivate; hash -r; }\nEOF"
    )
    used_sandbox.exec("source venv/bin/activate")
    assert used_sandbox.exec("tool").output == "from the venv\n"
    assert used_sandbox.exec("deactivate; tool").exit_code == 127


def test_a_command_of_many_lines_is_run_as_one(used_sandbox: Sandbox) -> None:
    result = used_sandbox.exec("for i in 1 2\ndo\n  cat <<EOF\n$i 'it\"s'\nEOF\ndone")
    assert result.output == "1 'it\"s'\n2 'it\"s'\n"


def test_a_command_reads_no_input(used_sandbox: Sandbox) -> None:
    result = used_sandbox.exec("cat; read -r line; echo $?", timeout_s=30)
    assert (result.output, result.timed_out) == ("1\n", False)


def test_a_command_with_carriage_returns_is_run_as_bash_runs_it(used_sandbox: Sandbox) -> None:
    assert used_sandbox.exec("echo a\r\necho b\r\n").output == "a\r\nb\r\n"


def test_a_nul_in_a_command_is_dropped(used_sandbox: Sandbox) -> None:
    assert used_sandbox.exec("echo a\0b").output == "ab\n"


def test_a_heredoc_of_five_megabytes_is_passed_on_whole(used_sandbox: Sandbox) -> None:
    text = "0123456789abcde\n" * 320_000
    result = used_sandbox.exec(f"cat >file <<'EOF'\n{text}EOF\nwc -c <file", timeout_s=100)
    assert result.output.strip() == str(len(text))


def test_a_background_process_does_not_delay_the_answer(used_sandbox: Sandbox) -> None:
    started = time.monotonic()
    result = used_sandbox.exec("sleep 60 & (setsid sleep 60 &); echo at once")
    assert result.output.endswith("at once\n")
    assert time.monotonic() - started < 20


def test_a_background_process_goes_on_between_commands(used_sandbox: Sandbox) -> None:
    used_sandbox.exec("(while :; do date >>beats; sleep 0.05; done) >/dev/null 2>&1 & echo $! >pid")
    used_sandbox.exec("rm -f beats; until [ -s beats ]; do sleep 0.05; done", timeout_s=30)
    assert used_sandbox.exec('kill "$(cat pid)"').exit_code == 0


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


def test_a_patch_is_taken_from_a_locked_repository_without_its_leftovers(sandbox: Sandbox) -> None:
    folder = folder_of(sandbox)
    sandbox.exec(
        "git init -q .; git config user.name n; git config user.email e@example.invalid;"
        "echo old >file; git add -A; git commit -qm base; echo new >file;"
        "touch .git/index.lock; rm .git/HEAD; git init -q inner; printf '\\xe9\\n' >latin;"
        "head -c 5M /dev/zero >large; touch file.orig"
    )
    base = sandbox.exec("cat .git/refs/heads/*").output.strip()
    patch = take_patch(sandbox, base, folder)
    assert patch.text is not None, patch.detail
    assert "\n-old\n+new\n" in patch.text
    assert {"large", "file.orig"} <= {item.path for item in patch.omitted}
    assert len(patch.text.encode("utf-8")) < 2**20


def test_a_diff_without_a_repository_is_none_and_keeps_the_shell(used_sandbox: Sandbox) -> None:
    used_sandbox.exec("f() { echo kept; }")
    assert diff(used_sandbox, "HEAD", folder_of(used_sandbox)) is None
    assert used_sandbox.exec("f").output == "kept\n"


def test_closing_twice_is_closing_once_and_a_closed_sandbox_says_so(sandbox: Sandbox) -> None:
    sandbox.close()
    sandbox.close()
    with pytest.raises(SandboxError):
        sandbox.exec("true")
    with pytest.raises(SandboxError):
        sandbox.read_file("/etc/passwd")
    with pytest.raises(SandboxError):
        sandbox.write_file("/tmp/file", b"")
