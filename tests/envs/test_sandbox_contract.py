"""The contract, over a container and over the stand-in without one.

The stand-in has no exceptions here. What it can't do at all, being no container, is tested in
``test_docker_sandbox.py`` alone: isolation, limits, and processes that clear their environment.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from srl_swe.sandbox import OpenSandbox, Sandbox
from srl_swe.types import Instance
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.local import open_local_sandbox

pytest.register_assert_rewrite("srl_swe.testing.sandbox_contract")
from srl_swe.testing.sandbox_contract import *  # noqa: E402, F403

INSTANCE = Instance("a__b-1", "a/b", "HEAD", "It is broken.", "srl-swe/base:1")


@pytest.fixture(
    params=[
        pytest.param(open_local_sandbox, id="local"),
        pytest.param(open_docker_sandbox, id="docker", marks=pytest.mark.docker),
    ]
)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    opener: OpenSandbox = request.param
    with opener(INSTANCE) as opened:
        yield opened
