from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


PROGRAM = """
import resource, sys
from srl_swe.training.run_folder import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(2**26)
before = faults()
for _ in range(10):
    bytearray(2**26)
print(faults() - before)
"""


def faults_of_ten_blocks(argument: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, argument], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_a_large_block_is_not_got_from_the_kernel_again() -> None:
    """Such a block has 16,384 pages, each a fault unless huge ones are at hand."""
    assert faults_of_ten_blocks("kept") < 100 < faults_of_ten_blocks("given back")
