"""Classifiers as folders: `config.json` and `model.safetensors`, in Hugging Face's layout where one exists.

There, an encoder is a `BertForSequenceClassification`, a decoder a `Qwen3ForSequenceClassification` (or Llama's, or
Qwen2's). The bodies of other folders of these families can be taken over: see `load_body`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from rung.errors import RunFolderError
from rung.nets.classifier import Classifier, ClassifierConfig, build_classifier, parameter_shapes
from rung.nets.convolution import ConvolutionConfig
from rung.nets.decoder_config import ARCHITECTURES, DecoderConfig, check_keys
from rung.nets.encoder_config import EncoderConfig
from rung.nets.pretrained import CONFIG, WEIGHTS, read_config_file, read_weights, write_weights
from rung.nets.recurrent import RecurrentConfig
from rung.runfolder import write_json

_OWN: dict[str, type[ConvolutionConfig] | type[RecurrentConfig]] = {
    "rung-cnn": ConvolutionConfig,
    "rung-rnn": RecurrentConfig,
    "rung-lstm": RecurrentConfig,
    "rung-gru": RecurrentConfig,
}
_PREFIXES = {
    EncoderConfig: {"body.": "bert.", "pooling.": "bert.pooler.", "head.": "classifier."},
    DecoderConfig: {"body.": "model.", "head.": "score."},
}
# What the heads of other architectures over the same body are called: left behind when the body alone is wanted.
_OTHER_HEADS = ("cls.", "classifier.", "score.", "lm_head.", "qa_outputs.")
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")  # constants that older versions stored


def save_classifier(net: Classifier, folder: Path, labels: Mapping[str, Any]) -> None:
    """Write `net` into the existing `folder`; `labels` goes into `config.json`: `id2label` and `label2id`."""
    write_json(folder / CONFIG, {**_to_json(net.config), **labels})
    prefixes = _PREFIXES.get(type(net.config), {})
    write_weights({_stored(name, prefixes): t.contiguous() for name, t in net.state_dict().items()}, folder)


def load_classifier(folder: Path) -> Classifier:
    """Read a classifier, its weights in float32. RunFolderError says what is missing, unknown or damaged."""
    stored = read_config_file(folder)
    names = stored.get("id2label")
    if not isinstance(names, dict) or not names:
        raise RunFolderError(f"{CONFIG} names no classes (id2label)", where=str(folder))
    config = _from_json(stored, where=str(folder / CONFIG))
    prefixes = _PREFIXES.get(type(config), {})
    shapes = parameter_shapes(config, len(names))
    ours = {_stored(name, prefixes): name for name in shapes}
    ignored = [f"{prefixes['body.']}{name}" for name in _BUFFERS] if prefixes else []
    tensors = read_weights(
        folder, {name: shapes[own] for name, own in ours.items()}, dtype=torch.float32, ignored=ignored
    )
    return build_classifier(config, len(names), tensors={ours[name]: tensor for name, tensor in tensors.items()})


def load_body(folder: Path, num_labels: int, *, dropout: float, pad_token_id: int) -> Classifier:
    """A classifier whose body is that of `folder` - an encoder or decoder of a known family - and whose head is new.

    The pooler is taken over where the folder has one; other heads are left behind. New parameters are drawn from
    torch's global generator. `pad_token_id` goes into the configuration: by it transformers finds a text's last token.
    RunFolderError as `load_classifier`.
    """
    config = dataclasses.replace(read_body_config(folder), pad_token_id=pad_token_id)
    net = build_classifier(config, num_labels, dropout=dropout)
    prefix = _PREFIXES[type(config)]["body."]
    stored = _stored_names(folder)
    bare = not any(name.startswith(prefix) for name in stored)
    prefixes = {"body.": "" if bare else prefix, "pooling.": "pooler." if bare else f"{prefix}pooler."}
    shapes = {name: tensor.shape for name, tensor in net.state_dict().items() if not name.startswith("head.")}
    wanted = {_stored(name, prefixes): name for name in shapes}
    if not any(name.startswith(prefixes["pooling."]) for name in stored):
        wanted = {name: own for name, own in wanted.items() if not own.startswith("pooling.")}
    ignored = {name for name in stored if name.startswith(_OTHER_HEADS)}
    ignored |= {f"{prefixes['body.']}{name}" for name in _BUFFERS}
    tensors = read_weights(
        folder, {name: shapes[own] for name, own in wanted.items()}, dtype=torch.float32, ignored=ignored
    )
    net.load_state_dict({wanted[name]: tensor for name, tensor in tensors.items()}, strict=False)
    return net


def read_body_config(folder: Path) -> EncoderConfig | DecoderConfig:
    """The shape of a pretrained encoder or decoder. RunFolderError when it is of another kind."""
    config = _from_json(read_config_file(folder), where=str(folder / CONFIG))
    if not isinstance(config, EncoderConfig | DecoderConfig):
        raise RunFolderError(
            f"a {config.model_type} network is no pretrained body", where=str(folder), hint="give an encoder or decoder"
        )
    return config


def _stored_names(folder: Path) -> list[str]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise RunFolderError(f"the folder has no {WEIGHTS}", where=str(folder))
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise RunFolderError(f"cannot read {WEIGHTS}: {error}", where=str(path)) from error


def _stored(name: str, prefixes: Mapping[str, str]) -> str:
    """The name of our parameter `name` in a file."""
    for ours, theirs in prefixes.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _to_json(config: ClassifierConfig) -> dict[str, Any]:
    if isinstance(config, EncoderConfig):
        return config.to_hf()
    if isinstance(config, DecoderConfig):
        architecture = ARCHITECTURES[config.model_type].replace("CausalLM", "SequenceClassification")
        return {**config.to_hf(), "architectures": [architecture]}
    values = dataclasses.asdict(config)
    return {"model_type": config.model_type, **values}


def _from_json(stored: Mapping[str, Any], *, where: str) -> ClassifierConfig:
    kind = str(stored.get("model_type"))
    if kind == EncoderConfig.model_type:
        return EncoderConfig.from_hf(stored, where=where)
    if kind in ARCHITECTURES:
        return DecoderConfig.from_hf(stored, where=where)
    if kind not in _OWN:
        known: Sequence[str] = (*_OWN, EncoderConfig.model_type, *ARCHITECTURES)
        raise RunFolderError(
            f"model_type '{kind}' is not a network that this version knows",
            where=where,
            hint=f"known: {', '.join(known)}",
        )
    family = _OWN[kind]
    names = {field.name for field in dataclasses.fields(family)}
    check_keys(stored, names | {"model_type", "id2label", "label2id"}, {}, where)
    values: dict[str, Any] = {name: stored[name] for name in names if name in stored}
    if "filter_sizes" in values:
        values["filter_sizes"] = tuple(values["filter_sizes"])
    try:
        return family(**values)
    except TypeError as error:
        raise RunFolderError(f"{CONFIG} does not fit {kind}: {error}", where=where) from error
