"""The sandbox runner against swebench's harness: seconds per instance, and equal verdicts.

swebench runs as it ships, its own ``main`` in a process of its own, on images without an
entrypoint, as SWE-bench's: the first process is swebench's ``tail -f /dev/null``, which ignores
SIGTERM, and ``docker stop`` waits for 15 s. The bundled images start ``tini``, so the bench makes
others from them. A second row has our ``--runner swebench`` as the peer, whose containers are
stopped by SIGKILL.

``--rows FILE`` takes rows of real instances, whose images the engine has, in place of the bundled.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import docker
from bench_table import Row, publish, row, seconds
from evaluation.patches import HONEST, Kind
from evaluation.test_cheats import cheats

from srl_swe.engines import GraderSettings, harness_for, load_bench
from srl_swe.evaluation.compare import difference
from srl_swe.evaluation.from_logs import grade_from_logs
from srl_swe.evaluation.grading import grade
from srl_swe.evaluation.harness import Harness
from srl_swe.evaluation.predictions import gold_predictions, save_predictions
from srl_swe.instances import row_from_instance
from srl_swe.progress import say
from srl_swe.types import Instance, Prediction, Verdict

_HERE = Path(__file__).parent
_TURNS = 2
_TIMEOUT_S = 1800
"""The default of both."""
_CHEATS_TIMEOUT_S = 60
"""Two of them never end."""
_PEER = f"swebench {version('swebench')}"
_ANYWHERE = (
    "gold", "harmless", "part of the fix", "the fix, and tests of its own", "does not apply",
)  # fmt: skip
"""Kinds of patches that fit any repository."""
_UNBOUNDED = "fills its memory"
"""Attempts that would fill the machine's, as swebench's containers have no limit."""


def rows(file: Path | None, quick: bool) -> list[Row]:
    """Every metric, of the rows in ``file`` or of the bundled ones and the cheats.

    ``quick`` takes two instances and a turn, and no cheats.
    """
    instances = load_bench(str(file or "starter"))[: 2 if quick else None]
    patches = patches_of(instances, [k for k in HONEST if not file or k.name in _ANYWHERE])
    with without_entrypoint(instances) as bare:
        measured = time_rows(bare, 1 if quick else _TURNS)
    measured.append(verdicts_row("verdicts_different", patches))
    if not quick and not file:
        cheating = cheating_patches(instances[0])
        measured.append(verdicts_row("verdicts_different_cheats", cheating, _CHEATS_TIMEOUT_S))
    return measured


@contextmanager
def without_entrypoint(instances: Sequence[Instance]) -> Iterator[list[Instance]]:
    """The instances on images whose first process is the one asked for; removed at the end."""
    harness_for(instances)  # builds missing images
    with closing(docker.from_env()) as client, ExitStack() as made:
        changed = []
        for instance in instances:
            image = f"srl-swe/bench-{instance.instance_id}:1"
            recipe = f"FROM {instance.image}\nENTRYPOINT []\n".encode()
            client.images.build(fileobj=io.BytesIO(recipe), tag=image, rm=True)
            made.callback(client.images.remove, image, force=True)
            changed.append(replace(instance, image=image))
        yield changed


def time_rows(instances: Sequence[Instance], turns: int) -> list[Row]:
    """Seconds per instance of gold patches with one worker, imports left out, in turns.

    Raises AssertionError if a verdict differs, as the speeds could not be compared then.
    """
    ours, fixed = (harness_for(instances, GraderSettings(k)) for k in ("sandbox", "swebench"))
    graded(instances[:1], ours)  # starts the process that reads logs
    times: dict[str, list[float]] = {"ours": [], "fixed": [], "shipped": []}
    for _ in range(turns):
        for which, run in (
            ("ours", partial(graded, instances, ours)),
            ("fixed", partial(graded, instances, fixed)),
            ("shipped", partial(graded_as_shipped, instances)),
        ):
            verdicts, took_s = run()
            times[which].append(took_s / len(instances))
            if which == "ours":
                first = verdicts
            assert not differences(first, verdicts), differences(first, verdicts)
    peers = {"shipped": f"{_PEER} as it ships", "fixed": f"{_PEER}, --runner swebench"}
    return [
        row("grade_instance_s", "s", times["ours"], times[which], name)
        for which, name in peers.items()
    ]


def verdicts_row(
    metric: str, patches: Mapping[str, tuple[Instance, str]], timeout_s: int = _TIMEOUT_S
) -> Row:
    """The number of patches on which the runners differ, in outcome or in a test.

    ``patches``: by a name that takes the place of the instance's id, as it names the container.
    """
    instances = [replace(i, instance_id=name) for name, (i, _) in patches.items()]
    predictions = [Prediction(name, "bench", patch) for name, (_, patch) in patches.items()]
    ours, theirs = (
        graded(instances, harness_for(instances, GraderSettings(kind)), predictions, 2, timeout_s)[
            0
        ]
        for kind in ("sandbox", "swebench")
    )
    differing = differences(ours, theirs)
    for name, why in differing.items():
        say(f"warning: {name}: {why}")
    return Row(metric, "verdicts", len(differing), None, _PEER, None, len(patches))


def patches_of(
    instances: Sequence[Instance], kinds: Sequence[Kind]
) -> dict[str, tuple[Instance, str]]:
    """A patch of every kind for every instance."""
    return {
        f"{instance.instance_id}-{number}": (instance, kind.make(instance))
        for number, kind in enumerate(kinds)
        for instance in instances
    }


def cheating_patches(instance: Instance) -> dict[str, tuple[Instance, str]]:
    """The attempts of tests/evaluation/test_cheats.py, without those that fill memory."""
    return {
        f"{instance.instance_id}-cheat-{number}": (instance, cheat.patch)
        for number, cheat in enumerate(cheats())
        if not cheat.attempt.startswith(_UNBOUNDED)
    }


def graded(
    instances: Sequence[Instance],
    harness: Harness,
    predictions: Sequence[Prediction] | None = None,
    workers: int = 1,
    timeout_s: int = _TIMEOUT_S,
) -> tuple[list[Verdict], float]:
    """The verdicts of one of our runners, on gold patches if no others are given; seconds."""
    with tempfile.TemporaryDirectory() as folder:
        verdicts: list[Verdict] = []
        took_s = seconds(
            lambda: verdicts.extend(
                grade(
                    instances,
                    predictions or gold_predictions(instances),
                    Path(folder),
                    max_workers=workers,
                    timeout_s=timeout_s,
                    report=say,
                    harness=harness,
                )
            )
        )
    return verdicts, took_s


def graded_as_shipped(instances: Sequence[Instance]) -> tuple[list[Verdict], float]:
    """The verdicts on gold patches by swebench's own ``main``; its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        rows_file, predictions = Path(folder, "rows.jsonl"), Path(folder, "predictions.jsonl")
        lines = [json.dumps(row_from_instance(instance)) for instance in instances]
        rows_file.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        gold = gold_predictions(instances)
        save_predictions(predictions, gold)
        peer = subprocess.run(
            [sys.executable, str(_HERE / "peer_swebench.py"), rows_file, predictions, "bench"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
        verdicts = grade_from_logs(instances, gold, Path(folder), Path(folder), report=say)
    return verdicts, float(peer.stdout.splitlines()[-1])


def differences(first: Sequence[Verdict], second: Sequence[Verdict]) -> dict[str, str]:
    """The differences by instance id."""
    pairs = zip(first, second, strict=True)
    return {a.instance_id: why for a, b in pairs if (why := difference(a, b))}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--rows", type=Path)
    asked, rest = parser.parse_known_args()
    publish("Grading: the sandbox runner, swebench's harness", partial(rows, asked.rows), rest)
