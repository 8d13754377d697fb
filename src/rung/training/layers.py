"""A network as people speak of it: the embedding, layer 0, layer 1, ..., the head, and which parameters are whose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

_BODIES = ("model", "body")  # what networks call the part that every family has: it is no layer of its own


@dataclass
class Layer:
    """One layer: its module (None for parameters that lie on the network itself) and its parameters by full name."""

    module: nn.Module | None
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)


def layers_of(net: nn.Module) -> dict[str, Layer]:
    """The layers of `net` with trainable parameters, by name, in the order in which parameters are registered.

    A layer is the outermost module on the way to a parameter that holds no `nn.ModuleList`: an element of such a list
    ("layers.0", "encoder.layers.3"), or what stands beside it ("embed_tokens", "norm", "lm_head").
    """
    modules = dict(net.named_modules())
    holders = {path for path, module in modules.items() if _holds_a_list(module)}
    found: dict[str, Layer] = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            path = _layer_path(name, modules, holders)
            layer = found.setdefault(_without_body(path), Layer(modules.get(path) if path != name else None))
            layer.parameters[name] = parameter
    return found


def _holds_a_list(module: nn.Module) -> bool:
    return any(isinstance(inner, nn.ModuleList) for inner in module.modules())


def _layer_path(name: str, modules: Mapping[str, nn.Module], holders: set[str]) -> str:
    """The path of the layer that the parameter `name` belongs to; its own name where it lies on no layer's module."""
    parts = name.split(".")
    for depth in range(1, len(parts)):
        path = ".".join(parts[:depth])
        if path in modules and path not in holders and path not in _BODIES:
            return path
    return name


def _without_body(path: str) -> str:
    first, _, rest = path.partition(".")
    return rest if rest and first in _BODIES else path
