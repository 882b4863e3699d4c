from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from srl_swe.engines import SourceEngine, harness_for, sandboxes_for
from srl_swe.errors import SandboxError, UserError
from srl_swe.evaluation.bench_check import check_bench
from srl_swe.files import held_alone, write_atomic
from srl_swe.generation.bugs import Bug
from srl_swe.generation.generate import CANDIDATES_FILE, Part, generate, suite_path
from srl_swe.generation.repositories import Source
from srl_swe.generation.validation import CleanSuite, Reason
from srl_swe.instances import load_instances
from srl_swe.sandbox import Sandbox
from srl_swe.types import Instance


def part(source: Source, bugs: Sequence[Bug], wanted: int = 2) -> Part:
    return Part(source, bugs, wanted, lambda bug: "train")


def rows(folder: Path) -> list[dict]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(folder / "train.parquet").to_pylist()


class _BrokenEngine(SourceEngine):
    """An engine whose sandboxes never open, but for a suite that was measured before."""

    def build(self, source: Source) -> str:
        return "sha256:0"

    def open(self, instance: Instance) -> AbstractContextManager[Sandbox]:
        raise SandboxError("the engine has gone away")


def test_a_broken_sandbox_is_never_a_verdict(
    source: Source, bugs: dict[str, Bug], tmp_path: Path
) -> None:
    clean = CleanSuite(
        passing=("tests/test_sizes.py::test_boxes_fit",),
        flaky=(),
        unnamed=(),
        functions=(("sizes.py", 4, 9),),
        calls={"tests/test_sizes.py::test_boxes_fit": (0,)},
        imported=frozenset(),
        everywhere=frozenset(),
        modules=(),
        seconds=1.0,
        limit_s=15.0,
        cpu_s={},
    )
    out = tmp_path / "out"
    with pytest.raises(UserError, match="sizes: its sandbox breaks: the engine has gone away"):
        generate([part(source, [bugs["kept"]])], out, _BrokenEngine())
    write_atomic(suite_path(out, source, "sha256:0"), TypeAdapter(CleanSuite).dump_json(clean))
    (summary,) = generate([part(source, [bugs["kept"]])], out, _BrokenEngine())
    assert (summary.reasons, summary.kept) == ({Reason.OPEN.value: 1}, 0)


def test_a_folder_belongs_to_one_run(source: Source, bugs: dict[str, Bug], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="its sandbox breaks"):
        generate([part(source, [bugs["kept"]])], out, _BrokenEngine())
    with pytest.raises(UserError, match="holds a run of another config"):
        generate([part(source, [bugs["kept too"]])], out, _BrokenEngine())
    with held_alone(out), pytest.raises(UserError, match="being written by another process"):
        generate([part(source, [bugs["kept"]])], out, _BrokenEngine())
    with pytest.raises(UserError, match="a run of count 2, which can't be reduced to 1"):
        generate([part(source, [bugs["kept"]], wanted=1)], out, _BrokenEngine())
    with pytest.raises(UserError, match="its sandbox breaks"):
        generate([part(source, [bugs["kept"]], wanted=3)], out, _BrokenEngine())


_RUN = """\
import pickle, sys
from pathlib import Path
from srl_swe.engines import SourceEngine
from srl_swe.generation.generate import Part, generate
source, bugs = pickle.load(open(sys.argv[1], "rb"))
generate([Part(source, bugs, 2, lambda bug: "train")], Path(sys.argv[2]), SourceEngine(), workers=1)
"""


@pytest.mark.docker
@pytest.mark.slow
def test_a_killed_run_continues_and_workers_change_nothing(
    source: Source, image: str, bugs: dict[str, Bug], tmp_path: Path
) -> None:
    candidates = [bug for name, bug in bugs.items() if name != "hangs"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    generate([part(source, candidates)], whole, SourceEngine(), workers=3)
    _kill_after_the_first_line(source, candidates, killed)
    before = (killed / CANDIDATES_FILE).read_text().splitlines()
    generate([part(source, candidates)], killed, SourceEngine(), workers=1)
    after = (killed / CANDIDATES_FILE).read_text().splitlines()
    assert after[: len(before)] == before and len(after) > len(before)
    assert len({json.loads(line)["key"] for line in after}) == len(after)
    assert rows(killed) == rows(whole)
    grown = tmp_path / "grown"
    generate([part(source, candidates, wanted=1)], grown, SourceEngine())
    assert rows(grown) == rows(whole)[:1]
    generate([part(source, candidates)], grown, SourceEngine())
    assert rows(grown) == rows(whole)
    _check_by_the_harness(whole, tmp_path / "check")


def _kill_after_the_first_line(source: Source, bugs: Sequence[Bug], folder: Path) -> None:
    import pickle

    asked = folder.with_suffix(".pickle")
    asked.write_bytes(pickle.dumps((source, bugs)))
    with subprocess.Popen([sys.executable, "-c", _RUN, asked, folder]) as process:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            written = folder / CANDIDATES_FILE
            if written.exists() and written.read_bytes().count(b"\n"):
                break
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "the run ended before it was killed"


def _check_by_the_harness(folder: Path, checked: Path) -> None:
    """Gold resolves, an empty patch does not, and no fix is found: by swebench's harness."""
    instances = load_instances(str(folder / "train.parquet"))
    assert len(instances) == 2
    found = check_bench(
        instances,
        checked,
        harness=harness_for(instances),
        open_sandbox=sandboxes_for(instances),
        max_workers=2,
        timeout_s=120,
        report=lambda _: None,
    )
    assert (list(found.faults), list(found.undecided)) == ([], [])
    assert len(found.sound) == 2
