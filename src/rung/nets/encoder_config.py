"""The shape of a Transformer encoder in BERT's spelling, and its `config.json`, read strictly: no key is ignored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rung.errors import RunFolderError
from rung.nets.architectures import unsupported
from rung.nets.encoder_names import NAMES
from rung.nets.strict_config import NO_EFFECT, OF_GENERATION, build_config, check_keys, check_values

ACTIVATIONS = ("gelu", "gelu_new", "relu")
POOLINGS = ("cls", "mean")

# Keys that say something about computing which we implement in one way only: any other value is refused.
_ONLY_VALUE: dict[str, Any] = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "chunk_size_feed_forward": 0,
    "pruned_heads": {},
}
# Keys that do not change what a body or a classifier computes.
_NO_EFFECT = frozenset({*NO_EFFECT, *OF_GENERATION, "bos_token_id", "eos_token_id", "tie_word_embeddings"})
# Of multilingual BERT: written once by a conversion, read by no class.
_NO_EFFECT_ON_BERT = frozenset(
    {
        "directionality",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
    }
)
# DistilBERT: dropout of another head, and how its positions, which are stored, were once drawn.
_NO_EFFECT_ON_DISTILBERT = frozenset({"qa_dropout", "sinusoidal_pos_embds", "tie_weights_"})
# DistilBERT's own spelling of BERT's fields. What it has no key for is a constant of the family.
_DISTILBERT = {
    "vocab_size": "vocab_size",
    "max_position_embeddings": "max_position_embeddings",
    "pad_token_id": "pad_token_id",
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "activation": "hidden_act",
    "seq_classif_dropout": "classifier_dropout",
    "classifier_pooling": "classifier_pooling",
}
# Where a family's class in transformers has another default than BERT's.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "roberta": {"vocab_size": 50265, "pad_token_id": 1},
    "distilbert": {"num_hidden_layers": 6, "classifier_dropout": 0.2},
}
_DISTILBERT_EPS = 1e-12


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """An encoder's shape. Names and defaults are those of transformers' `BertConfig`.

    `model_type` decides the family:

    - "bert" (arXiv 1810.04805; MiniLM too);
    - "roberta" (arXiv 1907.11692): positions are counted from `pad_token_id` + 1 on;
    - "distilbert" (arXiv 1910.01108): no token types (`type_vocab_size` means nothing), no pooler.

    `classifier_dropout` None means `hidden_dropout_prob`. `classifier_pooling` is what a classifier puts between body
    and head, in ModernBERT's spelling: "cls", the family's own way of reading the first token, or "mean" over all.
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
    model_type: str = "bert"
    classifier_pooling: str = "cls"

    def __post_init__(self) -> None:
        """Refuse a shape that cannot be built (RunFolderError: such shapes come from a `config.json`)."""
        if self.model_type not in NAMES:
            raise unsupported(self.model_type, "encoder config")
        check_values(self)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            if (getattr(self, name) or 0.0) >= 1:
                raise RunFolderError(f"{name} must be below 1, not {getattr(self, name)}")
        if self.hidden_size % self.num_attention_heads:
            raise RunFolderError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.hidden_act not in ACTIVATIONS:
            problem = f"hidden_act {self.hidden_act!r:.80} is not supported"
            raise RunFolderError(problem, hint=f"supported: {', '.join(ACTIVATIONS)}")
        if self.classifier_pooling not in POOLINGS:
            problem = f"classifier_pooling {self.classifier_pooling!r:.80} is not supported"
            raise RunFolderError(problem, hint=f"supported: {', '.join(POOLINGS)}")
        if self.model_type == "roberta" and (self.pad_token_id is None or self.max_length < 1):
            raise RunFolderError(
                f"roberta counts positions from pad_token_id + 1, and of {self.max_position_embeddings} positions "
                f"pad_token_id {self.pad_token_id!r} leaves none"
            )
        if self.model_type == "distilbert" and self.layer_norm_eps != _DISTILBERT_EPS:
            raise RunFolderError(f"the layer_norm_eps of distilbert is {_DISTILBERT_EPS}, not {self.layer_norm_eps}")

    @property
    def dropout(self) -> float:
        """What acts on the pooled vector while a classifier is trained."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    @property
    def has_token_types(self) -> bool:
        """Whether a token's segment is embedded."""
        return self.model_type != "distilbert"

    @property
    def first_position(self) -> int:
        """The row of the position embeddings that belongs to the first token."""
        return self.pad_token_id + 1 if self.model_type == "roberta" and self.pad_token_id is not None else 0

    @property
    def max_length(self) -> int:
        """Tokens that a text may have."""
        return self.max_position_embeddings - self.first_position

    def to_hf(self, head: str = "ForSequenceClassification") -> dict[str, Any]:
        """Return the `config.json` object of the family's class with that `head` ("Model": the body alone).

        A classifier's also needs its labels.
        """
        fields = dataclasses.asdict(self)
        if self.model_type == "distilbert":
            fields = {theirs: fields[ours] for theirs, ours in _DISTILBERT.items()}
            fields["seq_classif_dropout"] = self.dropout
        if self.classifier_pooling == "cls":
            del fields["classifier_pooling"]  # what every class of these families does
        return {
            "architectures": [NAMES[self.model_type].class_name + head],
            **fields,
            "model_type": self.model_type,
            "initializer_range": 0.02,
            "torch_dtype": "float32",
            "dtype": "float32",
        }

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], *, where: str = "config.json") -> EncoderConfig:
        """Read a `config.json` object. RunFolderError names the key that is unknown or not supported."""
        model_type = str(config.get("model_type"))
        if model_type not in NAMES:
            raise unsupported(model_type, where, usable=tuple(NAMES))
        if model_type == "distilbert":
            spelled, no_effect = _DISTILBERT, _NO_EFFECT | _NO_EFFECT_ON_DISTILBERT
        else:
            spelled = {field.name: field.name for field in dataclasses.fields(cls)}
            no_effect = _NO_EFFECT | (_NO_EFFECT_ON_BERT if model_type == "bert" else frozenset())
        check_keys(config, {"model_type", *spelled, *no_effect}, _ONLY_VALUE, where)
        values = {ours: config[theirs] for theirs, ours in spelled.items() if theirs in config}
        return build_config(cls, {**_DEFAULTS.get(model_type, {}), **values, "model_type": model_type}, where)
