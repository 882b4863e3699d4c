"""The contract, over a container and over the stand-in without one.

The stand-in is no boundary: what it leaves out stands in ``NEEDS_BOUNDARY``, with the reasons.
"""

from __future__ import annotations

from functools import partial

import pytest

from srl_swe.testing.sandbox_contract import *  # noqa: F403
from srl_swe.testing.sandbox_contract import NEEDS_BOUNDARY, Open
from srl_swe.types import Instance
from srl_swe_envs.docker import open_docker_sandbox
from srl_swe_envs.limits import Limits
from srl_swe_envs.local import open_local_sandbox

pytestmark = pytest.mark.slow


INSTANCE = Instance("a__b-1", "a/b", "HEAD", "It is broken.", "srl-swe/base:1")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(open_local_sandbox, id="local"),
        pytest.param(
            partial(open_docker_sandbox, INSTANCE, Limits(memory="512m", pids=256)),
            id="docker",
            marks=pytest.mark.docker,
        ),
    ],
)
def open_sandbox(request: pytest.FixtureRequest) -> Open:
    opener: Open = request.param
    return opener


@pytest.fixture(scope="module")
def is_boundary(open_sandbox: Open) -> bool:
    return open_sandbox is not open_local_sandbox


def test_all_that_the_stand_in_leaves_out_is_a_test_of_this_suite() -> None:
    assert set(NEEDS_BOUNDARY) <= set(globals())
    assert all(NEEDS_BOUNDARY.values())
