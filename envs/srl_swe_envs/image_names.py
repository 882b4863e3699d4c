"""Rows of published data sets in swebench's schema, by ``specs/*.toml``; no engine is asked.

One file per family of data sets: how its rows are recognised, the names of its images, the folder
of the repository in them, the fields that swebench's schema names differently, and how its rows
are tested (:mod:`.graded_rows`).
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from string import Formatter
from typing import Any

from docker.auth import resolve_repository_name
from docker.utils import parse_repository_tag

from srl_swe.errors import UserError
from srl_swe_envs.graded_rows import Grading, completed, reverse_diff

Row = Mapping[str, Any]

OURS = "srl-swe/*"
"""The names of our own images."""

_REGISTRY_OF_NO_NAME = re.compile(r"^(docker\.io/(library/)?|library/|localhost/)")
_IMAGE_NAME = re.compile(
    r"[a-z0-9]+([.-][a-z0-9]+)*(:\d+)?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
    r"(:[\w][\w.-]{0,127}|@sha256:[0-9a-f]{64})?"
)
"""After the grammar of names in github.com/distribution/reference."""
_NAMED_BY = ("image", "docker_image", "image_name")
"""The fields with the image's name in rows, the best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of data sets: one file of ``specs/``.

    A row belongs to it by the name of its data set (globs), else by the name of its image
    (globs), else by having all ``fields`` and none of ``without``, else by its repository.
    Values in braces are the row's fields, after ``rules`` in the image's name; those of ``json``
    may be JSON text. ``fill`` adds missing fields, ``replace`` overrides fields. ``plants_bug``:
    ``patch`` is not the fix, but adds the bug to the image's code.
    """

    name: str
    datasets: tuple[str, ...]
    images: tuple[str, ...]
    image: str
    workdir: str
    fields: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    repos: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    json: tuple[str, ...] = ()
    fill: Mapping[str, str] = field(default_factory=dict)
    replace: Mapping[str, str] = field(default_factory=dict)
    plants_bug: bool = False
    grading: Grading | None = None


@cache
def families() -> tuple[Family, ...]:
    """All of ``specs/``, by file name."""
    folder = resources.files("srl_swe_envs.specs")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return tuple(parse_family(file.read_text("utf-8")) for file in files)


def parse_family(toml: str) -> Family:
    """The family that a spec describes. Raises TypeError for an unknown key."""
    spec: dict[str, Any] = tomllib.loads(toml)
    lists = {key: tuple(value) for key, value in spec.items() if isinstance(value, list)}
    grading = {"grading": Grading(**spec["grading"])} if "grading" in spec else {}
    return Family(**(spec | lists | grading))


def adapt_row(row: Row, dataset: str) -> Row:
    """The row in swebench's schema; ``dataset`` is its name on the hub, or empty.

    A row of an unknown family is returned unchanged; a row whose image is unknown gets no image: a
    wrong one would be worse.
    """
    family = family_of(row, dataset)
    if family is None:
        named = _named_image(row)
        return {**row, "image": named} if named else row
    values = _values(row, family)
    filled = {**family.fill, "workdir": family.workdir}
    adapted = {
        **_rendered(filled, values),
        **{key: value for key, value in row.items() if value is not None},
        **{key: values[key] for key in family.json if key in values},
        **_rendered(family.replace, values),
        **_image(row, family, values),
    }
    if family.plants_bug and not row.get("bug_patch"):  # else the row was adapted before
        bug = str(row.get("patch") or "")
        adapted |= {"bug_patch": bug, "patch": "", "base_commit": row.get("instance_id")}
        with suppress(ValueError):
            adapted["patch"] = reverse_diff(bug)
    return completed(adapted, family.grading) if family.grading else adapted


def family_of(row: Row, dataset: str = "") -> Family | None:
    """The family of the row; None if it is unknown."""
    image = canonical(_named_image(row))
    has = {key for key, value in row.items() if value not in (None, "")}
    tests: tuple[Callable[[Family], bool], ...] = (
        lambda f: _matches(dataset, f.datasets),
        lambda f: _matches(image, f.images),
        lambda f: bool(f.fields) and has.issuperset(f.fields) and has.isdisjoint(f.without),
        lambda f: row.get("repo") in f.repos,
    )
    return next((family for test in tests for family in families() if test(family)), None)


def family_of_image(image: str) -> str | None:
    """The owner of the image by its name: a family, ``srl-swe``, or None for others.

    A family's images may be at any registry, as a mirror has them under the same names.
    """
    name = canonical(image)
    if fnmatchcase(name, OURS):
        return "srl-swe"
    host, slash, rest = name.partition("/")
    names = [name, rest] if slash and (set(host) & set(".:") or host == "localhost") else [name]
    return next((f.name for f in families() for n in names if _matches(n, f.images)), None)


def canonical(image: str) -> str:
    """The name as Docker lists it; podman puts ``localhost/`` before images built here.

    >>> canonical("docker.io/swerebenchv2/a-b:1-2"), canonical("localhost/a/b")
    ('swerebenchv2/a-b:1-2', 'a/b:latest')
    """
    if not image:
        return ""
    name = _REGISTRY_OF_NO_NAME.sub("", image)
    return name if parse_repository_tag(name)[1] else f"{name}:latest"


def mirrored(image: str, instance_id: str, mirror: str) -> str:
    """The image's name at a mirror: a registry's address, or a template of names.

    A template has ``{iid}``, the instance id in lower case, or ``{repository}`` and ``{tag}`` of
    the image's own name. At an address, images named as ours keep their names: they are built
    here. Raises UserError.

    >>> mirrored("swebench/a.b:latest", "a__b-1", "mirror.example.org")
    'mirror.example.org/swebench/a.b:latest'
    >>> mirrored("swebench/a.b", "A__b-1", "ghcr.io/epoch-research/swe-bench.eval.x86_64.{iid}")
    'ghcr.io/epoch-research/swe-bench.eval.x86_64.a__b-1:latest'
    """
    if fnmatchcase(canonical(image), OURS) and "{" not in mirror:
        return image
    name, tag = parse_repository_tag(image)
    repository = resolve_repository_name(name)[1]
    template = mirror if "{" in mirror else f"{mirror.rstrip('/')}/{{repository}}:{{tag}}"
    given = {"iid": instance_id.lower(), "repository": repository, "tag": tag or "latest"}
    try:
        named = template.format_map(given)
    except (KeyError, ValueError, IndexError, AttributeError):
        named = ""
    if not _IMAGE_NAME.fullmatch(named):
        raise UserError(
            f"--mirror {mirror}: write a registry, as mirror.example.org, or a name with "
            "{iid}, {repository} or {tag}, as ghcr.io/epoch-research/swe-bench.eval.x86_64.{iid}."
        )
    return named if parse_repository_tag(named)[1] else f"{named}:latest"


def digest_in(described: Mapping[str, Any], image: str) -> str:
    """The digest of an image, from the engine's description of it.

    ``repository@sha256:..`` of its registry, else the engine's id, as images built here have no
    digest.
    """
    digests = [str(known) for known in described.get("RepoDigests") or () if "<none>" not in known]
    repository = canonical(image).partition("@")[0].rpartition(":")[0]
    own = [known for known in digests if canonical(known).partition("@")[0] == repository]
    return next(iter([*own, *digests]), str(described["Id"]))


def _image(row: Row, family: Family, values: Mapping[str, Any]) -> dict[str, str]:
    """Take the image named by the row, unless the family's rule is about that very field."""
    named = _named_image(row)
    is_whole = not any(f"{{{field}}}" in family.image for field in _NAMED_BY)
    if named and (is_whole or "/" in named):
        return {"image": named}
    texts = {key: value for key, value in values.items() if isinstance(value, str)}
    for rule in family.rules:
        old, arrow, new = rule.partition(" -> ")
        texts = {k: v.replace(old, new) if arrow else v.lower() for k, v in texts.items()}
    return _rendered({"image": family.image}, {**values, **texts})


def _named_image(row: Row) -> str:
    return next((str(row[field]) for field in _NAMED_BY if row.get(field)), "")


def _values(row: Row, family: Family) -> dict[str, Any]:
    values = {key: value for key, value in row.items() if value is not None}
    values.setdefault("repo_name", str(row.get("repo") or "").rpartition("/")[2])
    for key in family.json:
        if isinstance(values.get(key), str):
            try:
                values[key] = json.loads(values[key])
            except json.JSONDecodeError:
                del values[key]
    return values


def _rendered(templates: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, str]:
    rendered = {}
    for key, template in templates.items():
        with suppress(KeyError, IndexError, TypeError):  # a missing field: rows' reader reports it
            rendered[key] = _Formatter().vformat(template, (), values)
    return rendered


class _Formatter(Formatter):
    """Renders a null within a field, such as an issue without a body, as nothing."""

    def format_field(self, value: Any, format_spec: str) -> str:
        return "" if value is None else str(super().format_field(value, format_spec))


def _matches(name: str, globs: tuple[str, ...]) -> bool:
    return bool(name) and any(fnmatchcase(name, glob) for glob in globs)
