"""Settings of a working folder: ``srl-swe.toml``, or ``[tool.srl-swe]`` of its pyproject.toml.

sandbox = "docker"
sandbox_limits = ["memory=8g", "cpus=2"]
workers = 4
test_timeout = 900
runs = "results"
quiet = true

A setting stands in for its variable, ``workers`` for ``SRL_SWE_WORKERS``. Options of the command
line come first, then variables, then the file, then defaults.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from srl_swe.errors import UserError, did_you_mean
from srl_swe.files import first_words

FILE = "srl-swe.toml"
_ONLY_VARIABLES = ("runner", "disk_budget", "ray", "vllm_python")
"""Settings that a file can't hold."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of a file; None if it leaves them out."""

    sandbox: str | None = None
    sandbox_limits: list[str] | None = None
    workers: Annotated[int, Ge(1)] | None = None
    test_timeout: Annotated[int, Ge(1)] | None = None
    runs: str | None = None
    quiet: bool | None = None

    @property
    def variables(self) -> dict[str, str]:
        """The values by the variables that they stand in for."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return {
            f"SRL_SWE_{name.upper()}": " ".join(value) if isinstance(value, list) else f"{value}"
            for name, value in given.items()
        }


def read_settings(folder: Path) -> tuple[Path, Settings] | None:
    """The settings file of a folder and its values; None without one.

    Raises UserError, which names the file, for an unknown key, an invalid value and broken TOML.
    """
    for path in (folder / FILE, folder / "pyproject.toml"):
        try:
            table: Any = tomllib.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise UserError(f"{path.name} can't be read: {error}.") from error
        if path.name != FILE:
            tools = table.get("tool")
            table = tools.get("srl-swe") if isinstance(tools, dict) else None
        if isinstance(table, dict):
            return path, _checked(table, path.name)
    return None


def _checked(table: dict[str, Any], where: str) -> Settings:
    from pydantic import TypeAdapter, ValidationError

    names = Settings.__slots__
    for name in table:
        if name not in names:
            hint = did_you_mean(name, names)
            raise UserError(f"{where}: unknown key {name!r}.{hint} Known: {', '.join(names)}.")
    try:
        settings = TypeAdapter(Settings).validate_python(table)
    except ValidationError as error:
        raise UserError(f"{where}: {first_words(error)}.") from None
    if wrong := [limit for limit in settings.sandbox_limits or () if len(limit.split()) != 1]:
        raise UserError(f"{where}: sandbox_limits: {wrong[0]!r} must be NAME=VALUE without blanks.")
    return settings


def apply_settings(folder: Path) -> None:
    """Set the variables of the folder's settings, unless they are set. Raises UserError."""
    if found := read_settings(folder):
        for name, value in found[1].variables.items():
            os.environ.setdefault(name, value)


def describe_settings(folder: Path) -> str:
    """All settings in force, each with its file or variable; for :func:`apply_settings`' folder."""
    path, settings = read_settings(folder) or (folder / FILE, Settings())
    in_file, described = settings.variables, []
    for name in (*Settings.__slots__, *_ONLY_VARIABLES):
        variable = f"SRL_SWE_{name.upper()}"
        if value := os.environ.get(variable):
            source = path.name if in_file.get(variable) == value else variable
            described.append(f"{name} = {value} ({source})")
    return ", ".join(described) or f"the defaults; {FILE} and SRL_SWE_* variables change them"
