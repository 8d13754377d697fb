"""What all networks that predict tokens share: a body under `model`, an output matrix under `lm_head`, values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class BodyAndHead(nn.Module):
    """A body and its output matrix, made without values (see `rung.nets.blank`) and then given them by `_hold`."""

    model: Any
    lm_head: Any

    def _hold(self, tensors: Mapping[str, torch.Tensor], *, tied: bool) -> None:
        """Take `tensors` as the parameters, uncopied; where `tied`, the output matrix is that of the embeddings.

        Raises RuntimeError when a parameter is left without a value, or a tensor has no place.
        """
        self.load_state_dict(tensors, strict=not tied, assign=True)
        if tied:
            self.lm_head.weight = self.model.embed_tokens.weight
        empty = [name for name, parameter in self.named_parameters() if parameter.is_meta]
        if empty:
            raise RuntimeError(f"parameters without a value: {empty}")
        self.compute_dtype = self.model.embed_tokens.weight.dtype

    @property
    def compute_dtype(self) -> torch.dtype:
        """What activations are computed in; the parameters keep their own dtype."""
        dtype: torch.dtype = self.model.compute_dtype
        return dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self.model.compute_dtype = dtype

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor | None = None, state: Any = None) -> torch.Tensor:
        """Return the scores (batch, time, vocabulary) of `input_ids` (batch, time); see the body's own `forward`."""
        scores: torch.Tensor = self.lm_head(self.model(self.model.embed(input_ids), mask, state).hidden)
        return scores
