"""Checks that instances of a benchmark can be trusted: broken, flaky and leaky ones are listed.

An instance is sound if, in every round, its gold patch resolves it and unpatched code does not, and
if its sandbox, as a policy gets it, does not hold the fix. Found are commits besides the history of
HEAD, which ``git log --all`` would show (SWE-bench#465); the fixed files among git's objects,
reachable or not; and copies of them anywhere on the disk, such as in an installed package. An equal
file in the past of HEAD is not a leak. Not found are archives, compiled files, and a fix that was
rewritten.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from srl_swe.errors import ImageMissing, SandboxError
from srl_swe.evaluation.grading import grade
from srl_swe.evaluation.harness import Harness
from srl_swe.evaluation.patch_paths import touched_paths
from srl_swe.evaluation.predictions import gold_predictions
from srl_swe.files import write_atomic
from srl_swe.parallel import Cluster, Placement, Workers, run_parallel
from srl_swe.progress import progress
from srl_swe.sandbox import OpenSandbox, Sandbox
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


_TIMEOUT_S = 600.0
_PATCH_FILE = "/tmp/.srl_swe_leaks.diff"
_SMALLEST_FILE_BYTES = 32
"""Smaller files, such as an empty ``__init__.py``, are found everywhere."""


def find_leaks(
    instances: Sequence[Instance],
    open_sandbox: OpenSandbox,
    *,
    workers: Workers = 2,
) -> tuple[dict[str, str], dict[str, str]]:
    """The leaks by instance id, and the reasons of those that could not be searched."""
    leaks: dict[str, str] = {}
    broken: dict[str, str] = {}

    def keep(instance: Instance, found: tuple[str | None, str | None]) -> None:
        name, (leak, failure) = instance.instance_id, found
        if leak:
            leaks[name] = leak
        elif failure:
            broken[name] = failure
        advance(f"{name}: {leak or failure or 'no trace of the fix'}")

    placement: Placement[Instance, tuple[str | None, str | None]] = Placement(
        lambda instance: instance.image, lambda _, error: (None, str(error))
    )
    work = partial(_search, open_sandbox)
    with progress("search", len(instances)) as advance:
        run_parallel(work, instances, keep, workers=workers, placement=placement)
    return leaks, broken


def _search(open_sandbox: OpenSandbox, instance: Instance) -> tuple[str | None, str | None]:
    leak = None
    try:
        with open_sandbox(instance) as sandbox:
            leak = find_leak(instance, sandbox)
    except (SandboxError, ImageMissing) as error:
        return leak, None if leak else str(error)
    return leak, None


def find_leak(instance: Instance, sandbox: Sandbox) -> str | None:
    """The first trace of the fix, in one line; None without one.

    The sandbox is fresh, and changed by this: the gold patch is applied. Raises SandboxError.
    """
    run = partial(_run, sandbox, instance.workdir)
    later = run("git rev-list --count --all --reflog --not HEAD").strip()
    if not later.isdigit():
        raise SandboxError(f"git can't read the history of {instance.workdir}")
    if int(later):
        return f"`git log --all` shows {later} commits that are not in the history of HEAD"
    sandbox.write_file(_PATCH_FILE, instance.gold_patch.encode("utf-8", "surrogateescape"))
    if run(f"git apply {_PATCH_FILE} && echo applied").strip() != "applied":
        return None  # the gold patch is at fault, and grading reports it
    for path in touched_paths(instance.gold_patch):
        name = shlex.quote(path)
        size = f"$(stat -c %s -- {name} || echo 0)"
        digest = run(f"[ {size} -ge {_SMALLEST_FILE_BYTES} ] && git hash-object -- {name}").strip()
        if not digest or digest == run(f"git rev-parse HEAD:{name}").strip():
            continue
        stored = run(f"git cat-file -e {digest} && echo stored")
        if stored and not run(f"git rev-list --objects HEAD | grep -m1 ^{digest}"):
            return f"git holds the fixed {path} as object {digest[:12]}"
        if copy := run(_find_copy(instance.workdir, path)).strip():
            return f"{copy} is a copy of the fixed {path}"
    return None


def _find_copy(workdir: str, path: str) -> str:
    """Prints the path of the first other file with that name and content."""
    own, name = shlex.quote(f"{workdir}/{path}"), shlex.quote(PurePosixPath(path).name)
    return (
        f"find / -xdev -type f -name {name} ! -path {own} -exec cmp -s {{}} {own} ';' -print -quit"
    )


def _run(sandbox: Sandbox, workdir: str, command: str) -> str:
    """The output of the command in the working folder. Raises SandboxError for a time-out."""
    quiet = f"cd {shlex.quote(workdir)} && {{ {command}; }} 2>/dev/null"
    done = sandbox.exec(quiet, _TIMEOUT_S, keep_state=False)
    if done.timed_out:
        raise SandboxError(f"the search for the fix took longer than {_TIMEOUT_S:g} seconds")
    return done.output


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
    def undecided(self) -> dict[str, str]:
        """The instances whose sandbox broke in a round or in the search, and why; none at fault."""
        verdicts = (v for check in self.rounds for v in (*check.gold, *check.harmless))
        broken = {v.instance_id: v.detail for v in verdicts if v.outcome is Outcome.BROKEN_SANDBOX}
        faulty = {fault.instance_id for fault in self.faults}
        return {n: why for n, why in sorted({**self.unread, **broken}.items()) if n not in faulty}

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
        "undecided_ids": list(check.undecided),
        "undecided": check.undecided,
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
