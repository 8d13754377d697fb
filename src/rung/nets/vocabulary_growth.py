"""New tokens for a trained network: rows of its embedding and output matrices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

_ROW_MULTIPLE = 64
_MATRICES = ("embed_tokens.weight", "lm_head.weight", "wte.weight")


def grow_vocabulary(net: Any, *, known: int, wanted: int) -> Any:
    """`net`, a decoder, with rows for `wanted` tokens, of which the first `known` had a meaning when it was trained.

    Rows that pad the matrices to a multiple of 64 are used up first; then a network with larger matrices is returned.
    New rows begin as the mean of the known ones, so that at first a new token is as likely as an average one and
    changes no other's rank (Hewitt 2021, "Initializing new word embeddings for pretrained language models").
    """
    if wanted <= known:
        return net
    rows = net.config.vocab_size
    if wanted > rows:
        rows = -(-wanted // _ROW_MULTIPLE) * _ROW_MULTIPLE
    tensors = {name: parameter.detach() for name, parameter in net.named_parameters()}
    for name, tensor in tensors.items():
        if name.endswith(_MATRICES):
            tensors[name] = _grown(tensor, known, wanted, rows)
    config = replace(net.config, vocab_size=rows)
    grown: nn.Module = type(net)(config, dropout=net.model.dropout, tensors=tensors)
    return grown


def _grown(matrix: torch.Tensor, known: int, wanted: int, rows: int) -> torch.Tensor:
    """(rows, hidden): known rows, new ones, the padding that is left of `matrix`, and padding for what is missing."""
    mean = matrix[:known].mean(0, keepdim=True)
    padding = matrix[wanted:] if wanted < len(matrix) else matrix[:0]
    filled = mean.expand(rows - wanted - len(padding), -1)
    return torch.cat((matrix[:known], mean.expand(wanted - known, -1), padding, filled)).contiguous()
