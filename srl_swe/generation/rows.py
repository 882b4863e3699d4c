"""Rows in swebench 5's schema from validated bugs, and the image of each as one layer.

An instance's repository is one root commit that holds the bug and lacks the hidden tests: the
functions of FAIL_TO_PASS are cut out of their files, and a file without a test left is removed.
SWE-smith removes whole files; here the other tests of a file stay visible, as in SWE-bench.
``test_patch`` puts everything back before the tests run.
"""

from __future__ import annotations

import ast
import io
import json
import re
import shlex
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from srl_swe.errors import UserError
from srl_swe.evaluation.patch_paths import touched_paths
from srl_swe.files import damage_named
from srl_swe.generation.bugs import Bug
from srl_swe.generation.code import is_test, is_text_statement
from srl_swe.generation.repositories import Source, is_url, read_source
from srl_swe.generation.validation import Judgement
from srl_swe.git import git_output
from srl_swe.instances import row_from_instance
from srl_swe.types import Instance

MakeEvalScript = Callable[[Source, str, str], str]
"""The eval script of a source, by base commit and test patch."""

DATASET = "srl-swe/generated"
WORKDIR = "/testbed"
_AUTHOR, _EMAIL, _DATE = "srl-swe", "srl-swe@example.invalid", "2025-01-01T00:00:00Z"


def repository_image(source: Source) -> str:
    """The name of the image of the clean source."""
    return f"srl-swe/generated-{_slug(source.name)}:{source.commit[:12]}"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def instance_id_of(bug: Bug) -> str:
    """The id of a bug's instance."""
    return f"generated__{bug.source}-{bug.bug_id[:12]}"


@dataclass(frozen=True, slots=True)
class Layer:
    """The image of an instance: ``files`` and a Dockerfile, on the image ``parent``."""

    image: str
    parent: str
    files: Mapping[str, str]


def layer_of(instance: Instance) -> Layer:
    """The image's recipe from a row: the patches, taken back from the clean source.

    Raises UserError if the row was not generated.
    """
    try:
        parent = str(json.loads(instance.built_from)["image"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{instance.instance_id}: built_from is damaged ({error}).") from None
    files = {
        "Dockerfile": dockerfile(parent, _message(instance.repo)),
        "gold.patch": instance.gold_patch,
        "test.patch": instance.test_patch,
    }
    return Layer(instance.image, parent, files)


def dockerfile(parent: str, message: str) -> str:
    """The Dockerfile of an instance: the root commit of :func:`make_state`, made from the index.

    A new index would apply the repository's attributes, and give another commit.
    """
    return f"""\
FROM {parent}
COPY gold.patch test.patch /tmp/srl-swe/
RUN git update-index -q --refresh \\
 && git apply -R --index --whitespace=nowarn /tmp/srl-swe/test.patch /tmp/srl-swe/gold.patch \\
 && export GIT_AUTHOR_NAME={_AUTHOR} GIT_AUTHOR_EMAIL={_EMAIL} GIT_AUTHOR_DATE={_DATE} \\
 && export GIT_COMMITTER_NAME={_AUTHOR} GIT_COMMITTER_EMAIL={_EMAIL} GIT_COMMITTER_DATE={_DATE} \\
 && git update-ref refs/heads/srl-swe \\
    "$(git commit-tree --no-gpg-sign -m {shlex.quote(message)} "$(git write-tree)")" \\
 && mv .git /tmp/srl-swe/old \\
 && git init --quiet \\
 && mv /tmp/srl-swe/old/info/exclude .git/info/ \\
 && git fetch --quiet --no-tags /tmp/srl-swe/old srl-swe \\
 && git reset --quiet FETCH_HEAD \\
 && git update-index -q --refresh \\
 && git checkout --quiet -- . \\
 && rm -r .git/FETCH_HEAD /tmp/srl-swe
"""


def _message(repo: str) -> str:
    return f"{repo.rpartition('/')[2]}: the state of the task"


def built_from(source: Source) -> dict[str, Any]:
    """The column of this name, from which :func:`source_of_row` reads the source."""
    return {
        "image": repository_image(source),
        "name": source.name,
        "repository": _anywhere(source),
        "commit": source.commit,
        "sha256": source.sha256,
        "packages": list(source.packages),
        "install": list(source.install),
    }


def source_of_row(built_from: Mapping[str, Any]) -> Source:
    """The source named in a row's ``built_from``, fetched again if needed. Raises UserError."""
    origin = "sha256" if built_from.get("sha256") else "base_commit"
    with damage_named(f"built_from of {built_from.get('name')}", "generate the rows again"):
        keys = {
            "name": built_from["name"],
            "repository": built_from["repository"],
            origin: built_from.get("sha256") or built_from["commit"],
            "packages": built_from["packages"],
            "install": built_from["install"],
            "test": "unused",
        }
    toml = {key: json.dumps(value, ensure_ascii=False) for key, value in keys.items()}
    with tempfile.TemporaryDirectory(prefix="srl-swe-spec-") as folder:
        path = Path(folder, "row.toml")
        path.write_text("\n".join(f"{key} = {text}" for key, text in toml.items()), "utf-8")
        source = read_source(path)
    if source.commit != built_from["commit"]:
        raise UserError(
            f"{source.name}: {source.repository} gives the commit {source.commit}, not that of the "
            f"rows, {built_from['commit']}."
        )
    return source


def hideable(test: str, bug: Bug) -> bool:
    """Whether a test can be kept from the policy: it is in a Python file that has no bug.

    A doctest of a source file can't: it would take the file with it. Its name is dotted, or that of
    its module.
    """
    path, _, name = test.partition("::")
    if not path.endswith(".py") or path in set(touched_paths(bug.patch)):
        return False
    first = name.partition("[")[0].partition("::")[0]
    return is_test(path) or ("." not in first and first != PurePosixPath(path).stem)


@dataclass(frozen=True, slots=True)
class State:
    """An instance's repository: its only commit, and the patches from it to the clean source."""

    base_commit: str
    gold_patch: str
    test_patch: str


def make_state(source: Source, bug: Bug, hidden: Collection[str]) -> State:
    """The repository with the bug and without the ``hidden`` tests. Raises UserError."""
    by_file: dict[str, list[str]] = {}
    for test in hidden:
        path, _, name = test.partition("::")
        by_file.setdefault(path, []).append(name)
    with _index_of(source) as git:
        git("read-tree", source.commit)
        git("apply", "--cached", "--whitespace=nowarn", "-", data=bug.patch)
        for path, names in sorted(by_file.items()):
            mode = git("ls-files", "--stage", "--", path).split()[0]
            text = git("show", f"{source.commit}:{path}")
            left = without_tests(text, names)
            if left is None:
                git("update-index", "--force-remove", "--", path)
            else:
                blob = git("hash-object", "-w", "--stdin", data=left).strip()
                git("update-index", "--cacheinfo", f"{mode},{blob},{path}")
        tree = git("write-tree").strip()
        message = _message(f"generated/{source.name}")
        commit = git("commit-tree", "--no-gpg-sign", "-m", message, tree).strip()
        plain = [
            *("diff", "--no-color", "--no-ext-diff", "--no-renames", "--binary", "--abbrev=12"),
            *("--src-prefix=a/", "--dst-prefix=b/", commit, source.commit, "--"),
        ]
        return State(
            commit,
            git(*plain, *sorted(touched_paths(bug.patch))),
            git(*plain, *sorted(by_file)),
        )


@contextmanager
def _index_of(source: Source) -> Iterator[Callable[..., str]]:
    """Run git over the source's objects, with an index and new objects of its own."""
    with tempfile.TemporaryDirectory(prefix="srl-swe-state-") as folder:
        objects = Path(folder, "objects")
        objects.mkdir()
        environment = {
            "GIT_DIR": str((source.folder / ".git").resolve()),
            "GIT_INDEX_FILE": f"{folder}/index",
            "GIT_OBJECT_DIRECTORY": str(objects),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str((source.folder / ".git/objects").resolve()),
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_AUTHOR_NAME": _AUTHOR,
            "GIT_AUTHOR_EMAIL": _EMAIL,
            "GIT_AUTHOR_DATE": _DATE,
            "GIT_COMMITTER_NAME": _AUTHOR,
            "GIT_COMMITTER_EMAIL": _EMAIL,
            "GIT_COMMITTER_DATE": _DATE,
        }

        def git(*arguments: str, data: str = "") -> str:
            stdin = data.encode("utf-8", "surrogateescape")
            done = git_output(folder, *arguments, stdin=stdin, environment=environment)
            return done.decode("utf-8", "surrogateescape")

        yield git


def without_tests(text: str, names: Sequence[str]) -> str | None:
    """A test file without these tests; None if nothing worth keeping is left.

    ``names`` are pytest's, after the path: ``TestSizes::test_zero[1]``. All parameters of a test
    go. A test that is not in the file, as an inherited one, takes the whole file with it.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return None
    lines = io.StringIO(text, newline="").readlines()  # as Python counts them
    doomed: set[int] = set()
    for name in dict.fromkeys(name.partition("[")[0] for name in names):
        nodes = _find(tree, name.split("::"))
        if not nodes:
            return None
        doomed = doomed.union(*map(_lines_of, nodes))
    for node in ast.walk(tree):  # a class whose body is gone goes as well
        if isinstance(node, ast.ClassDef) and all(
            _lines_of(child) <= doomed or is_text_statement(child) for child in node.body
        ):
            doomed |= _lines_of(node)
    for number in sorted(doomed):  # and the blank lines after it
        following = number + 1
        while (
            following not in doomed and following <= len(lines) and not lines[following - 1].strip()
        ):
            doomed.add(following)
            following += 1
    left = "".join(line for number, line in enumerate(lines, 1) if number not in doomed)
    try:
        remaining = ast.parse(left)
    except (SyntaxError, ValueError):
        return None
    has_tests = any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and "test" in node.name.lower()
        for node in ast.walk(remaining)
    )
    return left.rstrip("\n") + "\n" if has_tests else None


def _find(tree: ast.Module, names: Sequence[str]) -> list[ast.stmt]:
    """The functions of that name within its classes; several if it is defined again."""
    level: list[ast.AST] = [tree]
    for name in names:
        level = [child for node in level for child in _defined_in(node) if child.name == name]
    return [node for node in level if isinstance(node, ast.stmt)]


def _defined_in(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """The functions and classes directly in a module or a class, those under conditions too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield child
        else:
            yield from _defined_in(child)


def _lines_of(node: ast.stmt) -> set[int]:
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return set(range(first, (node.end_lineno or node.lineno) + 1))


def make_row(
    source: Source,
    bug: Bug,
    judged: Judgement,
    issue: str,
    make_eval_script: MakeEvalScript,
    split: str,
) -> dict[str, Any]:
    """The row of a kept bug: an instance's fields and its provenance."""
    state = make_state(source, bug, [*judged.fail_to_pass, *judged.unnamed])
    instance_id = instance_id_of(bug)
    slug = f"{_slug(source.name)}-{bug.bug_id[:12]}"
    instance = Instance(
        instance_id=instance_id,
        repo=f"generated/{source.name}",
        base_commit=state.base_commit,
        problem_statement=issue,
        image=f"srl-swe/sweb.eval.x86_64.generated_1776_{slug}:latest",
        workdir=WORKDIR,
        version=source.version,
        gold_patch=state.gold_patch,
        test_patch=state.test_patch,
        fail_to_pass=judged.fail_to_pass,
        pass_to_pass=judged.pass_to_pass,
        eval_script=make_eval_script(source, state.base_commit, state.test_patch),
        log_parser=source.log_parser,
        eval_type="pass_and_fail",
        built_from=json.dumps(built_from(source)),
    )
    return {
        **row_from_instance(instance),
        "created_at": _DATE,
        "split": split,
        "source_repository": source.repository,
        "source_commit": source.commit,
        "licence": source.licence,
        "operators": list(bug.operators),
        "seed": bug.seed,
        "bug_id": bug.bug_id,
    }


def _anywhere(source: Source) -> str:
    """The repository for any working folder: a spec's folder is relative to the spec."""
    is_folder = not is_url(source.repository) and not source.repository.startswith("pypi:")
    return str(source.folder.resolve()) if is_folder else source.repository


def task_files(row: Mapping[str, Any]) -> dict[str, str]:
    """The files of a row's folder in a task repo, by name."""
    from swebench.task.repo import AS_FILE, TEST_KEYS, TESTS_FILE, dump_tests, dump_yaml

    texts = {file: str(row[column]) for column, file in AS_FILE.items()}
    parent = json.loads(row["built_from"])["image"]
    in_files = {*AS_FILE, *TEST_KEYS}
    short = {key: value for key, value in row.items() if key not in in_files and value != ""}
    return {
        **texts,
        TESTS_FILE: dump_tests({key: list(row[key]) for key in TEST_KEYS}),
        "Dockerfile": dockerfile(parent, _message(row["repo"])),
        "task.yaml": dump_yaml({**short, "datasets": [DATASET]}),
    }
