"""A text classifier is a body, a pooling and a head: families differ in the body, and in which pooling suits it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import nn

from rung.nets.blank import without_values
from rung.nets.convolution import ConvolutionalBody, ConvolutionConfig
from rung.nets.decoders import AnyDecoderConfig, body_prefix, build_decoder, decoder_shapes
from rung.nets.encoder import Encoder, draw_normal
from rung.nets.encoder_config import EncoderConfig
from rung.nets.layers import Linear
from rung.nets.pooling import AttentionPooling, FirstTokenPooling, LastTokenPooling, MaxPooling, MeanPooling
from rung.nets.recurrent import RecurrentBody, RecurrentConfig

if TYPE_CHECKING:
    from rung.nets.body import Body

ClassifierConfig = ConvolutionConfig | RecurrentConfig | EncoderConfig | AnyDecoderConfig


class Classifier(nn.Module):
    """Scores of classes for texts. `dropout` acts on the pooled vector while training."""

    def __init__(
        self, config: ClassifierConfig, body: nn.Module, pooling: nn.Module, head: Linear, *, dropout: float
    ) -> None:
        super().__init__()
        self.config = config
        self.body, self.pooling, self.head = body, pooling, head
        self.dropout = dropout
        # To a network that looks back only, padding on the right is invisible, and without a mask it is quicker.
        self._body_needs_mask = not isinstance(config, AnyDecoderConfig)

    @property
    def num_labels(self) -> int:
        """Number of classes."""
        return self.head.out_features

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The table (vocabulary, embedding_size) of a convolutional or recurrent network's word vectors."""
        return cast("nn.Embedding", self.body.embed_tokens)

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the embedded tokens (batch, time, ...) of `input_ids` (batch, time)."""
        return cast("Body", self.body).embed(input_ids)

    def scores(self, embedded: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the scores (batch, classes) of embedded, right-padded texts; `mask` (batch, time): true for tokens."""
        scores: torch.Tensor = self.head(F.dropout(self.pooled(embedded, mask), self.dropout, self.training))
        return scores

    def pooled(self, embedded: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return what the head is given: one vector (batch, hidden) for each text."""
        hidden = self.body(embedded, mask if self._body_needs_mask else None).hidden
        vectors: torch.Tensor = self.pooling(hidden, mask)
        return vectors

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the scores (batch, classes) of `input_ids` (batch, time) under `mask`, where there is padding."""
        return self.scores(self.embed(batch["input_ids"]), batch.get("mask"))


def build_classifier(
    config: ClassifierConfig,
    num_labels: int,
    *,
    tensors: Mapping[str, torch.Tensor] | None = None,
    dropout: float = 0.0,
) -> Classifier:
    """Return a classifier that holds `tensors`, uncopied, or parameters drawn from torch's global generator.

    `dropout` is for decoders, whose configuration has none.
    """
    with nullcontext() if tensors is None or isinstance(config, AnyDecoderConfig) else without_values():
        net = _assemble(config, num_labels, tensors, dropout)
    if tensors is not None:
        net.load_state_dict(tensors, assign=True)
    return net


def _assemble(
    config: ClassifierConfig, num_labels: int, tensors: Mapping[str, torch.Tensor] | None, dropout: float
) -> Classifier:
    head = Linear(config.hidden_size, num_labels, bias=not isinstance(config, AnyDecoderConfig))
    match config:
        case ConvolutionConfig():
            return Classifier(config, ConvolutionalBody(config), MaxPooling(), head, dropout=config.dropout)
        case RecurrentConfig():
            pooling = AttentionPooling(config.hidden_size)
            return Classifier(config, RecurrentBody(config), pooling, head, dropout=config.dropout)
        case EncoderConfig():
            encoder = Encoder(config)
            encoder_pooling = MeanPooling() if config.classifier_pooling == "mean" else _first_token(config)
            for module in (*encoder_pooling.children(), head):
                draw_normal(module)
            return Classifier(config, encoder, encoder_pooling, head, dropout=config.dropout)
        case _:
            draw_normal(head)
            return Classifier(config, _decoder(config, tensors, dropout), LastTokenPooling(), head, dropout=dropout)


def _first_token(config: EncoderConfig) -> FirstTokenPooling:
    """What stands between an encoder and its head in ...ForSequenceClassification of its family."""
    match config.model_type:
        case "roberta":
            return FirstTokenPooling(config.hidden_size, dropout=config.dropout)
        case "distilbert":
            return FirstTokenPooling(config.hidden_size, torch.relu)
        case _:
            return FirstTokenPooling(config.hidden_size)


def _decoder(config: AnyDecoderConfig, tensors: Mapping[str, torch.Tensor] | None, dropout: float) -> nn.Module:
    """A decoder's body. The output matrix it is made with is the embedding itself, so that none is drawn in vain."""
    held = None
    if tensors is not None:
        prefix = body_prefix(config)
        held = {prefix + name.removeprefix("body."): t for name, t in tensors.items() if name.startswith("body.")}
    return build_decoder(replace(config, tie_word_embeddings=True), dropout=dropout, tensors=held).model


def parameter_shapes(config: ClassifierConfig, num_labels: int) -> dict[str, torch.Size]:
    """Return the name and shape of every parameter, without allocating any."""
    if isinstance(config, AnyDecoderConfig):
        prefix, body = body_prefix(config), decoder_shapes(replace(config, tie_word_embeddings=True))
        shapes = {f"body.{name.removeprefix(prefix)}": shape for name, shape in body.items()}
        return {**shapes, "head.weight": torch.Size((num_labels, config.hidden_size))}
    with without_values():
        return {name: p.shape for name, p in _assemble(config, num_labels, None, 0.0).state_dict().items()}
