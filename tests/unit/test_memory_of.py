"""Memory of processes: what the benchmarks read of them on Linux."""

import os
import sys

import pytest

from benchmarks.memory_of import pss_mib, watching

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_a_peak_counts_what_is_gone_again() -> None:
    with watching([os.getpid()]) as peak:
        before = pss_mib([os.getpid()])
        block = bytearray(b"x") * (64 * 2**20)
        peak.note([os.getpid()])
        del block
    assert peak.mib >= before + 60


def test_a_process_that_has_ended_counts_nothing() -> None:
    assert pss_mib([2**22 + 1]) == 0
