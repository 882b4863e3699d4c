from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from srl_swe.errors import UserError
from srl_swe.instances import instance_from_row
from srl_swe.types import Instance
from srl_swe_envs.image_names import (
    adapt_row,
    canonical,
    families,
    family_of,
    family_of_image,
    mirrored,
    parse_family,
)

REAL_ROWS = Path(__file__).parents[3] / "shared" / "data" / "swebench_v5"
SHA, FIX = "a" * 40, "b" * 40
TESTS = {"FAIL_TO_PASS": ["t::one"], "PASS_TO_PASS": []}
COMMON = {"problem_statement": "It breaks.", "base_commit": SHA, **TESTS}

PRO = {
    "problem_statement": "It breaks.",
    "base_commit": SHA,
    "instance_id": "instance_ansible__ansible-eea46a0d",
    "repo": "ansible/ansible",
    "before_repo_set_cmd": "git reset --hard",
    "selected_test_files_to_run": '["a"]',
    "dockerhub_tag": "ansible.ansible-ansible__ansible-eea46a0d",
    "fail_to_pass": "['t::it\\'s']",
    "pass_to_pass": '["t::two"]',
}
R2E_GYM = {
    "repo_name": "sympy",
    "docker_image": f"namanjain12/sympy_final:{FIX}",
    "commit_hash": FIX,
    "parsed_commit_content": json.dumps({"old_commit_hash": SHA, "new_commit_hash": FIX}),
    "problem_statement": "[ISSUE]It breaks.[/ISSUE]",
    "expected_output_json": "{}",
}


@pytest.mark.parametrize(
    ("dataset", "row", "expected"),
    [
        pytest.param(
            "",
            {
                **COMMON,
                "instance_id": "scikit-learn__scikit-learn-1",
                "repo": "scikit-learn/scikit-learn",
            },
            {"image": "swebench/sweb.eval.x86_64.scikit-learn_1776_scikit-learn-1:latest"},
            id="SWE-bench 4",
        ),
        pytest.param(
            "princeton-nlp/SWE-bench_Multilingual",
            {**COMMON, "instance_id": "Owner__Repo-1", "repo": "Owner/Repo"},
            {"image": "swebench/sweb.eval.x86_64.owner_1776_repo-1:latest"},
            id="SWE-bench by name",
        ),
        pytest.param(
            "SWE-bench/SWE-bench_Verified",
            {**COMMON, "instance_id": "a__b-1", "repo": "a/b", "image": "mirror.example/x/y:z"},
            {"image": "mirror.example/x/y:z", "workdir": "/testbed"},
            id="SWE-bench 5",
        ),
        pytest.param(
            "R2E-Gym/SWE-Bench-Verified",
            {
                **COMMON,
                "instance_id": "sympy__sympy-1",
                "repo": "sympy/sympy",
                "docker_image": "slimshetty/swebench-verified:sweb.eval.x86_64.sympy__sympy-1",
            },
            {"image": "slimshetty/swebench-verified:sweb.eval.x86_64.sympy__sympy-1"},
            id="SWE-bench in R2E-Gym's form",
        ),
        pytest.param(
            "SWE-Gym/SWE-Gym",
            {**COMMON, "instance_id": "getmoto__moto-7365", "repo": "getmoto/moto"},
            {
                "image": "xingyaoww/sweb.eval.x86_64.getmoto_s_moto-7365:latest",
                "workdir": "/testbed",
            },
            id="SWE-Gym by name",
        ),
        pytest.param(
            "",
            {**COMMON, "instance_id": "Project-MONAI__MONAI-1", "repo": "Project-MONAI/MONAI"},
            {"image": "xingyaoww/sweb.eval.x86_64.project-monai_s_monai-1:latest"},
            id="SWE-Gym in a file",
        ),
        pytest.param(
            "",
            {
                **COMMON,
                "instance_id": "pandas-dev__pandas.95280573.pr_53652",
                "repo": "swesmith/pandas-dev__pandas.95280573",
                "image_name": "swesmith.x86_64.pandas-dev__pandas.95280573",
                "patch": "the bug",
            },
            {
                "image": "jyangballin/swesmith.x86_64.pandas-dev_1776_pandas.95280573:latest",
                "gold_patch": "",
                "bug_patch": "the bug",
                "base_commit": "pandas-dev__pandas.95280573.pr_53652",
            },
            id="SWE-smith",
        ),
        pytest.param(
            "SWE-bench/SWE-smith-py",
            {
                "problem_statement": "",
                **TESTS,
                "instance_id": "a__b.12345678.lm_1",
                "repo": "swesmith/a__b.12345678",
                "image_name": "swebench/swesmith.x86_64.a_1776_b.12345678",
            },
            {
                "image": "swebench/swesmith.x86_64.a_1776_b.12345678",
                "base_commit": "a__b.12345678.lm_1",
            },
            id="SWE-smith, whole name and no commit",
        ),
        pytest.param(
            "",
            R2E_GYM,
            {
                "instance_id": f"sympy__{FIX}",
                "repo": "sympy",
                "base_commit": SHA,
                "image": f"namanjain12/sympy_final:{FIX}",
            },
            id="R2E-Gym",
        ),
        pytest.param(
            "",
            {
                **COMMON,
                "instance_id": "tox-dev__tox-3846",
                "repo": "tox-dev/tox",
                "environment_setup_commit": SHA,
                "install_config": {"test_cmd": "pytest"},
                "docker_image": "swerebench/sweb.eval.x86_64.tox-dev_1776_tox-3846",
            },
            {"image": "swerebench/sweb.eval.x86_64.tox-dev_1776_tox-3846", "workdir": "/testbed"},
            id="SWE-rebench",
        ),
        pytest.param(
            "nebius/SWE-rebench",
            {**COMMON, "instance_id": "tox-dev__tox-3846", "repo": "tox-dev/tox"},
            {"image": "swerebench/sweb.eval.x86_64.tox-dev_1776_tox-3846:latest"},
            id="SWE-rebench without its image",
        ),
        pytest.param(
            "",
            {
                **COMMON,
                "instance_id": "unidata__netcdf-c-1925",
                "repo": "Unidata/netcdf-c",
                "image_name": "docker.io/swerebenchv2/unidata-netcdf-c:1925-ad6bff3",
            },
            {
                "image": "docker.io/swerebenchv2/unidata-netcdf-c:1925-ad6bff3",
                "workdir": "/netcdf-c",
            },
            id="SWE-rebench V2",
        ),
        pytest.param(
            "",
            {
                **COMMON,
                "instance_id": "Delgan__loguru-1297",
                "repo": "Delgan/loguru",
                "test_cmds": ["pytest -rA"],
            },
            {"image": "starryzhang/sweb.eval.x86_64.delgan_1776_loguru-1297:latest"},
            id="SWE-bench-Live",
        ),
        pytest.param(
            "",
            PRO,
            {
                "image": "jefzda/sweap-images:ansible.ansible-ansible__ansible-eea46a0d",
                "workdir": "/app",
            },
            id="SWE-bench Pro",
        ),
        pytest.param(
            "",
            {
                "org": "Cli",
                "repo": "CLI",
                "number": 10388,
                "base": {"label": "cli:trunk", "sha": SHA},
                "resolved_issues": [{"number": 1, "title": "It breaks", "body": "Always {here}."}],
                "fix_patch": "the fix",
                "test_patch": "the tests",
            },
            {
                "instance_id": "Cli__CLI-10388",
                "repo": "Cli/CLI",
                "base_commit": SHA,
                "problem_statement": "It breaks\nAlways {here}.",
                "image": "mswebench/cli_m_cli:pr-10388",
                "workdir": "/home/CLI",
                "gold_patch": "the fix",
            },
            id="Multi-SWE-bench",
        ),
        pytest.param(
            "",
            {
                "org": "cli",
                "repo": "cli",
                "number": 1,
                "base": {"sha": SHA},
                "resolved_issues": [{"number": 1, "title": "It breaks", "body": None}],
                "fix_patch": "the fix",
                "test_patch": "the tests",
            },
            {"problem_statement": "It breaks\n", "image": "mswebench/cli_m_cli:pr-1"},
            id="Multi-SWE-bench without a body",
        ),
        pytest.param(
            "",
            {**COMMON, "instance_id": "a__b-1", "repo": "a/b", "image": "srl-swe/x:1"},
            {"image": "srl-swe/x:1", "workdir": "/testbed"},
            id="our own",
        ),
    ],
)
def test_a_row_of_each_family_names_its_image_and_its_folder(
    dataset: str, row: dict[str, Any], expected: dict[str, str]
) -> None:
    instance = instance_from_row(adapt_row(row, dataset), "row")
    assert {key: getattr(instance, key) for key in expected} == expected
    family = family_of(row, dataset)
    is_made_by_rule = not expected["image"].startswith(("mirror.example", "slimshetty", "srl-swe"))
    if is_made_by_rule:
        assert family is not None
        assert family_of_image(expected["image"]) == family.name


def test_tests_that_are_called_otherwise_are_taken_over() -> None:
    instance = instance_from_row(adapt_row(PRO, ""))
    assert (instance.fail_to_pass, instance.pass_to_pass) == (("t::it's",), ("t::two",))


def test_an_image_that_nobody_names_is_not_guessed() -> None:
    row = {**COMMON, "instance_id": "a__b-1", "repo": "a/b"}
    with pytest.raises(UserError, match=r"mine\.jsonl:1 has no image"):
        instance_from_row(adapt_row(row, "somebody/something"), "mine.jsonl:1")
    with pytest.raises(UserError, match="has no image"):
        instance_from_row(adapt_row({**PRO, "dockerhub_tag": None}, "ScaleAI/SWE-bench_Pro"))


def test_broken_json_in_a_row_is_a_missing_field_not_a_crash() -> None:
    with pytest.raises(UserError, match="no 'base_commit'"):
        instance_from_row(adapt_row({**R2E_GYM, "parsed_commit_content": "{"}, ""))


@pytest.mark.parametrize(
    ("image", "family"),
    [
        ("swebench/sweb.eval.x86_64.a_1776_b-1", "SWE-bench"),
        ("docker.io/xingyaoww/sweb.eval.x86_64.a_s_b-1:latest", "SWE-Gym"),
        ("srl-swe/base:1", "srl-swe"),
        ("python:3.12", None),
        ("somebody/swebench:latest", None),
    ],
)
def test_images_are_told_apart_by_name(image: str, family: str | None) -> None:
    assert family_of_image(image) == family


def test_one_image_has_one_canonical_name() -> None:
    spellings = ("docker.io/a/b", "a/b", "a/b:latest")
    assert {canonical(name) for name in spellings} == {"a/b:latest"}
    assert canonical("host:5000/a") == "host:5000/a:latest"
    assert canonical("a@sha256:12") == "a@sha256:12"


def test_every_spec_reads_and_an_unknown_key_in_one_is_refused() -> None:
    assert {family.name for family in families()} >= {"SWE-bench", "SWE-Gym", "Multi-SWE-bench"}
    with pytest.raises(TypeError, match="colour"):
        parse_family('name = "x"\ndatasets = []\nimages = []\nimage = ""\nworkdir = ""\ncolour = 1')


@pytest.mark.skipif(not REAL_ROWS.is_dir(), reason="the published rows of SWE-bench are not here")
def test_the_rule_gives_what_all_published_rows_of_swe_bench_name() -> None:
    rows = 0
    for file in sorted(REAL_ROWS.glob("*/*.parquet")):
        for row in pyarrow.parquet.read_table(file).to_pylist():
            before = {key: value for key, value in row.items() if key != "image"}
            assert adapt_row(before, f"SWE-bench/{file.parent.name}")["image"] == row["image"]
            adapted = instance_from_row(adapt_row(row, ""))
            assert adapted == instance_from_row(row)
            assert isinstance(adapted, Instance)
            rows += 1
    assert rows == 1450


EPOCH = "ghcr.io/epoch-research/swe-bench.eval.x86_64.{iid}"
DJANGO = "swebench/sweb.eval.x86_64.django_1776_django-1"


@pytest.mark.parametrize(
    ("image", "mirror", "expected"),
    [
        (DJANGO, "mirror.example.org", f"mirror.example.org/{DJANGO}:latest"),
        (DJANGO, "localhost:5000/hub/", f"localhost:5000/hub/{DJANGO}:latest"),
        (DJANGO, EPOCH, "ghcr.io/epoch-research/swe-bench.eval.x86_64.django__django-1:latest"),
        ("docker.io/a/b:1", "m.org", "m.org/a/b:1"),
        ("ghcr.io/a/b:1", "m.org", "m.org/a/b:1"),
        ("a/b:1-2", "m.org/x/{repository}:{tag}-slim", "m.org/x/a/b:1-2-slim"),
        ("srl-swe/starter:1", "m.org", "srl-swe/starter:1"),
        ("srl-swe/starter:1", "m.org/{repository}:{tag}", "m.org/srl-swe/starter:1"),
    ],
)
def test_a_mirror_names_the_image_of_an_instance(image: str, mirror: str, expected: str) -> None:
    assert mirrored(image, "Django__django-1", mirror) == expected


@pytest.mark.parametrize(
    "mirror", ["{id}", "m.org/{iid", "m.org/{0}", "https://m.org", "M.org", " "]
)
def test_a_mirror_that_can_not_be_one_is_a_mistake(mirror: str) -> None:
    with pytest.raises(UserError, match=r"--mirror .*: write a registry, as mirror\.example\.org"):
        mirrored(DJANGO, "django__django-1", mirror)


@pytest.mark.parametrize(
    ("image", "family"),
    [
        (f"mirror.example.org/{DJANGO}", "SWE-bench"),
        (mirrored(DJANGO, "django__django-1", EPOCH), "SWE-bench"),
        ("localhost:5000/srl-swe/starter:1", None),
        ("strangers/swebench/sweb.eval.x", None),
    ],
)
def test_images_of_a_mirror_belong_to_their_data_set(image: str, family: str | None) -> None:
    assert family_of_image(image) == family
