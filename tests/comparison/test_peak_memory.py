"""The peak memory of a process is its own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import psutil

from rung.comparison.peak_memory import peak_memory

MEGABYTE = 2**20
CHILD = """
import sys
from rung.comparison.peak_memory import peak_memory
before = peak_memory()
held = bytearray(int(sys.argv[1])) and b"x" * int(sys.argv[1])
print(before, peak_memory())
"""


def test_it_is_not_that_of_the_process_that_started_it() -> None:
    large = np.ones(400 * MEGABYTE, np.uint8)
    assert peak_memory() > large.nbytes
    assert peak_memory() >= psutil.Process().memory_info().rss - MEGABYTE
    child = [sys.executable, "-c", CHILD, str(100 * MEGABYTE)]
    told = subprocess.run(child, check=True, capture_output=True, text=True).stdout
    before, after = map(int, told.split())
    assert before < 200 * MEGABYTE
    assert 90 * MEGABYTE < after - before < 250 * MEGABYTE
