"""What every network family offers: a body that turns inputs into hidden states, and a head that scores them.

A family is one file with a body. Caches, cross-attention, images, attributions and recurrent state all take the same
two steps, `embed` then `forward`, so that a caller who wants to look at or change the embedded input can do so in
between.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeGuard, runtime_checkable

import torch


class States(NamedTuple):
    """What a body returns: `hidden` (batch, time, hidden), and the state to hand to the next call, if any."""

    hidden: torch.Tensor
    state: Any


class Body(Protocol):
    """Inputs to hidden states. `mask` is (batch, time), true or 1 where a token is real, false or 0 where it pads.

    Decoders also take document numbers in it, see `rung.nets.decoder.Decoder.forward`.
    """

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the embedded tokens (batch, time, hidden) of `input_ids` (batch, time), in the dtype to compute in."""
        ...

    def __call__(self, embedded: torch.Tensor, mask: torch.Tensor | None = None, state: Any = None) -> States:
        """Return the hidden states of `embedded`, continuing from `state` where the family carries one."""
        ...


class Head(Protocol):
    """Hidden states to scores. `weight` is (scores, hidden): an objective may fuse the product with its loss."""

    @property
    def weight(self) -> torch.Tensor:
        """The matrix."""
        ...

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the scores (..., classes or vocabulary) of `hidden` (..., hidden)."""
        ...


class LanguageModel(Protocol):
    """A body named `model` and a vocabulary head named `lm_head`, as Hugging Face names them."""

    @property
    def model(self) -> Body:
        """The body."""
        ...

    @property
    def lm_head(self) -> Head:
        """The head."""
        ...


@runtime_checkable
class CarryingBody(Body, Protocol):
    """A body whose whole past is one tensor (rows, ...) of fixed size, whatever it has read: its state."""

    def begin(self, rows: int) -> torch.Tensor:
        """Return the state before any token, for each of `rows` texts."""
        ...

    def read(self, input_ids: torch.Tensor, state: torch.Tensor, dtype: torch.dtype | None = None) -> States:
        """Read `input_ids` (rows, time) on from `state`; an end-of-text token among them starts over before it is read.

        Returns `hidden` (rows, time, hidden), computed in `dtype` (default: the body's own), and the state after the
        last token, which no gradient passes through.
        """
        ...


class LanguageModelConfig(Protocol):
    """The shape of a language model, as whoever plans, trains and measures it sees it; equal shapes are equal."""

    @property
    def model_type(self) -> str:
        """The family's name in `config.json`."""
        ...

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding matrix."""
        ...

    @property
    def hidden_size(self) -> int:
        """Features between layers."""
        ...

    @property
    def window(self) -> int:
        """Targets of a row of a training batch."""
        ...

    @property
    def max_length(self) -> int:
        """Tokens that a text may have."""
        ...

    @property
    def num_parameters(self) -> int:
        """All parameters, a tied matrix counted once."""
        ...

    @property
    def num_matmul_parameters(self) -> int:
        """Parameters that take part in matrix products: the hidden matrices and the output matrix, also when tied."""
        ...

    @property
    def matrix_shapes(self) -> frozenset[tuple[int, int]]:
        """(in, out) features of the products of a forward pass."""
        ...

    def flops_per_token(self, context: int) -> float:
        """Floating-point operations to train on one token of a text of `context` tokens."""
        ...


class CarryingConfig(LanguageModelConfig, Protocol):
    """The shape of a language model that carries a state."""

    @property
    def eos_token_id(self) -> int:
        """The end-of-text token, which starts a text."""
        ...

    @property
    def reading(self) -> tuple[int, int]:
        """(context, stride) of the windows that long texts are measured in: see `rung.evaluation.windows`."""
        ...


class CarryingLanguageModel(Protocol):
    """A language model that carries a state: recurrent, or one of the last few tokens."""

    @property
    def config(self) -> CarryingConfig:
        """The shape."""
        ...

    @property
    def model(self) -> CarryingBody:
        """The body."""
        ...

    @property
    def lm_head(self) -> Head:
        """The head."""
        ...

    training: bool

    def train(self, mode: bool = True) -> object:
        """Switch dropout on or off."""
        ...


def carries_state(net: Any) -> TypeGuard[CarryingLanguageModel]:
    """Whether `net` is a language model that reads a text on from a state, window after window."""
    return isinstance(getattr(net, "model", None), CarryingBody)
