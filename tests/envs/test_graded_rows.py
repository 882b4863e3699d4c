from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import UserError
from srl_swe.evaluation.bench_check import HARMLESS_PATCH, check_gold
from srl_swe.evaluation.grading import grade, grading_key
from srl_swe.evaluation.sandbox_tests import verdict_in_fresh_sandbox
from srl_swe.evaluation.test_run import END_MARKER, START_MARKER
from srl_swe.evaluation.verdicts import check_gradeable, needing_tests
from srl_swe.instances import instance_from_row, load_instances, row_from_instance
from srl_swe.rollout import Agent, Rules, rollout
from srl_swe.testing import ScriptedPolicy
from srl_swe.types import Instance, Outcome, Prediction, StopReason
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.graded_rows import eval_script, file_diffs, reverse_diff
from srl_swe_envs.image_names import adapt_row, families

SHARED = Path(__file__).parents[3] / "shared"
SAMPLES = SHARED / "samples"
PUBLISHED = SHARED / "data" / "swebench_v5"
FAMILIES = {"swe-gym": "SWE-Gym/SWE-Gym", "swe-rebench": "nebius/SWE-rebench"}
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="rows of others are not here")
STARTER = {instance.instance_id: instance for instance in load_instances("starter")}
TEST_PATCH = """\
diff --git a/tests/test_old.py b/tests/test_old.py
--- a/tests/test_old.py
+++ b/tests/test_old.py
@@ -1 +1,2 @@
 def test_old(): pass
+def test_more(): pass
diff --git a/tests/new dir/test_$(id).py b/tests/new dir/test_$(id).py
new file mode 100644
--- /dev/null
+++ b/tests/new dir/test_$(id).py
@@ -0,0 +1 @@
+def test_new(): pass
diff --git a/tests/data.json b/tests/data.json
--- a/tests/data.json
+++ b/tests/data.json
@@ -1 +1 @@
-1
+2
"""


def published(family: str) -> list[dict[str, Any]]:
    """Rows of a data set, as others have published them again."""
    if family == "swe-smith":
        path = SAMPLES / "instances" / "swesmith" / "pandas-dev__pandas.95280573.pr_53652.json"
        return [json.loads(path.read_text("utf-8"))]
    if family == "swe-rebench":
        (path,) = (SAMPLES / "r2egym_native_jsonl").glob("*swe_rebench*.jsonl")
        rows = [json.loads(line)["ds"] for line in path.read_text("utf-8").splitlines()]
        return [json.loads(row) if isinstance(row, str) else row for row in rows]
    gym = SAMPLES / "instances" / "nemo_gym"
    plain = (gym / "mini_swe_agent_swegym_example.jsonl").read_text("utf-8").splitlines()
    nested = (gym / "swerl_gen_swegym_example.jsonl").read_text("utf-8").splitlines()
    return [*map(json.loads, plain), *(json.loads(line)["instance"] for line in nested)]


def adapted(row: dict[str, Any], dataset: str = "") -> Instance:
    return instance_from_row(adapt_row(row, dataset))


def test_line(instance: Instance) -> str:
    after = instance.eval_script.partition(f": '{START_MARKER}'\n")[2]
    return after.partition(f"\n: '{END_MARKER}'")[0]


test_line.__test__ = False  # type: ignore[attr-defined]


@needs_samples
@pytest.mark.parametrize(("family", "rows"), [("swe-gym", 10), ("swe-rebench", 6)])
def test_published_rows_can_be_graded(family: str, rows: int) -> None:
    instances = [adapted(row, FAMILIES[family]) for row in published(family)]
    assert len(instances) == rows
    check_gradeable(instances)
    for instance, row in zip(instances, published(family), strict=True):
        assert instance.gold_patch == row["patch"]
        assert (instance.log_parser, instance.bug_patch) == ("parse_log_pytest", "")
        assert row["test_patch"] in instance.eval_script
        files = {name.partition("::")[0] for name in instance.fail_to_pass}
        assert instance.repo == "python/mypy" or files <= set(shlex.split(test_line(instance)))
        assert replace(adapted(row), image="") == replace(instance, image="")


@needs_samples
@pytest.mark.parametrize("family", ["swe-gym", "swe-rebench", "swe-smith"])
def test_rows_in_a_file_of_any_kind_are_the_same(family: str, tmp_path: Path) -> None:
    rows = published(family)
    lines, table = tmp_path / "rows.jsonl", tmp_path / "rows.parquet"
    lines.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    kept = set.intersection(*(set(row) for row in rows)) - {"meta"}
    as_text = [
        {key: str(row[key]) if "_TO_" in key else row[key] for key in row.keys() & kept}
        for row in rows
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(as_text), table)
    loaded = load_instances(str(lines), adapt=adapt_row)
    check_gradeable(loaded)
    assert load_instances(str(table), adapt=adapt_row) == loaded


@needs_samples
def test_a_published_row_of_swe_smith_is_the_bug_and_its_reverse() -> None:
    (row,) = published("swe-smith")
    instance = adapted(row, "SWE-bench/SWE-smith")
    check_gradeable([instance])
    assert instance.bug_patch == row["patch"]
    assert reverse_diff(instance.gold_patch) == row["patch"]
    assert "-        if keyarr.dtype.kind in" in instance.gold_patch
    assert test_line(instance) == (
        "pytest --disable-warnings --color=no --tb=no --verbose -rA "
        "pandas/tests/indexing/test_datetime.py"
    )
    assert instance.pass_to_pass == tuple(row["PASS_TO_PASS"])
    assert adapted(row_from_instance(instance)) == instance


@needs_samples
def test_tests_of_mypy_are_chosen_by_their_cases() -> None:
    instances = [adapted(row) for row in published("swe-gym")]
    (instance,) = (each for each in instances if each.repo == "python/mypy")
    assert test_line(instance) == (
        "pytest -n0 -rA -k 'testTypeGuardTypeVarReturn or testTypeGuardIsBool or "
        "testTypeIsTypeVarReturn or testTypeIsUnionIn'"
    )


COMMON: dict[str, Any] = {
    "instance_id": "a__b-1",
    "base_commit": "a" * 40,
    "problem_statement": "It breaks.",
    "test_patch": TEST_PATCH,
    "FAIL_TO_PASS": ["tests/test_old.py::test_more"],
    "PASS_TO_PASS": '["tests/test_old.py::test_old"]',
}
REBENCH = {
    **COMMON,
    "repo": "a/b",
    "environment_setup_commit": "a" * 40,
    "install_config": {"install": "pip install .", "test_cmd": "pytest -rA", "log_parser": "x"},
}
SMITH = {
    **{key: value for key, value in COMMON.items() if key != "test_patch"},
    "repo": "swesmith/PyCQA__flake8.cf1542ce",
    "image_name": "swesmith.x86_64.pycqa__flake8.cf1542ce",
    "patch": "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-good\n+bad\n",
}


def test_the_commands_of_a_row_are_used_before_those_of_its_family() -> None:
    instance = adapted(REBENCH)
    assert test_line(instance) == "pytest -rA tests/test_old.py 'tests/new dir/test_$(id).py'"
    assert "\npip install .\n" in instance.eval_script.partition(START_MARKER)[0]
    with pytest.raises(UserError, match="swebench has no log_parser 'x'"):
        check_gradeable([instance])
    as_text = {**REBENCH, "install_config": json.dumps(REBENCH["install_config"])}
    assert adapted(as_text) == instance


def test_only_the_tests_that_are_run_have_to_pass() -> None:
    passing = [*json.loads(SMITH["PASS_TO_PASS"]), "tests/test_other.py::test_it"]
    instance = adapted({**SMITH, "PASS_TO_PASS": passing})
    assert instance.pass_to_pass == ("tests/test_old.py::test_old",)
    assert instance.eval_script.count("git checkout HEAD -- tests/test_old.py") == 2
    cases = [f"mypy/test/testcheck.py::Suite::check.test::{name}" for name in ("testA", "testB")]
    mypy = {
        "FAIL_TO_PASS": cases[:1],
        "PASS_TO_PASS": cases,
        "repo": "swesmith/python__mypy.e93f06ce",
    }
    assert adapted({**SMITH, **mypy}).pass_to_pass == (cases[0],)
    slugify = {"repo": "swesmith/un33k__python-slugify.872b3750", "PASS_TO_PASS": passing}
    whole = adapted({**SMITH, **slugify})
    assert (test_line(whole), whole.log_parser) == ("python test.py --verbose", "parse_log_django")
    assert whole.pass_to_pass == tuple(passing)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({**SMITH, "repo": "swesmith/a__b.12345678"}, id="SWE-smith"),
        pytest.param({**REBENCH, "install_config": {"test_cmd": None}}, id="SWE-rebench"),
        pytest.param({**REBENCH, "install_config": {"test_cmd": ["make", "check"]}}, id="a list"),
        pytest.param({**REBENCH, "install_config": "{"}, id="not JSON"),
    ],
)
def test_a_row_whose_test_command_is_unknown_can_be_rolled_out_only(row: dict[str, Any]) -> None:
    with pytest.raises(UserError) as refused:
        check_gradeable([adapted(row)])
    assert str(refused.value).startswith(
        "a__b-1 can be rolled out but not graded: its row has no eval_script, log_parser, "
        f"eval_type (no test command of {row['repo']} is known); "
    )


@pytest.mark.parametrize("tests", [{"PASS_TO_PASS": 7}, {"FAIL_TO_PASS": "x", "PASS_TO_PASS": []}])
def test_tests_that_are_no_list_are_still_refused(tests: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="_TO_PASS must be a list of test names"):
        adapted({**SMITH, **tests})


def test_a_row_that_has_its_script_keeps_it() -> None:
    own = {"eval_script": "mine", "log_parser": "parse_log_django", "eval_type": "fail_only"}
    instance = adapted({**REBENCH, **own})
    assert {key: getattr(instance, key) for key in own} == own
    without_type = adapted({**REBENCH, "log_parser": "parse_log_django", "eval_type": "fail_only"})
    assert (without_type.log_parser, without_type.eval_type) == ("parse_log_django", "fail_only")


def test_every_command_has_a_parser_that_swebench_knows() -> None:
    from swebench.harness.log_parsers import PARSER_REGISTRY

    known = {family.name: family.grading for family in families() if family.grading}
    assert known.keys() == {"SWE-Gym", "SWE-rebench", "SWE-smith"}
    for family in families():
        if family.grading and family.grading.commands:
            assert {family.grading.log_parser, *family.grading.parsers} <= PARSER_REGISTRY.keys()
            repos = list(chain(*family.grading.commands.values()))
            assert len(set(repos)) == len(repos)
            assert set(family.repos) <= set(repos)
            assert {repo for group in family.grading.parsers.values() for repo in group} <= set(
                repos
            )


def test_another_bug_is_another_verdict() -> None:
    instance = adapted(SMITH)
    bugs = (instance, replace(instance, bug_patch="other"), replace(instance, bug_patch=""))
    facts: dict[str, Any] = {"image_id": "i", "harness_version": "h", "timeout_s": 1}
    assert len({grading_key(each, "p", **facts) for each in bugs}) == 3


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit, in a folder with an awkward name."""
    folder = tmp_path / "it's a repo"
    (folder / "tests").mkdir(parents=True)
    (folder / "tests" / "test_old.py").write_text("def test_old(): pass\n")
    (folder / "tests" / "data.json").write_text("1\n")
    (folder / "end").write_text("no newline")
    (folder / 'naïve "name"').write_text("1\n2\n3\n")
    run(folder, "git init -q -b main && git add -A && git commit -q -m x")
    return folder


def run(folder: Path, command: str) -> str:
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder.parent), "LANG": "C.UTF-8",
        "GIT_AUTHOR_NAME": "x", "GIT_AUTHOR_EMAIL": "x@example.invalid",
        "GIT_COMMITTER_NAME": "x", "GIT_COMMITTER_EMAIL": "x@example.invalid",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_script_tests_its_own_version_of_the_test_files(repository: Path) -> None:
    script = eval_script(
        "find . -name 'test_*' -print -exec cat {} +; cat tests/data.json",
        workdir=str(repository),
        base_commit="HEAD",
        test_patch=TEST_PATCH,
    )
    (repository / "tests" / "test_old.py").write_text("def test_nothing(): pass\n")
    (repository / "tests" / "new dir").mkdir()
    (repository / "tests" / "new dir" / "test_$(id).py").write_text("in the way\n")
    printed = run(repository, f"bash -s <<'SCRIPT' 2>/dev/null\n{script}SCRIPT")
    assert "in the way" not in printed
    assert "test_nothing" not in printed
    assert sorted(printed.splitlines()) == sorted([
        "./tests/new dir/test_$(id).py", "def test_new(): pass",
        "./tests/test_old.py", "def test_old(): pass", "def test_more(): pass", "2",
    ])  # fmt: skip
    assert (repository / "tests" / "test_old.py").read_text() == "def test_old(): pass\n"


def test_a_patch_can_not_end_its_here_document(repository: Path) -> None:
    line = "EOF_114329324912"
    patch = f"--- a/end\n+++ b/end\n@@ -1 +1,3 @@\n no newline\n+{line}\n+touch escaped\n"
    script = eval_script("true", workdir=".", base_commit="HEAD", test_patch=f"{patch}\n{line}\nx")
    run(repository, f"bash -n <<'SCRIPT'\n{script}SCRIPT")
    assert script.count(f"\n{line}_\n") == 1
    assert not (repository / "escaped").exists()


CHANGES = {
    "an edit": "printf '1\\n2b\\n2c\\n3\\n' > 'naïve \"name\"'",
    "a line that looks like a header": "printf -- '-- a/x\\n++ b/x\\n' > 'naïve \"name\"'",
    "no newline at the end": "printf 'still none' > end; printf '1\\n2\\n3' > 'naïve \"name\"'",
    "a newline at the end": "echo >> end",
    "a new file": "echo new > new",
    "a new empty file": "touch empty",
    "a file that goes": "rm end",
    "a renamed file": "git mv 'naïve \"name\"' other; echo 4 >> other",
    "a mode": "chmod +x end; echo more > tests/data.json",
    "all files emptied": ": > end; : > tests/data.json",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_reversed_diff_undoes_the_change(change: str, repository: Path) -> None:
    before = run(repository, "git write-tree")
    run(repository, f"{CHANGES[change]}; git add -A")
    changed = run(repository, "git write-tree")
    diff = run(repository, "git diff --cached -M HEAD")
    assert changed != before
    (repository.parent / "undo.diff").write_text(reverse_diff(diff))
    assert reverse_diff(diff) == run(
        repository, "git diff --cached -M -R --src-prefix=b/ --dst-prefix=a/ HEAD"
    )
    run(repository, "git apply --index ../undo.diff")
    assert run(repository, "git write-tree") == before


def test_a_binary_change_has_no_reverse_and_text_is_no_diff(repository: Path) -> None:
    run(repository, "printf 'a\\0b' > end; git add -A")
    for option in ("--binary", ""):
        with pytest.raises(ValueError, match="can't be reversed"):
            reverse_diff(run(repository, f"git diff --cached {option} HEAD"))
    assert reverse_diff("the bug") == reverse_diff("") == ""
    assert adapted({**SMITH, "patch": "GIT binary patch\n"}).gold_patch == ""


@pytest.mark.slow
@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published rows of SWE-bench are not here")
def test_reversing_all_published_patches_twice_changes_nothing() -> None:
    patches = [
        row[field]
        for file in PUBLISHED.glob("*/*.parquet")
        for row in pyarrow.parquet.read_table(file, columns=["patch", "test_patch"]).to_pylist()
        for field in ("patch", "test_patch")
    ]
    texts = [patch for patch in patches if "\nBinary files " not in patch]
    assert len(texts) > 2800
    for patch in texts:
        assert reverse_diff(reverse_diff(patch)).rstrip("\n") == patch.rstrip("\n")
        assert all(diff.old or diff.new for diff in file_diffs(patch))


# On the engine: rows in the schemas of others, over images of the bundled suite.

BUG = """\
diff --git a/lrucache/cache.py b/lrucache/cache.py
--- a/lrucache/cache.py
+++ b/lrucache/cache.py
@@ -37,7 +37,7 @@ class LRUCache(MutableMapping[K, V]):
         clock: Callable[[], float] = time.monotonic,
         stats: CacheStats = CacheStats(),
     ) -> None:
-        if maxsize < 1:
+        if maxsize < -1:
             raise ValueError(f"maxsize must be positive, not {maxsize}")
         self.maxsize = maxsize
         self.ttl = ttl
"""
MAXSIZE = "tests/test_cache.py::test_maxsize_must_be_positive"


def rows_over_the_suite() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, dataset, given in (
        ("starter__inikit-1", FAMILIES["swe-gym"], {"repo": "iterative/dvc"}),
        (
            "starter__texttable-1",
            FAMILIES["swe-rebench"],
            {
                "install_config": {
                    "install": "pip install -e .[dev]",
                    "log_parser": "parse_log_pytest",
                    "test_cmd": "pytest --no-header -rA --tb=line --color=no -p no:cacheprovider "
                    "-W ignore::DeprecationWarning",
                }
            },
        ),
    ):
        row = row_from_instance(STARTER[name])
        kept = ("instance_id", "repo", "base_commit", "problem_statement", "patch", "test_patch")
        kept += ("version", "FAIL_TO_PASS", "PASS_TO_PASS")
        fields = {key: row[key] for key in kept}
        yield dataset, {**fields, "docker_image": row["image"], **given}
    cache = STARTER["starter__lrucache-1"]
    yield (
        "SWE-bench/SWE-smith",
        {
            "instance_id": "starter__lrucache.12345678.func__1",
            "repo": "swesmith/mahmoud__boltons.12345678",
            "patch": BUG,
            "FAIL_TO_PASS": [f"{MAXSIZE}[0]", f"{MAXSIZE}[-1]"],
            "PASS_TO_PASS": [
                "tests/test_cache.py::test_it_is_a_mapping",
                "tests/test_x.py::test_y",
            ],
            "image_name": cache.image,
            "problem_statement": "A cache of size 0 is accepted.",
        },
    )


@pytest.fixture(scope="module")
def over_the_suite() -> list[Instance]:
    return [adapted(row, dataset) for dataset, row in rows_over_the_suite()]


@pytest.mark.docker
@pytest.mark.slow
def test_rows_of_others_are_graded_alike_by_swebench_and_in_a_sandbox(
    over_the_suite: list[Instance], tmp_path: Path
) -> None:
    check = check_gold(over_the_suite, tmp_path, max_workers=3, report=lambda _: None)
    assert (check.faults, check.undecided) == ({}, [])
    cases = [(each, each.gold_patch) for each in over_the_suite]
    cases += [(each, HARMLESS_PATCH) for each in over_the_suite]
    with ThreadPoolExecutor(3) as pool:
        ours = pool.map(lambda case: verdict_in_fresh_sandbox(*case, open_docker_sandbox), cases)
        for mine, verdict in zip(ours, (*check.gold, *check.harmless), strict=True):
            assert (mine.outcome, set(mine.passed), set(mine.failed)) == (
                verdict.outcome, set(verdict.passed), set(verdict.failed),
            )  # fmt: skip


@pytest.mark.docker
@pytest.mark.slow
def test_a_policy_finds_the_bug_of_a_row_and_its_fix_resolves(
    over_the_suite: list[Instance],
) -> None:
    instance = over_the_suite[-1]
    fix = "grep -rl 'maxsize < -1' lrucache | xargs sed -i 's/maxsize < -1/maxsize < 1/'"
    policy = ScriptedPolicy(
        [
            f"<function=bash>\n<parameter=command>{fix}</parameter>\n</function>",
            "<function=submit>\n</function>",
        ]
    )
    with open_docker_sandbox(instance) as sandbox:
        rules = Rules(ReplyFormat(get_dialect("xml"), "lenient"))
        rolled_out = rollout(Agent(policy, rules), instance, sandbox)
        history = sandbox.exec("git log --all --format=%s; git status --short").output
    assert rolled_out.stop_reason is StopReason.SUBMITTED
    assert history == "The state of the task\n M lrucache/cache.py\n"
    patch = rolled_out.patch or ""
    assert needing_tests([instance], [Prediction(instance.instance_id, "m", patch)]) == [instance]
    (made,), (gold,) = file_diffs(patch), file_diffs(instance.gold_patch)
    assert made.hunks[0][1:] == gold.hunks[0][1:]
    verdict = verdict_in_fresh_sandbox(instance, patch, open_docker_sandbox)
    assert verdict.outcome is Outcome.RESOLVED


@pytest.mark.docker
@pytest.mark.slow
def test_a_bug_that_does_not_fit_the_image_is_a_broken_sandbox(
    over_the_suite: list[Instance], tmp_path: Path
) -> None:
    instance = replace(over_the_suite[-1], bug_patch=BUG.replace("maxsize < 1", "maxsize < 7"))
    prediction = Prediction(instance.instance_id, "m", HARMLESS_PATCH)
    (verdict,) = grade([instance], [prediction], tmp_path, report=lambda _: None)
    assert verdict.outcome is Outcome.BROKEN_SANDBOX
    assert "the bug_patch of the row can't be applied to its image" in verdict.detail
    ours = verdict_in_fresh_sandbox(instance, HARMLESS_PATCH, open_docker_sandbox)
    assert ours.outcome is Outcome.BROKEN_SANDBOX
