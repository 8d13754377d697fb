"""Any language model that is a network, by its configuration: drawn, written into a folder, read from one.

`model_type` in `config.json` tells the family: the decoders of `rung.nets.architectures`, which transformers opens
too, and Rung's own `rung-lm-rnn`, `rung-lm-lstm`, `rung-lm-gru` and `rung-lm-feedforward`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from rung.nets.architectures import FAMILIES, unsupported
from rung.nets.decoders import AnyDecoder, AnyDecoderConfig, build_decoder
from rung.nets.feedforward_language_model import FeedForwardLM, FeedForwardLMConfig
from rung.nets.feedforward_language_model import parameter_shapes as feedforward_shapes
from rung.nets.pretrained import CONFIG, load_net, read_config_file, read_weights, save_net, write_weights
from rung.nets.recurrent_language_model import CELLS, DropoutKind, RecurrentLM, RecurrentLMConfig
from rung.nets.recurrent_language_model import parameter_shapes as recurrent_shapes
from rung.runfolder import write_json

Config = AnyDecoderConfig | RecurrentLMConfig | FeedForwardLMConfig
Net = AnyDecoder | RecurrentLM | FeedForwardLM
_RECURRENT = frozenset(f"rung-lm-{cell}" for cell in CELLS)
_FEEDFORWARD = "rung-lm-feedforward"


@dataclass(frozen=True)
class Dropout:
    """What is dropped while training, and no part of a stored network; `kind` is for recurrent ones."""

    rate: float = 0.0
    kind: DropoutKind = "locked"


def draw_language_model(config: Config, *, seed: int, dropout: Dropout = Dropout()) -> Net:
    """A network of this shape with random float32 weights, the same for the same `seed`."""
    generator = torch.Generator().manual_seed(seed)
    match config:
        case RecurrentLMConfig():
            return RecurrentLM(config, dropout=dropout.rate, dropout_kind=dropout.kind, generator=generator)
        case FeedForwardLMConfig():
            return FeedForwardLM(config, dropout=dropout.rate, generator=generator)
        case _:
            return build_decoder(config, dropout=dropout.rate, generator=generator)


def save_language_model(net: Net, folder: Path) -> None:
    """Write `config.json` and `model.safetensors`; a tied output matrix is left out."""
    if isinstance(net, AnyDecoder):
        save_net(net, folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, net.config.to_json())
    write_weights({name: p.detach().to("cpu").contiguous() for name, p in net.named_parameters()}, folder)


def load_language_model(folder: Path, *, dropout: Dropout = Dropout()) -> Net:
    """Read a network, its weights in float32. RunFolderError as in `rung.nets.pretrained.load_net`."""
    values = read_config_file(folder)
    where, model_type = str(folder / CONFIG), values.get("model_type")
    if model_type in FAMILIES["decoders"]:
        return load_net(folder, dropout=dropout.rate)
    if model_type in _RECURRENT:
        recurrent = RecurrentLMConfig.from_json(values, where)
        tensors = read_weights(folder, recurrent_shapes(recurrent), dtype=torch.float32)
        return RecurrentLM(recurrent, dropout=dropout.rate, dropout_kind=dropout.kind, tensors=tensors)
    if model_type == _FEEDFORWARD:
        feedforward = FeedForwardLMConfig.from_json(values, where)
        tensors = read_weights(folder, feedforward_shapes(feedforward), dtype=torch.float32)
        return FeedForwardLM(feedforward, dropout=dropout.rate, tensors=tensors)
    usable = (*FAMILIES["decoders"], *sorted(_RECURRENT), _FEEDFORWARD)
    raise unsupported(str(model_type), where, usable=usable)
