"""How fast training goes and what it uses, for people to look at. Nothing here decides anything."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import psutil
import torch

from rung.progress import SilentProgress

_WINDOW = 32  # steps


@dataclass(frozen=True)
class Figures:
    """What the caller knows about the work: numbers that turn losses and times into comparable units. None: unknown.

    `flops_per_target`: floating-point operations to train on one target (token). `peak_flops`: the best measured
    matrix-product rate of one rank's device, per second. `bytes_per_target`: mean UTF-8 bytes of source text. `unit`:
    what targets are, in the plural.
    """

    flops_per_target: float | None = None
    peak_flops: float | None = None
    bytes_per_target: float | None = None
    unit: str = "tokens"


@dataclass(frozen=True)
class StepReport:
    """One finished step. Losses in nats per target; `step` counts finished steps; `memory` in bytes.

    `learning_rate_factor` is the schedule's; `verdict` says whether the step was taken ("fine") or why not; `skipped`
    counts the steps that were not, from the start of the run. `unit`: what targets are.
    """

    step: int
    steps: int
    loss: float
    bits_per_byte: float | None
    metrics: dict[str, float]
    learning_rate_factor: float
    gradient_norm: float
    targets: int
    targets_per_second: float | None
    unit: str
    peak_share: float | None
    seconds_left: float | None
    memory: int
    verdict: str
    skipped: int


class Display(Protocol):
    """Shows a run to whoever watches it."""

    def update(self, report: StepReport) -> None:
        """Show one step."""
        ...

    def validated(self, step: int, metrics: dict[str, float]) -> None:
        """Show how well the network does on held-out samples after `step` steps."""
        ...

    def say(self, message: str) -> None:
        """Tell one fact, in a sentence."""
        ...


class SilentDisplay(SilentProgress):
    """Shows nobody."""

    def update(self, report: StepReport) -> None:
        """Do nothing with what is shown."""

    def validated(self, step: int, metrics: dict[str, float]) -> None:
        """Do nothing with what is shown."""


SILENT_DISPLAY: Display = SilentDisplay()


class Meter:
    """Speed over the last steps, by medians: one pause does not bend them."""

    def __init__(self, figures: Figures, ranks: int, device: torch.device) -> None:
        self._figures = figures
        self._ranks = ranks
        self._device = device
        self._rates: deque[float] = deque(maxlen=_WINDOW)
        self._seconds: deque[float] = deque(maxlen=_WINDOW)
        self._process = psutil.Process()

    def step_took(self, seconds: float, targets: int) -> None:
        """Take note of one step."""
        if seconds > 0:  # coarse clocks do not see a very short step
            self._seconds.append(seconds)
            self._rates.append(targets / seconds)

    @property
    def targets_per_second(self) -> float | None:
        """Targets (tokens) per second of all ranks together."""
        return median(self._rates) if self._rates else None

    @property
    def peak_share(self) -> float | None:
        """Share of the measured matrix-product peak of all ranks; None where operations or peak are not known."""
        rate, work, peak = self.targets_per_second, self._figures.flops_per_target, self._figures.peak_flops
        if rate is None or work is None or peak is None:
            return None
        return rate * work / (peak * self._ranks)

    def seconds_left(self, steps: int) -> float | None:
        """Time for `steps` further steps, without validation and checkpoints."""
        return median(self._seconds) * steps if self._seconds else None

    def memory(self) -> int:
        """Bytes: the most that was allocated on a GPU, else this process's resident set."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        resident: int = self._process.memory_info().rss
        return resident

    def bits_per_byte(self, loss: float) -> float | None:
        """Bits per byte of source text for a loss in nats per target, at the mean bytes per target."""
        size = self._figures.bytes_per_target
        return None if size is None else loss / math.log(2) / size
