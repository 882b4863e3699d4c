"""Runs an instance's tests on a patch in a sandbox: a verdict in seconds, for training and grading.

Patches are applied, tests run and logs graded as by swebench: with its apply commands in its order,
the row's ``eval_script``, its log parser and its grading. Only the sandbox is ours: it starts fast,
has no network by default, and is removed after a crash. A test compares the two graders.
"""

from __future__ import annotations

import hashlib
import shlex
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

from srl_swe.errors import SandboxDied, SandboxError, SandboxGivenUp, UserError
from srl_swe.evaluation.log_reading import read_log
from srl_swe.evaluation.patch_paths import refusal, touched_paths
from srl_swe.evaluation.runner_hooks import protected_files, restore_runner_hooks, save_runner_hooks
from srl_swe.evaluation.test_run import TestRun, run_eval_script
from srl_swe.evaluation.verdicts import (
    KILLED_FROM_OUTSIDE,
    check_gradeable,
    test_spec,
    verdict_from_report,
    verdict_without_tests,
)
from srl_swe.files import last_line
from srl_swe.sandbox import OpenSandbox, Sandbox, enforced, engine_record
from srl_swe.types import Instance, Outcome, Verdict

DEFAULT_TESTS_TIMEOUT_S = 1800.0
"""The default of swebench's harness."""
_GIT_TIMEOUT_S = 300.0
_PATCH_FILE = "/tmp/.srl_swe_tests.diff"
_PROBE_TIMEOUT_S = 10.0
_NOT_CACHED = frozenset({Outcome.BROKEN_SANDBOX, Outcome.TIMED_OUT})


def verdict_in_sandbox(
    instance: Instance,
    patch: str,
    sandbox: Sandbox,
    timeout_s: float = DEFAULT_TESTS_TIMEOUT_S,
    *,
    patched_hooks: bool = True,
    on_log: Callable[[str], None] | None = None,
) -> Verdict:
    """The verdict on ``patch`` by the tests, which run in ``sandbox``: a fresh one, used once.

    Of a policy's episode only its patch may reach the tests; the eval script restores the test
    files. ``patched_hooks`` False, for rewards:

    - a patch that leads out of the repository or into git's own files is refused as PATCH_FAILED
      (:mod:`.patch_paths`);
    - files that run the tests rather than being tested are restored (:mod:`.runner_hooks`);
    - a log that contradicts itself passes no test (:mod:`.evidence`).

    ``on_log`` gets the output of the tests; if their time was up, up to 48 KiB of it are missing at
    the end.

    Raises SandboxError if the infrastructure fails, and UserError for an instance that can't be
    tested here. A sandbox ruined by the code under test is UNRESOLVED if the engine reports no
    failure of its own.
    """
    early = _verdict_without_sandbox(instance, patch, patched_hooks=patched_hooks)
    if early is not None:
        return early
    protected = None if patched_hooks else protected_files(instance)
    if protected is not None:
        save_runner_hooks(sandbox, instance.workdir, protected)
    refused = apply_patch(patch, sandbox, instance)
    if refused is None and protected is not None:
        refused = restore_runner_hooks(sandbox, instance.workdir, protected)
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
    if on_log is not None and run.log:
        on_log(run.log)
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
    on_log: Callable[[str], None] | None = None,
) -> Verdict:
    """:func:`verdict_in_sandbox` in a sandbox of its own, opened only if tests need to run.

    An infrastructure failure is a BROKEN_SANDBOX verdict.
    """
    verdict = _verdict_without_sandbox(instance, patch, patched_hooks=patched_hooks)
    if verdict is not None:
        return verdict
    try:
        with open_sandbox(instance) as sandbox:
            verdict = verdict_in_sandbox(
                instance,
                patch,
                sandbox,
                timeout_s,
                patched_hooks=patched_hooks,
                on_log=on_log,
            )
            verdict = replace(verdict, network=str(enforced(sandbox).get("network", "")))
    except SandboxError as error:
        if verdict is None:  # else only closing failed, and the verdict stands
            return Verdict.broken(instance.instance_id, str(error))
    assert verdict is not None, "a sandbox must not swallow its user's exception"
    return verdict


def check_testable(instance: Instance) -> None:
    """Raises UserError for an instance whose tests can't run in a sandbox."""
    check_gradeable([instance])
    if instance.image_assets:
        raise UserError(
            f"{instance.instance_id} comes with image assets, which only swebench's harness puts "
            "in place; grade it with --runner swebench."
        )


def verdict_from_run(instance: Instance, run: TestRun, patch: str, *, strict: bool) -> Verdict:
    """The verdict on a run that ended in time.

    Output that the parser fails on is UNRESOLVED: code under test may print anything, and must
    neither end a training nor have its sample dropped. ``strict``, for rewards: a log that
    contradicts itself passes no test.
    """
    reading = read_log(instance, run, touched_paths(patch))
    if reading.failure is not None:
        return Verdict(instance.instance_id, Outcome.UNRESOLVED, detail=reading.failure)
    verdict = verdict_from_report(instance.instance_id, reading.report)
    doubt = reading.doubt
    if doubt is None and run.exit_code is None:
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
    if early is None and not patched_hooks and (refused := refusal(patch)):
        return Verdict(instance.instance_id, Outcome.PATCH_FAILED, detail=refused)
    return early


def _ruined_from_inside(sandbox: Sandbox) -> bool:
    """True if neither the engine nor the container itself has failed."""
    try:
        record = engine_record(sandbox)
        if record is None:
            return False
        if not record.running:
            return record.oom_killed or record.exit_code not in KILLED_FROM_OUTSIDE
        return sandbox.exec("true", _PROBE_TIMEOUT_S).exit_code != 0
    except SandboxDied:
        return True  # it runs, but can't start a shell: processes or memory are used up
    except SandboxError:
        return False


def apply_patch(patch: str, sandbox: Sandbox, instance: Instance) -> str | None:
    """Applies the patch as swebench does. Returns None, or git's last message if it fails.

    Raises SandboxError.
    """
    from swebench.harness.run_evaluation import GIT_APPLY_CMDS

    try:
        sandbox.write_file(_PATCH_FILE, patch.encode("utf-8"))
    except OSError as error:
        raise SandboxError(f"the patch can't be put into a fresh sandbox: {error}") from error
    workdir = shlex.quote(instance.workdir)
    message = ""
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
        message = message if is_check else result.output
    return last_line(message, "the patch does not apply")


class CachedTestRunner:
    """Tests patches for rewards in fresh sandboxes; equal patches are tested once.

    The samples of a group often agree, increasingly so as a policy learns. A caller with a patch
    under test waits for that verdict, and tries again if the sandbox broke. Broken sandboxes and
    time-outs are not cached; of other verdicts the ``remembered`` last used ones are. Safe to call
    from many threads.
    """

    def __init__(
        self,
        open_sandbox: OpenSandbox,
        timeout_s: float = DEFAULT_TESTS_TIMEOUT_S,
        remembered: int = 1024,  # as many as the paper's batch has replies
    ) -> None:
        self._open_sandbox = open_sandbox
        self._timeout_s = timeout_s
        self._remembered = remembered
        self._verdicts: OrderedDict[bytes, Future[Verdict]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, instance: Instance, patch: str) -> Verdict:
        """The verdict on an instance's patch; BROKEN_SANDBOX if the infrastructure fails."""
        text = f"{instance.instance_id}\0{patch}"
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        while True:
            with self._lock:
                known, mine = self._verdicts.get(key), Future[Verdict]()
                self._verdicts[key] = known or mine
                self._verdicts.move_to_end(key)
                if len(self._verdicts) > self._remembered:
                    self._verdicts.popitem(last=False)
            if known is None:
                break
            if known.result().outcome is not Outcome.BROKEN_SANDBOX:
                return known.result()
        try:
            verdict = verdict_in_fresh_sandbox(
                instance, patch, self._open_sandbox, self._timeout_s, patched_hooks=False
            )
        except BaseException as error:  # other threads wait for this future
            self._forget(key, mine)
            mine.set_exception(error)
            raise
        if verdict.outcome in _NOT_CACHED:
            self._forget(key, mine)
        mine.set_result(verdict)
        return verdict

    def _forget(self, key: bytes, tested: Future[Verdict]) -> None:
        with self._lock:
            if self._verdicts.get(key) is tested:  # else it was evicted meanwhile
                del self._verdicts[key]


def derive_tests(instance: Instance, open_sandbox: OpenSandbox) -> Instance:
    """The instance with FAIL_TO_PASS and PASS_TO_PASS, from test runs before and after its patch.

    SWE-bench's lists were made in the same way (arXiv 2310.06770, section 2.1). A test passes if
    swebench's parser reports it as passed or as an expected failure. Raises SandboxError, and
    UserError if the patch does not apply, the tests take longer than the default limit or print
    nothing readable, or if no test fails before the patch and passes after it.
    """
    before = _passing(instance, "", open_sandbox)
    after = _passing(instance, instance.gold_patch, open_sandbox)
    if not after - before:
        raise UserError(
            f"{instance.instance_id}: no test fails before the patch and passes after it "
            f"({len(before)} pass before, {len(after)} after); correct test, test_patch or patch."
        )
    return replace(
        instance,
        fail_to_pass=tuple(sorted(after - before)),
        pass_to_pass=tuple(sorted(after & before)),
    )


def _passing(instance: Instance, patch: str, open_sandbox: OpenSandbox) -> set[str]:
    from swebench.harness.constants import TestStatus
    from swebench.harness.grading import get_logs_eval

    spec = test_spec(instance)
    with open_sandbox(instance) as sandbox:
        refused = apply_patch(patch, sandbox, instance) if patch else None
        if refused is not None:
            raise UserError(f"{instance.instance_id}: its patch does not apply: {refused}.")
        run = run_eval_script(spec.eval_script_list, sandbox, DEFAULT_TESTS_TIMEOUT_S)
    if run.timed_out:
        limit = f"{DEFAULT_TESTS_TIMEOUT_S:g} s"
        raise UserError(f"{instance.instance_id}: its tests run longer than {limit}.")
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="replace") as log:
        log.write(run.log)
        log.flush()
        try:
            statuses, _ = get_logs_eval(spec, log.name)
        except (IndexError, AttributeError) as error:
            raise SandboxError(f"swebench's parser fails on the log: {error}") from error
    if not statuses:
        raise UserError(
            f"{instance.instance_id}: {instance.log_parser} finds no test in the output, which "
            f"ends with: {' | '.join(run.log.splitlines()[-5:])[-500:]}"
        )
    passed = {TestStatus.PASSED.value, TestStatus.XFAIL.value}
    return {name for name, status in statuses.items() if status in passed}
