"""BERT's masked language model (Devlin et al. 2019) in the layout of transformers' `BertForMaskedLM`.

RoBERTa's and DistilBERT's are the same network; only names in the folder differ.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from rung.errors import RunFolderError
from rung.nets.blank import without_values
from rung.nets.encoder import Encoder, draw_normal
from rung.nets.encoder_config import EncoderConfig
from rung.nets.encoder_folder import read_renamed
from rung.nets.encoder_names import NAMES
from rung.nets.layers import ACTIVATION_FUNCTIONS, LayerNorm, Linear
from rung.nets.pretrained import CONFIG, read_config_file, write_weights
from rung.runfolder import write_json

HEAD = "ForMaskedLM"
# What other writers store beside it: the tied output matrix and bias under names of their own, and what BERT's other
# pretraining task needs (`BertForPreTraining`).
_IGNORED = (
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
    "cls.seq_relationship.weight",
    "cls.seq_relationship.bias",
    "lm_head.decoder.weight",
    "lm_head.decoder.bias",
    "vocab_projector.weight",
)


class Transform(nn.Module):
    """What a hidden state goes through before it is compared with the word embeddings."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        # RoBERTa's head has gelu, whatever the activation of its layers.
        self.activation = ACTIVATION_FUNCTIONS["gelu" if config.model_type == "roberta" else config.hidden_act]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map (..., hidden) to the same shape."""
        transformed: torch.Tensor = self.LayerNorm(self.activation(self.dense(hidden)))
        return transformed


class Predictions(nn.Module):
    """The transform and the output bias; the output matrix is that of the word embeddings."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.transform = Transform(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))


class MaskedLanguageModel(nn.Module):
    """An encoder that guesses hidden tokens. `encoder` is used, not copied: training this trains it."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.config = encoder.config
        self.bert = encoder
        self.cls = nn.ModuleDict({"predictions": Predictions(encoder.config)})
        self.cls.apply(draw_normal)

    @property
    def predictions(self) -> Predictions:
        """The head."""
        head = self.cls["predictions"]
        assert isinstance(head, Predictions)  # noqa: S101 - for the type checker
        return head

    @property
    def output_weight(self) -> torch.Tensor:
        """The output matrix (vocabulary, hidden)."""
        weight: torch.Tensor = self.bert.embeddings.word_embeddings.weight
        return weight

    def transformed(
        self, input_ids: torch.Tensor, mask: torch.Tensor | None = None, *, where: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return what the output matrix is multiplied by: (batch, time, hidden), or (places, hidden) where `where`.

        `input_ids` and the padding `mask`, true for tokens, are (batch, time); so is `where`, boolean.
        Raises GenerationError for more tokens than positions.
        """
        hidden = self.bert(self.bert.embed(input_ids), mask).hidden
        transformed: torch.Tensor = self.predictions.transform(hidden if where is None else hidden[where])
        return transformed

    def scores(self, transformed: torch.Tensor) -> torch.Tensor:
        """Return the scores (..., vocabulary) of transformed states (..., hidden)."""
        weight, bias = self.output_weight, self.predictions.bias
        return F.linear(transformed, weight.to(transformed.dtype), bias.to(transformed.dtype))

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the scores (batch, time, vocabulary) of `input_ids` (batch, time) under the padding `mask`."""
        return self.scores(self.transformed(input_ids, mask))


def save_masked_language_model(net: MaskedLanguageModel, folder: Path) -> None:
    """Write `config.json` and `model.safetensors` into the existing `folder`, so that transformers opens it."""
    names = NAMES[net.config.model_type]
    write_json(folder / CONFIG, net.config.to_hf(HEAD))
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    write_weights({names.of_masked_model(name): tensor for name, tensor in tensors.items()}, folder)


def load_masked_language_model(folder: Path) -> MaskedLanguageModel:
    """Read a network that `save_masked_language_model` or transformers wrote, its weights in float32.

    Of a `BertForPreTraining` the second head is left behind. RunFolderError says what is missing, unknown or damaged.
    """
    stored = read_config_file(folder)
    where = str(folder / CONFIG)
    if stored.get("tie_word_embeddings", True) is not True:
        raise RunFolderError("its output matrix is not that of its word embeddings", where=where)
    config = EncoderConfig.from_hf(stored, where=where)
    with without_values():
        net = MaskedLanguageModel(Encoder(config))
    names = NAMES[config.model_type]
    wanted = {names.of_masked_model(name): (name, tensor.shape) for name, tensor in net.state_dict().items()}
    found = read_renamed(
        folder,
        {theirs: shape for theirs, (_, shape) in wanted.items()},
        ignored=(*_IGNORED, *names.unused_of_body(names.body)),
    )
    net.load_state_dict({wanted[theirs][0]: tensor for theirs, tensor in found.items()}, assign=True)
    return net
