from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import git
import pytest
from typer.testing import CliRunner, Result

from srl_swe.cli.main import app
from srl_swe.errors import ImageMissing, SandboxError, UserError
from srl_swe.evaluation.bench_check import HARMLESS_PATCH as HARMLESS
from srl_swe.evaluation.sandbox_tests import derive_tests, verdict_in_fresh_sandbox
from srl_swe.instances import instance_from_row, load_instances, row_from_instance
from srl_swe.sandbox import diff
from srl_swe.types import Instance, Outcome
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.engine import connect
from srl_swe_envs.repository_images import (
    build_repository_image,
    eval_script,
    instance_of,
    load_spec,
)

ID = "test-of__repository-images-1"
FIX = "the fix that nobody may see"
COMMIT = "0" * 40
TESTS = "from sizes import size\n\n\ndef test_of_nothing():\n    assert size('') == 0\n"
TEST_PATCH = """\
diff --git a/test_sizes.py b/test_sizes.py
--- a/test_sizes.py
+++ b/test_sizes.py
@@ -4,2 +4,5 @@
 def test_of_nothing():
     assert size('') == 0
+
+def test_of_one():
+    assert size('a') == 1
diff --git a/test_new.py b/test_new.py
new file mode 100644
--- /dev/null
+++ b/test_new.py
@@ -0,0 +1,2 @@
+def test_new():
+    pass
"""


@dataclass(frozen=True)
class Upstream:
    folder: Path
    base: str
    fix: str


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    """A repository with a bug, and its fix in a later commit, on a branch and in a tag."""
    folder = tmp_path_factory.mktemp("upstream") / "sizes"
    folder.mkdir()
    with git.Repo.init(folder, initial_branch="main") as repository:
        (folder / "sizes.py").write_text("def size(text):\n    return 0\n")
        (folder / "test_sizes.py").write_text(TESTS)
        (folder / "tool.sh").write_text("echo run\n")
        (folder / "tool.sh").chmod(0o755)
        base = commit(repository, "the bug")
        (folder / "sizes.py").write_text("def size(text):\n    return len(text)\n")
        fix = commit(repository, FIX)
        repository.create_tag("v1")
    return Upstream(folder, base, fix)


@pytest.fixture(scope="module")
def built(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """By the command line, as a user would."""
    folder = tmp_path_factory.mktemp("spec")
    install = [
        "test -x tool.sh",
        "mkdir '.odd [name]' && touch '.odd [name]/x'",
        "mkdir -p .venv/bin && echo 'export VIRTUAL_ENV=here' > .venv/bin/activate",
    ]
    path = write_spec(folder, upstream, instance_id=f"{ID}-cli", install=install, test="pytest -rA")
    rows = folder / "rows.jsonl"
    run = CliRunner().invoke(app, ["images", "build", "--spec", str(path), "--rows", str(rows)])
    assert run.exit_code == 0, run.output
    (instance,) = load_instances(str(rows))
    yield instance
    remove(instance.image)


def commit(repository: git.Repo, message: str) -> str:
    repository.git.add(".")
    author = git.Actor("somebody", "somebody@example.invalid")
    return str(repository.index.commit(message, author=author, committer=author).hexsha)


@pytest.fixture
def image_removed() -> Iterator[None]:
    yield
    remove("srl-swe/sweb.eval.x86_64.test-of_1776_repository-images-1")


def remove(image: str) -> None:
    client = connect()
    for found in client.images.list(image):
        client.images.remove(str(found.id), force=True)
    client.close()


def write_spec(folder: Path, upstream: Upstream | None = None, **others: Any) -> Path:
    repository, base = (str(upstream.folder), upstream.base) if upstream else ("sizes", COMMIT)
    facts = {"instance_id": ID, "repository": repository, "base_commit": base, **others}
    path = folder / "sizes.toml"
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in facts.items()))
    return path


def test_three_keys_make_an_instance_that_can_be_rolled_out(
    upstream: Upstream, tmp_path: Path
) -> None:
    spec = load_spec(write_spec(tmp_path, upstream))
    instance = instance_of(spec)
    assert instance == Instance(
        instance_id=ID,
        repo="sizes",
        base_commit=upstream.base,
        problem_statement="",
        image="srl-swe/sweb.eval.x86_64.test-of_1776_repository-images-1:latest",
    )
    assert instance_from_row(row_from_instance(instance)) == instance


def test_a_url_names_the_repository_and_is_not_looked_for_here(tmp_path: Path) -> None:
    for url in ("https://github.com/acme/widgets.git", "git@github.com:acme/widgets"):
        spec = load_spec(write_spec(tmp_path, repository=url))
        assert (spec.repository, instance_of(spec).repo) == (url, "acme/widgets")


def test_the_tests_run_between_the_markers_over_their_own_version(tmp_path: Path) -> None:
    (tmp_path / "test.patch").write_text(TEST_PATCH)
    facts = {"repository": "https://a/b/c", "test": "pytest -rA", "test_patch": "test.patch"}
    script = eval_script(load_spec(write_spec(tmp_path, **facts)))
    before, _, rest = script.partition(": '>>>>> Start Test Output'\n")
    tests, _, after = rest.partition(": '>>>>> End Test Output'\n")
    assert f"git checkout {COMMIT} -- test_sizes.py\n" in before
    assert TEST_PATCH in before
    assert tests == "pytest -rA\n"
    assert after == f"git checkout {COMMIT} -- test_sizes.py\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colour": "red"}, r"sizes\.toml: 'colour' is not as it should be: Extra inputs"),
        ({"base_commit": "main"}, r"'base_commit' is not as it should be"),
        ({"instance_id": "../x"}, r"'instance_id' is not as it should be"),
        ({"packages": ["curl", "-o=x"]}, r"'packages\.1' is not as it should be"),
        ({"install": "pip install"}, r"'install' is not as it should be"),
        ({"repository": "nowhere"}, r"nowhere does not exist; name a URL or a folder"),
        ({"repository": "https://a/b/c", "patch": "no.patch"}, r"no\.patch can't be read"),
    ],
)
def test_a_spec_that_is_wrong_is_named_with_the_key(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        load_spec(write_spec(tmp_path, **change))


def test_a_spec_that_can_not_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read"):
        load_spec(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("a = ")
    with pytest.raises(UserError, match="is not a TOML file"):
        load_spec(tmp_path / "broken.toml")


@pytest.mark.docker
def test_a_repository_becomes_an_image_in_which_its_tests_run(built: Instance) -> None:
    with open_docker_sandbox(built) as sandbox:
        assert sandbox.exec("pwd; ls -d .odd*; git status --short").output.splitlines() == [
            "/testbed",
            ".odd [name]",
        ]
        assert "1 passed" in sandbox.exec("pytest -rA").output
        sandbox.exec("echo '# changed' >> sizes.py")
        patch = diff(sandbox, built.base_commit, built.workdir)
        assert patch is not None and patch.count("diff --git") == 1


@pytest.mark.docker
def test_nothing_later_than_the_base_commit_is_in_the_image(built: Instance) -> None:
    with open_docker_sandbox(built) as sandbox:
        everything = "git log --all --format=%s; git tag; git cat-file --batch-all-objects --batch"
        seen = sandbox.exec(everything).output
        assert "the bug" in seen and FIX not in seen and "v1" not in seen.split()


@pytest.mark.docker
def test_a_virtual_environment_in_the_working_folder_is_active(built: Instance) -> None:
    with open_docker_sandbox(built) as sandbox:
        assert sandbox.exec("echo $VIRTUAL_ENV").output == "here\n"


@pytest.mark.docker
def test_an_instance_whose_commit_its_image_lacks_is_no_sandbox(
    built: Instance, upstream: Upstream
) -> None:
    opening = open_docker_sandbox(replace(built, base_commit=upstream.fix))
    with pytest.raises(SandboxError, match=f"has no commit {upstream.fix}"), opening:
        pass


@pytest.mark.docker
@pytest.mark.usefixtures("image_removed")
def test_an_unchanged_spec_costs_nothing_and_a_changed_one_is_built(
    upstream: Upstream, tmp_path: Path
) -> None:
    said: list[str] = []
    path = write_spec(tmp_path, upstream)
    build_repository_image(load_spec(path), said.append)
    build_repository_image(load_spec(path), said.append)
    assert " built " in said[-2] and said[-1].endswith("is up to date")
    write_spec(tmp_path, upstream, install=["touch /new"])
    build_repository_image(load_spec(path), said.append)
    assert " built " in said[-1]


@pytest.mark.docker
@pytest.mark.usefixtures("image_removed")
def test_install_commands_run_in_the_build_only(upstream: Upstream, tmp_path: Path) -> None:
    hostile = [f"mkdir -p {tmp_path}", f"touch {tmp_path}/escaped", "git gc", "exit 0"]
    path = write_spec(tmp_path, upstream, install=hostile)
    build_repository_image(load_spec(path), lambda _: None)
    assert not (tmp_path / "escaped").exists()


@pytest.mark.docker
def test_a_build_that_fails_ends_with_the_last_lines_of_its_log(
    upstream: Upstream, tmp_path: Path
) -> None:
    path = write_spec(tmp_path, upstream, install=["echo before", "ls /no/such/file"])
    with pytest.raises(ImageMissing) as failed:
        build_repository_image(load_spec(path), lambda _: None)
    said = str(failed.value)
    assert f"can't be built from the spec of {ID}" in said
    assert "+ echo before | before | + ls /no/such/file | ls: cannot access '/no/such/file'" in said
    assert "\n" not in said and "\x1b" not in said
    kept = Path(said.partition("its log (")[2].partition(")")[0]).read_text()
    assert kept.count("before") == 2 and "check-out.sh" in kept


@pytest.mark.docker
def test_a_commit_or_a_repository_that_is_not_there_is_said(
    upstream: Upstream, tmp_path: Path
) -> None:
    said = f"{ID}: .* at {COMMIT} can't be fetched .*; check both"
    for repository in (str(upstream.folder), f"file://{tmp_path}/nowhere"):
        path = write_spec(tmp_path, repository=repository)
        with pytest.raises(UserError, match=said):
            build_repository_image(load_spec(path), lambda _: None)


@pytest.mark.docker
def test_a_transport_that_would_run_a_command_here_is_refused(
    upstream: Upstream, tmp_path: Path
) -> None:
    command = f"ext::sh -c touch% {tmp_path}/escaped"
    spec = load_spec(write_spec(tmp_path, upstream)).model_copy(update={"repository": command})
    with pytest.raises(UserError, match="can't be fetched"):
        build_repository_image(spec, lambda _: None)
    assert not (tmp_path / "escaped").exists()


GOLD_PATCH = """\
diff --git a/sizes.py b/sizes.py
--- a/sizes.py
+++ b/sizes.py
@@ -1,2 +1,2 @@
 def size(text):
-    return 0
+    return len(text)
"""
OFFICIAL_EVAL_SCRIPT = """\
#!/bin/bash
set -uxo pipefail
source /opt/miniconda3/bin/activate
conda activate testbed
cd /testbed
git config --global --add safe.directory /testbed
git status
source /opt/miniconda3/bin/activate
conda activate testbed
python -m pip --version
git checkout {base} test_sizes.py
git apply -v - <<'EOF_114329324912'
{test_patch}
EOF_114329324912
: '>>>>> Start Test Output'
pytest -rA test_sizes.py
: '>>>>> End Test Output'
git checkout {base} test_sizes.py
"""


def published_row(base: str, **others: Any) -> dict[str, Any]:
    """As SWE-bench publishes one, with the image of a registry that is not there."""
    return {
        "instance_id": ID,
        "repo": "test-of/repository-images",
        "base_commit": base,
        "problem_statement": "Every size is 0.",
        "image": "test-of/sweb.eval.x86_64.test-of_1776_repository-images-1:latest",
        "patch": GOLD_PATCH,
        "test_patch": TEST_PATCH,
        "FAIL_TO_PASS": ["test_sizes.py::test_of_one"],
        "PASS_TO_PASS": ["test_sizes.py::test_of_nothing"],
        "eval_script": OFFICIAL_EVAL_SCRIPT.format(base=base, test_patch=TEST_PATCH),
        "log_parser": "parse_log_pytest",
        "eval_type": "pass_and_fail",
        **others,
    }


def write_row(folder: Path, base: str) -> Path:
    path = folder / "bench.jsonl"
    path.write_text(json.dumps(published_row(base)) + "\n")
    return path


def images_build(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["images", "build", *arguments])


@pytest.mark.docker
def test_a_published_row_is_graded_by_its_own_script_on_an_image_built_here(
    upstream: Upstream, tmp_path: Path
) -> None:
    spec = tmp_path / "row.toml"
    spec.write_text(f"instance_id = {ID!r}\nrepository = {str(upstream.folder)!r}\n")
    rows = tmp_path / "rows.jsonl"
    bench = str(write_row(tmp_path, upstream.base))
    run = images_build("--bench", bench, "--spec", str(spec), "--rows", str(rows))
    assert run.exit_code == 0, run.output
    (instance,) = load_instances(str(rows))
    try:
        assert row_from_instance(instance) == row_from_instance(
            instance_from_row(published_row(upstream.base))
        )
        for patch, outcome in ((GOLD_PATCH, Outcome.RESOLVED), (HARMLESS, Outcome.UNRESOLVED)):
            verdict = verdict_in_fresh_sandbox(instance, patch, open_docker_sandbox)
            assert verdict.outcome is outcome, verdict
    finally:
        remove(instance.image)


@pytest.mark.docker
def test_the_names_of_the_tests_are_derived_by_running_them(
    upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "gold.patch").write_text(GOLD_PATCH)
    (tmp_path / "test.patch").write_text(TEST_PATCH)
    spec = write_spec(
        tmp_path,
        upstream,
        instance_id=f"{ID}-derived",
        test="pytest -rA",
        patch="gold.patch",
        test_patch="test.patch",
    )
    rows = tmp_path / "rows.jsonl"
    run = images_build("--spec", str(spec), "--rows", str(rows))
    assert run.exit_code == 0, run.output
    (instance,) = load_instances(str(rows))
    try:
        assert instance.fail_to_pass == ("test_sizes.py::test_of_one",)
        assert instance.pass_to_pass == ("test_new.py::test_new", "test_sizes.py::test_of_nothing")
        with pytest.raises(UserError, match="no test fails before the patch and passes after it"):
            derive_tests(replace(instance, gold_patch=HARMLESS), open_docker_sandbox)
        with pytest.raises(UserError, match="its patch does not apply"):
            derive_tests(replace(instance, gold_patch=GOLD_PATCH * 2), open_docker_sandbox)
    finally:
        remove(instance.image)


@pytest.mark.docker
@pytest.mark.usefixtures("image_removed")
def test_pip_trusts_the_certificates_it_is_given_during_the_build_only(
    upstream: Upstream, tmp_path: Path
) -> None:
    certificates = tmp_path / "mine.pem"
    certificates.write_text("mine\n")
    install = ["cat $PIP_CERT >/seen", "python -m pip --version >>/seen"]
    spec = load_spec(write_spec(tmp_path, upstream, install=install))
    build_repository_image(spec, lambda _: None, certificates)
    with open_docker_sandbox(instance_of(spec)) as sandbox:
        seen = sandbox.exec("cat /seen; echo ${PIP_CERT-none}; ls /tmp/set-up").output
    assert seen.startswith("mine\npip ") and "\nnone\nls: cannot access" in seen


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", r"'base_commit' is missing; give the full id, or the --bench"),
        (f"base_commit = {'1' * 40!r}", r"'base_commit' is not that of the row"),
        ("image = 'other:1'", r"'image' is not that of the row"),
        ("test = 'true'", r"'test' is not that of the row"),
    ],
)
def test_a_spec_that_contradicts_its_row_is_refused(lines: str, said: str, tmp_path: Path) -> None:
    spec = tmp_path / "row.toml"
    spec.write_text(f"instance_id = {ID!r}\nrepository = 'https://a/b/c'\n{lines}\n")
    rows = {ID: instance_from_row(published_row(COMMIT))} if lines else {}
    with pytest.raises(UserError, match=said):
        load_spec(spec, rows)


def test_a_spec_beside_a_bench_that_has_no_row_for_it_is_refused(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, instance_id="other__one-1", repository="https://a/b/c")
    run = images_build("--bench", str(write_row(tmp_path, COMMIT)), "--spec", str(spec))
    assert isinstance(run.exception, UserError)
    assert "the bench has no row 'other__one-1'" in str(run.exception)
