"""A patch is taken whatever was done to repository, files and programs of the sandbox."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from typing import Protocol

import pytest

from srl_swe.dialects import ReplyFormat, get_dialect
from srl_swe.errors import SandboxError
from srl_swe.instances import load_instances
from srl_swe.replay import replay_trajectory
from srl_swe.replay.run import with_fresh_observations
from srl_swe.rollout.episode import Agent, Rules, rollout
from srl_swe.sandbox import MAX_PATCH_BYTES, Patch, Sandbox, take_patch
from srl_swe.sandbox.patches import plain_diff
from srl_swe.sandbox.working_tree import Blob, Change
from srl_swe.testing import ScriptedPolicy
from srl_swe.types import Action, Instance, Observation, Step, StopReason, Trajectory
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.limits import Limits
from srl_swe_envs.local import open_local_sandbox

pytestmark = pytest.mark.slow


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


def each_of(table: Mapping[str, str]) -> pytest.MarkDecorator:
    """Runs the test with each command, by the name of its effect."""
    return pytest.mark.parametrize("ruin", table.values(), ids=table.keys())


def detail_of_surviving(sandbox: Sandbox, judge: Sandbox, ruin: str) -> str:
    """The patch's detail, once its text is found to hold the fix in spite of the ruin."""
    sandbox.exec(FIX)
    sandbox.exec(ruin, timeout_s=120)
    patch = take(sandbox)
    text = text_of(patch)
    sandbox.exec("kill %% 2>/dev/null")
    assert "\n+# the fix\n" in text
    assert "\n+new = 1\n" in text
    assert len(text) < 2**20
    assert ".git/" not in text
    assert {f"M\t{FIXED}", "A\tadded.py"} <= applied(judge, text)
    return patch.detail


@each_of(
    {
        "nothing": "true",
        "an empty git init": "git init -q scratch",
        "a git init with files": "git init -q scratch; echo 1 >scratch/file",
        "a git init with a commit": (
            "git init -q s; cd s; echo 1 >f; git add f;"
            "git -c user.name=n -c user.email=e commit -qm m"
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
        "a .git that leads elsewhere": ("mv .git /tmp/moved.$$; echo gitdir: /tmp/moved.$$ >.git"),
        "everything committed": (
            "git add -A; git -c user.name=n -c user.email=e commit -qm mine; git tag later"
        ),
        "everything staged": "git add -A",
        "everything stashed and restored": (
            "git -c user.name=n -c user.email=e stash -qu; git stash pop -q"
        ),
        "unchanged by decree": f"git update-index --assume-unchanged {FIXED}",
        "skipped by decree": f"git update-index --skip-worktree {FIXED}",
        "a sparse checkout": (
            "git config core.sparseCheckout true; echo /x >.git/info/sparse-checkout"
        ),
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
            "git config color.ui always; git config diff.noprefix true;git config core.quotePath no"
        ),
        "a shell of other words": (
            "git() { echo no; }; command() { echo no; }; env() { echo no; }; set -euf; alias rm=ls;"
            "export GIT_DIR=/nowhere GIT_INDEX_FILE=/nowhere PATH=/usr/bin:/bin LD_LIBRARY_PATH=/x;"
            "IFS=0; umask 777; cd /"
        ),
        "no PATH": "export PATH=/nonexistent",
        "a pipe": "mkfifo pipe",
        "a socket": "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'",
        "links in a circle": "ln -s loop loop; mkdir d; ln -s ../d d/d; ln -s . here",
        "files that can't be read": "echo x >secret; chmod 0 secret",
        "names like options": "echo x >--help; echo x >-z; mkdir -- --cached; echo x >--cached/-rf",
        "names with newlines": "echo x >$'new\\nline\\n'; mkdir $'a\\nb'; echo x >$'a\\nb/\\tc\"'",
        "names that are not UTF-8": "echo x >$'caf\\xe9'; echo x >$'\\xff\\xfe'",
        "contents that are not UTF-8": (
            "printf 'caf\\xe9\\n' >latin; printf 'a\\0b\\xff' >binary.dat"
        ),
        "a large leftover": "head -c 50M /dev/urandom >leftover.bin",
        "a large text": "yes | head -c 50M >leftover.txt",
        "many files": "mkdir junk; cd junk; seq 3000 | split -l 1 -a 4 - n",
        "many folders": "for i in $(seq 400); do mkdir -p junk/$i; echo x >junk/$i/f; done",
        "an environment": "mkdir -p e/lib; touch e/pyvenv.cfg; echo x >e/lib/a.py",
        "a file that grows": (
            "(while sleep 0.01; do echo more >>growing.txt; done) >/dev/null 2>&1 &"
        ),
    }
)
def test_the_fix_survives(sandbox: Sandbox, judge: Sandbox, ruin: str) -> None:
    assert detail_of_surviving(sandbox, judge, ruin) == ""


@each_of(
    {
        "no .git": "rm -rf .git",
        "another repository": (
            "rm -rf .git; git init -q; git add -A;"
            "git -c user.name=n -c user.email=e commit -qm mine"
        ),
        "a .git that is a file": "rm -rf .git; echo garbage >.git",
        "no objects": "rm -rf .git/objects; mkdir .git/objects",
        "one object lost": (
            "git repack -q -a -d; "
            "git unpack-objects -q <$(ls .git/objects/pack/*.pack) 2>/dev/null;"
            f"o=$(git rev-parse HEAD:{FIXED}); mkdir .git/new; mv .git/objects/pack/* .git/new;"
            "for p in .git/new/*.pack; do git unpack-objects -q <$p; done;"
            "rm -f .git/objects/${o:0:2}/${o:2}"
        ),
        "a pipe that ignores": "rm -f .gitignore; mkfifo .gitignore",
    }
)
def test_the_fix_survives_in_a_fresh_sandbox(sandbox: Sandbox, judge: Sandbox, ruin: str) -> None:
    assert "moved to a fresh sandbox" in detail_of_surviving(sandbox, judge, ruin)


EVIL = """\
diff --git a/.git/hooks/post-checkout b/.git/hooks/post-checkout
new file mode 100755
--- /dev/null
+++ b/.git/hooks/post-checkout
@@ -0,0 +1,2 @@
+#!/bin/sh
+touch /pwned
"""
FAKE_GIT = f"""
cat >/tmp/evil <<'EOF'
{EVIL}EOF
mv $(command -v git) /tmp/real_git
"""
SAYS_EVIL = "printf '#!/bin/sh\ncat /tmp/evil\n' >/usr/bin/git; chmod +x /usr/bin/git"
LISTS_EVIL = r"""
cat >/usr/bin/git <<'EOF'
#!/bin/bash
case "$*" in
status*) /tmp/real_git "$@"; printf '? %s\0' .git/hooks/post-checkout ../outside /etc/passwd \
    a/../../b .GIT/config 'git~1/config' sub/.git/config '.git /x' 'a\..\b' ;;
diff-index*) /tmp/real_git "$@"
    blob=$(printf '#!/bin/sh\n' | /tmp/real_git hash-object -w --stdin)
    for path in .git/hooks/post-checkout ../outside /etc/passwd; do
        printf ':000000 100755 %040d %s A\0%s\0' 0 "$blob" "$path"
    done ;;
*) exec /tmp/real_git "$@" ;;
esac
EOF
chmod +x /usr/bin/git
"""


@pytest.mark.docker
@each_of(
    {
        "git prints a diff": FAKE_GIT + SAYS_EVIL,
        "git lists paths outside": FAKE_GIT + LISTS_EVIL,
        "git fails": "printf '#!/bin/sh\nexit 1\n' >/usr/bin/git",
        "git succeeds": "printf '#!/bin/sh\nexit 0\n' >/usr/bin/git",
        "no git": "rm /usr/bin/git",
        "no tools": "rm /usr/bin/{git,tar,find,stat,xargs,env,head,cp,mv,mkdir,rm}",
        "tar and find": (
            "for tool in tar find stat xargs; do"
            " printf '#!/bin/sh\ncat /tmp/evil\n' >/usr/bin/$tool; done"
        ),
        "no temporary folder": "rm -rf /tmp; ln -s /nowhere /tmp",
        "no null device": "rm /dev/null",
    }
)
def test_the_fix_survives_the_replacement_of_programs(judge: Sandbox, ruin: str) -> None:
    with open_docker_sandbox(INSTANCE) as sandbox:
        sandbox.exec(FIX)
        sandbox.exec(ruin)
        text = text_of(take_patch(sandbox, INSTANCE.base_commit, INSTANCE.workdir))
    assert "\n+# the fix\n" in text
    assert {f"M\t{FIXED}", "A\tadded.py"} == applied(judge, text)


@pytest.mark.docker
def test_a_fork_hands_in_what_came_before_it_as_well(judge: Sandbox) -> None:
    with open_docker_sandbox(INSTANCE) as sandbox:
        sandbox.exec(FIX)
        with closing(sandbox.fork(sandbox.checkpoint())) as fork:
            fork.exec("rm -rf .git; echo 1 >later.py")
            patch = take_patch(fork, INSTANCE.base_commit, INSTANCE.workdir)
    assert applied(judge, text_of(patch)) == {f"M\t{FIXED}", "A\tadded.py", "A\tlater.py"}


def commit(sandbox: Sandbox, files: Mapping[str, bytes]) -> str:
    """The id of a first commit of these files in the sandbox's folder."""
    for path, data in files.items():
        sandbox.write_file(path, data)
    done = sandbox.exec(
        "git init -q; git add -A; git -c user.name=n -c user.email=e commit -qm m;"
        "git rev-parse HEAD"
    )
    return done.output.strip()


@pytest.mark.docker
def test_a_large_tracked_file_is_not_deleted_by_moving_the_others(
    make_instance: Callable[..., Instance],
) -> None:
    instance = make_instance(
        "cd /testbed; git init -q .; head -c 17M /dev/zero >large; echo 1 >small; git add -A;"
        "git commit -qm base"
    )
    with open_docker_sandbox(instance) as sandbox:
        base = sandbox.exec("git rev-parse HEAD").output.strip()
        sandbox.exec("echo 2 >small; rm -rf .git/objects/*")
        patch = take_patch(sandbox, base, "/testbed")
    assert text_of(patch).count("diff --git") == 1
    assert "moved" in patch.detail


def test_files_that_were_deleted_renamed_or_made_executable(
    sandbox: Sandbox, judge: Sandbox
) -> None:
    sandbox.exec("git mv inikit/__init__.py inikit/moved.py; chmod +x inikit/*.py; rm -r tests")
    text = text_of(take(sandbox))
    assert "rename from inikit/__init__.py\nrename to inikit/moved.py\n" in text
    assert "new mode 100755" in text
    lines = applied(judge, text)
    assert any(line.startswith("R") for line in lines)
    assert any(line.startswith("D\ttests/") for line in lines)


def test_a_file_becomes_a_folder_and_a_folder_a_link(sandbox: Sandbox, judge: Sandbox) -> None:
    sandbox.exec(
        "rm inikit/__init__.py; mkdir inikit/__init__.py; echo 1 >inikit/__init__.py/x;"
        "rm -r tests; ln -s inikit tests"
    )
    lines = applied(judge, text_of(take(sandbox)))
    assert "A\ttests" in lines
    assert "A\tinikit/__init__.py/x" in lines


def test_what_git_ignores_stays_ignored_and_the_exclude_file_counts(sandbox: Sandbox) -> None:
    sandbox.exec(
        "echo '*.secret' >>.gitignore; echo x >a.secret; mkdir -p .git/info;"
        "echo kept.out >>.git/info/exclude; echo x >kept.out; echo x >b.out"
    )
    text = text_of(take(sandbox))
    assert "b/.gitignore" in text
    assert "b/b.out" in text
    assert "a.secret b/" not in text
    assert "kept.out" not in text


def test_leftovers_are_left_out_and_recorded(sandbox: Sandbox, judge: Sandbox) -> None:
    sandbox.exec(FIX)
    sandbox.exec(
        "head -c 50M /dev/zero >leftover.bin; head -c 200000 /dev/urandom >some.dat;"
        "mkdir -p node_modules/a node_modules/b; touch node_modules/{a,b}/index.js a.orig;"
        "ln -s /etc/passwd passwd; ln -s ../.. up; ln -s .git/config config; ln -s inikit fine"
    )
    patch = take(sandbox)
    assert applied(judge, text_of(patch)) == {f"M\t{FIXED}", "A\tadded.py", "A\tfine"}
    assert {note.removeprefix("left out of the patch: ") for note in patch.notes} == {
        "leftover.bin (52428800 bytes; at most 1048576 are taken)",
        "some.dat (200000 bytes; at most 102400 are taken)",
        "node_modules/ (environment, 2 files)",
        "a.orig (backup)",
        "passwd (a link out of the repository)",
        "up (a link out of the repository)",
        "config (a link out of the repository)",
    }


def test_what_is_wanted_is_not_left_out_for_its_name_or_size(sandbox: Sandbox) -> None:
    sandbox.exec("echo x >a.log; yes | head -c 2M >large.txt; echo x >b.log")
    wanted = ("a.log", "large.txt")
    patch = take_patch(sandbox, INSTANCE.base_commit, INSTANCE.workdir, wanted)
    assert "b/a.log" in text_of(patch)
    assert "b/large.txt" in text_of(patch)
    assert "b/b.log" not in text_of(patch)


def test_a_tracked_file_that_is_not_utf_8_is_patched_byte_for_byte() -> None:
    with open_local_sandbox() as sandbox:
        base = commit(sandbox, {"latin.txt": b"caf\xe9\none\n", "plain.py": b"a\n"})
        sandbox.write_file("latin.txt", b"caf\xe9\ntwo\n")
        sandbox.exec("echo b >plain.py")
        text = text_of(take_patch(sandbox, base, "/testbed"))
        sandbox.write_file("/tmp/the.patch", text.encode())
        assert sandbox.exec("git checkout -q . && git apply /tmp/the.patch").exit_code == 0
        assert sandbox.read_file("latin.txt") == b"caf\xe9\ntwo\n"
    assert "GIT binary patch" in text
    assert "\n-a\n+b\n" in text


def test_text_that_is_not_utf_8_only_where_nothing_changed_stays_text() -> None:
    with open_local_sandbox() as sandbox:
        base = commit(sandbox, {"latin.txt": b"caf\xe9\n" + b"same\n" * 9 + b"one\n"})
        sandbox.exec("sed -i s/one/two/ latin.txt")
        text = text_of(take_patch(sandbox, base, "/testbed"))
    assert "\n-one\n+two\n" in text


def test_the_largest_changes_are_left_out_of_a_patch_that_is_too_large() -> None:
    noise = random.Random(0)
    large = {f"f{i}": noise.randbytes(3 * 2**20).hex().encode() for i in range(2)}
    with open_local_sandbox() as sandbox:
        base = commit(sandbox, large | {"small": b"a\n"})
        sandbox.exec(
            "for f in f0 f1; do tr 0-9 1-90 <$f >x; mv x $f; done; echo b >small; echo c >new"
        )
        patch = take_patch(sandbox, base, "/testbed")
    assert len(text_of(patch)) <= MAX_PATCH_BYTES
    assert "\n-a\n+b\n" in text_of(patch)
    assert "\n+c\n" in text_of(patch)
    assert {note.path for note in patch.omitted} == {"f0", "f1"}


def test_more_than_can_be_read_leaves_out_the_large_files() -> None:
    with open_local_sandbox() as sandbox:
        base = commit(sandbox, {"z": b"a\n"} | {f"f{i}": b"%d" % i * 7_000_000 for i in range(7)})
        sandbox.exec("for f in f?; do echo >>$f; done; echo b >z")
        patch = take_patch(sandbox, base, "/testbed")
    assert "\n-a\n+b\n" in text_of(patch)
    assert {note.path for note in patch.omitted} == {f"f{i}" for i in range(7)}


def test_a_list_of_names_that_can_not_be_read_leaves_out_new_folders() -> None:
    crowd = (
        "import os\nos.mkdir('junk')\nos.chdir('junk')\n"
        "for i in range(15):\n os.mkdir('d' * 250)\n os.chdir('d' * 250)\n"
        "for i in range(18000):\n open(f'{i}', 'w')\n"
    )
    with open_local_sandbox() as sandbox:
        base = commit(sandbox, {"x.py": b"1\n"})
        sandbox.write_file("/tmp/crowd.py", crowd.encode())
        sandbox.exec("python /tmp/crowd.py; echo 2 >x.py; echo 3 >new.py", timeout_s=100)
        patch = take_patch(sandbox, base, "/testbed")
    assert "\n-1\n+2\n" in text_of(patch)
    assert "b/new.py" in text_of(patch)
    assert [item.path for item in patch.omitted] == ["junk/"]


@pytest.mark.parametrize(
    ("prepared", "workdir"),
    [("mkdir /testbed/a", "/testbed/a"), ("git worktree add -q /testbed/l", "/testbed/l")],
    ids=["below the top", "linked worktree"],
)
def test_a_working_folder_may_lie_elsewhere(prepared: str, workdir: str) -> None:
    with open_local_sandbox() as sandbox:
        base = commit(sandbox, {"x.py": b"1\n"})
        sandbox.exec(f"{prepared}; echo 2 >{workdir}/new.py")
        text = text_of(take_patch(sandbox, base, workdir))
    assert "new.py" in text


def test_a_base_commit_may_have_a_name(sandbox: Sandbox) -> None:
    sandbox.exec("git tag start; git pack-refs --all")
    sandbox.exec(f"{FIX}; git add -A; git -c user.name=n -c user.email=e commit -qm mine")
    for name in ("start", "HEAD~1"):
        text = take_patch(sandbox, name, INSTANCE.workdir).text
        assert text is not None and "+# the fix" in text


@pytest.mark.docker
def test_a_sandbox_that_cuts_the_output_of_commands_gives_the_same_patch(sandbox: Sandbox) -> None:
    sandbox.exec(FIX)
    with open_docker_sandbox(INSTANCE, Limits(output_chars=60)) as cutting:
        cutting.exec(FIX)
        assert take(cutting) == take(sandbox)


def test_the_policys_index_and_working_tree_are_left_as_they_are(sandbox: Sandbox) -> None:
    sandbox.exec(f"{FIX}; git add added.py")
    seen = "git status --short; git ls-files --stage; find . -path ./.git -prune -o -ls; ls -a .git"
    before = sandbox.exec(seen).output
    take(sandbox)
    assert sandbox.exec(seen).output == before


def test_nothing_to_salvage_is_none_with_the_reason() -> None:
    with open_local_sandbox() as sandbox:
        patch = take_patch(sandbox, "HEAD", "/testbed")
    assert (patch.text, patch.omitted) == (None, ())
    assert patch.notes == ("patch: there is no repository",)


@pytest.mark.docker
def test_a_working_folder_that_is_gone_is_none_with_the_reason() -> None:
    for ruin in ("rm -rf /testbed", "rm -rf /testbed; ln -s /etc /testbed"):
        with open_docker_sandbox(INSTANCE) as sandbox:
            sandbox.exec(f"cd /; {ruin}")
            patch = take_patch(sandbox, INSTANCE.base_commit, INSTANCE.workdir)
        assert patch.text is None
        assert "/testbed" in patch.detail or "testbed is no longer a folder" in patch.detail


def test_a_closed_sandbox_is_an_infrastructure_failure() -> None:
    with open_local_sandbox(INSTANCE) as sandbox:
        sandbox.close()
        with pytest.raises(SandboxError):
            take_patch(sandbox, INSTANCE.base_commit, INSTANCE.workdir)


def run(command: str) -> Step:
    return Step("t", Action("bash", {"command": command}), Observation("", exit_code=0))


def test_a_rollout_notes_what_was_left_out_of_its_patch() -> None:
    reply = "<function=bash>\n<parameter=command>{}</parameter>\n</function>"
    replies = (reply.format(f"{FIX}; touch a.orig"), "<function=submit>\n</function>")
    agent = Agent(ScriptedPolicy(replies), Rules(ReplyFormat(get_dialect("xml"), "lenient")))
    with open_local_sandbox(INSTANCE) as sandbox:
        record = rollout(agent, INSTANCE, sandbox)
    assert record.stop_reason is StopReason.SUBMITTED
    assert record.patch is not None and "+# the fix" in record.patch
    assert record.notes == ("left out of the patch: a.orig (backup)",)


def test_a_replay_takes_the_files_that_the_recorded_patch_has() -> None:
    recorded = plain_diff([Change(b"a.log", None, Blob("100644", b"1\n"))]).decode()
    steps = (run("echo 1 >a.log; echo 1 >b.log"),)
    with open_local_sandbox(INSTANCE) as sandbox:
        trajectory = Trajectory(INSTANCE.instance_id, steps, patch=recorded)
        replayed = replay_trajectory(trajectory, INSTANCE, sandbox)
    assert replayed.faithful
    assert replayed.notes == ("left out of the patch: b.log (log or dump)",)
    assert with_fresh_observations(trajectory, replayed).notes == replayed.notes
