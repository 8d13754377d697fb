"""Vital signs: how each layer of a network fares while it learns, looked at now and then.

Of every layer, from one real step: the norm of its gradient (of the whole batch, before clipping), how far the step
moves its weights as a share of their size, the share of units that get no gradient at all; and mean, deviation and
saturation of what it puts out for some of the step's samples. Of the body: how far back its gradient reaches.

Looking changes nothing: gradients and weights are only read, and activations come from a forward pass of their own,
uncompiled, in evaluation mode and with the random state put back. So a run gives the same weights with and without,
bit for bit, and compiled code is compiled once. One process looks: gradients are global, weights the same everywhere.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rung.training.contracts import Batches, LoopSettings, Objective
from rung.training.gradient_reach import GradientReach, gradient_reach
from rung.training.gradients import autocast, to_device
from rung.training.layers import Layer, layers_of

SHARE_OF_TIME = 0.01
"""By default a look is taken when it and all before it, but the first, take less than this share of the time."""
SATURATED = 0.97
"""Outputs of tanh and of recurrent layers beyond this (of 1) count as saturated: tanh has less than 6 % of its slope
there. Karpathy's lectures ("Building makemore", part 3) draw the same line."""
_MOST_IN_A_RUN = 100
_SAMPLES = 8
_BOUNDED = (nn.Tanh, nn.Sigmoid, nn.RNNBase)

_Numbers = dict[str, dict[str, Tensor]]  # layer -> name -> 0-dimensional


@dataclass(frozen=True)
class VitalSigns:
    """What was found at one step.

    `layers`: layer -> gradient_norm, weight_norm, update_ratio, without_gradient (a share of units), mean, std,
    saturated (a share of outputs): those that the layer has and that are finite. `seconds` is what looking took.
    """

    layers: dict[str, dict[str, float]]
    reach: GradientReach | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values for `metrics.jsonl`, four digits of each."""
        layers = {name: {key: _rounded(value) for key, value in found.items()} for name, found in self.layers.items()}
        line: dict[str, Any] = {"layers": layers, "seconds": _rounded(self.seconds)}
        return line if self.reach is None else line | {"gradient_reach": self.reach.to_json()}

    def scalars(self) -> dict[str, float]:
        """The same as flat names, for event files."""
        flat = {f"{name}/{key}": value for name, found in self.layers.items() for key, value in found.items()}
        return flat if self.reach is None else flat | {"gradient_reach": float(self.reach.steps)}


class Examiner:
    """Decides when vital signs are taken, and takes them."""

    def __init__(
        self, net: nn.Module, objective: Objective, batches: Batches, settings: LoopSettings, device: torch.device
    ) -> None:
        self._net, self._objective, self._batches = net, objective, batches
        self._settings, self._device = settings, device
        self._layers = layers_of(net)
        self._spent, self._fastest = 0.0, math.inf

    def is_due(self, step: int, seconds: float) -> bool:
        """Whether step number `step` (from 1) is to be looked at; `seconds` have been spent on training so far.

        The first one always is, and costs nothing that is counted: there is much that is done once only. No clock
        decides when the settings say after how many steps.
        """
        every = self._settings.vital_signs_every
        if every is not None:
            return every > 0 and (step == 1 or step % every == 0)
        grid = -(-self._settings.schedule.steps // _MOST_IN_A_RUN)
        return step == 1 or (step % grid == 0 and self._spent + self._fastest <= SHARE_OF_TIME * seconds)

    def take(self, step: Callable[[], None], *, first_sample: int, gradient_norm: float) -> VitalSigns:
        """Let `step` update the weights and tell what it did.

        The batch's gradient is in `.grad`, clipped; `gradient_norm` is its norm before that; `first_sample` is the
        number of the batch's first sample.
        """
        began = time.perf_counter()
        limit = self._settings.gradient_clip
        numbers = self._of_gradients(1.0 if limit is None else max(1.0, gradient_norm / limit))
        before = {name: _copies(layer) for name, layer in self._layers.items()}
        paused = time.perf_counter()
        step()
        resumed = time.perf_counter()
        for name, layer in self._layers.items():
            numbers[name] |= _of_update(layer, before.pop(name))
        reach = self._of_samples(numbers, first_sample)
        layers = _finite(numbers)
        seconds = time.perf_counter() - resumed + paused - began
        self._spent += 0.0 if math.isinf(self._fastest) else seconds
        self._fastest = min(self._fastest, seconds)
        return VitalSigns(layers, reach, seconds)

    def _of_gradients(self, scale: float) -> _Numbers:
        return {name: _of_gradient(layer, scale) for name, layer in self._layers.items()}

    @torch.no_grad()
    def _of_samples(self, numbers: _Numbers, first_sample: int) -> GradientReach | None:
        """Put the statistics of the layers' outputs into `numbers`; how far back the gradient reaches."""
        count = min(_SAMPLES, self._settings.micro_batch_size)
        samples = np.arange(first_sample, first_sample + count, dtype=np.int64)
        batch = to_device(self._device, self._batches.batch(samples))
        devices = [self._device] if self._device.type == "cuda" else []
        with (
            torch.random.fork_rng(devices=devices),
            _evaluating(self._net),
            autocast(self._settings.precision, self._device),
        ):
            with _listening(self._layers, batch.get("mask")) as heard:
                self._objective(self._net, batch)
            for name, one in heard.items():
                numbers[name] |= one.statistics(bounded=isinstance(self._layers[name].module, _BOUNDED))
            return gradient_reach(self._net, batch)


def _of_gradient(layer: Layer, scale: float) -> dict[str, Tensor]:
    """Norm of the gradient, and the share of units (rows of matrices, filters) without any.

    A unit whose rectifier is never positive gets none; nor does what lies behind a matrix of zeros. Rows of embeddings
    are no units: those of tokens that the batch does not hold have none.
    """
    squares, rows, silent = [], 0, []
    embeddings = {id(m.weight) for m in _modules(layer) if isinstance(m, nn.Embedding)}
    for name, parameter in layer.parameters.items():
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.is_sparse:
            squares.append(gradient._values().float().square().sum())
            continue
        lengths = gradient.float().flatten(1).norm(dim=1) if gradient.ndim > 1 else gradient.float().norm()[None]
        squares.append(lengths.square().sum())
        if gradient.ndim > 1 and id(parameter) not in embeddings and not name.startswith("lm_head"):
            rows += len(lengths)
            silent.append((lengths == 0).sum())
    found = {"gradient_norm": torch.stack(squares).sum().sqrt() * scale} if squares else {}
    if rows:
        found["without_gradient"] = torch.stack(silent).sum() / rows
    return found


def _copies(layer: Layer) -> list[Tensor]:
    """The weights as they are now; of a row-sparse gradient's parameter only the rows that it will move.

    They live while the weights are updated, when the activations of the step are gone: they need no new memory.
    """
    return [_moving(parameter).clone() for parameter in layer.parameters.values()]


def _moving(parameter: nn.Parameter) -> Tensor:
    weight = parameter.detach()
    if parameter.grad is not None and parameter.grad.is_sparse:
        return weight.index_select(0, parameter.grad._indices()[0])
    return weight


def _of_update(layer: Layer, before: list[Tensor]) -> dict[str, Tensor]:
    """Norm of the weights, and that of their update as a share of it."""
    size = torch.stack([old.float().norm() for old in before]).norm()
    moves = [(_moving(new) - old).float() for new, old in zip(layer.parameters.values(), before, strict=True)]
    return {"weight_norm": size, "update_ratio": torch.stack([move.norm() for move in moves]).norm() / size}


def _modules(layer: Layer) -> Iterator[nn.Module]:
    return iter(()) if layer.module is None else layer.module.modules()


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """No dropout for the time being; afterwards every module is in the mode that it was in."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@dataclass
class _Heard:
    """Sums over all that a layer put out, in however many calls: of values, their squares, and saturated ones."""

    count: int = 0
    sums: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """Take note of the output of one call."""
        values = values.detach().double()
        sums = torch.stack([values.sum(), values.square().sum(), (values.abs() > SATURATED).sum()])
        self.count += values.numel()
        self.sums = sums if self.sums is None else self.sums + sums

    def statistics(self, *, bounded: bool) -> dict[str, Tensor]:
        """Mean, deviation and, for what is bounded by 1, the saturated share."""
        if self.sums is None:
            return {}
        mean, squares, saturated = self.sums / self.count
        found = {"mean": mean, "std": (squares - mean.square()).clamp(min=0).sqrt()}
        return found | {"saturated": saturated} if bounded else found


@contextmanager
def _listening(layers: dict[str, Layer], mask: Tensor | None) -> Iterator[dict[str, _Heard]]:
    """Hear what the layers put out, without padding. What an objective fuses is not heard."""
    heard = {name: _Heard() for name in layers}

    def hear(name: str, module: nn.Module, given: Any, output: Any) -> None:  # noqa: ARG001 - torch's signature
        values = next((one for one in _tensors(output) if one.is_floating_point()), None)
        if values is not None:
            is_padded = mask is not None and values.shape[:2] == mask.shape
            heard[name].add(values[mask.bool()] if mask is not None and is_padded else values)

    handles = [
        layer.module.register_forward_hook(partial(hear, name))
        for name, layer in layers.items()
        if layer.module is not None
    ]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _tensors(part)


def _finite(numbers: _Numbers) -> dict[str, dict[str, float]]:
    """All numbers at once from the device; those that are not finite are left out, as JSON knows none."""
    keys = [(name, key) for name, found in numbers.items() for key in found]
    values = torch.stack([numbers[name][key].double() for name, key in keys]).tolist() if keys else []
    layers: dict[str, dict[str, float]] = {name: {} for name in numbers}
    for (name, key), value in zip(keys, values, strict=True):
        if math.isfinite(value):
            layers[name][key] = value
    return layers


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
