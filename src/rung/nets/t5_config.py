"""The shape of a T5 or mT5, and its `config.json`, read strictly."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from rung.errors import RunFolderError
from rung.nets.encoder_decoder_config import NO_EFFECT_ON_PAIRS, check_tokens
from rung.nets.strict_config import build_config, check_keys, check_values

ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "silu", "gated-gelu": "gelu_new", "gated-silu": "silu"}
"""`feed_forward_proj` to the activation's name; transformers' gated-gelu is GELU's approximation by tanh."""

# Keys that say something about computing which we implement in one way only: any other value is refused.
_ONLY_VALUE: dict[str, Any] = {"is_encoder_decoder": True, "is_decoder": False}
_NO_EFFECT = NO_EFFECT_ON_PAIRS | {"dropout_rate", "initializer_factor"}
_DERIVED = {"dense_act_fn", "is_gated_act"}
_MODEL_TYPES = {"t5": "T5ForConditionalGeneration", "mt5": "MT5ForConditionalGeneration"}


@dataclasses.dataclass(frozen=True)
class T5Config:
    """T5 (Raffel et al. 2020, arXiv 1910.10683), T5 v1.1, Flan-T5 and mT5; names are those of `T5Config`.

    Version 1.0 has ReLU and one matrix for embeddings and output, whose input is scaled by d_model^-0.5
    (`scale_decoder_outputs`); version 1.1 has gated GELU and an output matrix of its own. `n_positions` is the longest
    text that it is used for: relative positions have no end, but those published were trained on 512 tokens.
    """

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_decoder_layers: int
    num_heads: int
    pad_token_id: int
    eos_token_id: int
    decoder_start_token_id: int
    feed_forward_proj: str = "relu"
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    scale_decoder_outputs: bool = True
    tie_word_embeddings: bool = True
    n_positions: int = 512
    model_type: Literal["t5", "mt5"] = "t5"

    def __post_init__(self) -> None:
        """Refuse a shape that cannot be built (RunFolderError: such shapes come from a `config.json`)."""
        check_values(self)
        check_tokens(self)
        if self.feed_forward_proj not in tuple(ACTIVATIONS):  # a tuple, because what a file says may have no hash
            problem = f"feed_forward_proj {self.feed_forward_proj!r:.80} is not supported"
            raise RunFolderError(problem, hint=f"supported: {', '.join(ACTIVATIONS)}")
        if self.relative_attention_num_buckets < 4 or self.relative_attention_num_buckets % 2:
            raise RunFolderError(
                f"relative_attention_num_buckets must be even and at least 4, not {self.relative_attention_num_buckets}"
            )
        if self.relative_attention_max_distance <= self.relative_attention_num_buckets // 2:
            problem = "relative_attention_max_distance must be more than half of relative_attention_num_buckets"
            raise RunFolderError(problem)

    @property
    def hidden_size(self) -> int:
        """What Hugging Face calls `d_model` here."""
        return self.d_model

    @property
    def max_position_embeddings(self) -> int:
        """The longest text in tokens, by the name that the other encoder-decoders have for it."""
        return self.n_positions

    @property
    def is_gated(self) -> bool:
        """Whether the linear maps are gated (Shazeer 2020, arXiv 2002.05202)."""
        return self.feed_forward_proj.startswith("gated-")

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        """Return the `config.json` object of a `T5ForConditionalGeneration`.

        `tie_word_embeddings` is what transformers takes it for: whether the output is scaled. Whether there is one
        matrix or two, it sees from the weights.
        """
        return {
            "architectures": [_MODEL_TYPES[self.model_type]],
            "is_encoder_decoder": True,
            **dataclasses.asdict(self),
            "tie_word_embeddings": self.tie_word_embeddings if self.model_type == "mt5" else self.scale_decoder_outputs,
            "torch_dtype": dtype,
            "dtype": dtype,
        }

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], *, own_output: bool, where: str = "config.json") -> T5Config:
        """Read a `config.json` object. RunFolderError names the key that is missing, unknown or not supported.

        `own_output`: whether the weights hold an output matrix that differs from the embeddings.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        check_keys(config, names | _NO_EFFECT | _DERIVED, _ONLY_VALUE, where)
        kind = config.get("model_type")
        # The defaults of T5Config and MT5Config, where the key is absent.
        values: dict[str, Any] = {
            "feed_forward_proj": "gated-gelu" if kind == "mt5" else "relu",
            "pad_token_id": 0,
            "eos_token_id": 1,
            "num_decoder_layers": config.get("num_layers"),
            "scale_decoder_outputs": kind != "mt5" and config.get("tie_word_embeddings") is not False,
        }
        values |= {name: config[name] for name in names if config.get(name) is not None}
        values.setdefault("decoder_start_token_id", values["pad_token_id"])
        values["tie_word_embeddings"] = not own_output
        read = build_config(cls, values, where)
        derived = {"dense_act_fn": ACTIVATIONS[read.feed_forward_proj], "is_gated_act": read.is_gated}
        for name, value in derived.items():
            if config.get(name, value) != value:
                problem = f"{name} {config[name]!r:.80} does not go with {read.feed_forward_proj!r}"
                raise RunFolderError(problem, where=where)
        return read
