from __future__ import annotations

from pathlib import Path

import pytest

from srl_swe.dialects import get_dialect
from srl_swe.instances import load_instances
from srl_swe.steps.prompt import make_messages

DATA = Path(__file__).parents[2] / "shared" / "data" / "swebench_v5"


@pytest.mark.skipif(not DATA.is_dir(), reason="the published rows of SWE-bench are not here")
@pytest.mark.parametrize(
    ("name", "split", "rows"),
    [
        ("SWE-bench", "dev", 225),
        ("SWE-bench_Verified", "test", 500),
        ("SWE-bench_Lite", "test", 300),
        ("SWE-bench_Lite", "dev", 23),
        ("SWE-bench_Multilingual", "test", 300),
        ("SWE-bench_Multimodal", "dev", 102),
    ],
)
def test_every_published_row_renders_as_a_prompt(name: str, split: str, rows: int) -> None:
    instances = load_instances(str(DATA / name), split=split)
    assert len(instances) == rows
    for instance in instances:
        system, issue = make_messages(instance.problem_statement, [], get_dialect("xml"))
        assert system["content"]
        assert issue["content"] == instance.problem_statement.strip()
        assert instance.image.startswith("swebench/sweb.eval.")
        assert instance.eval_script
