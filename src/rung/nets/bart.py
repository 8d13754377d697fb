"""BART (Lewis et al. 2019, arXiv 1910.13461): Marian's network with positions that are learned.

Its layers are those of `rung.nets.encoder_decoder`: post-norm, with biases, one matrix for embeddings and output. What
differs is how tokens are embedded - each side has positions of its own, the first two of which are never used, and a
norm after adding them - and GELU. So the same class computes it, told so by the configuration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from rung.nets.encoder_decoder_config import ONLY_VALUE, EncoderDecoderConfig

POSITION_OFFSET = 2
"""Rows of a table of positions that no token uses; fairseq kept padding there."""


@dataclasses.dataclass(frozen=True)
class BartConfig(EncoderDecoderConfig):
    """The shape of a `BartForConditionalGeneration`; a target starts from `decoder_start_token_id`, its end token."""

    activation_function: str = "gelu"
    scale_embedding: bool = False

    model_type: ClassVar[str] = "bart"
    architecture: ClassVar[str] = "BartForConditionalGeneration"
    learned_positions: ClassVar[bool] = True
    only_value: ClassVar[Mapping[str, Any]] = {
        **ONLY_VALUE,
        "normalize_embedding": True,
        "static_position_embeddings": False,
        "extra_pos_embeddings": POSITION_OFFSET,
    }

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        """Return the `config.json` object of a `BartForConditionalGeneration`."""
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "is_encoder_decoder": True,
            **dataclasses.asdict(self),
            "tie_word_embeddings": True,
            "torch_dtype": dtype,
            "dtype": dtype,
        }
