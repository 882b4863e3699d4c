"""Checks that instances of a benchmark can be trusted: broken, flaky and leaky ones are listed.

An instance is sound if, in every round, its gold patch resolves it and unpatched code does not, and
if its sandbox does not hold the fix (:mod:`.leaks`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srl_swe.evaluation.grading import grade
from srl_swe.evaluation.harness import Harness
from srl_swe.evaluation.leaks import find_leaks
from srl_swe.evaluation.predictions import gold_predictions
from srl_swe.files import write_atomic
from srl_swe.parallel import Cluster
from srl_swe.sandbox import OpenSandbox
from srl_swe.types import Instance, Outcome, Prediction, Verdict

if TYPE_CHECKING:
    from rich.table import Table

FAULTY_FILE, CHECK_FILE = "faulty.txt", "check.json"
HARMLESS_PATCH = """\
diff --git a/.srl_swe_selfcheck b/.srl_swe_selfcheck
new file mode 100644
--- /dev/null
+++ b/.srl_swe_selfcheck
@@ -0,0 +1 @@
+Nothing reads this file: it only makes the harness run the tests on unpatched code.
"""
"""Stands for an empty patch, on which the harness never runs the tests."""
_PASSES_UNPATCHED = "the tests pass on unpatched code"


@dataclass(frozen=True, slots=True)
class GoldCheck:
    """The verdicts on the gold and the harmless patches, in the order of the instances."""

    gold: tuple[Verdict, ...]
    harmless: tuple[Verdict, ...]

    @property
    def faults(self) -> dict[str, str]:
        """The reason per faulty instance id, without the undecided instances."""
        undecided, faults = set(self.undecided), {}
        for gold, harmless in zip(self.gold, self.harmless, strict=True):
            if gold.instance_id in undecided:
                continue
            if gold.outcome is not Outcome.RESOLVED:
                why = f": {', '.join(gold.failed[:3])}" if gold.failed else f" {gold.detail}"
                faults[gold.instance_id] = f"the gold patch came to {gold.outcome}{why.rstrip()}"
            elif harmless.outcome is Outcome.RESOLVED:
                faults[gold.instance_id] = _PASSES_UNPATCHED
        return faults

    @property
    def undecided(self) -> list[str]:
        """The instances with a broken sandbox."""
        verdicts = (*self.gold, *self.harmless)
        return sorted({v.instance_id for v in verdicts if v.outcome is Outcome.BROKEN_SANDBOX})


def check_gold(
    instances: Sequence[Instance],
    run_folder: Path,
    *,
    max_workers: int = 4,
    timeout_s: int = 1800,
    report: Callable[[str], None] = print,
    harness: Harness | None = None,
) -> GoldCheck:
    """Checks that gold patches resolve and unpatched code does not; options as of :func:`grade`."""
    run = partial(
        grade,
        instances,
        run_folder=run_folder,
        max_workers=max_workers,
        timeout_s=timeout_s,
        report=report,
        harness=harness,
    )
    report("gold patches: each should resolve its instance")
    gold = run(predictions=gold_predictions(instances))
    report("a harmless new file, as empty patches are never run: none should resolve")
    harmless = [Prediction(i.instance_id, "selfcheck", HARMLESS_PATCH) for i in instances]
    return GoldCheck(tuple(gold), tuple(run(predictions=harmless)))


class FaultKind(StrEnum):
    """Why an instance can't be trusted."""

    BROKEN = "broken"
    """The gold patch does not resolve it."""
    FLAKY = "flaky"
    """It is at fault in some rounds and sound in others."""
    LEAKY = "leaky"
    """It can be resolved without work: the tests pass unpatched, or the sandbox holds the fix."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One instance at fault; ``why`` is one line."""

    instance_id: str
    kind: FaultKind
    why: str


def find_faults(rounds: Sequence[GoldCheck], leaks: Mapping[str, str] | None = None) -> list[Fault]:
    """The faults, sorted by instance id; ``leaks`` has the evidence of a fix by instance id.

    A round in which a sandbox broke decides nothing about its instance.
    """
    faults = {
        name: Fault(name, FaultKind.LEAKY, f"the fix is in the sandbox: {where}")
        for name, where in (leaks or {}).items()
    }
    for name in {name for check in rounds for name in check.faults}:
        decided = [check for check in rounds if name not in check.undecided]
        reasons = [check.faults[name] for check in decided if name in check.faults]
        kind, why = FaultKind.BROKEN, reasons[0]
        if len(reasons) < len(decided):
            kind, why = FaultKind.FLAKY, f"flaky, in {len(reasons)} of {len(decided)} rounds {why}"
        elif set(reasons) == {_PASSES_UNPATCHED}:
            kind = FaultKind.LEAKY
        faults[name] = Fault(name, kind, why)
    return [faults[name] for name in sorted(faults)]


@dataclass(frozen=True, slots=True)
class BenchCheck:
    """The result of a check. ``unread``: why an instance could not be searched for its fix."""

    instances: tuple[str, ...]
    rounds: tuple[GoldCheck, ...]
    grader: str
    leaks: Mapping[str, str]
    unread: Mapping[str, str]

    @property
    def faults(self) -> list[Fault]:
        """See :func:`find_faults`."""
        return find_faults(self.rounds, self.leaks)

    @property
    def undecided(self) -> list[str]:
        """The instances whose sandbox broke in a round or in the search, and without a fault."""
        broken = {name for check in self.rounds for name in check.undecided} | {*self.unread}
        return sorted(broken - {fault.instance_id for fault in self.faults})

    @property
    def sound(self) -> list[str]:
        """The instances to trust, in their order."""
        others = {*self.undecided, *(fault.instance_id for fault in self.faults)}
        return [name for name in self.instances if name not in others]


def check_bench(
    instances: Sequence[Instance],
    run_folder: Path,
    *,
    harness: Harness,
    open_sandbox: OpenSandbox,
    cluster: Cluster | None = None,
    repeat: int = 1,
    max_workers: int = 4,
    timeout_s: int = 1800,
    report: Callable[[str], None] = print,
) -> BenchCheck:
    """Check the instances in ``repeat`` rounds and search a sandbox of each for its fix.

    Writes ``check.json`` and ``faulty.txt``; options as of :func:`~.grading.grade`. The first round
    is in ``run_folder`` itself, the others below it; a killed check continues. The nodes of
    ``cluster``, if given, open the sandboxes to search.
    """
    check_round = partial(
        check_gold, instances, max_workers=max_workers, timeout_s=timeout_s, report=report
    )
    rounds = []
    for number in range(1, repeat + 1):
        if repeat > 1:
            report(f"round {number} of {repeat}")
        folder = run_folder / f"round-{number}" if number > 1 else run_folder
        rounds.append(check_round(folder, harness=harness))
    report("sandboxes: none should hold the fix")
    leaks, unread = find_leaks(instances, open_sandbox, workers=cluster or max_workers)
    names = tuple(instance.instance_id for instance in instances)
    check = BenchCheck(names, tuple(rounds), harness.version, leaks, unread)
    write_atomic(run_folder / CHECK_FILE, json.dumps(check_fields(check), indent=2) + "\n")
    listed = "".join(f"{fault.instance_id}  # {fault.why}\n" for fault in check.faults)
    write_atomic(run_folder / FAULTY_FILE, listed)
    return check


def check_fields(check: BenchCheck) -> dict[str, Any]:
    """The check as JSON, with the outcomes of each round."""

    def outcomes(verdicts: Sequence[Verdict]) -> dict[str, Outcome]:
        return {verdict.instance_id: verdict.outcome for verdict in verdicts}

    return {
        "total_instances": len(check.instances),
        "sound_instances": len(check.sound),
        "sound_ids": check.sound,
        "faults": [asdict(fault) for fault in check.faults],
        "undecided_ids": check.undecided,
        "not_searched": dict(check.unread),
        "grader": check.grader,
        "rounds": [
            {"gold": outcomes(each.gold), "unpatched": outcomes(each.harmless)}
            for each in check.rounds
        ],
    }


def check_table(check: BenchCheck) -> Table:
    """A table for the terminal: how many instances are sound, or at fault, by kind."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(caption=escape(f"{len(check.rounds)} rounds, graded by {check.grader}"))
    table.add_column("instances are")
    table.add_column("number", justify="right")
    kinds = Counter(fault.kind for fault in check.faults)
    table.add_row("sound", str(len(check.sound)))
    for kind in FaultKind:
        table.add_row(kind.value, str(kinds[kind]), style="yellow" if kinds[kind] else None)
    table.add_row("undecided", str(len(check.undecided)))
    return table
