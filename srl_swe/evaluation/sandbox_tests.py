"""Runs an instance's tests on a patch in an open sandbox: a verdict in seconds, for training.

What is applied, run and concluded is swebench's own: its ways to apply a patch, in its order,
the row's ``eval_script``, its log parser and its grading. Only the container is ours, so that
it starts fast, has no network unless asked, and is cleaned up. A test holds the two side by side.
"""

from __future__ import annotations

import hashlib
import shlex
import tempfile
import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

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
from srl_swe.sandbox import OpenSandbox, Sandbox, enforced, engine_record
from srl_swe.types import Instance, Outcome, Verdict

DEFAULT_TESTS_TIMEOUT_S = 1800.0
"""What swebench's harness gives the tests of one instance."""
_GIT_TIMEOUT_S = 300.0
_PATCH_FILE = "/tmp/.srl_swe_tests.diff"
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
            return record.oom_killed or record.exit_code not in KILLED_FROM_OUTSIDE
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


# Verdicts for training: patches that are equal are tested once.


PASSING = frozenset({Outcome.BROKEN_SANDBOX, Outcome.TIMED_OUT})
"""What another try may find otherwise."""
REMEMBERED = 1024
"""Verdicts at most, each with the names of all tests: as many as the paper's batch has replies."""


class CachedTestRunner:
    """Tests patches in fresh sandboxes, the test runner's own files put back, and remembers.

    The samples of a group often agree, and more so the more a policy has learnt. Who asks for
    what is being tested waits for it, and tries again if that sandbox broke. Broken sandboxes and
    time-outs are forgotten at once, of the others all but the ``remembered`` that were last asked
    for. Safe to call from many threads.
    """

    def __init__(
        self,
        open_sandbox: OpenSandbox,
        timeout_s: float = DEFAULT_TESTS_TIMEOUT_S,
        remembered: int = REMEMBERED,
    ) -> None:
        self._open_sandbox = open_sandbox
        self._timeout_s = timeout_s
        self._remembered = remembered
        self._verdicts: OrderedDict[bytes, Future[Verdict]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, instance: Instance, patch: str) -> Verdict:
        """The verdict on an instance's patch; BROKEN_SANDBOX where the infrastructure fails."""
        key = _key(instance, patch)
        while True:
            known, mine = self._known_or_mine(key)
            if known is None:
                break
            if known.result().outcome is not Outcome.BROKEN_SANDBOX:
                return known.result()
        self._test(instance, patch, mine, key)
        return mine.result()

    def _known_or_mine(self, key: bytes) -> tuple[Future[Verdict] | None, Future[Verdict]]:
        with self._lock:
            known, mine = self._verdicts.get(key), Future[Verdict]()
            self._verdicts[key] = known or mine
            self._verdicts.move_to_end(key)
            if len(self._verdicts) > self._remembered:
                self._verdicts.popitem(last=False)
        return known, mine

    def _test(self, instance: Instance, patch: str, into: Future[Verdict], key: bytes) -> None:
        try:
            verdict = verdict_in_fresh_sandbox(
                instance, patch, self._open_sandbox, self._timeout_s, patched_hooks=False
            )
        except BaseException as error:  # whoever waits must not wait for ever
            self._forget(key, into)
            into.set_exception(error)
            return
        if verdict.outcome in PASSING:
            self._forget(key, into)
        into.set_result(verdict)

    def _forget(self, key: bytes, tested: Future[Verdict]) -> None:
        with self._lock:
            if self._verdicts.get(key) is tested:  # else it made room for others meanwhile
                del self._verdicts[key]


def _key(instance: Instance, patch: str) -> bytes:
    text = f"{instance.instance_id}\0{patch}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


# FAIL_TO_PASS and PASS_TO_PASS, found by running the tests before and after the patch.
#
# The lists of SWE-bench were made alike (arXiv 2310.06770, section 2.1): the tests of the instance
# run on the base commit, and on it with the gold patch.


def derive_tests(
    instance: Instance, open_sandbox: OpenSandbox, timeout_s: float = DEFAULT_TESTS_TIMEOUT_S
) -> Instance:
    """The instance with both lists, sorted; its eval script, log parser and patch are given.

    A test passes if swebench's parser reports it as passed or as an expected failure. Raises
    UserError if the patch does not apply, the tests take longer than ``timeout_s``, print nothing
    that the parser can read, or none fails before the patch and passes after it, and SandboxError.
    """
    before = _passing(instance, "", open_sandbox, timeout_s)
    after = _passing(instance, instance.gold_patch, open_sandbox, timeout_s)
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


def _passing(
    instance: Instance, patch: str, open_sandbox: OpenSandbox, timeout_s: float
) -> set[str]:
    with open_sandbox(instance) as sandbox:
        refused = apply_patch(patch, sandbox, instance) if patch else None
        if refused is not None:
            raise UserError(f"{instance.instance_id}: its patch does not apply: {refused}.")
        run = run_eval_script(test_spec(instance).eval_script_list, sandbox, timeout_s)
    if run.timed_out:
        raise UserError(f"{instance.instance_id}: its tests run longer than {timeout_s:g} s.")
    return _passing_in(instance, run.log)


def _passing_in(instance: Instance, log: str) -> set[str]:
    from swebench.harness.constants import TestStatus
    from swebench.harness.grading import get_logs_eval

    passed = {TestStatus.PASSED.value, TestStatus.XFAIL.value}
    with tempfile.TemporaryDirectory(prefix="srl-swe-") as folder:
        path = Path(folder) / "test_output.txt"
        path.write_text(log, encoding="utf-8", errors="replace")
        try:
            statuses, _ = get_logs_eval(test_spec(instance), str(path))
        except (IndexError, AttributeError) as error:
            raise SandboxError(f"swebench's parser fails on the log: {error}") from error
    if not statuses:
        raise UserError(
            f"{instance.instance_id}: {instance.log_parser} finds no test in the output, which "
            f"ends with: {' | '.join(log.splitlines()[-5:])[-500:]}"
        )
    return {name for name, status in statuses.items() if status in passed}
