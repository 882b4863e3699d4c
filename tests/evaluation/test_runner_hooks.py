from __future__ import annotations

from collections.abc import Iterator

import pytest

from srl_swe.errors import SandboxError
from srl_swe.evaluation.runner_hooks import (
    RUNNER_HOOKS,
    Protected,
    protected_files,
    restore_runner_hooks,
    same_runner_settings,
    save_runner_hooks,
)
from srl_swe.sandbox import Sandbox
from srl_swe.types import Instance
from srl_swe_envs.local import open_local_sandbox

pytestmark = pytest.mark.slow


WORKDIR = "/testbed"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A repository with a hook of its own, before a patch is applied."""
    with open_local_sandbox() as sandbox:
        sandbox.exec("mkdir tests 'a b'; echo own >tests/conftest.py; echo code >code.py")
        save_runner_hooks(sandbox, WORKDIR, Protected())
        yield sandbox


def files(sandbox: Sandbox) -> str:
    return sandbox.exec("find . -path ./.git -prune -o -type f -print -o -type l -print").output


@pytest.mark.parametrize("name", RUNNER_HOOKS)
def test_a_hook_that_a_patch_adds_is_gone_wherever_it_lies(sandbox: Sandbox, name: str) -> None:
    before = files(sandbox)
    sandbox.exec(f"touch {name} 'a b/{name}'; mkdir -p x/y; ln -s ../../code.py x/y/{name}")
    restore_runner_hooks(sandbox, WORKDIR, Protected())
    assert files(sandbox) == before


@pytest.mark.parametrize(
    "change",
    [
        "echo other >tests/conftest.py",
        "rm tests/conftest.py",
        "mv tests/conftest.py tests/renamed.py",
        "rm tests/conftest.py; mkdir tests/conftest.py; touch tests/conftest.py/__init__.py",
        "rm -r tests; ln -s 'a b' tests",
    ],
)
def test_a_hook_that_was_there_is_as_it_was(sandbox: Sandbox, change: str) -> None:
    sandbox.exec(f"{change}; echo fixed >code.py")
    restore_runner_hooks(sandbox, WORKDIR, Protected())
    assert sandbox.exec("cat tests/conftest.py code.py").output == "own\nfixed\n"


def test_the_gold_patchs_own_hooks_may_be_changed(sandbox: Sandbox) -> None:
    sandbox.exec("echo mine >tests/conftest.py; echo mine >conftest.py")
    restore_runner_hooks(sandbox, WORKDIR, Protected(free=frozenset({"tests/conftest.py"})))
    assert sandbox.exec("cat tests/conftest.py").output == "mine\n"
    assert sandbox.exec("test ! -e conftest.py").exit_code == 0


def test_a_hook_of_the_gold_patch_may_have_any_name() -> None:
    path = "tests/[a]/conftest.py"
    with open_local_sandbox() as sandbox:
        sandbox.exec(f"mkdir -p 'tests/[a]'; echo own >'{path}'")
        save_runner_hooks(sandbox, WORKDIR, Protected())
        sandbox.exec(f"echo mine >'{path}'")
        restore_runner_hooks(sandbox, WORKDIR, Protected(free=frozenset({path})))
        assert sandbox.exec(f"cat '{path}'").output == "mine\n"


def test_what_can_not_be_put_back_is_the_sandboxs_fault(sandbox: Sandbox) -> None:
    sandbox.exec("rm /tmp/.srl_swe_hooks.tar")
    with pytest.raises(SandboxError, match="can't be restored"):
        restore_runner_hooks(sandbox, WORKDIR, Protected())


INSTANCE = Instance(
    "o__r-1",
    "o/r",
    "0" * 40,
    "p",
    "image",
    gold_patch="--- a/pkg/x.py\n+++ b/pkg/x.py\n--- a/tests/data/y\n+++ b/tests/data/y\n",
    test_patch="--- a/tests/deep/test_x.py\n+++ b/tests/deep/test_x.py\n",
    fail_to_pass=("pkg/tests/test_z.py::test_a", "test_b (pkg.B)"),
    pass_to_pass=("flat_check.py::test_c",),
    eval_script="cd /testbed\ngit apply - <<'E'\n+++ b/hidden.py\nE\n./bin/test -C x && make.sh\n",
)


def test_the_files_of_an_instance_that_are_put_back() -> None:
    protected = protected_files(INSTANCE)
    assert protected.roots == ("pkg/tests", "tests")
    for path in ("tests/helpers.py", "pkg/tests/a/b", "flat_check.py", "bin/test", "conftest.py"):
        assert protected.holds(path), path
    for path in ("pkg/x.py", "tests/data/y", "hidden.py", "testing/x.py", "pkg/test.py"):
        assert not protected.holds(path), path


def prepare(sandbox: Sandbox) -> Protected:
    """A repository with tests, settings and a script of its own, before a patch is applied."""
    sandbox.exec("git init -q; mkdir -p tests pkg bin src/own; touch src/own/json.py")
    for path, text in {
        "tests/helper.py": "own",
        "bin/test": "own",
        "pkg/x.py": "code",
        "setup.cfg": "[metadata]\nname=x\n[tool:pytest]\naddopts=-q\n",
        "pyproject.toml": '[tool.pytest.ini_options]\naddopts="-q"\n',
    }.items():
        sandbox.write_file(path, text.encode())
    protected = protected_files(INSTANCE)
    save_runner_hooks(sandbox, WORKDIR, protected)
    return protected


@pytest.mark.parametrize(
    "change",
    [
        "echo evil >tests/helper.py",
        "rm -r tests",
        "rm -r tests; ln -s pkg tests",
        "rm -r tests; echo file >tests",
        "echo evil >tests/new.py",
        "echo evil >bin/test",
        "chmod +x bin/test",
        "printf '[tool:pytest]\naddopts=-p evil\n' >setup.cfg",
        "rm setup.cfg",
        "rm setup.cfg; ln -s pkg/x.py setup.cfg",
        "echo 'not TOML' >pyproject.toml",
        "printf '[tool]\npytest={ini_options={addopts=\"-p evil\"}}\n' >pyproject.toml",
        "printf '[project.entry-points.pytest11]\nx=\"x\"\n' >>pyproject.toml",
        "touch pytest.py",
        "mkdir json; touch json/__init__.py",
        "touch re.cpython-311-x86_64-linux-gnu.so",
        "mkdir -p lib/pluggy; touch lib/pluggy/__init__.py",
        "touch x.pth pkg/y.pyc",
        "mkdir -p pkg/__pycache__; touch pkg/__pycache__/x.cpython-311.opt-1.pyc",
        "mkdir x.egg-info; echo x >x.egg-info/entry_points.txt",
        "ln -s /etc out; ln -s ../../.. pkg/out; ln -s .git pkg/../git",
        "mkdir sub; git init -q sub",
    ],
)
def test_what_would_run_the_tests_is_put_back(change: str) -> None:
    with open_local_sandbox() as sandbox:
        protected = prepare(sandbox)
        kept = "find . -path ./.git -prune -o ! -type d -printf '%p %m %l ' -exec cat {} +"
        before = sandbox.exec(kept).output
        assert sandbox.exec(change).exit_code == 0
        assert restore_runner_hooks(sandbox, WORKDIR, protected) is None
        sandbox.exec("rm -rf sub/.git")
        assert sandbox.exec(kept).output == before


@pytest.mark.parametrize(
    "change",
    [
        "echo fixed >pkg/x.py; mkdir -p tests/data; echo gold >tests/data/y",
        "printf '[metadata]\nname=y\n[tool:pytest]\naddopts=-q\n' >setup.cfg",
        "sed -i '1i [project]\\nname=\"x\"\\n' pyproject.toml",
        "mkdir -p pkg; touch pkg/json.py pkg/pytest.py",
        "touch src/own/re.py",
        "ln -s pkg/x.py inside",
        "echo x >README; rm -r src",
    ],
)
def test_an_honest_change_stays(change: str) -> None:
    with open_local_sandbox() as sandbox:
        protected = prepare(sandbox)
        kept = "find . -path ./.git -prune -o ! -type d -printf '%p %m %l ' -exec cat {} +"
        assert sandbox.exec(change).exit_code == 0
        after = sandbox.exec(kept).output
        assert restore_runner_hooks(sandbox, WORKDIR, protected) is None
        assert sandbox.exec(kept).output == after


@pytest.mark.parametrize(
    "change",
    [
        "touch .git/hooks/post-checkout",
        "chmod +x .git/config",
        "git config core.fsmonitor evil.sh",
        "echo '* filter=x' >.git/info/attributes",
        "rm .git/HEAD",
        "git -c user.name=x -c user.email=x commit -q --allow-empty -m x",
        "mkdir -p .git/modules/x/hooks; touch .git/modules/x/hooks/y",
        "ln -s /tmp .git/hooks/post-checkout",
    ],
)
def test_a_change_of_gits_own_files_is_refused(change: str) -> None:
    with open_local_sandbox() as sandbox:
        protected = prepare(sandbox)
        assert sandbox.exec(change).exit_code == 0
        refused = restore_runner_hooks(sandbox, WORKDIR, protected)
        assert refused == "the patch changed git's own files"


def test_objects_and_index_may_change() -> None:
    with open_local_sandbox() as sandbox:
        protected = prepare(sandbox)
        sandbox.exec("git add -A")
        assert restore_runner_hooks(sandbox, WORKDIR, protected) is None


@pytest.mark.parametrize(
    ("path", "before", "after", "same"),
    [
        ("package.json", '{"version": 1}', '{"version": 2}', True),
        ("package.json", "{}", '{"scripts": {"test": "true"}}', False),
        ("package.json", "{}", "[]", False),
        ("pyproject.toml", "", "[tool.black]\nline-length = 1", True),
        ("pyproject.toml", "", "[tool.coverage.run]\nplugins = ['x']", False),
        ("pyproject.toml", "", "tool.pytest.ini_options.addopts = '-x'", False),
        ("pyproject.toml", "", "tool = 1", False),
        ("setup.cfg", "", "[options.entry_points]\npytest11 = x = y", False),
        ("setup.cfg", "", "[options.entry_points]\nconsole_scripts = x = y", True),
        ("setup.cfg", "", "[coverage:run]\nplugins = x", False),
    ],
)
def test_settings_of_test_runners_are_told_from_others(
    path: str, before: str, after: str, same: bool
) -> None:
    assert same_runner_settings(path, before, after) is same
