"""Sentence encoders (Reimers and Gurevych 2019, arXiv 1908.10084): a body, a pooling, and what follows it.

What follows is any row of dense layers and normalisations, as in a folder of sentence-transformers, which
`rung.nets.sentence_folder` reads and writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from rung.errors import RunFolderError
from rung.nets.encoder import Encoder
from rung.nets.layers import Linear
from rung.nets.pooling import LastTokenPooling, MaxPooling, MeanPooling
from rung.nets.strict_config import check_values

Similarity = Literal["cosine", "dot"]


class ClsPooling(nn.Module):
    """The state of the first token as it is."""

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:  # noqa: ARG002 - never padding
        """Pool (batch, time, hidden) to (batch, hidden)."""
        return hidden[:, 0]


class WeightedMeanPooling(nn.Module):
    """The mean with weights 1, 2, 3, ... over time (Muennighoff 2022, SGPT, arXiv 2202.08904, equation 2)."""

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Pool (batch, time, hidden) to (batch, hidden)."""
        weights = torch.arange(1, hidden.shape[1] + 1, dtype=hidden.dtype, device=hidden.device).expand(
            hidden.shape[:2]
        )
        if mask is not None:
            weights = weights * mask
        return torch.einsum("bt,bth->bh", weights / weights.sum(dim=1, keepdim=True), hidden)


POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "cls": ClsPooling,
    "max": MaxPooling,
    "mean": MeanPooling,
    "weightedmean": WeightedMeanPooling,
    "lasttoken": LastTokenPooling,
}
"""By sentence-transformers' names, in the order in which it concatenates them."""
DENSE_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "torch.nn.modules.linear.Identity": lambda x: x,
    "torch.nn.modules.activation.Tanh": torch.tanh,
    "torch.nn.modules.activation.ReLU": torch.relu,
    "torch.nn.modules.activation.GELU": F.gelu,
}


@dataclass(frozen=True)
class DenseConfig:
    """A dense layer after the pooling; `activation` is one of `DENSE_ACTIVATIONS`."""

    in_features: int
    out_features: int
    bias: bool = True
    activation: str = "torch.nn.modules.linear.Identity"

    def __post_init__(self) -> None:
        """Refuse a layer that cannot be built (RunFolderError: such sizes come from a `config.json`)."""
        check_values(self)
        if self.activation not in tuple(DENSE_ACTIVATIONS):  # a tuple, because what a file says may have no hash
            raise RunFolderError(
                f"activation_function {self.activation!r:.80} is not supported",
                hint=f"supported: {', '.join(DENSE_ACTIVATIONS)}",
            )


Step = DenseConfig | Literal["normalize"]


@dataclass(frozen=True)
class SentenceConfig:
    """What a sentence encoder does with the states of its body, and how it is used.

    `pooling`: names of `POOLINGS`, their results side by side. `after`: what follows, in order. `max_length`: the most
    tokens of a text, special tokens included. `prompts`: what is put before a text, by name; `default_prompt` names the
    one that goes before every text for which none is asked. `similarity`: how two embeddings are compared.
    """

    max_length: int
    pooling: tuple[str, ...] = ("mean",)
    after: tuple[Step, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    similarity: Similarity = "cosine"


class Dense(nn.Module):
    """A linear layer and its activation."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        self.linear = Linear(config.in_features, config.out_features, bias=config.bias)
        self.activation = DENSE_ACTIVATIONS[config.activation]

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_features) to (batch, out_features)."""
        return self.activation(self.linear(vectors))


class Normalize(nn.Module):
    """To length 1."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Map (batch, features) to the same shape."""
        return F.normalize(vectors, dim=1)


class SentenceNet(nn.Module):
    """Texts to vectors. `body` is used, not copied: training this trains it."""

    def __init__(self, body: Encoder, config: SentenceConfig) -> None:
        super().__init__()
        self.config = config
        self.body = body
        self.poolings = nn.ModuleList(POOLINGS[name]() for name in config.pooling)
        self.after = nn.ModuleList(Normalize() if step == "normalize" else Dense(step) for step in config.after)

    @property
    def dimension(self) -> int:
        """Numbers of an embedding."""
        widths = [step.out_features for step in self.config.after if isinstance(step, DenseConfig)]
        return widths[-1] if widths else self.body.config.hidden_size * len(self.config.pooling)

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the embedded tokens (batch, time, hidden) of `input_ids` (batch, time)."""
        return self.body.embed(input_ids)

    def pooled(self, embedded: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the vectors (batch, dimension) of embedded, right-padded texts; `mask`: true for tokens."""
        hidden = self.body(embedded, mask).hidden
        vectors = torch.cat([pooling(hidden, mask) for pooling in self.poolings], dim=1)
        for step in self.after:
            vectors = step(vectors)
        return vectors

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the vectors (batch, dimension) of `input_ids` (batch, time) under `mask`, where there is padding."""
        return self.pooled(self.embed(batch["input_ids"]), batch.get("mask"))

    def dense_layers(self) -> list[Dense]:
        """The dense layers after the pooling, in order."""
        return [step for step in self.after if isinstance(step, Dense)]
