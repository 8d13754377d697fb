"""What every network family offers: a body that turns inputs into hidden states, and a head that scores them.

A family is one file with a body. Caches, cross-attention, images, attributions and recurrent state all take the same
two steps, `embed` then `forward`, so that a caller who wants to look at or change the embedded input can do so in
between.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch


class States(NamedTuple):
    """What a body returns: `hidden` (batch, time, hidden), and the state to hand to the next call, if any."""

    hidden: torch.Tensor
    state: Any


class Body(Protocol):
    """Inputs to hidden states. `mask` is (batch, time), true or 1 where a token is real, false or 0 where it pads."""

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
