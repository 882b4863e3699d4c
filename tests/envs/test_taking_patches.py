"""A patch is taken whatever was done to repository, files and programs of the sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import pytest

from srl_swe.instances import load_instances
from srl_swe.sandbox import Patch, Sandbox, take_patch
from srl_swe.types import Instance
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.local import open_local_sandbox

INSTANCE = next(i for i in load_instances("starter") if i.instance_id.startswith("starter__inikit"))
FIXED = "inikit/__init__.py"
FIX = f"echo '# the fix' >>{FIXED}; printf 'new = 1\\n' >added.py"


class Opened(Protocol):
    """Opens a sandbox of the instance."""

    def __call__(self, instance: Instance) -> AbstractContextManager[Sandbox]: ...


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(open_local_sandbox, id="local"),
        pytest.param(open_docker_sandbox, id="docker", marks=pytest.mark.docker),
    ],
)
def opened(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """One that goes through the whole table, with a copy of its files."""
    opener: Opened = request.param
    with opener(INSTANCE) as sandbox:
        sandbox.exec("cp -a /testbed /tmp/pristine; export USUAL_PATH=$PATH")
        yield sandbox


@pytest.fixture
def sandbox(opened: Sandbox) -> Sandbox:
    """In the working folder as it was at the start, in a new shell."""
    opened.exec(r"\exit")
    restored = opened.exec(
        "export PATH=$USUAL_PATH; umask 022; unset GIT_DIR GIT_INDEX_FILE LD_LIBRARY_PATH;"
        "cd /tmp; chmod -R u+rwX /testbed; find /testbed -mindepth 1 -delete; "
        "cp -a /tmp/pristine/. /testbed; cd /testbed && git status --short"
    )
    assert (restored.output, restored.exit_code) == ("", 0)
    return opened


def take(sandbox: Sandbox) -> Patch:
    patch = take_patch(sandbox, INSTANCE.base_commit, INSTANCE.workdir)
    folders = sandbox.exec("ls -d /tmp/.srl_swe.* 2>/dev/null").output
    assert folders == "", "nothing is left in the sandbox"
    return patch


def text_of(patch: Patch) -> str:
    """The text, once it is known to fit into a prediction."""
    assert patch.text is not None, patch.detail
    json.dumps(patch.text, ensure_ascii=False).encode("utf-8")
    json.dumps(patch.notes, ensure_ascii=False).encode("utf-8")
    return patch.text


@pytest.fixture(scope="module")
def judge() -> Iterator[Sandbox]:
    """A repository of the instance that nothing happens to but patches."""
    with open_local_sandbox(INSTANCE) as sandbox:
        yield sandbox


def applied(judge: Sandbox, patch: str) -> set[str]:
    """The lines of ``git diff --name-status`` after ``git apply``."""
    judge.write_file("/tmp/the.patch", patch.encode())
    done = judge.exec("git reset -q --hard; git clean -qfdx; git apply --index /tmp/the.patch")
    assert done.exit_code == 0, done.output
    return set(judge.exec("git diff --cached --name-status HEAD").output.splitlines())


RUINED = {
    "nothing": "true",
    "an empty git init": "git init -q scratch",
    "a git init with files": "git init -q scratch; echo 1 >scratch/file",
    "a git init with a commit": (
        "git init -q s; cd s; echo 1 >f; git add f; git -c user.name=n -c user.email=e commit -qm m"
    ),
    "a git init among the sources": "git init -q inikit",
    "locks": "touch .git/index.lock .git/HEAD.lock .git/config.lock .git/shallow.lock",
    "a damaged index": "echo garbage >.git/index",
    "no index": "rm .git/index",
    "an index that is a folder": "rm .git/index; mkdir .git/index",
    "no HEAD": "rm .git/HEAD",
    "a HEAD that leads nowhere": "echo ref: refs/heads/none >.git/HEAD",
    "a damaged configuration": "echo '[core' >.git/config",
    "a configuration of another format": "git config core.repositoryFormatVersion 99",
    "a bare repository": "git config core.bare true",
    "another work tree": "git config core.worktree /tmp",
    "no .git": "rm -rf .git",
    "another repository": (
        "rm -rf .git; git init -q; git add -A; git -c user.name=n -c user.email=e commit -qm mine"
    ),
    "a .git that is a file": "rm -rf .git; echo garbage >.git",
    "a .git that leads elsewhere": "mv .git /tmp/moved.$$; echo gitdir: /tmp/moved.$$ >.git",
    "no objects": "rm -rf .git/objects; mkdir .git/objects",
    "one object lost": (
        "git repack -q -a -d; git unpack-objects -q <$(ls .git/objects/pack/*.pack) 2>/dev/null;"
        f"o=$(git rev-parse HEAD:{FIXED}); mkdir .git/new; mv .git/objects/pack/* .git/new;"
        "for p in .git/new/*.pack; do git unpack-objects -q <$p; done;"
        "rm -f .git/objects/${o:0:2}/${o:2}"
    ),
    "everything committed": (
        "git add -A; git -c user.name=n -c user.email=e commit -qm mine; git tag later"
    ),
    "everything staged": "git add -A",
    "everything stashed and restored": (
        "git -c user.name=n -c user.email=e stash -qu; git stash pop -q"
    ),
    "unchanged by decree": f"git update-index --assume-unchanged {FIXED}",
    "skipped by decree": f"git update-index --skip-worktree {FIXED}",
    "a sparse checkout": "git config core.sparseCheckout true; echo /x >.git/info/sparse-checkout",
    "a shallow file": "echo garbage >.git/shallow",
    "a graft and a replacement": (
        "mkdir -p .git/info; git rev-parse HEAD >.git/info/grafts;"
        f"git replace -f $(git rev-parse HEAD:{FIXED}) $(git hash-object -w --stdin </dev/null)"
    ),
    "a filter": (
        "git config filter.x.clean 'echo filtered'; git config filter.x.required true;"
        "mkdir -p .git/info; echo '* filter=x' >.git/info/attributes"
    ),
    "text conversion and an external diff": (
        "git config diff.x.textconv 'echo no'; git config diff.external /bin/false;"
        "mkdir -p .git/info; echo '* diff=x' >.git/info/attributes"
    ),
    "a file system monitor": "git config core.fsmonitor 'touch /tmp/monitored.$$; false'",
    "colours and prefixes": (
        "git config color.ui always; git config diff.noprefix true; git config core.quotePath no"
    ),
    "a shell of other words": (
        "git() { echo no; }; command() { echo no; }; env() { echo no; }; set -euf; alias rm=ls;"
        "export GIT_DIR=/nowhere GIT_INDEX_FILE=/nowhere PATH=/usr/bin:/bin LD_LIBRARY_PATH=/x;"
        "IFS=0; umask 777; cd /"
    ),
    "no PATH": "export PATH=/nonexistent",
    "a pipe": "mkfifo pipe",
    "a pipe that ignores": "rm -f .gitignore; mkfifo .gitignore",
    "a socket": "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'",
    "links in a circle": "ln -s loop loop; mkdir d; ln -s ../d d/d; ln -s . here",
    "files that can't be read": "echo x >secret; chmod 0 secret",
    "names like options": "echo x >--help; echo x >-z; mkdir -- --cached; echo x >--cached/-rf",
    "names with newlines": "echo x >$'new\\nline\\n'; mkdir $'a\\nb'; echo x >$'a\\nb/\\tc\"'",
    "names that are not UTF-8": "echo x >$'caf\\xe9'; echo x >$'\\xff\\xfe'",
    "contents that are not UTF-8": "printf 'caf\\xe9\\n' >latin; printf 'a\\0b\\xff' >binary.dat",
    "a large leftover": "head -c 50M /dev/urandom >leftover.bin",
    "a large text": "yes | head -c 50M >leftover.txt",
    "many files": "mkdir junk; cd junk; seq 3000 | split -l 1 -a 4 - n",
    "many folders": "for i in $(seq 400); do mkdir -p junk/$i; echo x >junk/$i/f; done",
    "an environment": "mkdir -p e/lib; touch e/pyvenv.cfg; echo x >e/lib/a.py",
    "a file that grows": "(while sleep 0.01; do echo more >>growing.txt; done) >/dev/null 2>&1 &",
}


MOVED = {
    *("no .git", "another repository", "a .git that is a file", "no objects", "one object lost"),
    *("a pipe that ignores",),
}
"""Those for which the files have to be moved to a fresh sandbox."""


@pytest.mark.parametrize("name", RUINED)
def test_the_fix_survives(sandbox: Sandbox, judge: Sandbox, name: str) -> None:
    sandbox.exec(FIX)
    sandbox.exec(RUINED[name], timeout_s=120)
    patch = take(sandbox)
    text = text_of(patch)
    sandbox.exec("kill %% 2>/dev/null")
    assert "\n+# the fix\n" in text
    assert "\n+new = 1\n" in text
    assert len(text) < 2**20
    assert ".git/" not in text
    assert {f"M\t{FIXED}", "A\tadded.py"} <= applied(judge, text)
    assert ("moved to a fresh sandbox" in patch.detail) == (name in MOVED), patch.detail
