"""Tells sound instances from faulty ones: the gold patch resolves, the unpatched code does not.

The harness skips empty patches and so never runs the tests on the code as it is. The second
half therefore grades a patch that adds one file which nothing reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from srl_swe.evaluation.predictions import gold_predictions
from srl_swe.evaluation.runner import grade
from srl_swe.evaluation.swebench_harness import Harness
from srl_swe.types import Instance, Outcome, Prediction, Verdict

HARMLESS_PATCH = """\
diff --git a/.srl_swe_selfcheck b/.srl_swe_selfcheck
new file mode 100644
--- /dev/null
+++ b/.srl_swe_selfcheck
@@ -0,0 +1 @@
+Nothing reads this file: it only makes the harness run the tests on unpatched code.
"""


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """The verdicts on both patches, in the order of the instances."""

    gold: tuple[Verdict, ...]
    harmless: tuple[Verdict, ...]

    @property
    def faults(self) -> dict[str, str]:
        """What is wrong, by instance id. An instance that is undecided is not among them."""
        return dict(self._faults())

    @property
    def undecided(self) -> list[str]:
        """Instances of which a sandbox broke, so that nothing can be said."""
        verdicts = (*self.gold, *self.harmless)
        return sorted({v.instance_id for v in verdicts if v.outcome is Outcome.BROKEN_SANDBOX})

    def _faults(self) -> Iterator[tuple[str, str]]:
        undecided = set(self.undecided)
        for gold, harmless in zip(self.gold, self.harmless, strict=True):
            if gold.instance_id in undecided:
                continue
            if gold.outcome is not Outcome.RESOLVED:
                yield gold.instance_id, _gold_fault(gold)
            elif harmless.outcome is Outcome.RESOLVED:
                yield gold.instance_id, "the tests pass on unpatched code"


def self_check(
    instances: Sequence[Instance],
    run_folder: Path,
    *,
    max_workers: int = 4,
    timeout_s: int = 1800,
    report: Callable[[str], None] = print,
    harness: Harness | None = None,
) -> SelfCheck:
    """Grades the gold and a harmless patch of each instance, with :func:`grade`'s options."""

    def verdicts(predictions: list[Prediction]) -> tuple[Verdict, ...]:
        return tuple(
            grade(
                instances,
                predictions,
                run_folder,
                max_workers=max_workers,
                timeout_s=timeout_s,
                report=report,
                harness=harness,
            )
        )

    report("gold patches: each should resolve its instance")
    gold = verdicts(gold_predictions(instances))
    report("a harmless new file, as empty patches are never run: none should resolve")
    harmless = [Prediction(one.instance_id, "selfcheck", HARMLESS_PATCH) for one in instances]
    return SelfCheck(gold, verdicts(harmless))


def _gold_fault(gold: Verdict) -> str:
    failing = f": {', '.join(gold.failed[:3])}" if gold.failed else ""
    return f"the gold patch came to {gold.outcome.value}{failing or f' {gold.detail}'.rstrip()}"
