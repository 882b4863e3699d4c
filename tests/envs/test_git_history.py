"""The future is gone from a repository, whatever kept it there, and the past is all there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from srl_swe.errors import SandboxError
from srl_swe.types import Instance
from srl_swe_envs.docker import DockerSandbox, open_docker_sandbox
from srl_swe_envs.limits import Limits
from srl_swe_envs.scripts import script

pytestmark = pytest.mark.docker

FOLDER = Path(__file__).parent / "git_layouts"
LAYOUTS: dict[str, str] = {}
"""By name, what makes it; the name goes on with `` -> `` and a pattern if it is refused."""
for _layout in (FOLDER / "layouts.sh").read_text("utf-8").split("\n## ")[1:]:
    _name, _, _make = _layout.partition("\n")
    assert _name not in LAYOUTS, _name
    LAYOUTS[_name] = _make
REFUSED = [name for name in LAYOUTS if " -> " in name]
OPENED = [name for name in LAYOUTS if name not in REFUSED]
WITHOUT_FUTURE = {
    "nothing to take away",
    "no repository",
    "empty git folder",
    "linked worktree without its repository",
    "submodule without its superproject",
}


@pytest.fixture(scope="module")
def reports() -> dict[str, Any]:
    """The report on each layout, all of them in one sandbox: see probe.py."""
    given = {
        "helpers": (FOLDER / "helpers.sh").read_text("utf-8"),
        "script": script("git_history.sh"),
        "layouts": list(LAYOUTS.values()),
    }
    instance = Instance("a__b-1", "a/b", "HEAD", "", "srl-swe/base:1")
    with open_docker_sandbox(instance, Limits(cpus=2)) as sandbox:
        sandbox.write_file("/tmp/given.json", json.dumps(given).encode())
        sandbox.write_file("/tmp/probe.py", (FOLDER / "probe.py").read_bytes())
        result = sandbox.exec("python3 /tmp/probe.py /tmp/given.json /tmp/reports.json", 600.0)
        assert result.exit_code == 0, result.output
        reports = json.loads(sandbox.read_file("/tmp/reports.json"))
    return dict(zip(LAYOUTS, reports, strict=True))


def test_there_are_layouts_enough() -> None:
    assert len(LAYOUTS) >= 60


@pytest.mark.parametrize("name", OPENED)
def test_the_past_is_all_that_is_left(reports: dict[str, Any], name: str) -> None:
    report = reports[name]
    assert not report["made"], report["made"]
    assert bool(report["planted"]) == (name not in WITHOUT_FUTURE)
    assert report["exit"] == 0, report["output"]
    assert report["left"] == []
    assert report["lost"] == []
    assert report["tree_changed"] == []
    assert report["check"] == ""
    assert report["use"] == ""
    assert report["references"] == []
    assert report["again"] == [0, "whole\n"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_taken_back_is_refused_with_the_reason(
    reports: dict[str, Any], name: str
) -> None:
    report = reports[name]
    assert not report["made"], report["made"]
    assert report["exit"] == 1
    assert re.search(name.partition(" -> ")[2], report["output"]), report["output"]


@pytest.fixture
def make_layout(make_instance: Callable[..., Instance]) -> Callable[..., Instance]:
    """Makes an instance whose repository is made as a layout is, its base commit in /base."""

    def make(layout: str, base_commit: str = "HEAD", bug_patch: str = "") -> Instance:
        helpers = (FOLDER / "helpers.sh").read_text("utf-8")
        seeded = f"{helpers}\nmkdir /l; cd /l; (seed r); here=/l base=$(git -C r rev-parse HEAD)"
        begin = f"cd /; {seeded.replace('../past', '/l/past')}; cd r; echo $base >/base"
        end = "rm -rf /testbed; mv /l/r /testbed"
        return make_instance(f"{begin}\n{layout}\n{end}", base_commit, bug_patch)

    return make


BRANCHES_AND_TAGS = """
git branch later "$(commit)"; git tag v9 "$(commit)"; git update-ref refs/stash "$(commit)"
git worktree add -q ../wt "$(commit)"; git notes add -m "$secret"; blob | packed >../pack
touch .git/objects/pack/pack-$(<../pack).keep; echo "$secret" >.git/COMMIT_EDITMSG
"""
EVERYTHING = "git cat-file --batch-all-objects --batch | grep -ac SECRET; git tag; git branch"


def test_a_plain_clone_opens_and_has_the_versions_of_the_past(
    make_layout: Callable[..., Instance],
) -> None:
    clone = LAYOUTS["plain clone at the base commit"]
    with open_docker_sandbox(make_layout(clone)) as sandbox:
        assert sandbox.exec(EVERYTHING).output == "0\nv1\nv1-again\nv1.1\n  old\n* trunk\n"
        assert sandbox.exec("git describe --tags").output.startswith("v1.1-1-g")
        assert sandbox.exec("git remote; git stash list; git status --short").output == ""


def test_every_container_of_an_image_is_cleaned(make_layout: Callable[..., Instance]) -> None:
    for layout in ("echo $secret >.git/COMMIT_EDITMSG", BRANCHES_AND_TAGS):
        instance = make_layout(layout)
        for _ in range(2):
            with open_docker_sandbox(instance) as sandbox:
                assert sandbox.exec(EVERYTHING).output.startswith("0\nv1\n")
                assert sandbox.exec("cat .git/COMMIT_EDITMSG").exit_code == 1


def test_the_walk_is_left_out_only_if_the_image_is_known(sandbox: DockerSandbox) -> None:
    sandbox.exec("git init -q; git commit -q --allow-empty -m x; git gc -q")
    blob = sandbox.exec("echo later | git hash-object -w --stdin").output.strip()
    for known, printed, left in (("whole", "whole\n", 0), ("''", "\n", 128), ("", "whole\n", 128)):
        command = f"set -- $PWD HEAD {known}\n{script('git_history.sh')}"
        assert sandbox.exec(command, keep_state=False).output == printed
        assert sandbox.exec(f"git cat-file -t {blob}").exit_code == left


def test_a_repository_that_can_not_be_taken_back_is_no_sandbox(
    make_layout: Callable[..., Instance],
) -> None:
    damaged = next(LAYOUTS[name] for name in REFUSED if name.startswith("missing tree"))
    with (
        pytest.raises(SandboxError, match=r"bad tree object[^$]*objects of the past are missing"),
        open_docker_sandbox(make_layout(damaged)),
    ):
        pass


def test_a_bug_is_a_commit_by_itself_whatever_the_image_holds(
    make_layout: Callable[..., Instance],
) -> None:
    staged = "git checkout -q file; echo $secret >new; git add new; chown -R 1000 ."
    hook = "printf '#!/bin/sh\\nexit 1\\n' >.git/hooks/reference-transaction; chmod +x .git/hooks/*"
    bug = "--- a/dir/other1\n+++ b/dir/other1\n@@ -1 +1 @@\n-of day 1\n+of day one\n"
    instance = make_layout(f"{BRANCHES_AND_TAGS}\n{staged}\n{hook}", "a__b.func__1", bug)
    with open_docker_sandbox(instance) as sandbox:
        sandbox.exec("git config --global --add safe.directory '*'")
        assert sandbox.exec(EVERYTHING).output == "0\na__b.func__1\n* main\n"
        commits = "git log --all --format=%s; git cat-file --batch-all-objects --batch-check"
        assert sandbox.exec(f"({commits}) | grep -c -e commit -e task -e tag").output == "2\n"
        assert sandbox.exec("cat dir/other1; git status --short").output == (
            "of day one\n?? new\n?? untracked\n"
        )
