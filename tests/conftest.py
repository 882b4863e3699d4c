"""Fast tests first: whatever needs an engine, training, or the whole demo comes after."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import docker
import pytest
from hypothesis import HealthCheck, settings

from srl_swe_envs.engine import connect

pytest.register_assert_rewrite("srl_swe.testing.sandbox_contract")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported
# Read when torch is imported, here and in processes of tests: two threads gain nothing on small
# matrices, and wait for each other beside another process.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says nothing on a busy machine.
settings.register_profile(
    "untimed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")

_SLOW = ("browser", "docker", "train", "demo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_slowness)


def _slowness(item: pytest.Item) -> int:
    return max(
        (_SLOW.index(name) + 1 for name in _SLOW if item.get_closest_marker(name)), default=0
    )


@pytest.fixture(scope="session", autouse=True)
def _control_c_is_heard() -> None:
    """A suite in a shell's background ignores it, and so would the processes that tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def train_extra() -> None:
    """Skips a test if torch, transformers or TRL is missing, as in `make test-python`."""
    for name in ("torch", "transformers", "trl"):
        pytest.importorskip(name, reason="needs the extra `train`")


@pytest.fixture
def client() -> Iterator[docker.DockerClient]:
    """A client of the engine, for tests marked ``docker``."""
    client = connect()
    yield client
    client.close()
