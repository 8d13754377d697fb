"""The convolutional body: Kim 2014, "Convolutional Neural Networks for Sentence Classification", section 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from rung.nets.body import States


@dataclass(frozen=True)
class ConvolutionConfig:
    """Word vectors of `embedding_size` under `num_filters` filters of each width in `filter_sizes` (section 3.1)."""

    vocab_size: int
    embedding_size: int = 128
    num_filters: int = 100
    filter_sizes: tuple[int, ...] = (3, 4, 5)
    dropout: float = 0.5
    pad_token_id: int = 0

    model_type = "rung-cnn"

    @property
    def hidden_size(self) -> int:
        """Features of a position."""
        return self.num_filters * len(self.filter_sizes)


class ConvolutionalBody(nn.Module):
    """Rectified filter responses at each position: (batch, time, filters of all widths).

    A filter of width w at position t reads tokens t - (w - 1) // 2 ... t + w // 2; beyond the text and at masked
    positions there are zeros, so that a text shorter than a filter has features too, and padding changes none.
    """

    def __init__(self, config: ConvolutionConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        # Kim's interval for words without a pretrained vector (his code: uniform in +-0.25).
        nn.init.uniform_(self.embed_tokens.weight, -0.25, 0.25)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.embedding_size, config.num_filters, width) for width in config.filter_sizes
        )

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return word vectors (batch, time, embedding_size)."""
        vectors: torch.Tensor = self.embed_tokens(input_ids)
        return vectors

    def forward(self, embedded: torch.Tensor, mask: torch.Tensor | None = None, state: Any = None) -> States:
        """Return the filters' responses; there is no state."""
        if mask is not None:
            embedded = embedded * mask.unsqueeze(-1).to(embedded.dtype)
        channels = embedded.transpose(1, 2)
        responses = [
            convolution(F.pad(channels, ((width - 1) // 2, width // 2)))
            for convolution, width in zip(self.convolutions, self.config.filter_sizes, strict=True)
        ]
        return States(torch.cat(responses, dim=1).relu().transpose(1, 2), state)
