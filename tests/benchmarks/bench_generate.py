"""Validation of candidate bugs against SWE-smith's way: candidates per minute, and equal verdicts.

SWE-smith (arXiv 2504.21798) makes a container per candidate, applies the patch and runs the whole
suite. The peer does so through the same engine, with as many workers at the same niceness; images,
suites of the clean sources and the rule of the verdict are the same. It is faster than SWE-smith's
own: its containers are removed by force, in place of ``docker stop``, and nothing is copied to them
but the patch.

``processor_s`` is the processor time per candidate in the containers and in this process. The
engine's, which starts containers, is left out. It depends less on the machine's load.

The two packages have the middle sizes of the documented suite, of about 170 and 190 tests.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Queue

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench_table import Row, publish
from swebench.harness.log_parsers import PARSER_REGISTRY

from srl_swe.engines import SourceEngine
from srl_swe.generation.bugs import Bug, propose_bugs
from srl_swe.generation.repositories import Source, read_source
from srl_swe.generation.rows import WORKDIR, repository_image
from srl_swe.generation.validation import CleanSuite, Judgement, Reason, SuiteSandbox
from srl_swe.parallel import run_parallel
from srl_swe.progress import say
from srl_swe.types import Instance
from srl_swe_envs.engine import shared_client

_PEER = "a container per candidate, whole suite"
_WORKERS = 2
_CPU_MARK = "== processor times =="
_CPU = f"echo; echo '{_CPU_MARK}'; cat /proc/[0-9]*/stat"
"""Prints the records of a container's processes; those of ended ones are in their parents'."""
_PACKAGES = ("toolz", "voluptuous")
_KILLED = "== killed =="
_PATIENCE = 10
"""The peer's clock may take that many times our limit: load must not end a suite. Processor time
ends an endless loop, at our limit."""


@dataclass
class Spent:
    """Seconds of one side: of the clock and of processors."""

    clock_s: float = 0.0
    parts_s: list[float] = field(default_factory=list)
    """Of processors; threads append to it."""

    @property
    def cpu_s(self) -> float:
        """Of processors."""
        return sum(self.parts_s)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Add what the block takes here; processor time of containers is added by :meth:`add`."""
        started, spent = time.monotonic(), time.process_time()
        yield
        self.clock_s += time.monotonic() - started
        self.parts_s.append(time.process_time() - spent)

    def add(self, printed: str) -> str:
        """Add the times that ``_CPU`` has printed; returns the output before them."""
        output, _, records = printed.rpartition(_CPU_MARK)
        for record in re.findall(r"^\d+ \(.*\) (.*)", records, re.MULTILINE):
            ticks = record.split()[11:15]  # proc_pid_stat(5): own ones and those of ended children
            self.parts_s.append(sum(map(int, ticks)) / 100)
        return output


def rows(specs: Sequence[Path], count: int, quick: bool) -> list[Row]:
    """All metrics over all specs, ``count`` candidates of each."""
    mine, peer = Spent(), Spent()
    differing = judged = hanging = killed = 0
    for spec in specs:
        source = read_source(spec)
        bugs = list(propose_bugs(source, count=6 if quick else count, seed=0))
        SourceEngine().build(source)
        clean, ours = _ours(source, bugs, mine)
        theirs = _theirs(source, bugs, clean, peer)
        judged += len(bugs)
        hanging += sum(judgement.reason is Reason.HANGS for judgement in ours.values())
        killed += sum(judgement.reason is Reason.HANGS for judgement in theirs.values())
        for bug in bugs:
            if _verdict(ours[bug.bug_id]) != _verdict(theirs[bug.bug_id]):
                differing += 1
                say(
                    f"warning: {source.name} {bug.bug_id}: {_shown(ours[bug.bug_id])} by us, "
                    f"{_shown(theirs[bug.bug_id])} by the peer"
                )
        kept = sum(judgement.reason is Reason.KEPT for judgement in ours.values())
        times = f"so far ours {mine.clock_s:.0f} s, peer {peer.clock_s:.0f} s"
        say(f"{source.name}: {kept} of {len(bugs)} kept; {times}")
    rates = [judged / spent.clock_s * 60 for spent in (mine, peer)]
    cpu = [spent.cpu_s / judged for spent in (mine, peer)]
    return [
        Row("validated_per_min", "1/min", *rates, _PEER, rates[0] / rates[1], judged),
        Row("processor_s", "s", *cpu, _PEER, cpu[1] / cpu[0], judged),
        Row("verdicts_different", "verdicts", differing, None, _PEER, None, judged),
        Row("killed", "suites", hanging, killed, _PEER, None, judged),
    ]


def _verdict(judged: Judgement) -> tuple[bool, tuple[str, ...], tuple[str, ...]]:
    return judged.reason is Reason.KEPT, judged.fail_to_pass, judged.pass_to_pass


def _shown(judged: Judgement) -> str:
    return f"{judged.reason} ({len(judged.fail_to_pass)} fail)"


def _ours(
    source: Source, bugs: Sequence[Bug], spent: Spent
) -> tuple[CleanSuite, dict[str, Judgement]]:
    """The judgements. The clean suite is measured before; sandboxes and servers count."""
    engine, idle = SourceEngine(), Queue[SuiteSandbox]()
    instance = Instance(
        f"generated__{source.name}", "x/y", source.commit, "", repository_image(source)
    )
    with engine.open(instance) as sandbox:
        clean = SuiteSandbox(sandbox, source, WORKDIR).measure()

    def work(bug: Bug) -> Judgement:
        suite = idle.get()
        try:
            return suite.judge(bug, clean)
        finally:
            idle.put(suite)

    with spent.measured(), ExitStack() as stack:
        boxes = [stack.enter_context(engine.open(instance)) for _ in range(_WORKERS)]
        for box in boxes:
            idle.put(SuiteSandbox(box, source, WORKDIR))
        judged = _all(work, bugs)
        for box in boxes:
            spent.add(box.exec(_CPU).output)
    return clean, judged


def _theirs(
    source: Source, bugs: Sequence[Bug], clean: CleanSuite, spent: Spent
) -> dict[str, Judgement]:
    client, image = shared_client(), repository_image(source)
    limited = f"ulimit -t {clean.limit_s:.0f}; {source.test}"
    test = f"timeout -s KILL {_PATIENCE * clean.limit_s:.0f} bash -c {shlex.quote(limited)} 2>&1"
    ended = f"[ $? -le 128 ] || echo '{_KILLED}'"
    script = (
        f"cd {WORKDIR} && git apply --whitespace=nowarn /tmp/bug.diff && {test}; {ended}; {_CPU}"
    )

    def work(bug: Bug) -> Judgement:
        container = client.containers.create(
            image, command=["sleep", "infinity"], network_mode="none"
        )
        try:
            container.start()
            put = f"cat >/tmp/bug.diff <<'END_OF_BUG'\n{bug.patch}\nEND_OF_BUG\n"
            nice = ["nice", "-n", "19"]  # as the shells of our sandboxes are
            log = container.exec_run([*nice, "bash", "-c", put + script]).output.decode(
                "utf-8", "replace"
            )
        finally:
            container.remove(force=True)
        output = spent.add(log)
        if _KILLED in output:
            return Judgement(bug.bug_id, Reason.HANGS)
        return clean.decide(bug.bug_id, PARSER_REGISTRY[source.log_parser](output, None))

    with spent.measured():
        return _all(work, bugs)


def _all(work: Callable[[Bug], Judgement], bugs: Sequence[Bug]) -> dict[str, Judgement]:
    found: dict[str, Judgement] = {}

    def keep(bug: Bug, judged: Judgement) -> None:
        found[bug.bug_id] = judged

    run_parallel(work, bugs, keep, workers=_WORKERS)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--spec", type=Path, action="append")
    parser.add_argument("--count", type=int, default=100)
    asked, rest = parser.parse_known_args()
    specs = Path(__file__).parents[2] / "envs" / "generated" / "specs"
    chosen = asked.spec or [specs / f"{name}.toml" for name in _PACKAGES]
    publish("Validation of candidates", partial(rows, chosen, asked.count), rest)
