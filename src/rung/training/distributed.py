"""Several processes training one network: same weights everywhere, each with its share of every batch.

Gradients are summed in one pass after the last micro-batch of a step, not by `DistributedDataParallel`. DDP divides by
the number of ranks, while an exact mean needs the global count of targets, known only when all micro-batches are done;
and it must wrap the module's `forward`, while an objective here may call any part of a net inside one compiled
function. What DDP would add is the overlap of communication with the last backward pass.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

_BUCKET_ELEMENTS = 16 * 2**20  # 64 MiB of float32: large enough for full bandwidth, small enough not to double memory


@dataclass(frozen=True)
class World:
    """This process (`rank`) among `size` processes, `size_here` of them on this machine, and its device."""

    rank: int
    size: int
    device: torch.device
    size_here: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum of `values` over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def largest(self, value: int) -> int:
        """The largest `value` of any rank: how flags such as "stop" become common knowledge."""
        if self.size == 1:
            return value
        flag = torch.tensor([value], dtype=torch.int64, device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return int(flag.item())

    def from_main(self, values: list[float]) -> list[float]:
        """The main process's `values` on every rank, so that a decision never differs in the last bit."""
        if self.size == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        result: list[float] = shared.tolist()
        return result

    def share_weights(self, net: nn.Module) -> None:
        """Give every rank the main process's parameters and buffers."""
        if self.size > 1:
            for tensor in (*net.parameters(), *net.buffers()):
                dist.broadcast(tensor.detach(), src=0)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum gradients over all ranks. A parameter that no rank used keeps no gradient, as in a single process."""
        if self.size == 1:
            return
        parameters = [parameter for parameter in parameters if parameter.requires_grad]
        used = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8)
        used = used.to(self.device)
        dist.all_reduce(used, op=dist.ReduceOp.MAX)
        gradients = []
        for parameter, is_used in zip(parameters, used.tolist(), strict=True):
            if is_used:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            pieces = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, piece in zip(bucket, pieces, strict=True):
                gradient.copy_(piece.view_as(gradient))

    def wait_for_all(self) -> None:
        """Return when every rank has come here."""
        if self.size > 1:
            self.largest(0)


def alone(device: torch.device | str = "cpu") -> World:
    """A single process on `device`."""
    return World(0, 1, torch.device(device))


@contextmanager
def world_from_environment(device: torch.device | str = "cpu") -> Iterator[World]:
    """The world that `torchrun` set up (gloo on CPU, nccl on GPU), or a single process when it was not used."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield alone(device)
        return
    device = torch.device(device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    finally:
        dist.destroy_process_group()


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one dtype, together at most a bucket large (a single larger one stands alone)."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and (size + gradient.numel() > _BUCKET_ELEMENTS or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.numel()
    if bucket:
        yield bucket
