"""What the tensors of an encoder are called in the folders of each family. Inside, all have BERT's names.

One table serves reading and writing of bodies, classifiers, masked language models and sentence encoders alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_DISTILBERT_LAYER = {
    "encoder.layer.": "transformer.layer.",
    ".attention.self.query.": ".attention.q_lin.",
    ".attention.self.key.": ".attention.k_lin.",
    ".attention.self.value.": ".attention.v_lin.",
    ".attention.output.dense.": ".attention.out_lin.",
    ".attention.output.LayerNorm.": ".sa_layer_norm.",
    ".intermediate.dense.": ".ffn.lin1.",
    ".output.dense.": ".ffn.lin2.",
    ".output.LayerNorm.": ".output_layer_norm.",
}
# Constants that older versions of transformers stored, and BERT's pooler, which only some heads use.
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
_POOLER = "pooler."
# Layer norms of weights that were converted from TensorFlow (`bert-base-uncased` is the best known).
_LEGACY = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


@dataclass(frozen=True)
class EncoderNames:
    """One family's names. `body`, `pooling`, `head` and those of the masked head are prefixes in a stored file.

    `layer` maps pieces of BERT's names to the family's. `class_name` begins the names of transformers' classes.
    `masked` maps prefixes of `rung.nets.masked_language_model` to the family's.
    """

    class_name: str
    body: str
    pooling: str
    head: str
    masked: Mapping[str, str]
    layer: Mapping[str, str]

    def of_body(self, name: str) -> str:
        """The stored name of the body's parameter `name`, without the prefix of the body."""
        if name.startswith("encoder."):
            for ours, theirs in self.layer.items():
                name = name.replace(ours, theirs, 1)
        return name

    def of_classifier(self, name: str) -> str:
        """The stored name of a `rung.nets.classifier.Classifier`'s parameter in ...ForSequenceClassification."""
        part, _, rest = name.partition(".")
        if part == "body":
            return self.body + self.of_body(rest)
        return name.replace("pooling.dense.", self.pooling, 1).replace("head.", self.head, 1)

    def of_masked_model(self, name: str) -> str:
        """The stored name of a `MaskedLanguageModel`'s parameter in ...ForMaskedLM."""
        if name.startswith("bert."):
            return self.body + self.of_body(name.removeprefix("bert."))
        for ours, theirs in self.masked.items():
            name = name.replace(ours, theirs, 1)
        return name

    def unused_of_body(self, prefix: str) -> tuple[str, ...]:
        """Beginnings of names that may stand beside a body stored under `prefix` and are nothing to its states."""
        return tuple(prefix + name for name in (*_BUFFERS, _POOLER))


NAMES = {
    "bert": EncoderNames(
        class_name="Bert",
        body="bert.",
        pooling="bert.pooler.dense.",
        head="classifier.",
        masked={},
        layer={},
    ),
    "roberta": EncoderNames(
        class_name="Roberta",
        body="roberta.",
        pooling="classifier.dense.",
        head="classifier.out_proj.",
        masked={
            "cls.predictions.transform.dense.": "lm_head.dense.",
            "cls.predictions.transform.LayerNorm.": "lm_head.layer_norm.",
            "cls.predictions.bias": "lm_head.bias",
        },
        layer={},
    ),
    "distilbert": EncoderNames(
        class_name="DistilBert",
        body="distilbert.",
        pooling="pre_classifier.",
        head="classifier.",
        masked={
            "cls.predictions.transform.dense.": "vocab_transform.",
            "cls.predictions.transform.LayerNorm.": "vocab_layer_norm.",
            "cls.predictions.bias": "vocab_projector.bias",
        },
        layer=_DISTILBERT_LAYER,
    ),
}


def body_prefix(stored: Iterable[str], names: EncoderNames) -> str:
    """The prefix of the body in a file with the tensors `stored`: empty where the body stands there alone."""
    return names.body if any(name.startswith(names.body) for name in stored) else ""


def as_stored(wanted: Iterable[str], stored: Iterable[str]) -> dict[str, str]:
    """Each `wanted` name and the one it has among the tensors `stored`, where layer norms may hold gamma and beta."""
    old = {name for name in stored if name.endswith(tuple(_LEGACY))}
    renamed = {}
    for name in old:
        for theirs, usual in _LEGACY.items():
            if name.endswith(theirs):
                renamed[name.removesuffix(theirs) + usual] = name
    return {name: renamed.get(name, name) for name in wanted}
