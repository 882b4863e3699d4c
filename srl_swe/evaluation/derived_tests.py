"""FAIL_TO_PASS and PASS_TO_PASS, found by running the tests before and after the patch.

The lists of SWE-bench were made alike (arXiv 2310.06770, section 2.1): the tests of the instance
run on the base commit, and on it with the gold patch.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from srl_swe.errors import SandboxError, UserError
from srl_swe.evaluation.sandbox_tests import DEFAULT_TESTS_TIMEOUT_S, apply_patch, test_spec
from srl_swe.evaluation.test_run import run_eval_script
from srl_swe.sandbox import OpenSandbox
from srl_swe.types import Instance


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
