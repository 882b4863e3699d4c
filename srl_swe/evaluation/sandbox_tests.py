"""Runs an instance's tests on a patch in an open sandbox: a verdict in seconds, for training.

What is applied, run and concluded is swebench's own: its ways to apply a patch, in its order,
the row's ``eval_script``, its log parser and its grading. Only the container is ours, so that
it starts fast, has no network unless asked, and is reaped. A test holds the two side by side.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

from srl_swe.errors import SandboxDied, SandboxError, SandboxGivenUp, UserError
from srl_swe.evaluation.admission import check_gradeable, verdict_without_tests
from srl_swe.evaluation.grading import verdict_from_report
from srl_swe.evaluation.log_reading import read_log
from srl_swe.evaluation.patch_paths import refusal, touched_paths
from srl_swe.evaluation.runner_hooks import (
    protected_files,
    restore_runner_hooks,
    save_runner_hooks,
)
from srl_swe.evaluation.test_run import TestRun, run_eval_script
from srl_swe.instances import row_from_instance
from srl_swe.sandbox import OpenSandbox, Sandbox, enforced, engine_record
from srl_swe.types import Instance, Outcome, Verdict

DEFAULT_TESTS_TIMEOUT_S = 1800.0
"""What swebench's harness gives the tests of one instance."""
_GIT_TIMEOUT_S = 300.0
_PATCH_FILE = "/tmp/.srl_swe_tests.diff"
_KILLED_FROM_OUTSIDE = frozenset({128 + 9, 128 + 15, 255})
"""Exit codes of a first process that the engine, or somebody through it, has stopped."""
_PROBE_TIMEOUT_S = 10.0


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
    and the eval script puts the test files back. ``patched_hooks`` False, for rewards:

    - a patch that leads out of the repository or into git's own files is refused
      (:mod:`.patch_paths`), as PATCH_FAILED;
    - what would run the tests rather than be tested is put back (:mod:`.runner_hooks`);
    - a log that its own evidence contradicts resolves nothing (:mod:`.evidence`).

    Raises SandboxError if the infrastructure fails, and UserError for an instance that can't be
    tested here. A sandbox that the code under test has ruined is not such a failure if the engine
    says that all is well with it.
    """
    early = _verdict_without_sandbox(instance, patch, patched_hooks=patched_hooks)
    if early is not None:
        return early
    protected = None if patched_hooks else protected_files(instance)
    if protected is not None:
        save_runner_hooks(sandbox, instance.workdir, protected)
    refused = apply_patch(patch, sandbox, instance)
    if refused is None and protected is not None:
        refused = restore_runner_hooks(sandbox, instance.workdir, protected=protected)
    if refused is not None:
        return Verdict(instance.instance_id, Outcome.PATCH_FAILED, detail=refused)
    try:
        lines = test_spec(instance).eval_script_list
        run = run_eval_script(lines, sandbox, timeout_s, recording=not patched_hooks)
    except SandboxError as error:
        if not isinstance(error, SandboxGivenUp) and not _ruined_from_inside(sandbox):
            raise
        why = f"the code under test ruined its sandbox: {error}"
        return Verdict(instance.instance_id, Outcome.UNRESOLVED, detail=why)
    if run.timed_out:
        why = f"the tests ran longer than {timeout_s:g} seconds"
        return Verdict(instance.instance_id, Outcome.TIMED_OUT, detail=why)
    return verdict_from_run(instance, run, patch, strict=not patched_hooks)


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
    verdict = _verdict_without_sandbox(instance, patch, patched_hooks=patched_hooks)
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
    """What swebench's parser and grading say of the output of a whole run of the tests."""
    return verdict_from_run(instance, TestRun(log, None), patch="", strict=False)


def verdict_from_run(instance: Instance, run: TestRun, patch: str, *, strict: bool) -> Verdict:
    """The verdict on a run that ended in time.

    Output that the parser fails on is as good as none: code under test may print anything, and
    must neither end a training nor have its sample dropped. ``strict``, for rewards: evidence that
    does not agree passes no test.
    """
    touched = {path.path for path in touched_paths(patch)}
    reading = read_log(instance, run, touched)
    if reading.failure is not None:
        return Verdict(instance.instance_id, Outcome.UNRESOLVED, detail=reading.failure)
    verdict = verdict_from_report(instance.instance_id, reading.report)
    doubt = reading.doubt
    if run.exit_code is None and doubt is None:
        doubt = "the test command was killed, or has no exit status"
    if not strict or doubt is None or not verdict.passed:
        return verdict
    return Verdict(
        instance.instance_id,
        Outcome.UNRESOLVED,
        failed=(*instance.fail_to_pass, *instance.pass_to_pass),
        detail=f"the evidence does not agree: {doubt}",
    )


def _verdict_without_sandbox(
    instance: Instance, patch: str, *, patched_hooks: bool
) -> Verdict | None:
    check_testable(instance)
    early = verdict_without_tests(instance, {instance.instance_id: patch})
    if early is not None or patched_hooks:
        return early
    refused = refusal(patch)
    if refused is None:
        return None
    return Verdict(instance.instance_id, Outcome.PATCH_FAILED, detail=refused)


def _ruined_from_inside(sandbox: Sandbox) -> bool:
    """Whether the engine says that it, and the container as such, did not fail."""
    try:
        record = engine_record(sandbox)
        if record is None:
            return False
        if not record.running:
            return record.oom_killed or record.exit_code not in _KILLED_FROM_OUTSIDE
        return sandbox.exec("true", _PROBE_TIMEOUT_S).exit_code != 0
    except SandboxDied:
        return True  # it runs, and no shell starts in it: no process or memory is left
    except SandboxError:
        return False


def apply_patch(patch: str, sandbox: Sandbox, instance: Instance) -> str | None:
    """Apply it as swebench does; None if that succeeds, else git's last message.

    Raises SandboxError.
    """
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


def test_spec(instance: Instance) -> Any:
    """The TestSpec that swebench makes of the instance."""
    from swebench.harness.utils import make_test_spec

    return make_test_spec(row_from_instance(instance))
