"""The feed-forward language model of Bengio et al. 2003: the last tokens' embeddings, one tanh layer, scores.

All places of a window are computed at once. Before the beginning of a text stand end-of-text tokens; what a network of
n tokens knows of the past is the last n - 1 of them, and that is the state it carries from window to window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from rung.nets.blank import without_values
from rung.nets.body import States
from rung.nets.body_and_head import BodyAndHead
from rung.nets.language_model_config import MAX_LENGTH, FromShapes, read_own_config
from rung.nets.layers import Linear
from rung.nets.strict_config import check_values

_STRIDE = 1024  # tokens of a window in measuring
_WINDOW = 64  # targets of a row in training


@dataclass(frozen=True)
class FeedForwardLMConfig(FromShapes):
    """Embeddings (of `embedding_size`) of the last `max_position_embeddings` tokens, and `hidden_size` tanh units.

    As in the paper (section 2), scores are b + U tanh(d + H x), and with `direct_connections` + W x. With
    `tie_word_embeddings` U and W lead to `embedding_size` features, which the embeddings themselves score (Press and
    Wolf 2017): far fewer parameters, and no b.
    """

    vocab_size: int
    embedding_size: int
    hidden_size: int
    max_position_embeddings: int
    eos_token_id: int
    tie_word_embeddings: bool = True
    direct_connections: bool = False

    def __post_init__(self) -> None:
        """Refuse a shape that cannot be built (RunFolderError: such shapes come from a `config.json`)."""
        check_values(self)

    @property
    def model_type(self) -> str:
        """The family's name in `config.json`."""
        return "rung-lm-feedforward"

    @property
    def input_size(self) -> int:
        """Features of x: the embeddings of all tokens that are looked at."""
        return self.max_position_embeddings * self.embedding_size

    @property
    def output_size(self) -> int:
        """Features that are scored; untied, they are the hidden units, x where it is connected, and a constant 1."""
        if self.tie_word_embeddings:
            return self.embedding_size
        return self.hidden_size + 1 + (self.input_size if self.direct_connections else 0)

    @property
    def window(self) -> int:
        """Targets of a row of a training batch."""
        return _WINDOW

    @property
    def max_length(self) -> int:
        """Tokens that a text may have: no limit of the network's, but one for an endless text."""
        return MAX_LENGTH

    @property
    def reading(self) -> tuple[int, int]:
        """(context, stride) of measuring: every token that is scored has all the tokens before it that count."""
        return _STRIDE + self.max_position_embeddings, _STRIDE

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """The name and shape of every stored tensor."""
        return parameter_shapes(self)

    def to_json(self) -> dict[str, Any]:
        """The `config.json` object."""
        return {"model_type": self.model_type, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> FeedForwardLMConfig:
        """Read a `config.json` object. RunFolderError names what is missing or unknown."""
        return read_own_config(cls, values, where)


class FeedForwardReader(nn.Module):
    """The body. `compute_dtype` is what `embed` returns and everything after it computes in.

    While training, `dropout` drops features of x and hidden units.
    """

    def __init__(self, config: FeedForwardLMConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config, self.dropout = config, dropout
        self.compute_dtype = torch.float32
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.hidden = Linear(config.input_size, config.hidden_size)
        tied, direct = config.tie_word_embeddings, config.direct_connections
        self.projection = Linear(config.hidden_size, config.embedding_size, bias=False) if tied else None
        self.direct = Linear(config.input_size, config.embedding_size, bias=False) if tied and direct else None

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (batch, time, embedding) of `input_ids` (batch, time) in the dtype to compute in."""
        embedded: torch.Tensor = self.embed_tokens(input_ids).to(self.compute_dtype)
        return embedded

    def begin(self, rows: int) -> torch.Tensor:
        """Return the tokens before a text, (rows, max_position_embeddings - 1) int64: end-of-text tokens."""
        shape = (rows, self.config.max_position_embeddings - 1)
        return torch.full(shape, self.config.eos_token_id, device=self.embed_tokens.weight.device)

    def read(self, input_ids: torch.Tensor, state: torch.Tensor, dtype: torch.dtype | None = None) -> States:
        """Read (rows, time) tokens on from `state`; see `rung.nets.body.CarryingBody`."""
        tokens = torch.cat((state, input_ids), 1)
        embedded = self.embed_tokens(tokens).to(dtype or self.compute_dtype)
        return States(self._features(embedded, self._forgotten(tokens)), tokens[:, tokens.shape[1] - state.shape[1] :])

    def forward(
        self,
        embedded: torch.Tensor,
        mask: torch.Tensor | None = None,  # noqa: ARG002 - it only looks back
        state: None = None,
    ) -> States:
        """Return the features (batch, time, output) of texts that begin with `embedded` (batch, time, embedding).

        Padding on the right needs no `mask`. A text is read on by `read`, which knows its tokens, and not by a `state`.
        """
        before = self.embed(self.begin(len(embedded))).to(embedded.dtype)
        return States(self._features(torch.cat((before, embedded), 1), None), state)

    def _forgotten(self, tokens: torch.Tensor) -> torch.Tensor | None:
        """Which looks (rows, time, n), oldest first, go back beyond the beginning of a text; None where none does."""
        looks = self.config.max_position_embeddings
        ends = tokens == self.config.eos_token_id
        if looks == 1 or not bool(ends[:, 1:].any()):  # the very first token may be one: all before it is out of sight
            return None
        places = torch.arange(tokens.shape[1], device=tokens.device)
        started = torch.where(ends, places, 0).cummax(1).values[:, looks - 1 :]
        seen = places[: len(places) - looks + 1, None] + torch.arange(looks, device=tokens.device)
        return seen < started[..., None]

    def _features(self, embedded: torch.Tensor, forgotten: torch.Tensor | None) -> torch.Tensor:
        """Features (rows, time, output) of `embedded` (rows, n - 1 + time, embedding)."""
        config = self.config
        time = embedded.shape[1] - config.max_position_embeddings + 1
        looks = [embedded[:, back : back + time] for back in range(config.max_position_embeddings)]
        if forgotten is not None:
            end = self.embed_tokens.weight[config.eos_token_id].to(embedded.dtype)
            looks = [torch.where(forgotten[..., back, None], end, look) for back, look in enumerate(looks)]
        x = F.dropout(torch.cat(looks, -1), self.dropout, self.training)
        hidden = F.dropout(torch.tanh(self.hidden(x)), self.dropout, self.training)
        if self.projection is not None:
            features: torch.Tensor = self.projection(hidden)
            return features if self.direct is None else features + self.direct(x)
        ones = torch.ones_like(hidden[..., :1])  # their column of the output matrix is the paper's b
        return torch.cat((hidden, ones, x) if config.direct_connections else (hidden, ones), -1)


class FeedForwardLM(BodyAndHead):
    """A feed-forward reader and its output matrix. No parameter exists before it has a value: drawn, or `tensors`.

    Drawn: embeddings normal with deviation 0.1, matrices uniform after Glorot and Bengio (2010), biases zero. Dropout
    is no part of the stored configuration.
    """

    model: FeedForwardReader
    lm_head: Linear

    def __init__(
        self,
        config: FeedForwardLMConfig,
        *,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
        tensors: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Draw float32 parameters from `generator` (default: torch's global one), or hold `tensors`, uncopied."""
        super().__init__()
        self.config = config
        with without_values():
            self.model = FeedForwardReader(config, dropout)
            self.lm_head = Linear(config.output_size, config.vocab_size, bias=False)
        if tensors is None:
            tensors = dict(_drawn(config, generator))
        self._hold(tensors, tied=config.tie_word_embeddings)


@lru_cache(maxsize=64)
def parameter_shapes(config: FeedForwardLMConfig) -> Mapping[str, torch.Size]:
    """Return the name and shape of every stored tensor, without allocating any."""
    with without_values():
        shapes = {f"model.{name}": p.shape for name, p in FeedForwardReader(config).named_parameters()}
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = torch.Size((config.vocab_size, config.output_size))
    return shapes


def _drawn(config: FeedForwardLMConfig, generator: torch.Generator | None) -> Iterator[tuple[str, torch.Tensor]]:
    for name, shape in parameter_shapes(config).items():
        tensor = torch.zeros(shape)
        if name.endswith("embed_tokens.weight"):
            tensor.normal_(std=0.1, generator=generator)
        elif len(shape) == 2:
            nn.init.xavier_uniform_(tensor, generator=generator)
        yield name, tensor
