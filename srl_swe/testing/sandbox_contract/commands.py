"""What a command is given, and what lasts after it."""
# ruff: noqa: D103 - the names are the sentences

from __future__ import annotations

import time

import pytest

from srl_swe.errors import SandboxError
from srl_swe.sandbox import Sandbox, diff, take_patch
from srl_swe.testing.sandbox_contract.fixtures import folder_of


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
