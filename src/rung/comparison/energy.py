"""Energy with its method, or not at all.

`measured-rapl` reads the processor's own counters, `estimated-cpu` multiplies CPU seconds by watts that the user
declared. Nothing is guessed: codecarbon 3.3.2 put 20-fold different figures on one loop, depending on a setting.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

POWERCAP = Path("/sys/class/powercap")


@dataclass
class Joules:
    """What one measurement used; None where there is no counter."""

    value: float | None = None


@dataclass(frozen=True)
class Energy:
    """A way to measure energy here: the RAPL packages' folders, or declared watts per core, or neither."""

    packages: tuple[Path, ...] = ()
    watts_per_core: float | None = None

    @classmethod
    def of_this_machine(cls, watts_per_core: float | None, powercap: Path = POWERCAP) -> Self:
        """RAPL where its counters can be read, else the declared watts."""
        packages = tuple(
            folder for folder in sorted(powercap.glob("intel-rapl:?")) if _can_be_read(folder / "energy_uj")
        )
        return cls(packages, None if packages else watts_per_core)

    @property
    def method(self) -> str:
        """The name that stands beside every figure."""
        if self.packages:
            return "measured-rapl"
        return "estimated-cpu" if self.watts_per_core is not None else "none"

    @contextmanager
    def measuring(self) -> Iterator[Joules]:
        """Yield an object that holds the joules of the block once it is left."""
        joules = Joules()
        before, cpu_before = [_counter(folder) for folder in self.packages], time.process_time()
        yield joules
        if self.packages:
            used = [
                (_counter(folder) - start) % _range(folder) for folder, start in zip(self.packages, before, strict=True)
            ]
            joules.value = sum(used) / 1e6
        elif self.watts_per_core is not None:
            joules.value = (time.process_time() - cpu_before) * self.watts_per_core


def _can_be_read(path: Path) -> bool:
    try:
        path.read_text()
    except OSError:
        return False
    return True


def _counter(folder: Path) -> int:
    return int((folder / "energy_uj").read_text())


def _range(folder: Path) -> int:
    """The counter starts again from 0 after this many microjoules."""
    return int((folder / "max_energy_range_uj").read_text())
