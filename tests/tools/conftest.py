from __future__ import annotations

from collections.abc import Iterator

import pytest

from srl_swe.sandbox import Sandbox
from srl_swe_envs.local import open_local_sandbox


@pytest.fixture
def local() -> Iterator[Sandbox]:
    """A shell on this machine, in an empty repository folder."""
    with open_local_sandbox() as sandbox:
        yield sandbox
