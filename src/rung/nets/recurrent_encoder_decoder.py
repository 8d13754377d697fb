"""The LSTM encoder-decoder with attention: the network that the Transformer replaced.

A bidirectional LSTM reads the source; an LSTM writes the target and at each step looks back at the source (Bahdanau et
al. 2015, arXiv 1409.0473), scoring each source state either by a small network ("additive", Bahdanau) or by a bilinear
form ("general", Luong et al. 2015, arXiv 1508.04025, section 3.1). The step's own state and what it found become the
attentional vector tanh(W [found; state]) (Luong, equation 5), which the embeddings, shared by both sides, score.

By default the attentional vector is not fed back, so that in training the LSTM runs over a whole target at once and all
steps attend in one product. With `input_feeding` (Luong, section 3.3) it is part of the next step's input, and training
must go step by step: for 64 pairs of 16 tokens (512 features, 8,000 tokens, one thread) a training step then takes 0.71
s instead of 0.40; with additive attention 0.79 instead of 0.49.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from rung.errors import GenerationError, RunFolderError
from rung.nets.blank import without_values
from rung.nets.body import States
from rung.nets.dropout import dropout
from rung.nets.encoder_decoder_config import check_tokens
from rung.nets.layers import Linear
from rung.nets.recurrent import RecurrentBody, RecurrentConfig
from rung.nets.strict_config import build_config, check_keys, check_values
from rung.nets.vocabulary_head import VocabularyHead

Scoring = Literal["general", "additive"]


@dataclasses.dataclass(frozen=True)
class RecurrentEncoderDecoderConfig:
    """`num_hidden_layers` LSTM layers of `hidden_size` features on each side (half of them a direction when reading).

    `max_position_embeddings` bounds a text's tokens, as in a Transformer: beyond it, no such network was ever trained.
    """

    vocab_size: int
    embedding_size: int
    hidden_size: int
    num_hidden_layers: int
    max_position_embeddings: int
    pad_token_id: int
    eos_token_id: int
    decoder_start_token_id: int
    attention: Scoring = "general"
    input_feeding: bool = False

    model_type = "rung-lstm-attention"

    def __post_init__(self) -> None:
        """Refuse a shape that cannot be built (RunFolderError: such shapes come from a `config.json`)."""
        check_values(self)
        check_tokens(self)
        if self.hidden_size % 2:
            raise RunFolderError(f"hidden_size must be even, half for each direction, not {self.hidden_size}")
        if self.attention not in ("general", "additive"):
            raise RunFolderError(f"attention must be 'general' or 'additive', not {self.attention!r:.80}")

    def to_json(self) -> dict[str, Any]:
        """Return the `config.json` object."""
        return {"model_type": self.model_type, "is_encoder_decoder": True, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, config: Mapping[str, Any], *, where: str = "config.json") -> RecurrentEncoderDecoderConfig:
        """Read a `config.json` object. RunFolderError names the key that is missing, unknown or not supported."""
        names = {field.name for field in dataclasses.fields(cls)}
        check_keys(config, names | {"model_type"}, {"is_encoder_decoder": True}, where)
        return build_config(cls, {name: config[name] for name in names if name in config}, where)


class RecurrentState(NamedTuple):
    """What one step hands to the next: the LSTM's states (layers, batch, hidden), and the attentional vector
    (batch, embedding).
    """

    hidden: torch.Tensor
    cell: torch.Tensor
    attentional: torch.Tensor

    def rows(self, rows: torch.Tensor) -> RecurrentState:
        """The states of these rows (indices) of the batch."""
        return RecurrentState(
            self.hidden.index_select(1, rows), self.cell.index_select(1, rows), self.attentional[rows]
        )


class Source(NamedTuple):
    """What a step looks back at: the memory and its keys (batch, source, hidden), and what hides padding
    (batch, 1, source), to be added to scores.
    """

    memory: torch.Tensor
    keys: torch.Tensor
    added: torch.Tensor | None

    def rows(self, rows: torch.Tensor) -> Source:
        """These rows (indices) of the batch."""
        return Source(self.memory[rows], self.keys[rows], None if self.added is None else self.added[rows])


class SourceAttention(nn.Module):
    """Where to look in the source, and what is found there."""

    def __init__(self, config: RecurrentEncoderDecoderConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.key = Linear(size, size, bias=False)
        self.query = Linear(size, size, bias=False) if config.attention == "additive" else None
        self.energy = Linear(size, 1, bias=False) if config.attention == "additive" else None

    def weights(self, query: torch.Tensor, keys: torch.Tensor, added: torch.Tensor | None) -> torch.Tensor:
        """Return (batch, target, source), adding up to 1 over the source.

        `query` (batch, target, hidden); `keys` (batch, source, hidden) from `key`; `added` (batch, 1, source).
        """
        if self.query is None or self.energy is None:
            scores = query @ keys.mT
        else:
            scores = self.energy(torch.tanh(self.query(query)[:, :, None] + keys[:, None])).squeeze(-1)
        return (scores if added is None else scores + added).softmax(-1)


class RecurrentEncoderDecoder(nn.Module):
    """The same interface as `rung.nets.encoder_decoder.EncoderDecoder`; matrices start as torch draws an LSTM's.

    `dropout` acts, while training, on embedded tokens, between layers and on the attentional vector.
    """

    def __init__(
        self,
        config: RecurrentEncoderDecoderConfig,
        *,
        dropout: float = 0.0,
        tensors: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Draw parameters from torch's global generator, or hold `tensors`, uncopied."""
        super().__init__()
        self.config = config
        self.dropout = dropout
        if tensors is None:
            self._build(dropout)
            nn.init.normal_(self.encoder.embed_tokens.weight, std=config.embedding_size**-0.5)
        else:
            with without_values():
                self._build(dropout)
            self.load_state_dict(tensors, assign=True)
        self.lm_head = VocabularyHead(self.encoder.embed_tokens)

    def _build(self, dropout: float) -> None:
        config = self.config
        size, fed = config.hidden_size, config.embedding_size if config.input_feeding else 0
        reading = RecurrentConfig(
            config.vocab_size,
            "lstm",
            config.embedding_size,
            size,
            config.num_hidden_layers,
            dropout,
            config.pad_token_id,
        )
        self.encoder = RecurrentBody(reading)
        self.bridge = Linear(size, config.num_hidden_layers * 2 * size)
        between = dropout if config.num_hidden_layers > 1 else 0.0
        self.decoder = nn.LSTM(
            config.embedding_size + fed, size, config.num_hidden_layers, batch_first=True, dropout=between
        )
        self.attend = SourceAttention(config)
        self.combine = Linear(2 * size, config.embedding_size, bias=False)

    def encode(self, source_ids: torch.Tensor, source_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the memory (batch, source, hidden) of `source_ids` (batch, source); see `EncoderDecoder.encode`."""
        self._check(source_ids)
        mask = None if source_mask is None else source_mask.bool()
        memory: torch.Tensor = self.encoder(self.encoder.embed(source_ids), mask).hidden
        return memory

    def decode(
        self,
        target_inputs: torch.Tensor,
        memory: torch.Tensor,
        source_mask: torch.Tensor | None = None,
        state: RecurrentState | None = None,
    ) -> States:
        """Return the attentional vectors (batch, target, embedding) of `target_inputs`, and the state after them.

        Without a `state` the target begins: from what the source's last states say, each direction's own.
        """
        self._check(target_inputs)
        source, first = self.begin(memory, source_mask)
        state = state or first
        embedded = dropout(self.encoder.embed(target_inputs), self.dropout, self.training)
        if not self.config.input_feeding:
            return States(*self.step(embedded, source, state))
        written = []
        for token in torch.split(embedded, 1, dim=1):
            hidden, state = self.step(token, source, state)
            written.append(hidden)
        return States(torch.cat(written, dim=1), state)

    def forward(
        self, source_ids: torch.Tensor, target_inputs: torch.Tensor, source_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the scores (batch, target, vocabulary) of the token that follows each target input."""
        memory = self.encode(source_ids, source_mask)
        scores: torch.Tensor = self.lm_head(self.decode(target_inputs, memory, source_mask).hidden)
        return scores

    def begin(self, memory: torch.Tensor, source_mask: torch.Tensor | None) -> tuple[Source, RecurrentState]:
        """What every step looks back at, and the state before the first: from the last states of both directions."""
        half = self.config.hidden_size // 2
        if source_mask is None:
            ahead = memory[:, -1, :half]
        else:
            last = source_mask.sum(1).long() - 1
            ahead = memory[torch.arange(len(memory), device=memory.device), last, :half]
        read = torch.cat((ahead, memory[:, 0, half:]), dim=-1)
        states = torch.tanh(self.bridge(read)).view(len(memory), 2, self.config.num_hidden_layers, -1)
        hidden, cell = states.permute(1, 2, 0, 3).contiguous()
        added = None
        if source_mask is not None:
            added = torch.zeros(source_mask.shape, dtype=memory.dtype, device=memory.device)
            added = added.masked_fill_(source_mask == 0, -torch.inf)[:, None]
        attentional = memory.new_zeros(len(memory), self.config.embedding_size)
        return Source(memory, self.attend.key(memory), added), RecurrentState(hidden, cell, attentional)

    def step(
        self, embedded: torch.Tensor, source: Source, state: RecurrentState
    ) -> tuple[torch.Tensor, RecurrentState]:
        """Return the attentional vectors (rows, time, embedding) of `embedded` (rows, time, embedding), and the state.

        With input feeding, time is 1. Rows may be beams of the sources, side by side, one token each.
        """
        if self.config.input_feeding:
            embedded = torch.cat((embedded, state.attentional[:, None]), dim=-1)
        written, (hidden, cell) = self.decoder(embedded, (state.hidden, state.cell))
        queries = written.reshape(len(source.memory), -1, written.shape[-1])
        found = self.attend.weights(queries, source.keys, source.added) @ source.memory
        attentional = torch.tanh(self.combine(torch.cat((found, queries), dim=-1)))
        attentional = dropout(attentional, self.dropout, self.training).view(*written.shape[:2], -1)
        return attentional, RecurrentState(hidden, cell, attentional[:, -1])

    def attention(
        self, source_ids: torch.Tensor, target_inputs: torch.Tensor, source_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Where each target position looks in the source: (batch, target, source), for pictures."""
        memory = self.encode(source_ids, source_mask)
        source, state = self.begin(memory, source_mask)
        seen = []
        for token in torch.split(self.encoder.embed(target_inputs), 1, dim=1):
            _, state = self.step(token, source, state)
            # The last layer's state after this token is what asked.
            seen.append(self.attend.weights(state.hidden[-1][:, None], source.keys, source.added))
        return torch.cat(seen, dim=1)

    def _check(self, ids: torch.Tensor) -> None:
        longest = self.config.max_position_embeddings
        if ids.shape[1] > longest:
            raise GenerationError(
                f"{ids.shape[1]} tokens do not fit this network's {longest} positions", hint="shorten the text"
            )


def recurrent_parameter_shapes(config: RecurrentEncoderDecoderConfig) -> dict[str, torch.Size]:
    """Return the name and shape of every stored tensor, without allocating any."""
    with without_values():
        net = RecurrentEncoderDecoder(config)
    return {name: p.shape for name, p in net.named_parameters()}
