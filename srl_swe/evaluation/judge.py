"""Verdicts for training: patches that are equal are tested once."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from srl_swe.evaluation.runner_hooks import without_runner_hooks
from srl_swe.evaluation.sandbox_tests import DEFAULT_TESTS_TIMEOUT_S, verdict_in_fresh_sandbox
from srl_swe.sandbox import OpenSandbox
from srl_swe.types import Instance, Outcome, Verdict

PASSING = frozenset({Outcome.BROKEN_SANDBOX, Outcome.TIMED_OUT})
"""What another try may find otherwise."""


class Judge:
    """Tests patches in fresh sandboxes, without their runner hooks, and remembers.

    The samples of a group often agree, and more so the more a policy has learnt. Who asks for
    what is being tested waits for it. Broken sandboxes and time-outs are forgotten at once. Safe
    to call from many threads.
    """

    def __init__(
        self, open_sandbox: OpenSandbox, timeout_s: float = DEFAULT_TESTS_TIMEOUT_S
    ) -> None:
        self._open_sandbox = open_sandbox
        self._timeout_s = timeout_s
        self._verdicts: dict[tuple[str, str], Future[Verdict]] = {}
        self._lock = threading.Lock()

    def __call__(self, instance: Instance, patch: str) -> Verdict:
        """The verdict on an instance's patch; BROKEN_SANDBOX where the infrastructure fails."""
        patch = without_runner_hooks(patch, instance.gold_patch)
        key = (instance.instance_id, patch)
        with self._lock:
            known = self._verdicts.get(key)
            mine = self._verdicts.setdefault(key, Future()) if known is None else known
        if known is None:
            self._test(instance, patch, mine)
            self._forget_passing(key, mine)
        return mine.result()

    def _test(self, instance: Instance, patch: str, into: Future[Verdict]) -> None:
        try:
            into.set_result(
                verdict_in_fresh_sandbox(instance, patch, self._open_sandbox, self._timeout_s)
            )
        except BaseException as error:  # whoever waits must not wait for ever
            into.set_exception(error)

    def _forget_passing(self, key: tuple[str, str], tested: Future[Verdict]) -> None:
        if tested.exception() is not None or tested.result().outcome in PASSING:
            with self._lock:
                del self._verdicts[key]
