"""A text classifier is a body, a pooling and a head: families differ in the body alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from rung.nets.body import Body
from rung.nets.convolution import ConvolutionalBody, ConvolutionConfig
from rung.nets.decoder import Linear
from rung.nets.pooling import AttentionPooling, MaxPooling
from rung.nets.recurrent import RecurrentBody, RecurrentConfig

ClassifierConfig = ConvolutionConfig | RecurrentConfig


class Classifier(nn.Module):
    """Scores of classes for texts. `dropout` acts on the pooled vector while training."""

    def __init__(self, config: Any, body: nn.Module, pooling: nn.Module, head: Linear, *, dropout: float) -> None:
        super().__init__()
        self.config = config
        self.body, self.pooling, self.head = body, pooling, head
        self.dropout = dropout

    @property
    def num_labels(self) -> int:
        """Number of classes."""
        return self.head.out_features

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the embedded tokens (batch, time, ...) of `input_ids` (batch, time)."""
        body: Body = self.body
        return body.embed(input_ids)

    def scores(self, embedded: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the scores (batch, classes) of embedded, right-padded texts; `mask` (batch, time): true for tokens."""
        pooled = self.pooling(self.body(embedded, mask).hidden, mask)
        scores: torch.Tensor = self.head(F.dropout(pooled, self.dropout, self.training))
        return scores

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the scores (batch, classes) of `input_ids` (batch, time) under `mask`, where there is padding."""
        return self.scores(self.embed(batch["input_ids"]), batch.get("mask"))


def build_classifier(config: ClassifierConfig, num_labels: int) -> Classifier:
    """Return a classifier of `config`'s family with parameters drawn from torch's global generator."""
    if isinstance(config, ConvolutionConfig):
        body: nn.Module = ConvolutionalBody(config)
        pooling: nn.Module = MaxPooling()
    else:
        body, pooling = RecurrentBody(config), AttentionPooling(config.hidden_size)
    return Classifier(config, body, pooling, Linear(config.hidden_size, num_labels), dropout=config.dropout)
