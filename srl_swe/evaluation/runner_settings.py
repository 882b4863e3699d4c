"""Settings of test runners in files that honest fixes edit too: only a change of those counts."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from pathlib import PurePosixPath
from typing import Any

SETTINGS_FILES = ("setup.cfg", "pyproject.toml", "package.json")
_INI_SECTION = re.compile(r"pytest|aliases|coverage:.*|tool:.*test.*|nosetests|unittest")
_TOML_TOOLS = ("pytest", "coverage", "tox", "hatch", "nose", "nose2")
_NPM_KEYS = ("scripts", "jest", "mocha", "ava", "tap", "nyc", "babel", "vitest", "karma", "qunit")


def same_runner_settings(path: str, before: str, after: str) -> bool:
    r"""False if the settings of test runners differ, or if either text can't be read.

    >>> same_runner_settings("setup.cfg", "[metadata]\nversion=1", "[metadata]\nversion=2")
    True
    >>> same_runner_settings("setup.cfg", "", "[tool:pytest]\naddopts = -p evil")
    False
    """
    try:
        return bool(_settings(path, before) == _settings(path, after))
    except (configparser.Error, ValueError, AttributeError, TypeError, RecursionError):
        return False


def _settings(path: str, text: str) -> Any:
    match PurePosixPath(path).name:
        case "setup.cfg":
            return _of_ini(text)
        case "pyproject.toml":
            return _of_toml(tomllib.loads(text))
        case "package.json":
            read = json.loads(text)
            return {key: read.get(key) for key in _NPM_KEYS}
        case name:
            raise ValueError(f"{name} is not among {', '.join(SETTINGS_FILES)}")


def _of_ini(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read_string(text)
    found = {name: dict(parser[name]) for name in parser if _INI_SECTION.fullmatch(name)}
    plugins = parser.get("options.entry_points", "pytest11", fallback="")
    return found | ({"options.entry_points": {"pytest11": plugins}} if plugins else {})


def _of_toml(read: dict[str, Any]) -> list[Any]:
    tools = read.get("tool", {})
    entry_points = read.get("project", {}).get("entry-points", {})
    poetry = tools.get("poetry", {}).get("plugins", {})
    return [
        *(tools.get(name) for name in _TOML_TOOLS),
        entry_points.get("pytest11"),
        poetry.get("pytest11"),
        read.get("build-system"),
    ]
