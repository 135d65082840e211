"""Memory of processes: what the benchmarks read of them on Linux."""

import mmap
import os
import sys

import pytest

from benchmarks.memory_of import pss_mib, watching

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_a_peak_counts_what_is_gone_again() -> None:
    with watching([os.getpid()]) as peak:
        before = pss_mib([os.getpid()])
        with mmap.mmap(-1, 64 * 2**20) as block:  # pages of its own, whatever the heap has at hand
            block.write(b"x" * len(block))
            peak.note([os.getpid()])
    assert peak.mib >= before + 60


def test_a_process_that_has_ended_counts_nothing() -> None:
    assert pss_mib([2**22 + 1]) == 0
