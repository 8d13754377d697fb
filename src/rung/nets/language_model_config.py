"""What the configurations of language models share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from rung.nets.strict_config import build_config, check_keys

MAX_LENGTH = 1_000_000
"""Tokens that prompt and text may have together where the network itself sets no limit: nothing is written for ever."""
_NO_EFFECT = frozenset({"architectures", "dtype", "torch_dtype", "transformers_version", "model_type"})
_Config = TypeVar("_Config")


class WholeContext:
    """Lengths of a network that is trained on whole contexts of `max_position_embeddings` tokens."""

    max_position_embeddings: int

    @property
    def window(self) -> int:
        """Targets of a row of a training batch: the whole context."""
        return self.max_position_embeddings

    @property
    def max_length(self) -> int:
        """Tokens that a text may have."""
        return self.max_position_embeddings


class FromShapes:
    """What follows from the shapes of all parameters, `shapes`, of a network that costs the same at every token."""

    tie_word_embeddings: bool

    @property
    def shapes(self) -> Mapping[str, Sequence[int]]:
        """The name and shape of every stored tensor."""
        raise NotImplementedError

    @property
    def num_parameters(self) -> int:
        """All parameters, a tied matrix counted once."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def num_matmul_parameters(self) -> int:
        """Parameters in matrices, those of the embedding counted only if it is the output matrix too."""
        return sum(
            math.prod(shape)
            for name, shape in self.shapes.items()
            if len(shape) == 2 and (self.tie_word_embeddings or not name.endswith("embed_tokens.weight"))
        )

    @property
    def matrix_shapes(self) -> frozenset[tuple[int, int]]:
        """(in, out) features of the products of a forward pass."""
        return frozenset((shape[1], shape[0]) for shape in self.shapes.values() if len(shape) == 2)

    def flops_per_token(self, context: int) -> float:  # noqa: ARG002 - a token costs the same everywhere
        """Floating-point operations to train on one token: 6 per matmul parameter."""
        return 6.0 * self.num_matmul_parameters


def read_own_config(kind: type[_Config], values: Mapping[str, Any], where: str) -> _Config:
    """Build `kind`, one of Rung's own networks, of a `config.json` object. RunFolderError for what does not fit."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    check_keys(values, names | _NO_EFFECT, {}, where)
    return build_config(kind, {name: values[name] for name in names if name in values}, where)
