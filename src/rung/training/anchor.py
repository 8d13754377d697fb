"""Weights held near where they began: decay towards a starting point instead of towards zero.

L2-SP (Li, Grandvalet and Davoine 2018, arXiv 1802.01483) adds weight/2 x |w - w0|^2 to the loss. Under Adam and Muon a
penalty in the loss would be divided by each weight's own gradient scale, so it is decoupled here, as AdamW decouples
its decay (Loshchilov and Hutter 2019): after each step, w moves by rate x weight of the way back to w0. The strength of
elastic weight consolidation (Kirkpatrick et al. 2017) with the same importance for every weight.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rung.training.contracts import Optimizer


class Anchor:
    """The weights that training began with, beside those that it moves."""

    def __init__(self, net: nn.Module, start: nn.Module) -> None:
        """Hold `net` to the weights that `start`, a network of the same shape, has now; they are kept, not copied."""
        self._parameters: list[Tensor] = [parameter for parameter in net.parameters() if parameter.requires_grad]
        self._start: list[Tensor] = [parameter.detach() for parameter in start.parameters() if parameter.requires_grad]

    @torch.no_grad()
    def distance(self) -> float:
        """How far the weights have moved, |w - w0| / |w0| over all of them together."""
        moved = torch._foreach_norm([now - then for now, then in zip(self._parameters, self._start, strict=True)])
        norms = torch._foreach_norm(self._start)
        return float(torch.linalg.vector_norm(torch.stack(moved)) / torch.linalg.vector_norm(torch.stack(norms)))

    @torch.no_grad()
    def pull(self, share: float) -> None:
        """Move every weight `share` of the way back."""
        torch._foreach_lerp_(self._parameters, self._start, share)


class Anchored:
    """An optimiser after whose steps the weights are pulled back; everything else is the optimiser's own."""

    def __init__(self, optimizer: Optimizer, anchor: Anchor, *, learning_rate: float, weight: float) -> None:
        """Pull by `learning_rate` x the schedule's factor x `weight` (a share of the distance, at most 1)."""
        self._optimizer, self._anchor, self._pull = optimizer, anchor, learning_rate * weight

    def step(self, factor: float) -> None:
        """Move the parameters, then back by their share."""
        self._optimizer.step(factor)
        self._anchor.pull(min(1.0, self._pull * factor))

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._optimizer.zero_grad()

    def clip_grad_norm(self, max_norm: float) -> Tensor:
        """Scale gradients down to a global norm of `max_norm`; the norm before."""
        return self._optimizer.clip_grad_norm(max_norm)

    def state_tensors(self) -> dict[str, Tensor]:
        """The optimiser's: where training began is known from the parent run."""
        return self._optimizer.state_tensors()

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy what `state_tensors` gave."""
        self._optimizer.load_state_tensors(tensors)
