"""The shape of a GPT-2, and its `config.json`, where everything but the vocabulary has names of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from rung.errors import RunFolderError
from rung.nets.decoder_config import with_tokens
from rung.nets.encoder_config import ACTIVATIONS
from rung.nets.language_model_config import WholeContext
from rung.nets.strict_config import NO_EFFECT, OF_GENERATION, build_config, check_keys, check_values

_NAMES = {
    "max_position_embeddings": "n_positions",
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
}
_ONLY_VALUE: dict[str, Any] = {
    "add_cross_attention": False,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "reorder_and_upcast_attn": False,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
}
# Dropout is a matter of training; the summaries belong to a head for multiple choice. `n_ctx` repeats `n_positions`.
# `n_special` and `predict_special_tokens` stand in gpt2-medium's file and mean something to the first GPT only.
_NO_EFFECT = frozenset(
    {
        *NO_EFFECT,
        *OF_GENERATION,
        *("attn_pdrop", "embd_pdrop", "resid_pdrop", "n_ctx", "n_special", "predict_special_tokens"),
        *("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj"),
    }
)


@dataclasses.dataclass(frozen=True)
class GPT2Config(WholeContext):
    """A GPT-2's shape, in the names that other decoders have; `activation_function` is one of `ACTIVATIONS`."""

    model_type: ClassVar[str] = "gpt2"

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        """Refuse a shape that cannot be built (RunFolderError: such shapes come from a `config.json`)."""
        check_values(self)
        if self.hidden_size % self.num_attention_heads:
            raise RunFolderError(f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads")
        if self.activation_function not in ACTIVATIONS:
            raise RunFolderError(
                f"activation_function {self.activation_function!r:.80} is not supported",
                hint=f"supported: {', '.join(ACTIVATIONS)}",
            )

    @property
    def head_dim(self) -> int:
        """Values of a query, key or value."""
        return self.hidden_size // self.num_attention_heads

    @property
    def num_key_value_heads(self) -> int:
        """As many as there are query heads: none is shared."""
        return self.num_attention_heads

    @property
    def num_matmul_parameters(self) -> int:
        """Parameters that take part in matrix products, the output matrix included, also when tied."""
        layer = self.hidden_size * (4 * self.hidden_size + 2 * self.intermediate_size)
        return self.num_hidden_layers * layer + self.vocab_size * self.hidden_size

    @property
    def num_parameters(self) -> int:
        """All parameters, a tied matrix counted once."""
        vectors = 9 * self.hidden_size + self.intermediate_size  # two norms and the biases of four products
        untied = 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size
        rest = (self.max_position_embeddings + 2) * self.hidden_size
        return self.num_matmul_parameters + untied + self.num_hidden_layers * vectors + rest

    @property
    def matrix_shapes(self) -> frozenset[tuple[int, int]]:
        """(in, out) features of the products of a forward pass."""
        hidden, inner = self.hidden_size, self.intermediate_size
        layer = {(hidden, 3 * hidden), (hidden, hidden), (hidden, inner), (inner, hidden)}
        return frozenset(layer | {(hidden, self.vocab_size)})

    def flops_per_token(self, context: int) -> float:
        """Floating-point operations to train on one token, counted as in `DecoderConfig.flops_per_token`."""
        return 6 * self.num_matmul_parameters + 12 * self.num_hidden_layers * self.hidden_size * context / 2

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        """The `config.json` object."""
        values = {_NAMES.get(name, name): value for name, value in dataclasses.asdict(self).items()}
        tokens = {name: values.pop(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": self.model_type,
            **values,
            "n_ctx": self.max_position_embeddings,
            "scale_attn_weights": True,
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
            "initializer_range": 0.02,
            "use_cache": True,
            # transformers would take GPT-2's own end-of-text token where a key is missing
            **{name: list(value) if isinstance(value, tuple) else value for name, value in tokens.items()},
            "torch_dtype": dtype,
            "dtype": dtype,
        }

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], *, where: str = "config.json") -> GPT2Config:
        """Read a `config.json` object. RunFolderError names the key that is missing, unknown or not supported."""
        names = {field.name: _NAMES.get(field.name, field.name) for field in dataclasses.fields(cls)}
        check_keys(config, {*names.values(), "model_type"} | _NO_EFFECT, _ONLY_VALUE, where)
        values = {name: config[stored] for name, stored in names.items() if config.get(stored) is not None}
        if isinstance(values.get("hidden_size"), int):
            values.setdefault("intermediate_size", 4 * values["hidden_size"])
        if missing := [names[f.name] for f in dataclasses.fields(cls) if _required(f) and f.name not in values]:
            raise RunFolderError(f"config.json lacks {', '.join(missing)}", where=where)
        return build_config(cls, with_tokens(values), where)


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING
