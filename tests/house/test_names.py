"""A package exports no name that one of its submodules has."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import pytest

import srl_swe
import srl_swe_envs

PACKAGES = [
    "srl_swe",
    "srl_swe_envs",
    *(
        module.name
        for root in (srl_swe, srl_swe_envs)
        for module in pkgutil.walk_packages(root.__path__, f"{root.__name__}.")
        if module.ispkg
    ),
]


def test_packages_are_found() -> None:
    assert {"srl_swe.replay", "srl_swe.rewards", "srl_swe.steps"} <= set(PACKAGES)


@pytest.mark.parametrize("name", PACKAGES)
def test_no_package_exports_the_name_of_one_of_its_submodules(name: str) -> None:
    package = import_module(name)
    for submodule in pkgutil.iter_modules(package.__path__):
        meant = f"{name}.{submodule.name}"
        if submodule.name in {*vars(package), *getattr(package, "__all__", ())}:
            assert getattr(package, submodule.name) is import_module(meant), (
                f"{meant} is a module and something else; rename either"
            )
