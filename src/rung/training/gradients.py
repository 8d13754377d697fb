"""The gradient of one global batch: micro-batches, ranks, precision and compilation, exactly normalised."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rung.errors import TrainingError
from rung.training.contracts import Batch, Batches, LoopSettings, Objective, Optimizer, Precision
from rung.training.distributed import World


@dataclass(frozen=True)
class GlobalBatch:
    """One global batch: its number of targets, mean loss and metrics per target (NaN without targets), gradient norm.

    `wish` is the sum of what the ranks wish for.
    """

    count: int
    loss: float
    metrics: dict[str, float]
    norm: float
    wish: int


def micro_seed(seed: int, first_sample: int) -> int:
    """The 63-bit seed of the random draws for the micro-batch that begins with this global sample number."""
    digest = hashlib.blake2b(f"{seed}:{first_sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_draws(seed: int, device: torch.device) -> None:
    """Seed what is drawn on `device`.

    On a CPU that one generator only: `torch.manual_seed` also queues a call for every GPU that may yet be initialised,
    with a formatted stack trace each time, which was 40 % of a small network's step.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Matrix products in bfloat16 over float32 weights, or nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


class BatchGradient:
    """Computes the gradient of the mean loss over a global batch into the parameters' `.grad`."""

    def __init__(
        self,
        *,
        net: nn.Module,
        objective: Objective,
        batches: Batches,
        optimizer: Optimizer,
        settings: LoopSettings,
        world: World,
    ) -> None:
        self._parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
        self._batches = batches
        self._optimizer = optimizer
        self._settings = settings
        self._world = world
        self._pieces = settings.micro_batches(world.rank, world.size)
        self._loss = _loss_function(net, objective, compiled=settings.compile)

    def compute(self, first_sample: int, wish: Callable[[], int]) -> GlobalBatch:
        """Leave in `.grad` the gradient of the mean loss over `batch_size` samples from `first_sample` on, clipped.

        `wish` is asked after the last micro-batch and summed over ranks on the way, so that all know it after one
        exchange.
        """
        self._optimizer.zero_grad()
        try:
            sums, names = self._accumulate(first_sample)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"the memory of {self._world.device} does not hold {self._settings.micro_batch_size} samples at once",
                hint="set a smaller micro_batch_size: it needs less memory and gives the same results",
            ) from error
        sums = self._world.sum(torch.cat([sums, torch.tensor([wish()], dtype=torch.float64, device=sums.device)]))
        self._world.sum_gradients(self._parameters)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        torch._foreach_div_(gradients, sums[1].float())
        limit = self._settings.gradient_clip
        norm = self._optimizer.clip_grad_norm(float("inf") if limit is None else limit)
        total, count, *metrics, wishes, length = torch.cat([sums, norm.double().view(1)]).tolist()
        total, length = self._world.from_main([total, length])
        loss, *each = (value / count if count else float("nan") for value in (total, *metrics))
        return GlobalBatch(int(count), loss, dict(zip(names, each, strict=True)), length, int(wishes))

    def _accumulate(self, first_sample: int) -> tuple[Tensor, list[str]]:
        """Forward and backward over this rank's micro-batches; the sums (loss, count, metrics) and metrics' names."""
        device = self._world.device
        parts = []
        names: list[str] = []
        for start, stop in self._pieces:
            numbers = np.arange(first_sample + start, first_sample + stop, dtype=np.int64)
            batch = to_device(device, self._batches.batch(numbers))
            seed_draws(micro_seed(self._settings.seed, first_sample + start), device)
            with autocast(self._settings.precision, device):
                total, count, metrics = self._loss(batch)
            total.backward()  # type: ignore[no-untyped-call]
            names = sorted(metrics)
            values = (total, count, *(metrics[name] for name in names))
            parts.append(torch.stack([value.detach().double() for value in values]))
        return torch.stack(parts).sum(0), names


LossFunction = Callable[[Batch], tuple[Tensor, Tensor, dict[str, Tensor]]]


def _loss_function(net: nn.Module, objective: Objective, *, compiled: bool) -> LossFunction:
    def loss(batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        result = objective(net, batch)
        return result.total, result.count, result.metrics

    if not compiled:
        return loss
    from torch._dynamo.exc import TorchDynamoException

    fast = torch.compile(loss, dynamic=False)

    def compiled_loss(batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        try:
            return fast(batch)
        except TorchDynamoException as error:
            raise TrainingError(
                f"this network cannot be compiled here: {str(error).strip().splitlines()[0]}",
                hint="train with compile = false, or install a C++ compiler",
            ) from error

    return compiled_loss


def to_device(device: torch.device, batch: Batch) -> Batch:
    """The batch on `device`, copied while the processor goes on."""
    if device.type == "cpu":
        return batch
    return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in batch.items()}
