"""Recurrent language models: Elman's RNN (Mikolov et al. 2010), the LSTM and the GRU, read from left to right.

The state is everything that the network knows of what it has read, so a text may be of any length. Training follows a
text window by window and carries the state on (Zaremba et al. 2014); gradients end where a window begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from rung.nets.blank import without_values
from rung.nets.body import States
from rung.nets.body_and_head import BodyAndHead
from rung.nets.language_model_config import MAX_LENGTH, FromShapes, read_own_config
from rung.nets.layers import Linear
from rung.nets.strict_config import check_values

Cell = Literal["rnn", "lstm", "gru"]
CELLS: dict[Cell, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
DropoutKind = Literal["ordinary", "locked"]
_WARM_UP, _STRIDE = 512, 2048  # tokens; of texts longer than both together, in measuring


@dataclass(frozen=True)
class RecurrentLMConfig(FromShapes):
    """`num_hidden_layers` layers of `hidden_size` features, over embeddings of `embedding_size`.

    With `tie_word_embeddings` the output matrix is that of the embeddings (Press and Wolf 2017), after a projection
    where the sizes differ. `backpropagate_through` tells how many tokens gradients ran back through in training.
    """

    cell: Cell
    vocab_size: int
    embedding_size: int
    hidden_size: int
    num_hidden_layers: int
    eos_token_id: int
    tie_word_embeddings: bool = True
    backpropagate_through: int = 64

    def __post_init__(self) -> None:
        """Refuse a shape that cannot be built (RunFolderError: such shapes come from a `config.json`)."""
        check_values(self)

    @property
    def model_type(self) -> str:
        """The family's name in `config.json`."""
        return f"rung-lm-{self.cell}"

    @property
    def projects(self) -> bool:
        """Whether hidden states go back to the size of the embeddings before they are scored."""
        return self.tie_word_embeddings and self.embedding_size != self.hidden_size

    @property
    def state_parts(self) -> int:
        """Vectors of state a layer: the LSTM's memory cell is one of its own."""
        return 2 if self.cell == "lstm" else 1

    @property
    def window(self) -> int:
        """Targets of a row of a training batch."""
        return self.backpropagate_through

    @property
    def max_length(self) -> int:
        """Tokens that a text may have: no limit of the network's, but one for an endless text."""
        return MAX_LENGTH

    @property
    def reading(self) -> tuple[int, int]:
        """(context, stride) of measuring: texts up to the context are read whole, of longer ones 512 tokens warm up."""
        return _WARM_UP + _STRIDE, _STRIDE

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """The name and shape of every stored tensor."""
        return parameter_shapes(self)

    def to_json(self) -> dict[str, Any]:
        """The `config.json` object."""
        values = asdict(self)
        del values["cell"]
        return {"model_type": self.model_type, **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str) -> RecurrentLMConfig:
        """Read a `config.json` object. RunFolderError names what is missing or unknown."""
        cell = str(values["model_type"]).removeprefix("rung-lm-")
        return read_own_config(cls, {**values, "cell": cell}, where)


class RecurrentReader(nn.Module):
    """The body. `compute_dtype` is what `embed` returns and everything after it computes in; states are float32.

    While training, `dropout` drops features of the embeddings, between layers and of the output: each place anew
    ("ordinary", Zaremba et al. 2014), or the same features all through a window ("locked": Gal and Ghahramani 2016,
    Merity et al. 2018, section 4.2). Nothing is dropped on the way from one place to the next.
    """

    def __init__(self, config: RecurrentLMConfig, dropout: float = 0.0, dropout_kind: DropoutKind = "locked") -> None:
        super().__init__()
        self.config, self.dropout, self.dropout_kind = config, dropout, dropout_kind
        self.compute_dtype = torch.float32
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        widths = [config.embedding_size] + [config.hidden_size] * (config.num_hidden_layers - 1)
        self.layers = nn.ModuleList(CELLS[config.cell](width, config.hidden_size, batch_first=True) for width in widths)
        self.projection = Linear(config.hidden_size, config.embedding_size) if config.projects else None

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (batch, time, embedding) of `input_ids` (batch, time) in the dtype to compute in."""
        embedded: torch.Tensor = self.embed_tokens(input_ids).to(self.compute_dtype)
        return embedded

    def begin(self, rows: int) -> torch.Tensor:
        """Return the state before any token: zeros, (rows, layers, state parts, hidden) float32."""
        config = self.config
        shape = (rows, config.num_hidden_layers, config.state_parts, config.hidden_size)
        return torch.zeros(shape, device=self.embed_tokens.weight.device)

    def read(self, input_ids: torch.Tensor, state: torch.Tensor, dtype: torch.dtype | None = None) -> States:
        """Read (rows, time) tokens on from `state`; see `rung.nets.body.CarryingBody`."""
        starts = input_ids == self.config.eos_token_id
        embedded = self.embed_tokens(input_ids).to(dtype or self.compute_dtype)
        return self._forward(embedded, state, starts)

    def forward(
        self,
        embedded: torch.Tensor,
        mask: torch.Tensor | None = None,  # noqa: ARG002 - it only looks back
        state: torch.Tensor | None = None,
    ) -> States:
        """Return the hidden states (batch, time, hidden or, projected, embedding) and the state after `embedded`.

        Without `state` every row starts a text. Padding on the right needs no `mask`; the state after it is of no use.
        """
        return self._forward(embedded, self.begin(len(embedded)) if state is None else state, None)

    def _forward(self, embedded: torch.Tensor, state: torch.Tensor, starts: torch.Tensor | None) -> States:
        hidden, ends = self._drop(embedded), []
        borders = [0] if starts is None else _borders(starts)
        device, dtype = embedded.device.type, embedded.dtype
        is_cast = dtype != self.embed_tokens.weight.dtype
        with torch.autocast(device, dtype) if is_cast else nullcontext():
            for layer, begin in zip(self.layers, state.to(dtype).unbind(1), strict=True):
                hidden, end = _run(layer, hidden, begin, starts, borders)
                hidden = self._drop(hidden)
                ends.append(end)
        if self.projection is not None:
            hidden = self.projection(hidden)
        return States(hidden, torch.stack(ends, 1).detach().float())

    def _drop(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.dropout_kind == "ordinary" or not self.training or not self.dropout:
            return F.dropout(hidden, self.dropout, self.training)
        return hidden * F.dropout(torch.ones_like(hidden[:, :1]), self.dropout)


def _borders(starts: torch.Tensor) -> list[int]:
    """The places (time) where a row of `starts` (rows, time) starts over, and 0."""
    return [0, *(starts[:, 1:].any(0).nonzero().flatten() + 1).tolist()]


def _run(
    layer: nn.Module, hidden: torch.Tensor, state: torch.Tensor, starts: torch.Tensor | None, borders: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run one layer over (rows, time, features) from `state` (rows, parts, hidden), stopping at each border.

    There, the state of the rows that start a text is set to zero. A window without an end-of-text token is one call.
    """
    parts = []
    for start, stop in zip(borders, [*borders[1:], hidden.shape[1]], strict=True):
        if starts is not None:
            state = state * ~starts[:, start, None, None]
        given = tuple(part[None].contiguous() for part in state.unbind(1))
        out, end = layer(hidden[:, start:stop], given if len(given) == 2 else given[0])
        state = torch.cat(end if len(given) == 2 else (end,)).transpose(0, 1)
        parts.append(out)
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1), state


class RecurrentLM(BodyAndHead):
    """A recurrent reader and its output matrix. No parameter exists before it has a value: drawn, or `tensors`.

    Drawn: embeddings normal with deviation 0.1; input matrices uniform after Glorot and Bengio (2010), recurrent ones
    orthogonal (Saxe et al. 2014), both gate by gate; biases zero, but 1 for the LSTM's forget gate (Jozefowicz et al.
    2015, section 5). Dropout is no part of the stored configuration.
    """

    model: RecurrentReader
    lm_head: Linear

    def __init__(
        self,
        config: RecurrentLMConfig,
        *,
        dropout: float = 0.0,
        dropout_kind: DropoutKind = "locked",
        generator: torch.Generator | None = None,
        tensors: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Draw float32 parameters from `generator` (default: torch's global one), or hold `tensors`, uncopied."""
        super().__init__()
        self.config = config
        with without_values():
            self.model = RecurrentReader(config, dropout, dropout_kind)
            width = config.embedding_size if config.projects else config.hidden_size
            self.lm_head = Linear(width, config.vocab_size, bias=False)
        if tensors is None:
            tensors = dict(_drawn(config, generator))
        self._hold(tensors, tied=config.tie_word_embeddings)


@lru_cache(maxsize=64)
def parameter_shapes(config: RecurrentLMConfig) -> Mapping[str, torch.Size]:
    """Return the name and shape of every stored tensor, without allocating any."""
    with without_values():
        shapes = {f"model.{name}": p.shape for name, p in RecurrentReader(config).named_parameters()}
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = torch.Size((config.vocab_size, config.hidden_size))
    return shapes


def _drawn(config: RecurrentLMConfig, generator: torch.Generator | None) -> Iterator[tuple[str, torch.Tensor]]:
    size = config.hidden_size
    for name, shape in parameter_shapes(config).items():
        tensor = torch.zeros(shape)
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            tensor.normal_(std=0.1, generator=generator)
        elif "weight_hh" in name:
            for gate in torch.split(tensor, size):
                nn.init.orthogonal_(gate, generator=generator)
        elif len(shape) == 2:
            for gate in torch.split(tensor, size):
                nn.init.xavier_uniform_(gate, generator=generator)
        elif "bias_ih" in name and config.cell == "lstm":
            tensor[size : 2 * size] = 1.0  # torch's order of gates: input, forget, cell, output
        yield name, tensor
