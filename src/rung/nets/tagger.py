"""A tag for each token: an encoder's body with a head over every state, as Hugging Face's ...ForTokenClassification."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from rung.errors import RunFolderError
from rung.nets.blank import without_values
from rung.nets.encoder import Encoder, draw_normal
from rung.nets.encoder_config import EncoderConfig
from rung.nets.encoder_folder import load_encoder, read_renamed
from rung.nets.encoder_names import NAMES
from rung.nets.layers import Linear
from rung.nets.pretrained import CONFIG, read_config_file, write_weights
from rung.runfolder import write_json

_ARCHITECTURE = "ForTokenClassification"
_HEAD = "classifier."


class Tagger(nn.Module):
    """Scores of tags for tokens (Devlin et al. 2019, section 5.3). Dropout acts on the states while training."""

    def __init__(self, config: EncoderConfig, num_tags: int) -> None:
        super().__init__()
        self.config = config
        self.body = Encoder(config)
        self.head = Linear(config.hidden_size, num_tags)
        # DistilBERT's classifier has a dropout of its own, its tagger has not.
        self.dropout = config.hidden_dropout_prob if config.model_type == "distilbert" else config.dropout

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the scores (batch, time, tags) of `input_ids` (batch, time) under `mask`, where there is padding."""
        hidden = self.body(self.body.embed(batch["input_ids"]), batch.get("mask")).hidden
        scores: torch.Tensor = self.head(F.dropout(hidden, self.dropout, self.training))
        return scores


def new_tagger(folder: Path, num_tags: int) -> Tagger:
    """A tagger on the encoder in `folder`, its head drawn from torch's global generator.

    RunFolderError as `rung.nets.encoder_folder.load_encoder`.
    """
    body = load_encoder(folder)
    with without_values():
        net = Tagger(body.config, num_tags)
    net.body = body
    net.head = Linear(body.config.hidden_size, num_tags)
    draw_normal(net.head)
    return net


def save_tagger(net: Tagger, folder: Path, labels: Mapping[str, Any]) -> None:
    """Write `net` into the existing `folder`; `labels` goes into `config.json`: `id2label` and `label2id`."""
    save_tagger_config(net.config, folder, labels)
    write_weights({stored_name(name, net.config): t.contiguous() for name, t in net.state_dict().items()}, folder)


def save_tagger_config(config: EncoderConfig, folder: Path, labels: Mapping[str, Any]) -> None:
    """Write the `config.json` of a tagger into the existing `folder`; `labels` as in `save_tagger`."""
    write_json(folder / CONFIG, {**config.to_hf(_ARCHITECTURE), **labels})


def tag_names(folder: Path) -> tuple[str, ...]:
    """The tags of the tagger in `folder`, in the order of their numbers. RunFolderError when it names none."""
    names = read_config_file(folder).get("id2label")
    if not isinstance(names, dict) or sorted(names) != sorted(map(str, range(len(names)))) or not names:
        raise RunFolderError(f"{CONFIG} names no tags (id2label, numbered from 0)", where=str(folder / CONFIG))
    return tuple(str(names[str(number)]) for number in range(len(names)))


def load_tagger(folder: Path) -> Tagger:
    """Read a tagger, its weights in float32. RunFolderError says what is missing, unknown or damaged."""
    config = EncoderConfig.from_hf(read_config_file(folder), where=str(folder / CONFIG))
    with without_values():
        net = Tagger(config, len(tag_names(folder)))
    wanted = {stored_name(name, config): (name, tensor.shape) for name, tensor in net.state_dict().items()}
    table = NAMES[config.model_type]
    tensors = read_renamed(
        folder,
        {theirs: shape for theirs, (_, shape) in wanted.items()},
        ignored=table.unused_of_body(table.body),
    )
    net.load_state_dict({wanted[theirs][0]: tensor for theirs, tensor in tensors.items()}, assign=True)
    return net


def stored_name(name: str, config: EncoderConfig) -> str:
    """What our parameter `name` is called in a folder."""
    if name.startswith("head."):
        return _HEAD + name.removeprefix("head.")
    table = NAMES[config.model_type]
    return table.body + table.of_body(name.removeprefix("body."))
