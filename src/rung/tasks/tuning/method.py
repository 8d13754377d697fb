"""How a pretrained network is tuned: which of its weights move, and how fast.

full     every weight; with `layer_decay` lower layers more slowly (ULMFiT: Howard and Ruder 2018, arXiv
         1801.06146, section 3.2; ELECTRA: Clark et al. 2020), with `gradual` from the top layer down (ULMFiT, 3.3)
frozen   the new head alone
lora     thin matrices beside the body's (`rung.nets.lora`), and the new head where there is one
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import torch
from torch import nn

from rung.errors import UsageError
from rung.nets.lora import ALL_LINEAR, HEADS, LoraConfig, add_lora
from rung.nets.quantized import quantize_layers

Kind = Literal["full", "frozen", "lora"]
BasePrecision = Literal["fp32", "bf16", "int8", "int4"]

NEW_HEADS = ("head", "pooling")
"""Children of a network that a task puts on a pretrained body. `lm_head` is none: it comes with the body."""
_LAYER = re.compile(r"^(.*?)\.(\d+)\.")


@dataclass(frozen=True)
class TuningMethod:
    """How to tune. UsageError for settings that contradict each other.

    `layer_decay`: each layer learns at so many times the rate of the one above it; the head at the full rate, the
    embeddings at the lowest. `gradual`: the body starts frozen and is thawed from the top layer down at the boundaries
    of epochs. `base_precision`: what the frozen matrices of LoRA are stored in.
    """

    kind: Kind = "full"
    lora: LoraConfig | None = None
    layer_decay: float | None = None
    gradual: bool = False
    base_precision: BasePrecision = "fp32"

    def __post_init__(self) -> None:
        if self.kind == "lora" and self.lora is None:
            object.__setattr__(self, "lora", LoraConfig())
        if self.kind != "lora" and self.lora is not None:
            raise UsageError(f"settings of LoRA mean nothing when tuning is {self.kind}", hint="leave one of them out")
        if self.kind != "lora" and self.base_precision != "fp32":
            raise UsageError(
                f"weights that are trained are kept in float32, not in {self.base_precision}",
                hint="tune with LoRA, or leave the precision of the base out",
            )
        if self.kind == "frozen" and (self.layer_decay is not None or self.gradual):
            raise UsageError("a frozen body has no layers that learn", hint="leave layer_decay and gradual out")
        if self.kind == "lora" and self.gradual:
            raise UsageError("LoRA leaves the body frozen: there is nothing to thaw", hint="leave gradual out")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise UsageError(f"layer_decay lies above 0 and up to 1, not at {self.layer_decay}")

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a run's header."""
        return asdict(self)

    def in_words(self) -> str:
        """How a base is tuned, for people."""
        if self.kind == "frozen":
            return "A new head on the frozen body"
        layers = "" if self.layer_decay is None else f", each layer at {self.layer_decay:g} times the rate of the next"
        if self.lora is None:
            return f"All weights{layers}{', thawed from the top layer down' if self.gradual else ''}"
        targets = self.lora.target_modules
        named = targets if isinstance(targets, str) else ", ".join(targets)
        return (
            f"{'DoRA' if self.lora.use_dora else 'LoRA'} of rank {self.lora.r}, alpha {self.lora.lora_alpha:g}, on "
            f"{named}, base in {self.base_precision}{layers}"
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave, also after a way through JSON."""
        lora = value["lora"]
        if lora is not None:
            targets = lora["target_modules"]
            lora = LoraConfig(**{**lora, "target_modules": targets if targets == ALL_LINEAR else tuple(targets)})
        return cls(**{**value, "lora": lora})


def apply_method(net: nn.Module, method: TuningMethod, *, seed: int) -> None:
    """Make trainable what `method` trains, and freeze the rest; with LoRA, store the base and add the adapter.

    The adapter is drawn from `seed`. Raises UsageError when nothing would be trained, or LoRA targets match nothing.
    """
    freeze_and_store(net, method)
    if method.lora is not None:
        add_lora(net, method.lora, generator=torch.Generator().manual_seed(seed))
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise UsageError("this network has no new head: with its body frozen, nothing is left to train", hint="--lora")


def freeze_and_store(net: nn.Module, method: TuningMethod) -> None:
    """The part of `apply_method` that draws nothing: what is frozen, and how the base of LoRA is stored."""
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(method.kind == "full" or name.split(".")[0] in NEW_HEADS)
    if method.kind == "lora":
        _store_base(net, method.base_precision)


def _store_base(net: nn.Module, precision: BasePrecision) -> None:
    """Store the matrices of the body in fewer bits. Embeddings, norms and heads keep theirs."""
    if precision in ("int8", "int4"):
        quantize_layers(net, precision, kept=HEADS)
    elif precision == "bf16":
        for path, module in net.named_modules():
            if isinstance(module, nn.Linear) and path.split(".")[0] not in HEADS:
                module.to(torch.bfloat16)


def rate_of(net: nn.Module, method: TuningMethod) -> Callable[[str], float]:
    """The multiplier of the learning rate for each parameter of `net`, by name."""
    decay = method.layer_decay
    if decay is None:
        return lambda _name: 1.0
    depths = depths_of(net)
    top = max(depths.values())
    return lambda name: float(decay ** (top - depths[name]))


def depths_of(net: nn.Module) -> dict[str, int]:
    """How high in `net` each parameter lies: 0 for embeddings, 1, 2, ... for the layers, then all that is above them.

    Of an encoder-decoder, the decoder's layers follow the encoder's.
    """
    names = [name for name, _ in net.named_parameters()]
    found = (_LAYER.match(name) for name in names)
    layers = list(dict.fromkeys(match[0] for match in found if match))
    embeddings = {path for path, module in net.named_modules() if isinstance(module, nn.Embedding)}
    depths = {}
    for name in names:
        match = _LAYER.match(name)
        if match:
            depths[name] = 1 + layers.index(match[0])
        else:
            is_embedding = name.rpartition(".")[0] in embeddings or ".embeddings." in f".{name}"
            depths[name] = 0 if is_embedding else 1 + len(layers)
    return depths


def require_epochs(epochs: float) -> None:
    """Raise UsageError when layers cannot be thawed at the boundaries of so few epochs."""
    if epochs < 2:
        raise UsageError(
            f"gradual unfreezing goes by epochs, and {epochs:.3g} is too few", hint="tune for two epochs or more"
        )


def gradual_unfreezing(net: nn.Module, *, steps_per_epoch: int, epochs: float) -> Callable[[int], None]:
    """What is called with the number of steps done, before each step: it freezes and thaws the layers of `net`.

    In the first epoch only what lies above the layers learns; each further epoch thaws as many layers, from the top
    down, as it takes for all to learn in the last one. Whatever the step, the outcome depends on it alone, so a resumed
    run goes on with the same layers. UsageError when there are fewer than two epochs.
    """
    require_epochs(epochs)
    whole = int(epochs)
    depths = depths_of(net)
    parameters = dict(net.named_parameters())
    top = max(depths.values())

    def thaw(step: int) -> None:
        epoch = min(step // steps_per_epoch, whole - 1)
        lowest = top - -(-top * epoch // (whole - 1))
        for name, parameter in parameters.items():
            parameter.requires_grad_(depths[name] >= lowest)

    return thaw
