"""Runs an instance's tests on a patch in an open sandbox: a verdict in seconds, for training.

What is applied, run and concluded is swebench's own: its ways to apply a patch, in its order,
the row's ``eval_script``, its log parser and its grading. Only the container is ours, so that
it starts fast, has no network unless asked, and is reaped. A test holds the two side by side.
"""

from __future__ import annotations

import secrets
import shlex
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from srl_swe.errors import SandboxError, UserError
from srl_swe.evaluation.admission import check_gradeable, verdict_without_tests
from srl_swe.evaluation.grading import verdict_from_report
from srl_swe.evaluation.runner_hooks import restore_runner_hooks, save_runner_hooks
from srl_swe.instances import row_from_instance
from srl_swe.sandbox import ExecResult, OpenSandbox, Sandbox, enforced
from srl_swe.types import Instance, Outcome, Verdict

DEFAULT_TESTS_TIMEOUT_S = 1800.0
"""What swebench's harness gives the tests of one instance."""
_GIT_TIMEOUT_S = 300.0
_PATCH_FILE = "/tmp/.srl_swe_tests.diff"
_SCRIPT_FILE = "/tmp/.srl_swe_tests.sh"
_LOG_FILE = "/tmp/.srl_swe_tests.log"


def verdict_in_sandbox(
    instance: Instance,
    patch: str,
    sandbox: Sandbox,
    timeout_s: float = DEFAULT_TESTS_TIMEOUT_S,
    *,
    patched_hooks: bool = True,
) -> Verdict:
    """The verdict on ``patch``, whose tests run in ``sandbox``: a fresh one, for nothing else.

    What a policy did to the sandbox it acted in must not reach the tests: its patch alone does,
    and the eval script puts the test files back. ``patched_hooks`` False, for rewards: what the
    test runner loads by itself is put back too (:mod:`.runner_hooks`). Raises SandboxError where
    the infrastructure fails, and UserError for an instance that can't be tested here.
    """
    check_testable(instance)
    early = verdict_without_tests(instance, {instance.instance_id: patch})
    if early is not None:
        return early
    if not patched_hooks:
        save_runner_hooks(sandbox, instance.workdir)
    refused = _apply(patch, sandbox, instance)
    if refused is not None:
        return Verdict(instance.instance_id, Outcome.PATCH_FAILED, detail=refused)
    if not patched_hooks:
        restore_runner_hooks(sandbox, instance.workdir, instance.gold_patch)
    result = _run_tests(instance, sandbox, timeout_s)
    if result.timed_out:
        why = f"the tests ran longer than {timeout_s:g} seconds"
        return Verdict(instance.instance_id, Outcome.TIMED_OUT, detail=why)
    return verdict_from_log(instance, _read_log(sandbox))


def verdict_in_fresh_sandbox(
    instance: Instance,
    patch: str,
    open_sandbox: OpenSandbox,
    timeout_s: float = DEFAULT_TESTS_TIMEOUT_S,
    *,
    patched_hooks: bool = True,
) -> Verdict:
    """:func:`verdict_in_sandbox` in a sandbox that is opened for it and closed after.

    An infrastructure failure is a BROKEN_SANDBOX verdict; nothing is opened for a patch that
    needs no tests.
    """
    check_testable(instance)
    verdict = verdict_without_tests(instance, {instance.instance_id: patch})
    if verdict is not None:
        return verdict
    try:
        with open_sandbox(instance) as sandbox:
            verdict = verdict_in_sandbox(
                instance, patch, sandbox, timeout_s, patched_hooks=patched_hooks
            )
            verdict = replace(verdict, network=str(enforced(sandbox).get("network", "")))
    except SandboxError as error:
        if verdict is None:  # else only closing failed, and what was found stands
            return Verdict(instance.instance_id, Outcome.BROKEN_SANDBOX, detail=str(error))
    assert verdict is not None, "a sandbox must not swallow its user's exception"
    return verdict


def check_testable(instance: Instance) -> None:
    """Raises UserError for an instance whose tests can't run in a sandbox."""
    check_gradeable([instance])
    if instance.image_assets:
        raise UserError(
            f"{instance.instance_id} comes with image assets, which only swebench's harness puts "
            "in place; grade it with `srl-swe grade`."
        )


def verdict_from_log(instance: Instance, log: str) -> Verdict:
    """What swebench's parser and grading say of the output of a whole run of the tests.

    Output that the parser fails on is as good as none: code under test may print anything, and
    must neither end a training nor have its sample dropped.
    """
    from swebench.harness.grading import get_eval_report

    prediction = {"instance_id": instance.instance_id, "model_patch": "tested"}
    with tempfile.TemporaryDirectory(prefix="srl-swe-") as folder:
        path = Path(folder) / "test_output.txt"
        path.write_text(log, encoding="utf-8", errors="replace")
        try:
            report = get_eval_report(_spec(instance), prediction, str(path), True)
        except (IndexError, AttributeError) as error:  # Django's parser, of a bare "ERROR:"
            why = f"swebench's {instance.log_parser} can't read what the tests printed: {error}"
            return Verdict(instance.instance_id, Outcome.UNRESOLVED, detail=why)
    return verdict_from_report(instance.instance_id, report[instance.instance_id])


def _apply(patch: str, sandbox: Sandbox, instance: Instance) -> str | None:
    """Apply it as swebench does; None if that went well, else what git said last."""
    from swebench.harness.run_evaluation import GIT_APPLY_CMDS

    try:
        sandbox.write_file(_PATCH_FILE, patch.encode("utf-8"))
    except OSError as error:
        raise SandboxError(f"the patch can't be put into a fresh sandbox: {error}") from error
    workdir = shlex.quote(instance.workdir)
    said = ""
    for attempt, command in enumerate([*GIT_APPLY_CMDS, "git apply --check --reverse"]):
        is_check = attempt == len(GIT_APPLY_CMDS)
        clean = "git checkout -- . ; git clean -fd; " if attempt and not is_check else ""
        result = sandbox.exec(
            f"cd {workdir} && {{ {clean}{command} {_PATCH_FILE}; }}", _GIT_TIMEOUT_S, False
        )
        if result.timed_out:
            raise SandboxError(f"applying the patch took longer than {_GIT_TIMEOUT_S:g} seconds")
        if result.exit_code == 0:
            return None
        said = said if is_check else result.output
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "the patch does not apply"


def _run_tests(instance: Instance, sandbox: Sandbox, timeout_s: float) -> ExecResult:
    """The output goes to a file, so that no cap on output can cut what is graded.

    The script travels inside the command, as a local sandbox knows folders by other names.
    """
    script = _spec(instance).eval_script
    end = f"SRL_SWE_{secrets.token_hex(8)}"
    write = f"rm -rf {_LOG_FILE}; cat > {_SCRIPT_FILE} <<'{end}'\n{script}\n{end}\n"
    written = sandbox.exec(write, keep_state=False)
    if written.exit_code != 0:
        raise SandboxError(f"the tests can't be put into a fresh sandbox: {written.output}")
    command = f"bash {_SCRIPT_FILE} > {_LOG_FILE} 2>&1 < /dev/null"
    return sandbox.exec(command, timeout_s, keep_state=False)


def _read_log(sandbox: Sandbox) -> str:
    """Empty where the tests did away with it: they left no results then."""
    try:
        return sandbox.read_file(_LOG_FILE).decode("utf-8", errors="replace")
    except OSError:
        return ""


def _spec(instance: Instance) -> Any:
    from swebench.harness.utils import make_test_spec

    return make_test_spec(row_from_instance(instance))
