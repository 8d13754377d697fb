"""How far back a network's gradient reaches: vanishing gradients as a number and a curve.

In a simple recurrent network the gradient of what is read at step T with respect to what was read d steps before is a
product of d Jacobians and shrinks, as a rule, exponentially in d, so that what lies far back cannot be learned
(Hochreiter 1991; Bengio, Simard and Frasconi 1994; Pascanu, Mikolov and Bengio 2013, section 2). LSTMs were built so
that it need not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

REACHED = 0.01
"""A gradient below this share of that of the last step counts as vanished."""
_MOST_ROWS = 2
_MOST_POINTS = 48


@dataclass(frozen=True)
class GradientReach:
    """`curve`: (steps back, gradient norm as a share of that of the last step), thinned to some distances.

    `steps`: how many steps back the gradient is first below `REACHED`; `longest` when it nowhere is.
    """

    steps: int
    longest: int
    curve: tuple[tuple[int, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded to what can be seen."""
        shares = [[distance, float(f"{share:.3g}")] for distance, share in self.curve]
        return {"steps": self.steps, "longest": self.longest, "curve": shares}


def gradient_reach(net: nn.Module, batch: Mapping[str, Tensor]) -> GradientReach | None:
    """How strongly the state at the last position of some sequences depends on the input of each position before.

    Measured is the norm of d (r h_T) / d e_t: h_T is the body's last hidden state, r a fixed row of random signs (so
    that the squared norm is on average that of the whole Jacobian), e_t the embedded token; averaged over sequences.
    The state, not the loss, is followed: a loss near zero has no gradient anywhere.

    Returns None for a network that has no body over a sequence (`rung.nets.body.Body`, as `model` or `body`), for
    sequences of one step, and when the last step's gradient is zero or not finite. Draws no random numbers and leaves
    parameters' gradients alone; the network should be in evaluation mode.
    """
    body = _body_of(net)
    input_ids = batch.get("input_ids")
    if body is None or input_ids is None or input_ids.ndim != 2 or input_ids.shape[1] < 2:
        return None
    mask = batch.get("mask")
    input_ids, mask = input_ids[:_MOST_ROWS], None if mask is None else mask[:_MOST_ROWS]
    last = torch.full((len(input_ids),), input_ids.shape[1] - 1, device=input_ids.device)
    if mask is not None:
        last = mask.sum(1).long() - 1
    # cuDNN's recurrent kernels have a backward pass in training mode only.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        embedded = body.embed(input_ids).detach().requires_grad_()
        hidden = body(embedded, mask).hidden
        states = hidden[torch.arange(len(hidden), device=hidden.device), last].float()
        (gradient,) = torch.autograd.grad((states * _signs(states.shape[1], states.device)).sum(), embedded)
    return _by_distance(gradient.float().norm(dim=-1), last)


def _body_of(net: nn.Module) -> Any:
    for name in ("model", "body"):
        body = getattr(net, name, None)
        if isinstance(body, nn.Module) and hasattr(body, "embed"):
            return body
    return None


def _signs(size: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randint(0, 2, (size,), generator=generator) * 2 - 1).float().to(device)


def _by_distance(norms: Tensor, last: Tensor) -> GradientReach | None:
    """From norms (rows, time) to the mean over rows by distance from each row's `last` position."""
    distances = last[:, None] - torch.arange(norms.shape[1], device=norms.device)
    real = distances >= 0
    longest = int(last.max())
    sums = norms.new_zeros(longest + 1).index_add_(0, distances[real], norms[real])
    counts = norms.new_zeros(longest + 1).index_add_(0, distances[real], torch.ones_like(norms[real]))
    means = (sums / counts).tolist()
    if longest < 1 or means[0] == 0 or not all(map(math.isfinite, means)):
        return None
    shares = [mean / means[0] for mean in means]
    steps = next((distance for distance, share in enumerate(shares) if share < REACHED), longest)
    return GradientReach(steps, longest, tuple((distance, shares[distance]) for distance in _thinned(longest)))


def _thinned(longest: int) -> list[int]:
    """All small distances, then fewer and fewer, up to `longest`."""
    if longest < _MOST_POINTS:
        return list(range(longest + 1))
    ratio = (longest + 1) ** (1 / (_MOST_POINTS - 1))
    return sorted({*range(8), *(min(longest, round(ratio**n)) for n in range(_MOST_POINTS)), longest})
