"""What the configurations of Rung's own language models share: `config.json` without a key that is not understood."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from rung.errors import RunFolderError, did_you_mean

MAX_LENGTH = 1_000_000
"""Tokens that prompt and text may have together where the network itself sets no limit: nothing is written for ever."""
_NO_EFFECT = frozenset({"architectures", "dtype", "torch_dtype", "transformers_version", "model_type"})
_Config = TypeVar("_Config")


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


def check_config(config: Any) -> None:
    """Raise RunFolderError for a size of the dataclass `config` below 1, or a value of another type than its field."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        lowest = 0 if field.name.endswith("_token_id") else 1
        if field.type == "int" and (type(value) is not int or value < lowest):
            raise RunFolderError(f"{field.name} must be a whole number of at least {lowest}, not {value!r}")
        if field.type == "bool" and not isinstance(value, bool):
            raise RunFolderError(f"{field.name} must be true or false, not {value!r}")


def read_config_values(kind: type[_Config], values: Mapping[str, Any], where: str) -> _Config:
    """Build the dataclass `kind` of a `config.json` object. RunFolderError names what is missing or unknown."""
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    names = {field.name for field in fields}
    for key in values:
        if key not in names | _NO_EFFECT:
            problem = f"config.json has a key that this version does not implement: {key}{did_you_mean(key, names)}"
            raise RunFolderError(problem, where=where)
    missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in values]
    if missing:
        raise RunFolderError(f"config.json lacks {', '.join(missing)}", where=where)
    try:
        return kind(**{name: values[name] for name in names if name in values})
    except RunFolderError as error:
        raise RunFolderError(error.problem, where=where, hint=error.hint) from None
