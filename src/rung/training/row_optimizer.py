"""Adagrad that touches only the rows of an embedding that a batch holds.

A step of a dense optimiser reads and writes every parameter: with a million n-gram rows, of which a batch holds a
thousand, that is nearly all of the time. Gradients of such embeddings are sparse (`sparse=True` in torch) and stay so.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from rung.errors import RunFolderError

_EPSILON = 1e-10


class RowAdagrad:
    """Adagrad (Duchi, Hazan and Singer 2011) with one accumulator a parameter, for dense and for row-sparse gradients.

    Its step sizes shrink with what a weight has already moved, so that rare rows learn as fast as frequent ones: what
    it was made for. Meets the protocol `rung.training.contracts.Optimizer`.
    """

    def __init__(self, net: nn.Module, learning_rate: float) -> None:
        self._names = {p: name for name, p in net.named_parameters() if p.requires_grad}
        self._sums = {p: torch.zeros_like(p) for p in self._names}
        self._learning_rate = learning_rate

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p in self._names:
            p.grad = None

    @torch.no_grad()
    def clip_grad_norm(self, max_norm: float) -> torch.Tensor:
        """Scale gradients down to a global norm of `max_norm`; the norm before, 0-dimensional."""
        for p in self._names:
            if p.grad is not None and p.grad.is_sparse:
                p.grad = _each_row_once(p.grad)  # else its norm would not be one
        values = [_values(p.grad) for p in self._names if p.grad is not None]
        norm: torch.Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(values)))
        if norm > max_norm and torch.isfinite(norm):
            torch._foreach_mul_(values, max_norm / norm)
        return norm

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Update what has a gradient at the learning rate times `factor`."""
        rate = self._learning_rate * factor
        for p, sums in self._sums.items():
            if p.grad is None:
                continue
            if p.grad.is_sparse:
                rows, gradient = p.grad._indices()[0], p.grad._values()
                moved = sums.index_select(0, rows).addcmul_(gradient, gradient)
                sums.index_copy_(0, rows, moved)
                weights = p.index_select(0, rows).addcdiv_(gradient, moved.sqrt_().add_(_EPSILON), value=-rate)
                p.index_copy_(0, rows, weights)
            else:
                sums.addcmul_(p.grad, p.grad)
                p.addcdiv_(p.grad, sums.sqrt().add_(_EPSILON), value=-rate)

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """The accumulators as `parameter name/sum`."""
        return {f"{self._names[p]}/sum": sums for p, sums in self._sums.items()}

    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy what `state_tensors` gave. RunFolderError when names or shapes differ."""
        own = self.state_tensors()
        if {name: value.shape for name, value in tensors.items()} != {name: value.shape for name, value in own.items()}:
            raise RunFolderError("the optimiser's state is not of this network and optimiser")
        for name, value in tensors.items():
            own[name].copy_(value)


def _each_row_once(gradient: torch.Tensor) -> torch.Tensor:
    """The coalesced gradient. Accumulating into `.grad` loses the mark that it is so, and to sort it anew is dear."""
    rows = gradient._indices()[0]
    if bool((rows[1:] > rows[:-1]).all()):
        return gradient._coalesced_(True)
    return gradient.coalesce()


def _values(gradient: torch.Tensor) -> torch.Tensor:
    return gradient._values() if gradient.is_sparse else gradient
