"""Recurrent bodies: Elman's RNN, the LSTM and the GRU, reading texts in both directions.

Each direction is a network of its own, and the backward one reads every text reversed within its own length: padding
comes last for both, where it cannot touch a real token. The states equal those of packed sequences, with which training
on a CPU takes 1.5 to 1.8 times as long (`bench/classifier_training.py`, one thread of a busy machine).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from rung.nets.body import States

Cell = Literal["rnn", "lstm", "gru"]
_CELLS: dict[Cell, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


@dataclass(frozen=True)
class RecurrentConfig:
    """`num_hidden_layers` layers of `cell`, each with `hidden_size` / 2 features a direction.

    `dropout` acts on the word vectors, between layers and before the head.
    """

    vocab_size: int
    cell: Cell
    embedding_size: int = 128
    hidden_size: int = 256
    num_hidden_layers: int = 1
    dropout: float = 0.5
    pad_token_id: int = 0

    @property
    def model_type(self) -> str:
        """The family's name in `config.json`."""
        return f"rung-{self.cell}"


class RecurrentBody(nn.Module):
    """States of both directions at each position: (batch, time, hidden_size), forward features first."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        nn.init.uniform_(self.embed_tokens.weight, -0.25, 0.25)
        self.ahead, self.back = self._layers(), self._layers()

    def _layers(self) -> nn.ModuleList:
        config, cell = self.config, _CELLS[self.config.cell]
        widths = [config.embedding_size] + [config.hidden_size] * (config.num_hidden_layers - 1)
        return nn.ModuleList(cell(width, config.hidden_size // 2, batch_first=True) for width in widths)

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return word vectors (batch, time, embedding_size)."""
        vectors: torch.Tensor = self.embed_tokens(input_ids)
        return vectors

    def forward(self, embedded: torch.Tensor, mask: torch.Tensor | None = None, state: Any = None) -> States:
        """Return the states of right-padded `embedded`; a network that reads backward carries none on."""
        order = None if mask is None else _reversed_places(mask)
        hidden = embedded
        for ahead, back in zip(self.ahead, self.back, strict=True):
            hidden = F.dropout(hidden, self.config.dropout, self.training)
            read_back = _reverse(back(_reverse(hidden, order))[0], order)
            hidden = torch.cat((ahead(hidden)[0], read_back), dim=-1)
        return States(hidden, state)


def _reversed_places(mask: torch.Tensor) -> torch.Tensor:
    """Row numbers into the flattened (batch x time) that reverse each text and leave its padding in place."""
    rows, time = mask.shape
    places = torch.arange(time, device=mask.device).expand(rows, time)
    mirrored = mask.sum(dim=1, keepdim=True) - 1 - places
    starts = torch.arange(rows, device=mask.device)[:, None] * time
    return (torch.where(mirrored >= 0, mirrored, places) + starts).flatten()


def _reverse(hidden: torch.Tensor, order: torch.Tensor | None) -> torch.Tensor:
    """Reverse each text; doing it twice gives `hidden` back."""
    if order is None:
        return hidden.flip(1)
    return hidden.flatten(0, 1).index_select(0, order).view_as(hidden)
