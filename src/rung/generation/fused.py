"""What a fused decoder asks of a family of networks: its weights as a step of few, large operations wants them.

At the sizes that Rung trains, a step's time goes into calling operations rather than into arithmetic. So query, key
and value are one product, norm gains are folded into the matrices that follow them, and both halves of a layer add to
the residual stream in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch


class FusedLayer(Protocol):
    """One layer; `x` (n, hidden) is the residual stream of n tokens, wherever they stand."""

    def queries_keys_values(self, x: torch.Tensor, places: Any) -> torch.Tensor:
        """Return (n, heads + 2 x kv heads, head_dim): queries, then keys, then values, turned for their places."""
        ...

    def add_attention(self, x: torch.Tensor, mixed: torch.Tensor) -> None:
        """Add to `x` what attention gathered (n, heads x head_dim)."""
        ...

    def add_mlp(self, x: torch.Tensor) -> None:
        """Add the MLP's output to `x`."""
        ...


class FusedNet(Protocol):
    """All layers, and what stands before and after them; computed in one dtype, on one device."""

    @property
    def layers(self) -> Sequence[FusedLayer]:
        """The layers, first to last."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    def embed(self, tokens: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Return the residual stream (n, hidden) of `tokens` (n,) at `positions` (n,), and what layers need of places.

        The stream is the caller's: layers add to it in place.
        """
        ...

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return float32 scores (n, vocabulary) of the residual stream (n, hidden) after the last layer."""
        ...
