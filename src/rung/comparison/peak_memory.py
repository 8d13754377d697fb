"""The most memory that this process has held since it began."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_memory() -> int:
    """Bytes that were resident at most.

    Linux counts them anew for every program (`VmHWM`). Its `ru_maxrss` begins with the peak of whoever started the
    process, so that all that a large process measures would appear as large as itself.
    """
    told = _STATUS.read_text(encoding="ascii", errors="replace") if _STATUS.is_file() else ""
    if found := re.search(r"^VmHWM:\s*(\d+) kB$", told, re.MULTILINE):
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
