"""Classifiers as folders: `config.json` and `model.safetensors`, in Hugging Face's layout where one exists."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rung.errors import RunFolderError
from rung.nets.classifier import Classifier, ClassifierConfig, build_classifier
from rung.nets.convolution import ConvolutionConfig
from rung.nets.pretrained import read_config_file, read_weights, write_weights
from rung.nets.recurrent import RecurrentConfig
from rung.runfolder import write_json

_LABELS = ("id2label", "label2id")


def save_classifier(net: Classifier, folder: Path, label_names: Sequence[str]) -> None:
    """Write `net` and the names of its classes into the existing `folder`."""
    labels = {
        "id2label": {str(number): name for number, name in enumerate(label_names)},
        "label2id": {name: number for number, name in enumerate(label_names)},
    }
    write_json(folder / "config.json", {**_to_json(net.config), **labels})
    write_weights(net.state_dict(), folder)


def load_classifier(folder: Path) -> Classifier:
    """Read a classifier, its weights in float32. RunFolderError says what is missing, unknown or damaged."""
    stored = read_config_file(folder)
    names = stored.get("id2label")
    if not isinstance(names, dict) or not names:
        raise RunFolderError("config.json names no classes (id2label)", where=str(folder))
    config = _from_json({key: value for key, value in stored.items() if key not in _LABELS}, where=str(folder))
    with torch.device("meta"):
        net = build_classifier(config, len(names))
    shapes = {name: tensor.shape for name, tensor in net.state_dict().items()}
    net.load_state_dict(read_weights(folder, shapes, dtype=torch.float32), assign=True)
    return net


def _to_json(config: ClassifierConfig) -> dict[str, Any]:
    return {"model_type": config.model_type, **dataclasses.asdict(config)}


def _from_json(stored: Mapping[str, Any], *, where: str) -> ClassifierConfig:
    kind = stored.get("model_type")
    kinds: dict[str, type[ClassifierConfig]] = {"rung-cnn": ConvolutionConfig}
    kinds |= {f"rung-{cell}": RecurrentConfig for cell in ("rnn", "lstm", "gru")}
    if kind not in kinds:
        raise RunFolderError(
            f"model_type {kind!r} is not a classifier that this version knows",
            where=where,
            hint=f"known: {', '.join(kinds)}",
        )
    family = kinds[str(kind)]
    values = dict(stored)
    if family is RecurrentConfig:
        values.pop("model_type")
    else:
        values["filter_sizes"] = tuple(values.get("filter_sizes", ()))
    try:
        return family(**values)
    except TypeError as error:
        raise RunFolderError(f"config.json does not fit {kind}: {error}", where=where) from error
