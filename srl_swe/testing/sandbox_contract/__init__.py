"""The contract of a sandbox as tests, to run over your own.

In a test module, with a fixture of module scope that opens fresh sandboxes::

    pytest.register_assert_rewrite("srl_swe.testing.sandbox_contract")
    from srl_swe.testing.sandbox_contract import *

    @pytest.fixture(scope="module")
    def open_sandbox():
        return lambda: open_my_sandbox(...)     # a context manager

A sandbox begins in a writable folder, with bash, git and the coreutils inside, no more than 1 GiB
of memory and /dev/shm, and 2000 processes or fewer. A sandbox that is not a boundary overrides the
fixture ``is_boundary`` with False: tests marked by ``needs_boundary`` are then skipped, each with
its reason.
"""

from srl_swe.testing.sandbox_contract.commands import *  # noqa: F403
from srl_swe.testing.sandbox_contract.files import *  # noqa: F403
from srl_swe.testing.sandbox_contract.fixtures import *  # noqa: F403
from srl_swe.testing.sandbox_contract.ruin import *  # noqa: F403
from srl_swe.testing.sandbox_contract.timeouts import *  # noqa: F403
