"""Verdicts for training: patches that are equal are tested once."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from concurrent.futures import Future

from srl_swe.evaluation.sandbox_tests import DEFAULT_TESTS_TIMEOUT_S, verdict_in_fresh_sandbox
from srl_swe.sandbox import OpenSandbox
from srl_swe.types import Instance, Outcome, Verdict

PASSING = frozenset({Outcome.BROKEN_SANDBOX, Outcome.TIMED_OUT})
"""What another try may find otherwise."""
REMEMBERED = 1024
"""Verdicts at most, each with the names of all tests: as many as the paper's batch has replies."""


class Judge:
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
