"""Builds an image for an instance from its repository and a short spec.

The repository is copied into the build as bare objects and is checked out there; the spec's
commands run there too and nowhere else. Only the base commit and its ancestors are copied. A spec::

    instance_id = "acme__widgets-1"
    repository = "https://github.com/acme/widgets"   # or a path, seen from this file
    base_commit = "8c1f..."                          # the full id
    packages = ["libxml2-dev", "python3-pip"]        # of Debian
    install = ["pip install -e ."]                   # run at the repository's root
    test = "pytest -rA tests/test_sizes.py"
    log_parser = "parse_log_pytest"                  # swebench's parser of its output
    problem_statement = "Sizes below zero are accepted."
    patch = "gold.patch"                             # files, seen from this one
    test_patch = "test.patch"
    FAIL_TO_PASS = ["tests/test_sizes.py::test_below_zero"]
    PASS_TO_PASS = ["tests/test_sizes.py::test_zero"]

The first three suffice for an image; the rest makes an instance that can be graded. FAIL_TO_PASS
and PASS_TO_PASS are derived if missing: the tests are run before and after the patch.

A spec with the instance_id of a published row needs repository and install only. Everything else
comes from the row, its image's name and its official eval script included: a published row can
therefore be run and graded even if no registry answers.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import tempfile
import tomllib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import git
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from srl_swe.errors import UserError
from srl_swe.types import Instance
from srl_swe_envs import graded_rows
from srl_swe_envs.engine import connect
from srl_swe_envs.images import BASE, Recipe, build, ensure_base_image, is_built_from
from srl_swe_envs.pulls import Report
from srl_swe_envs.scripts import script

WORKDIR = "/testbed"
ACTIVATE = "if [[ -f .venv/bin/activate ]]; then source .venv/bin/activate; fi"
"""The first line of an eval script."""

_URL = re.compile(r"[a-z+]+://|[\w.-]+@[\w.-]+:")

Lines = tuple[str, ...]
DebianPackage = Annotated[
    str, Field(pattern=r"^[a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9.+:~-]+)?$", max_length=200)
]


class RepositorySpec(BaseModel):
    """One spec file, its paths made absolute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # A valid name for both a folder and an image.
    instance_id: str = Field(pattern=r"^[A-Za-z0-9]+((\.|__?|-+)[A-Za-z0-9]+)*$", max_length=120)
    repository: str = Field(min_length=1)
    base_commit: str = Field("", pattern=r"^([0-9a-f]{40})?$")
    named_image: str = Field("", alias="image", pattern=r"^[A-Za-z0-9./_:-]*$", max_length=250)
    packages: tuple[DebianPackage, ...] = ()
    install: Lines = ()
    test: str = ""
    log_parser: str = "parse_log_pytest"
    problem_statement: str = ""
    patch: str = ""
    test_patch: str = ""
    fail_to_pass: Lines = Field(default=(), alias="FAIL_TO_PASS")
    pass_to_pass: Lines = Field(default=(), alias="PASS_TO_PASS")

    @property
    def image(self) -> str:
        """The name of its image, by SWE-bench's rule unless the spec names it."""
        by_rule = self.instance_id.lower().replace("__", "_1776_")
        return self.named_image or f"srl-swe/sweb.eval.x86_64.{by_rule}:latest"


def load_spec(path: Path, rows: Mapping[str, Instance] | None = None) -> RepositorySpec:
    """The spec in a file, with the contents of its patches. ``rows`` are published rows, by id.

    Raises UserError, also if the spec contradicts the row of its id.
    """
    try:
        spec = RepositorySpec.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); name a TOML file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a TOML file: {error}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {key!r} is not as it should be: {first['msg']}.") from error
    if row := (rows or {}).get(spec.instance_id):
        spec = _of_row(path, spec, row)
    if not spec.base_commit:
        raise UserError(
            f"{path}: 'base_commit' is missing; give the full id, or the --bench that has a row "
            f"with the instance_id {spec.instance_id!r}."
        )
    repository, folder = spec.repository, path.parent
    if not _URL.match(repository):
        repository = str((folder / Path(repository).expanduser()).resolve())
        if not Path(repository).is_dir():
            raise UserError(
                f"{path}: the repository {repository} does not exist; name a URL or a folder."
            )
    texts = {name: getattr(spec, name) for name in ("patch", "test_patch")}
    for name, file in texts.items():
        if file:
            try:
                texts[name] = (folder / file).read_text("utf-8", errors="surrogateescape")
            except OSError as error:
                raise UserError(f"{path}: {file} can't be read ({error.strerror}).") from error
    return spec.model_copy(update={"repository": repository, **texts})


def _of_row(path: Path, spec: RepositorySpec, row: Instance) -> RepositorySpec:
    given = sorted(spec.model_fields_set - {"instance_id", "repository", "packages", "install"})
    of_row = {"base_commit": row.base_commit, "named_image": row.image}
    for name in given:
        if getattr(spec, name) != of_row.get(name):
            key = "image" if name == "named_image" else name
            raise UserError(
                f"{path}: {key!r} is not that of the row {row.instance_id}; leave it out, or give "
                "the spec an instance_id of its own."
            )
    return spec.model_copy(update=of_row)


def instance_of(spec: RepositorySpec, rows: Mapping[str, Instance] | None = None) -> Instance:
    """The row of the spec's id if there is one, else an instance made from the spec.

    The latter can be graded if the spec has a test and the names of its tests.
    """
    if row := (rows or {}).get(spec.instance_id):
        return replace(row, workdir=WORKDIR)
    parts = [part for part in re.split(r"[/:]", spec.repository.removesuffix(".git")) if part]
    return Instance(
        instance_id=spec.instance_id,
        repo="/".join(parts[-2:] if _URL.match(spec.repository) else parts[-1:]),
        base_commit=spec.base_commit,
        problem_statement=spec.problem_statement,
        image=spec.image,
        workdir=WORKDIR,
        gold_patch=spec.patch,
        test_patch=spec.test_patch,
        fail_to_pass=spec.fail_to_pass,
        pass_to_pass=spec.pass_to_pass,
        eval_script=eval_script(spec) if spec.test else "",
        log_parser=spec.log_parser if spec.test else "",
        eval_type="pass_and_fail" if spec.test else "",
    )


def eval_script(spec: RepositorySpec) -> str:
    """The tests as a script for swebench's harness, between its two markers."""
    return graded_rows.eval_script(
        spec.test,
        workdir=WORKDIR,
        base_commit=spec.base_commit,
        test_patch=spec.test_patch,
        set_up=[ACTIVATE],
    )


_DOCKERFILE = f"""\
FROM {BASE}
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR {WORKDIR}
COPY repository.git .git
COPY conda.sh /opt/miniconda3/bin/activate
COPY check-out.sh install.sh finish.sh certificates.pem /tmp/set-up/
RUN bash /tmp/set-up/check-out.sh \\
 && bash /tmp/set-up/install.sh \\
 && bash /tmp/set-up/finish.sh \\
 && rm -r /tmp/set-up
"""
_NO_QUESTIONS = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}


def build_repository_image(
    spec: RepositorySpec, report: Report, certificates: Path | None = None
) -> None:
    """Build the image of the spec's instance, unless an image of the same spec exists.

    ``certificates`` is a file of certificates trusted by pip during the build, as for its option
    ``--cert``; it is not kept in the image. Raises UserError if the repository, the commit or that
    file is missing, EngineUnavailable, EngineDiskFull, or ImageMissing with the end of the
    build's log and the path of the whole log.
    """
    files = {
        "Dockerfile": _DOCKERFILE,
        "check-out.sh": script("check_out.sh"),
        "install.sh": _install_script(spec),
        "finish.sh": script("hide_untracked.sh"),
        "conda.sh": script("conda.sh"),
    }
    try:
        trusted = certificates.read_bytes() if certificates else b""
    except OSError as error:
        raise UserError(
            f"{certificates} can't be read ({error.strerror}); --pip-cert takes a file of "
            "certificates."
        ) from error
    with closing(connect()) as client:
        base = ensure_base_image(client, report)
        decisive = json.dumps([base, spec.base_commit, files])
        fingerprint = hashlib.sha256(decisive.encode()).hexdigest()
        if is_built_from(client, spec.image, fingerprint):
            report(f"images: {spec.image} is up to date")
            return
        with tempfile.TemporaryDirectory(prefix="srl-swe-") as folder:
            context = Path(folder) / "context"
            context.mkdir()
            for name, text in files.items():
                (context / name).write_text(text, "utf-8")
            (context / "certificates.pem").write_bytes(trusted)
            report(f"images: fetching {spec.repository}")
            _fetch(spec, Path(folder) / "source.git", context / "repository.git")
            recipe = Recipe(spec.image, BASE, context)
            build(client, recipe, fingerprint, f"the spec of {spec.instance_id}", report)


def _install_script(spec: RepositorySpec) -> str:
    apt = "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends"
    packages = [
        "apt-get update -qq",
        f"{apt} {shlex.join(spec.packages)}",
        "rm -rf /var/lib/apt/lists/*",
    ]
    lines = [
        "exec 2>&1",
        "if [[ -s /tmp/set-up/certificates.pem ]]; then",
        "    export PIP_CERT=/tmp/set-up/certificates.pem",
        "fi",
        "set -exo pipefail",
        *(packages if spec.packages else ()),
        *spec.install,
    ]
    return "\n".join(lines) + "\n"


def _fetch(spec: RepositorySpec, source: Path, target: Path) -> None:
    """Clone the repository to ``source``, and from there only the history of the base commit."""
    commit = spec.base_commit
    try:
        with git.Repo.clone_from(spec.repository, source, bare=True, env=_NO_QUESTIONS) as clone:
            try:
                clone.git.cat_file("-e", f"{commit}^{{commit}}")
            except git.GitCommandError:  # not on a branch, as the commit of a pull request
                with clone.git.custom_environment(**_NO_QUESTIONS):
                    clone.git.fetch("origin", commit)
            clone.git.config("uploadpack.allowAnySHA1InWant", "true")
        with git.Repo.init(target, bare=True, initial_branch="main") as repository:
            repository.git.fetch(str(source), f"{commit}:refs/heads/main")
    except git.GitError as error:
        said = str(getattr(error, "stderr", "") or error).strip(" '\n").splitlines()
        raise UserError(
            f"{spec.instance_id}: {spec.repository} at {commit} can't be fetched "
            f"({said[-1].strip() if said else 'no reason given'}); check both."
        ) from error
