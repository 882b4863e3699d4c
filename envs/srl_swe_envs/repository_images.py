"""An image for an instance that has none, built from its repository and a short spec.

The repository travels into the build as bare objects and is checked out there; the spec's commands
run there too and nowhere else. Only the base commit and what came before it are taken along.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import git

from srl_swe.errors import UserError
from srl_swe_envs.engine import connect
from srl_swe_envs.image_recipes import BASE, Recipe
from srl_swe_envs.images import Report, build, ensure_base_image, is_built_from
from srl_swe_envs.repository_specs import WORKDIR, RepositorySpec
from srl_swe_envs.scripts import script

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
    """Have the image of the spec's instance; one that was built from the same stays as it is.

    ``certificates`` is a file of those that pip trusts during the build, as its option ``--cert``
    takes it; it is not kept in the image. Raises UserError if the repository, the commit or that
    file can't be had, EngineUnavailable, EngineDiskFull, or ImageMissing with the end of the
    build's log and the path of the whole.
    """
    files = _build_files(spec)
    trusted = _certificates(certificates)
    with closing(connect()) as client:
        base = ensure_base_image(client, report)
        fingerprint = _fingerprint(base, spec, files)
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


def _build_files(spec: RepositorySpec) -> dict[str, str]:
    return {
        "Dockerfile": _DOCKERFILE,
        "check-out.sh": script("check_out.sh"),
        "install.sh": _install_script(spec),
        "finish.sh": script("hide_untracked.sh"),
        "conda.sh": script("conda.sh"),
    }


def _certificates(path: Path | None) -> bytes:
    try:
        return path.read_bytes() if path else b""
    except OSError as error:
        raise UserError(
            f"{path} can't be read ({error.strerror}); --pip-cert takes a file of certificates."
        ) from error


def _install_script(spec: RepositorySpec) -> str:
    packages = [
        "apt-get update -qq",
        "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "
        f"{shlex.join(spec.packages)}",
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


def _fingerprint(base: str, spec: RepositorySpec, files: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps([base, spec.base_commit, files]).encode()).hexdigest()


def _fetch(spec: RepositorySpec, source: Path, target: Path) -> None:
    """Clone the repository to ``source``, and from there no more than the base commit needs."""
    with _blame_repository(spec):
        with git.Repo.clone_from(spec.repository, source, bare=True, env=_NO_QUESTIONS) as clone:
            if not _has_commit(clone, spec.base_commit):  # a pull request's is of no branch
                with clone.git.custom_environment(**_NO_QUESTIONS):
                    clone.git.fetch("origin", spec.base_commit)
            clone.git.config("uploadpack.allowAnySHA1InWant", "true")
        with git.Repo.init(target, bare=True, initial_branch="main") as repository:
            repository.git.fetch(str(source), f"{spec.base_commit}:refs/heads/main")


def _has_commit(repository: git.Repo, commit: str) -> bool:
    try:
        repository.git.cat_file("-e", f"{commit}^{{commit}}")
    except git.GitCommandError:
        return False
    return True


@contextmanager
def _blame_repository(spec: RepositorySpec) -> Iterator[None]:
    try:
        yield
    except git.GitError as error:
        said = str(getattr(error, "stderr", "") or error).strip(" '\n").splitlines()
        raise UserError(
            f"{spec.instance_id}: {spec.repository} at {spec.base_commit} can't be fetched "
            f"({said[-1].strip() if said else 'no reason given'}); check both."
        ) from error
