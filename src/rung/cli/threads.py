"""How OpenMP's threads wait for one another, settled before torch is loaded."""

from __future__ import annotations

import os

_BUSY_PERCENT = 20.0  # of all cores, used by other programs
_LOOK_SECONDS = 0.15


def settle_threads() -> None:
    """Let threads wait asleep when other programs are busy on this machine, and spinning, as is usual, when none are.

    Spinning makes a quiet machine's training steps a quarter faster, and a busy one's several times slower (LOG.md,
    2026-11-22). A variable that the user has set stands. It counts only before torch is loaded.
    """
    if "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
        return
    import psutil

    if psutil.cpu_percent(interval=_LOOK_SECONDS) > _BUSY_PERCENT:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
