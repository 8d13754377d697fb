"""Shapes of encoder-decoder Transformers in Marian's and BART's spelling, and their `config.json`, read strictly."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from rung.errors import RunFolderError
from rung.nets.strict_config import NO_EFFECT, build_config, check_keys, check_values

ACTIVATIONS = ("relu", "gelu", "swish", "silu")

# Keys that say something about computing which we implement in one way only: any other value is refused.
ONLY_VALUE: dict[str, Any] = {
    "is_encoder_decoder": True,
    "is_decoder": False,
    "share_encoder_decoder_embeddings": True,
    "tie_word_embeddings": True,
    "normalize_before": False,
    "add_final_layer_norm": False,
    "add_bias_logits": False,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
}
NO_EFFECT_ON_PAIRS = frozenset(
    {
        *NO_EFFECT,
        *("activation_dropout", "attention_dropout", "classif_dropout", "classifier_dropout", "dropout", "init_std"),
        *("bad_words_ids", "bos_token_id", "early_stopping", "force_bos_token_to_be_generated", "forced_bos_token_id"),
        *("forced_eos_token_id", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beams"),
        *("num_hidden_layers", "prefix", "save_step"),
        "extra_pos_embeddings",  # old Marians have their number of tokens there, and compute their positions anyway
    }
)
"""Keys that do not change what the network computes: dropout and drawing belong to training, the rest to generation,
which honours it (`rung.generation.target_settings`)."""


@dataclasses.dataclass(frozen=True)
class EncoderDecoderConfig:
    """The Transformer of "Attention Is All You Need" (arXiv 1706.03762); names are those of `MarianConfig`.

    Source and target share one vocabulary and one embedding matrix, which is the output matrix too (section 3.4). The
    defaults beyond the sizes are the paper's: ReLU, embeddings times sqrt(d_model). A target starts from
    `decoder_start_token_id`, which in Marian is the padding token.
    """

    vocab_size: int
    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_attention_heads: int
    decoder_attention_heads: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    max_position_embeddings: int
    pad_token_id: int
    eos_token_id: int
    decoder_start_token_id: int
    activation_function: str = "relu"
    scale_embedding: bool = True

    model_type: ClassVar[str] = "marian"
    architecture: ClassVar[str] = "MarianMTModel"
    learned_positions: ClassVar[bool] = False
    """Whether each side learns its positions, and normalises the embedded tokens (BART), or adds sines (Marian)."""
    only_value: ClassVar[Mapping[str, Any]] = {
        **ONLY_VALUE,
        "normalize_embedding": False,
        "static_position_embeddings": True,
    }

    def __post_init__(self) -> None:
        """Refuse a shape that cannot be built (RunFolderError: such shapes come from a `config.json`)."""
        check_values(self)
        check_tokens(self)
        for heads in ("encoder_attention_heads", "decoder_attention_heads"):
            if self.d_model % getattr(self, heads):
                raise RunFolderError(f"d_model {self.d_model} is not a multiple of {heads} {getattr(self, heads)}")
        if self.d_model % 2 and not self.learned_positions:
            raise RunFolderError(f"d_model must be even for sinusoidal positions, not {self.d_model}")
        if self.activation_function not in ACTIVATIONS:
            problem = f"activation_function {self.activation_function!r:.80} is not supported"
            raise RunFolderError(problem, hint=f"supported: {', '.join(ACTIVATIONS)}")

    @property
    def hidden_size(self) -> int:
        """What Hugging Face calls `d_model` here."""
        return self.d_model

    def to_hf(self, dtype: str = "float32") -> dict[str, Any]:
        """Return the `config.json` object of a `MarianMTModel`."""
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "is_encoder_decoder": True,
            **dataclasses.asdict(self),
            "decoder_vocab_size": self.vocab_size,
            "share_encoder_decoder_embeddings": True,
            "tie_word_embeddings": True,
            "static_position_embeddings": True,
            "normalize_before": False,
            "bos_token_id": None,
            "forced_eos_token_id": self.eos_token_id,
            "torch_dtype": dtype,
            "dtype": dtype,
        }

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], *, where: str = "config.json") -> Self:
        """Read a `config.json` object. RunFolderError names the key that is missing, unknown or not supported."""
        names = {field.name for field in dataclasses.fields(cls)}
        only_value = {**cls.only_value, "model_type": cls.model_type}
        check_keys(config, names | {"decoder_vocab_size"} | NO_EFFECT_ON_PAIRS, only_value, where)
        # The defaults of MarianConfig and BartConfig, where the key is absent.
        values: dict[str, Any] = {"activation_function": "gelu", "scale_embedding": False}
        values |= {name: config[name] for name in names if name in config}
        read = build_config(cls, values, where)
        other = config.get("decoder_vocab_size")
        if other not in (None, read.vocab_size):
            problem = f"decoder_vocab_size {other!r:.80} differs from vocab_size {read.vocab_size}"
            raise RunFolderError(problem, where=where, hint="only one vocabulary for both sides is supported")
        return read


def check_tokens(config: Any) -> None:
    """Raise RunFolderError for a special token of the dataclass `config` that is not in its vocabulary."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name.endswith("token_id") and value >= config.vocab_size:
            raise RunFolderError(f"{field.name} {value} is not among the {config.vocab_size} tokens")
