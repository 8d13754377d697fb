"""What the loop is given and what it gives back. Any network, objective and source of samples fits these shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rung.errors import RecipeError
from rung.objectives.loss import Loss
from rung.training.guards import GuardSettings
from rung.training.schedule import Revision, Schedule

Batch = Mapping[str, Tensor]
Precision = Literal["fp32", "bf16"]
Ended = Literal["finished", "stopped early", "interrupted"]


class Batches(Protocol):
    """Where samples come from: any of them, by global number, at any time and in any process."""

    def batch(self, sample_numbers: NDArray[np.int64]) -> Batch:
        """The samples of these numbers as CPU tensors of shape (batch, ...)."""
        ...


class Objective(Protocol):
    """What the network is trained to do: a function of network and batch.

    Between training steps it is also called on a network in evaluation mode, by validation and for vital signs.
    """

    def __call__(self, net: Any, batch: Batch) -> Loss:
        """A loss summed over targets, and their count."""
        ...


@runtime_checkable
class CarriesState(Protocol):
    """An objective that carries something from batch to batch: the states of a recurrent network, lane by lane."""

    def state_tensors(self) -> dict[str, Tensor]:
        """What it carries, for the whole batch; zeros where another rank carries it, so that ranks add up."""
        ...

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state_tensors` gave, added up over ranks."""
        ...


class Optimizer(Protocol):
    """One optimiser over all trainable parameters, with its own learning rate; see `rung.training.optimizers`."""

    def zero_grad(self) -> None:
        """Forget the gradients."""
        ...

    def clip_grad_norm(self, max_norm: float) -> Tensor:
        """Scale gradients down to a global norm of `max_norm`; the norm before, 0-dimensional."""
        ...

    def step(self, factor: float) -> None:
        """Move the parameters at the learning rate times the schedule's `factor`."""
        ...

    def state_tensors(self) -> dict[str, Tensor]:
        """The whole state by name."""
        ...

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy what `state_tensors` gave."""
        ...


@dataclass(frozen=True)
class Validation:
    """How well the network does on held-out samples. `criterion`: lower is better; `metrics` are shown and logged."""

    criterion: float
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LoopSettings:
    """How to train.

    `batch_size`: samples of one optimiser step over all ranks. `micro_batch_size`: the most samples a rank puts through
    the network at once; it must divide the rank's share of a batch, so that every shape is the same.
    `gradient_clip`: the largest global gradient norm. `precision` "bf16" runs the network under autocast, which serves
    any network; one whose own `compute_dtype` is bfloat16 (a decoder may be loaded, trained and asked that way) wants
    "fp32" here, no autocast around it. A step takes equally long either way.

    `validate_every`, `checkpoint_every`, `log_every`: in steps.
    `vital_signs_every`: in steps; 0 for none, None for as often as costs under 1 % of the time (see `vital_signs`).
    `patience`: validations without a new best before training stops early; each new best is then saved. Without
    patience the last state is what counts, and the best of the regular checkpoints is kept.
    """

    schedule: Schedule
    batch_size: int
    micro_batch_size: int
    seed: int = 0
    gradient_clip: float | None = 1.0
    precision: Precision = "fp32"
    compile: bool = False
    validate_every: int | None = None
    checkpoint_every: int | None = None
    log_every: int = 10
    keep_last: int = 3
    patience: int | None = None
    guard: GuardSettings = field(default_factory=GuardSettings)
    tensorboard: bool = False
    vital_signs_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "micro_batch_size", "validate_every", "checkpoint_every", "log_every", "keep_last"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RecipeError(f"{name} must be at least 1, not {value}")
        if self.vital_signs_every is not None and self.vital_signs_every < 0:
            raise RecipeError(f"vital_signs_every is a number of steps, or 0 for none, not {self.vital_signs_every}")
        if self.patience is not None and self.validate_every is None:
            raise RecipeError("patience counts validations, but validate_every is not set")

    def micro_batches(self, rank: int, ranks: int) -> list[tuple[int, int]]:
        """The pieces (start, stop) of a batch that `rank` of `ranks` works on, one after the other.

        Raises RecipeError when the batch cannot be cut into equal pieces.
        """
        share, rest = divmod(self.batch_size, ranks)
        if rest:
            raise RecipeError(
                f"a batch of {self.batch_size} samples cannot be shared equally by {ranks} processes",
                hint="make batch_size a multiple of the number of processes",
            )
        size = min(self.micro_batch_size, share)
        if share % size:
            raise RecipeError(
                f"micro-batches of {size} samples do not divide the {share} samples of one process",
                hint=f"set micro_batch_size to a divisor of {share}",
            )
        starts: Iterable[int] = range(rank * share, (rank + 1) * share, size)
        return [(start, start + size) for start in starts]


@dataclass(frozen=True)
class LoopResult:
    """How training ended. `checkpoint` is the last one written, `best_checkpoint` the best validated one.

    `best_step` is the step of the latter; where checkpoints are kept in memory, there is nothing at `checkpoint`.
    `interrupt_wanted`: someone interrupted, be it with the last step, when there was nothing left to interrupt.
    """

    ended: Ended
    step: int
    targets: int
    seconds: float
    schedule: Schedule
    revisions: tuple[Revision, ...]
    checkpoint: Path
    best_checkpoint: Path | None
    best_step: int | None
    best_criterion: float | None
    skipped: dict[str, int]
    interrupt_wanted: bool = False
