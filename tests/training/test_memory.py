import platform
import subprocess
import sys

import pytest

from zoo.training import _memory as memory

PROGRAM = """
import runpy, sys
import numpy as np

if sys.argv[2] == "kept":
    runpy.run_path(sys.argv[1])["tune_malloc"]()

def resident():
    return int(open("/proc/self/statm").read().split()[1])

before = resident()
step = [np.ones(2_000_000) for _ in range(12)]
during = resident()
del step
print((resident() - before) / (during - before))
"""


def share_that_stays(how: str) -> float:
    """Share of a step's memory that is still resident after the step has freed it."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, memory.__file__, how], capture_output=True, text=True)
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_by_the_process():
    assert share_that_stays("kept") > 0.9
    assert share_that_stays("returned") < 0.1


def test_other_c_libraries_are_not_touched(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: pytest.fail("it was asked for"))
    assert not memory.tune_malloc()
