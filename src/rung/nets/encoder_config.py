"""The shape of a Transformer encoder in BERT's spelling, and its `config.json`, read strictly: no key is ignored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rung.errors import RunFolderError
from rung.nets.decoder_config import check_keys

ACTIVATIONS = ("gelu", "gelu_new", "relu")

# Keys that say something about computing which we implement in one way only: any other value is refused.
_ONLY_VALUE: dict[str, Any] = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "chunk_size_feed_forward": 0,
    "model_type": "bert",
}
# Keys that do not change what a body or a classifier computes.
_NO_EFFECT = frozenset(
    {
        "_attn_implementation_autoset",
        "_name_or_path",
        "architectures",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "gradient_checkpointing",
        "id2label",
        "initializer_range",
        "label2id",
        "output_attentions",
        "output_hidden_states",
        "problem_type",
        "return_dict",
        "tie_word_embeddings",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """A BERT encoder's shape (arXiv 1810.04805). Names and defaults are those of transformers' `BertConfig`.

    `classifier_dropout` None means `hidden_dropout_prob`.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0

    model_type = "bert"

    def __post_init__(self) -> None:
        """Refuse a shape that cannot be built (RunFolderError: such shapes come from a `config.json`)."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (type(value) is not int or value < 1):
                raise _refusal(f"{field.name} must be a whole number of at least 1, not {value!r}")
            if field.type == "float" and not (isinstance(value, int | float) and 0 <= value < 1):
                raise _refusal(f"{field.name} must be a number from 0 to below 1, not {value!r}")
        if self.hidden_size % self.num_attention_heads:
            raise _refusal(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise _refusal(f"hidden_act {self.hidden_act!r} is not supported", f"supported: {', '.join(ACTIVATIONS)}")

    @property
    def dropout(self) -> float:
        """What acts on the pooled vector while a classifier is trained."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    def to_hf(self, architecture: str = "BertForSequenceClassification") -> dict[str, Any]:
        """Return the `config.json` object of an `architecture`; that of a classifier also needs its labels."""
        return {
            "architectures": [architecture],
            "model_type": self.model_type,
            **dataclasses.asdict(self),
            "initializer_range": 0.02,
            "torch_dtype": "float32",
            "dtype": "float32",
        }

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], *, where: str = "config.json") -> EncoderConfig:
        """Read a `config.json` object. RunFolderError names the key that is unknown or not supported."""
        names = {field.name for field in dataclasses.fields(cls)}
        check_keys(config, names | _NO_EFFECT, _ONLY_VALUE, where)
        try:
            return cls(**{name: config[name] for name in names if name in config})
        except RunFolderError as error:
            raise RunFolderError(error.problem, where=where, hint=error.hint) from None


def _refusal(problem: str, hint: str | None = None) -> RunFolderError:
    return RunFolderError(problem, where="encoder config", hint=hint)
