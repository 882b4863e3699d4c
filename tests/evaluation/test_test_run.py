"""How an eval script's output comes out of a sandbox."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from srl_swe.errors import SandboxError
from srl_swe.evaluation import test_run
from srl_swe.evaluation.test_run import run_eval_script
from srl_swe.sandbox import ExecResult, Sandbox
from srl_swe.testing import FakeSandbox
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.local import open_local_sandbox

from .patches import INSTANCE


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    opened = open_local_sandbox if request.param == "local" else open_docker_sandbox
    with opened(INSTANCE) as sandbox:
        yield sandbox


def script(*commands: str) -> list[str]:
    return [
        ": '>>>>> Start Test Output'",
        *commands,
        "SWEBENCH_TEST_EXIT_CODE=$?",
        ": '>>>>> End Test Output'",
        "true",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("commands", "printed", "exit_code"),
    [
        (["echo one; echo two >&2; false"], "one\ntwo\n", 1),
        (["(exit 7)"], "", 7),
        (["printf 'caf\\303\\251 \\377'"], "café \ufffd", 0),
        (["echo x", "exit 3"], "x\n", 3),
        (["kill -9 $$"], "", 137),
        (['rm -rf "${TMPDIR:-/tmp}"/*; echo still here'], "still here\n", 0),
        (["sleep 1000 & echo left one behind"], "left one behind\n", 0),
        (["head -c 200000 /dev/zero | tr '\\0' x"], "x" * 200_000, 0),
        (["cat; echo no input"], "no input\n", 0),
        (["echo exit 9 >> /tmp/.srl_swe_tests.sh"], "", 0),
    ],
)
def test_the_output_and_the_test_commands_own_status(
    sandbox: Sandbox, commands: list[str], printed: str, exit_code: int
) -> None:
    run = run_eval_script(script(*commands), sandbox, timeout_s=60)
    lines = [line for line in run.log.splitlines(keepends=True) if not line.startswith("+ ")]
    assert printed in "".join(lines)
    assert run.exit_code == exit_code
    assert not run.timed_out


@pytest.mark.slow
def test_a_script_that_does_not_end_is_timed_out(sandbox: Sandbox) -> None:
    assert run_eval_script(script("echo begun; sleep 60"), sandbox, timeout_s=1).timed_out


@pytest.mark.docker
def test_what_was_printed_before_everything_was_killed_is_there() -> None:
    with open_docker_sandbox(INSTANCE) as sandbox:
        run = run_eval_script(script("seq 100000", "kill -9 -1"), sandbox, 60)
    assert "\n1000\n" in run.log
    assert run.exit_code is None


def test_of_a_log_that_is_too_long_the_beginning_and_the_end_are_kept() -> None:
    log = test_run._HeadAndTail()
    for number in range(80):
        log.add(b"%02d" % number + b"x" * (2**20 - 2))
    whole = log.whole()
    assert whole.startswith(b"00x")
    assert b"\n[33554432 bytes of the log left out here]\n64x" in whole
    assert whole[-(2**20) :].startswith(b"79x")
    assert len(whole) < test_run.MOST_HEAD_BYTES + test_run.MOST_TAIL_BYTES + 100


def test_a_sandbox_that_prints_too_little_says_what_to_raise() -> None:
    def cut(command: str) -> ExecResult:
        text = base64.b64encode(b"x" * 30).decode()
        return ExecResult(text, 0, elided_chars=1 if "head -c" in command else 0)

    with pytest.raises(SandboxError, match="output_chars"):
        run_eval_script(script("true"), FakeSandbox(cut), 10)


@pytest.mark.slow
def test_the_recorders_account_is_taken_out_of_the_log(sandbox: Sandbox) -> None:
    from srl_swe.evaluation.verdicts import test_spec as spec_of

    lines = spec_of(INSTANCE).eval_script_list
    plain = run_eval_script(lines, sandbox, 120)
    run = run_eval_script(lines, sandbox, 120, recording=True)
    assert plain.exit_code == run.exit_code == 1
    begun, ended = run.records
    assert begun == {"begun": True}
    assert (ended["exit"], ended["problems"], ended["errors"]) == (1, [], [])
    names = {*INSTANCE.fail_to_pass, *INSTANCE.pass_to_pass}
    assert set(ended["tests"]) == names
    failed = {name for name, status in ended["tests"].items() if status == "FAILED"}
    assert failed == set(INSTANCE.fail_to_pass)
    assert "srl_swe" not in run.log.replace("srl-swe", "")
    assert "\x1e" not in run.log
    assert [line for line in run.log.splitlines() if "passed" in line][-1].startswith("=")
