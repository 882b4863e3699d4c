import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl_swe.dialects import get_dialect
from srl_swe.errors import UserError
from srl_swe.instances import (
    InstanceSelection,
    Row,
    instance_from_row,
    load_instances,
    load_splits,
    parse_instance_filter,
    read_ids,
    row_from_instance,
)
from srl_swe.steps.prompt import make_messages
from srl_swe.types import Instance

REAL_ROWS = Path(__file__).parents[2] / "shared" / "data" / "swebench_v5"
ROW = {
    "instance_id": "psf__requests-1",
    "repo": "psf/requests",
    "base_commit": "0" * 40,
    "problem_statement": "It breaks.\n",
    "image": "swebench/sweb.eval.x86_64.psf_1776_requests-1:latest",
    "version": "2.0",
    "patch": "diff --git a/a b/a\n",
    "test_patch": "diff --git a/test_a b/test_a\n",
    "FAIL_TO_PASS": '["test_a.py::test_one"]',
    "PASS_TO_PASS": ["test_a.py::test_two"],
    "eval_script": "#!/bin/bash\n",
    "log_parser": "parse_log_pytest",
    "eval_type": "pass_and_fail",
    "image_assets": None,
}
NEEDED = ("instance_id", "repo", "base_commit", "problem_statement")
OTHER = {**ROW, "instance_id": "psf__requests-2"}


def without(field: str) -> dict[str, object]:
    return {name: value for name, value in ROW.items() if name != field}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["a::one", "a::two"], ("a::one", "a::two")),
        ('["a::one"]', ("a::one",)),
        ("['a::one', \"a::it's\"]", ("a::one", "a::it's")),
        (None, ()),
    ],
)
def test_tests_are_a_list_or_its_text_in_json_or_python(given: object, names: object) -> None:
    assert instance_from_row({**ROW, "FAIL_TO_PASS": given}).fail_to_pass == names


def test_a_missing_image_is_no_guess_but_an_error() -> None:
    with pytest.raises(UserError, match=r"line 7 has no image.* add the field 'image'"):
        instance_from_row(without("image"), "line 7")


def test_a_row_without_tests_is_still_an_instance() -> None:
    bare = {field: ROW[field] for field in (*NEEDED, "image")}
    assert instance_from_row(bare).eval_script == ""


def test_rows_of_other_schemas_are_adapted_by_the_name_of_their_data_set(tmp_path: Path) -> None:
    asked: list[str] = []

    def adapt(row: Row, dataset: str) -> Row:
        asked.append(dataset)
        return {**row, "workdir": "/app"}

    path = write(tmp_path, "jsonl")
    assert {one.workdir for one in load_instances(str(path), adapt=adapt)} == {"/app"}
    assert asked == ["", ""]


@pytest.mark.parametrize("field", NEEDED)
def test_a_row_without_a_needed_field_is_named_with_the_field(field: str) -> None:
    with pytest.raises(UserError, match=f"line 7 has no '{field}'"):
        instance_from_row(without(field), "line 7")


@pytest.mark.parametrize("hostile", ["../x", "a/b", "-rf", "a b", ".", "x\n"])
def test_an_id_that_could_name_another_folder_is_refused(hostile: str) -> None:
    with pytest.raises(UserError, match="can't name a folder"):
        instance_from_row({**ROW, "instance_id": hostile})


@pytest.mark.parametrize("tests", ["not json", '{"a": 1}', "[1]", 5])
def test_tests_that_are_no_list_of_names_are_refused(tests: object) -> None:
    with pytest.raises(UserError, match="FAIL_TO_PASS must be a list of test names"):
        instance_from_row({**ROW, "FAIL_TO_PASS": tests})


TEXTS = st.text(max_size=20)
NAMES = st.lists(TEXTS, max_size=3).map(tuple)


@given(
    st.builds(
        Instance,
        instance_id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True),
        repo=TEXTS,
        base_commit=TEXTS,
        problem_statement=TEXTS,
        image=st.text(min_size=1),
        workdir=st.text(min_size=1),
        gold_patch=TEXTS,
        test_patch=TEXTS,
        fail_to_pass=NAMES,
        pass_to_pass=NAMES,
        eval_script=TEXTS,
        image_assets=TEXTS,
    )
)
def test_row_and_instance_are_inverse(instance: Instance) -> None:
    assert instance_from_row(row_from_instance(instance)) == instance


def write(folder: Path, form: str) -> Path:
    rows, path = [ROW, OTHER], folder / f"test.{form}"
    match form:
        case "json":
            path.write_text(json.dumps(rows))
        case "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
        case "parquet":
            texts = [{**row, "PASS_TO_PASS": json.dumps(row["PASS_TO_PASS"])} for row in rows]
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(texts), path)
    return path


@pytest.mark.parametrize("form", ["json", "jsonl", "parquet"])
def test_every_kind_of_file_gives_the_same_instances(form: str, tmp_path: Path) -> None:
    expected = [instance_from_row(ROW), instance_from_row(OTHER)]
    assert load_instances(str(write(tmp_path, form))) == expected


def test_rows_may_state_their_split(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    path.write_text(json.dumps({**ROW, "split": "train"}) + "\n" + json.dumps(OTHER) + "\n")
    splits = {ROW["instance_id"]: "train", OTHER["instance_id"]: ""}
    assert load_splits(str(path)) == splits


def test_a_folder_is_read_by_split(tmp_path: Path) -> None:
    write(tmp_path, "parquet")
    assert len(load_instances(str(tmp_path))) == 2
    with pytest.raises(UserError, match=r"neither dev\.parquet nor .* it has the splits test"):
        load_instances(str(tmp_path), split="dev")


def test_ids_pick_instances_in_the_order_of_the_data_set(tmp_path: Path) -> None:
    path = str(write(tmp_path, "jsonl"))
    picked = load_instances(path, ids=["psf__requests-2", "psf__requests-1"])
    assert [one.instance_id for one in picked] == ["psf__requests-1", "psf__requests-2"]
    with pytest.raises(UserError, match=r"'psf__requests-11'\. Did you mean 'psf__requests-1'"):
        load_instances(path, ids=["psf__requests-11"])


def test_an_instance_that_comes_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.json"
    path.write_text(json.dumps([ROW, ROW]))
    with pytest.raises(UserError, match="'psf__requests-1' more than once"):
        load_instances(str(path))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("verifed", r"unknown bench 'verifed'\. Did you mean 'verified'\?"),
        ("swe-gim", r"unknown bench 'swe-gim'\. Did you mean 'swe-gym'\?"),
        ("nothing/here.jsonl", "nothing/here.jsonl does not exist"),
        ("here.jsonl", "here.jsonl does not exist"),
    ],
)
def test_a_name_that_is_nothing_says_what_would_be(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_instances(name)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", json.dumps(ROW) + "\n{broken\n", r"a\.jsonl:2: not JSON"),
        ("a.jsonl", json.dumps(without("repo")), r"a\.jsonl:1 has no 'repo'"),
        ("a.jsonl", "[]", r"a\.jsonl:1: an instance is a JSON object, not list"),
        ("a.jsonl", b"{}\n\xff", r"a\.jsonl:1 has no"),
        ("a.jsonl", b"\xff{}\n", r"a\.jsonl:1: damaged .*; save it as UTF-8"),
        ("a.json", b"\xff[]", r"a\.json: not JSON"),
        ("a.json", "[" * 100_000, r"a\.json: not JSON"),
        ("a.json", "{}", "must hold a list"),
        ("a.json", json.dumps([ROW, without("repo")]), r"a\.json, row 2 has no 'repo'"),
        ("a.parquet", "no parquet", "is not a readable parquet file"),
        ("a.csv", "", r"is not a \.json, \.jsonl, \.parquet file"),
    ],
)
def test_a_broken_file_is_named_with_the_place(
    name: str, text: str | bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError, match=said):
        load_instances(str(tmp_path / name))


def test_an_unreachable_hub_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"can't be loaded from the Hugging Face hub .* parquet"):
        load_instances("hf:not a name/at all:dev")


@pytest.mark.slow
def test_a_bench_by_name_is_the_split_that_has_its_rows(tmp_path: Path) -> None:
    script = """
from srl_swe.errors import UserError
from srl_swe.instances import load_instances
for name in ("verified", "swe-gym", "swe-smith", "swe-rebench", "hf:nebius/SWE-rebench:test"):
    try:
        load_instances(name)
    except UserError as error:
        print(str(error).partition(" can't")[0])
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "the split 'test' of SWE-bench/SWE-bench_Verified",
        "the split 'train' of SWE-Gym/SWE-Gym",
        "the split 'train' of SWE-bench/SWE-smith",
        "the split 'filtered' of nebius/SWE-rebench",
        "the split 'test' of nebius/SWE-rebench",
    ]


def test_the_bundled_suite_loads_and_can_be_graded() -> None:
    instances = load_instances("starter")
    assert len(instances) >= 8
    for one in instances:
        assert one.gold_patch and one.fail_to_pass and one.eval_script and one.log_parser
        assert one == instance_from_row(row_from_instance(one))
        assert replace(one, gold_patch="").image == one.image


def test_a_task_repo_honours_the_split_but_ids_from_any() -> None:
    with pytest.raises(UserError, match=r"no tasks in the split 'dev'\. It has: test"):
        load_instances("starter", split="dev")
    assert len(load_instances("starter", split="dev", ids=["starter__inikit-1"])) == 1


@pytest.mark.parametrize("text", ["a: [", ""])
def test_a_broken_task_of_a_task_repo_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "sweb.yaml").write_text("datasets: []\nsplits: [test]\n")
    (tmp_path / "tasks/a__b-1").mkdir(parents=True)
    (tmp_path / "tasks/a__b-1/task.yaml").write_text(text)
    with pytest.raises(UserError, match=r"the task repo .* can't be read"):
        load_instances(str(tmp_path))


@pytest.mark.parametrize(
    ("folder", "split", "count"),
    [
        ("SWE-bench_Verified", "test", 500),
        ("SWE-bench_Lite", "test", 300),
        ("SWE-bench_Lite", "dev", 23),
        ("SWE-bench", "dev", 225),
        ("SWE-bench_Multilingual", "test", 300),
        ("SWE-bench_Multimodal", "dev", 102),
    ],
)
def test_the_published_rows_of_swe_bench_load_and_render_as_prompts(
    folder: str, split: str, count: int
) -> None:
    if not (REAL_ROWS / folder).is_dir():
        pytest.skip(f"the rows of {folder} are not beside this checkout")
    instances = load_instances(str(REAL_ROWS / folder), split=split)
    assert len(instances) == count
    for instance in instances:
        assert instance.eval_script and instance.log_parser and instance.eval_type
        assert instance.image.startswith("swebench/sweb.eval.")
        system, issue = make_messages(instance.problem_statement, [], get_dialect("xml"))
        assert system["content"]
        assert issue["content"] == instance.problem_statement.strip()


def test_the_harness_understands_our_rows() -> None:
    from swebench.harness.utils import make_test_spec

    instance = instance_from_row(ROW)
    spec = make_test_spec(row_from_instance(instance))
    assert (spec.instance_id, spec.image) == (instance.instance_id, instance.image)
    assert tuple(spec.FAIL_TO_PASS) == instance.fail_to_pass
    assert spec.image_assets == {}


SHELF = [
    Instance(f"{name}-{number}", name.replace("__", "/"), "HEAD", "", "image", version=version)
    for name, version in (("a__b", "1"), ("a__b", "2"), ("c__d", "1"))
    for number in (version, version + "0")
]


@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        (InstanceSelection(), [0, 1, 2, 3, 4, 5]),
        (InstanceSelection((("repo", "a/*"),)), [0, 1, 2, 3]),
        (InstanceSelection((("repo", "a/*"), ("version", "2"))), [2, 3]),
        (InstanceSelection((("instance", "*-10"),)), [1, 5]),
        (InstanceSelection(exclude=frozenset({"a__b-1", "nowhere-1"})), [1, 2, 3, 4, 5]),
        (InstanceSelection(first=1, last=4, limit=2), [1, 2]),
        (InstanceSelection((("repo", "e/f"),)), []),
    ],
)
def test_instances_are_selected_in_their_order(
    selection: InstanceSelection, kept: list[int]
) -> None:
    assert selection.select(SHELF) == [SHELF[index] for index in kept]


def test_a_seed_shuffles_alike_before_the_slice() -> None:
    shuffled = InstanceSelection(shuffle_seed=7).select(SHELF)
    assert sorted(shuffled, key=SHELF.index) == SHELF
    assert shuffled != SHELF
    assert InstanceSelection(shuffle_seed=7, first=2, limit=3).select(SHELF) == shuffled[2:5]


@pytest.mark.parametrize(
    "text",
    [
        "a__b-1\n\n# flaky:\na__b-2  # here\n",
        '["a__b-1", "a__b-2"]',
        '{"instance_id": "a__b-1", "x": 1}\n{"instance_id": "a__b-2"}\n',
    ],
    ids=["lines", "list", "rows"],
)
def test_ids_are_read_from_a_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "ids").write_text(text)
    assert read_ids(tmp_path / "ids") == ["a__b-1", "a__b-2"]


@pytest.mark.parametrize("text", ["[1]", "[", '{"id": "a"}', None])
def test_a_file_without_ids_is_one_line(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "ids").write_text(text)
    with pytest.raises(UserError, match="ids"):
        read_ids(tmp_path / "ids")


@pytest.mark.parametrize("text", ["repo", "rpo=a", "=a"])
def test_a_filter_of_no_field_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match="Known: instance="):
        parse_instance_filter(text)
