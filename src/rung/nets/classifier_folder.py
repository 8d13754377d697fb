"""Classifiers as folders: `config.json` and `model.safetensors`, in Hugging Face's layout where one exists.

There, an encoder is a `BertForSequenceClassification` (or RoBERTa's, or DistilBERT's), a decoder a
`Qwen3ForSequenceClassification` (or Llama's, or GPT-2's, ...). An encoder whose head reads the mean over tokens has no
class there: its folder is sentence-transformers' (see `rung.nets.pooled_classifier_folder`). The bodies of other
folders of these families can be taken over: see `load_body`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from rung.errors import RunFolderError
from rung.nets.architectures import FAMILIES, unsupported
from rung.nets.classifier import Classifier, ClassifierConfig, build_classifier, parameter_shapes
from rung.nets.convolution import ConvolutionConfig
from rung.nets.decoders import AnyDecoderConfig, body_prefix, decoder_config
from rung.nets.encoder import Encoder
from rung.nets.encoder_config import EncoderConfig
from rung.nets.encoder_folder import load_encoder, read_body, read_pooler, read_renamed, save_encoder, stored_names
from rung.nets.encoder_names import NAMES
from rung.nets.gpt2 import turned
from rung.nets.label_names import named_labels, usual_labels
from rung.nets.layers import Linear
from rung.nets.pooled_classifier_folder import load_head, save_head
from rung.nets.pretrained import CONFIG, read_config_file, read_decoder, write_weights
from rung.nets.recurrent import RecurrentConfig
from rung.nets.strict_config import check_keys
from rung.nets.weights import open_weights
from rung.runfolder import write_json

_OWN: dict[str, type[ConvolutionConfig] | type[RecurrentConfig]] = {
    "rung-cnn": ConvolutionConfig,
    "rung-rnn": RecurrentConfig,
    "rung-lstm": RecurrentConfig,
    "rung-gru": RecurrentConfig,
}
_LANGUAGE_MODEL = re.compile("ForCausalLM$|LMHeadModel$")


def save_classifier(net: Classifier, folder: Path, labels: Mapping[str, Any]) -> None:
    """Write `net` into the existing `folder`; `labels` goes into `config.json`: `id2label` and `label2id`."""
    if reads_the_mean(net.config):
        save_encoder(cast("Encoder", net.body), folder)
        save_head(net.head, folder)
        save_classifier_config(net.config, folder, labels)
        return
    save_classifier_config(net.config, folder, labels)
    tensors = {stored_name(name, net.config): turned(name, t).contiguous() for name, t in net.state_dict().items()}
    write_weights(tensors, folder)


def save_classifier_config(config: ClassifierConfig, folder: Path, labels: Mapping[str, Any]) -> None:
    """Write `config.json` alone."""
    write_json(folder / CONFIG, {**_to_json(config), **labels})


def load_classifier(folder: Path) -> Classifier:
    """Read a classifier, its weights in float32. RunFolderError says what is missing, unknown or damaged."""
    config = _from_json(read_config_file(folder), where=str(folder / CONFIG))
    count = len(label_names(folder))
    if reads_the_mean(config):
        return mean_classifier(load_encoder(folder), load_head(folder, config.hidden_size, count))
    shapes = parameter_shapes(config, count)
    ours = {stored_name(name, config): name for name in shapes}
    wanted = {name: shapes[own] for name, own in ours.items()}
    if isinstance(config, AnyDecoderConfig):
        tensors = read_decoder(folder, config, wanted)
    else:
        names = NAMES.get(config.model_type)
        tensors = read_renamed(folder, wanted, ignored=names.unused_of_body(names.body) if names else ())
    return build_classifier(config, count, tensors={ours[name]: tensor for name, tensor in tensors.items()})


def reads_the_mean(config: ClassifierConfig) -> bool:
    """Whether the head of an encoder reads the mean over tokens."""
    return isinstance(config, EncoderConfig) and config.classifier_pooling == "mean"


def mean_classifier(body: Encoder, head: Linear) -> Classifier:
    """The classifier of a body and a head on the mean over its tokens; both are used, not copied."""
    tensors = {f"body.{name}": tensor for name, tensor in body.state_dict().items()}
    tensors |= {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    config = dataclasses.replace(body.config, classifier_pooling="mean")
    return build_classifier(config, head.out_features, tensors=tensors)


def label_names(folder: Path) -> tuple[str, ...]:
    """The classes of the classifier in `folder`, in the order of their numbers.

    Where `config.json` does not name them, they have the names that transformers gives to as many as the head has.
    RunFolderError when it names them badly, or there is no head either.
    """
    stored, where = read_config_file(folder), str(folder / CONFIG)
    names = named_labels(stored, where=where)
    if names is not None:
        return names
    head = stored_name("head.weight", _from_json(stored, where=where))
    with open_weights(folder) as weights:
        if head not in weights.names():
            raise RunFolderError(f"{CONFIG} names no classes (id2label), and there is no {head}", where=str(folder))
        return usual_labels(stored, weights.shape(head)[0], where=where)


def load_body(
    folder: Path, num_labels: int, *, dropout: float, pad_token_id: int, pooling: str | None = None
) -> Classifier:
    """A classifier whose body is that of `folder` - an encoder or decoder of a known family - and whose head is new.

    BERT's pooler is taken over where the folder has one; other heads are left behind. New parameters are drawn from
    torch's global generator. `pad_token_id` goes into the configuration: by it transformers finds a text's last token.
    (RoBERTa's stays as it is, because positions are counted from it.) `pooling` replaces an encoder's
    `classifier_pooling`. RunFolderError as `load_classifier`.
    """
    config = read_body_config(folder)
    if pooling is not None and isinstance(config, EncoderConfig):
        config = dataclasses.replace(config, classifier_pooling=pooling)
    if config.model_type != "roberta":
        config = dataclasses.replace(config, pad_token_id=pad_token_id)
    net = build_classifier(config, num_labels, dropout=dropout)
    shapes = {name: t.shape for name, t in net.state_dict().items() if name.startswith("body.")}
    if isinstance(config, EncoderConfig):
        body = {name.removeprefix("body."): shape for name, shape in shapes.items()}
        tensors = {f"body.{name}": tensor for name, tensor in read_body(folder, config, body).items()}
        if config.model_type == "bert" and config.classifier_pooling == "cls":
            tensors |= {f"pooling.dense.{name}": tensor for name, tensor in read_pooler(folder, config).items()}
    else:
        tensors = _read_decoder_body(folder, config, shapes)
    net.load_state_dict(tensors, strict=False)
    return net


def _read_decoder_body(
    folder: Path, config: AnyDecoderConfig, shapes: Mapping[str, torch.Size]
) -> dict[str, torch.Tensor]:
    """The tensors `shapes` of a body by our names; what does not stand under their prefix is left behind."""
    stored, prefix = stored_names(folder), body_prefix(config)
    is_bare = not any(name.startswith(prefix) for name in stored)
    heads = {"lm_head.weight"} if is_bare else {name for name in stored if not name.startswith(prefix)}
    wanted = {stored_name(name, config): name for name in shapes}
    found = read_decoder(folder, config, {name: shapes[own] for name, own in wanted.items()}, ignored=heads)
    return {own: found[name] for name, own in wanted.items()}


def read_body_config(folder: Path) -> EncoderConfig | AnyDecoderConfig:
    """The shape of a pretrained encoder or decoder. RunFolderError when it is of another kind."""
    config = _from_json(read_config_file(folder), where=str(folder / CONFIG))
    if not isinstance(config, EncoderConfig | AnyDecoderConfig):
        raise RunFolderError(
            f"a {config.model_type} network is no pretrained body", where=str(folder), hint="give an encoder or decoder"
        )
    return config


def stored_name(name: str, config: ClassifierConfig) -> str:
    """The name of a `Classifier`'s parameter `name` in its folder: transformers' own, where it has such a class."""
    if isinstance(config, EncoderConfig):
        return NAMES[config.model_type].of_classifier(name)
    if isinstance(config, AnyDecoderConfig):
        part, _, rest = name.partition(".")
        return body_prefix(config) + rest if part == "body" else f"score.{rest}"
    return name


def _to_json(config: ClassifierConfig) -> dict[str, Any]:
    if isinstance(config, EncoderConfig):
        return config.to_hf("ForSequenceClassification" if config.classifier_pooling == "cls" else "Model")
    if isinstance(config, AnyDecoderConfig):
        values = config.to_hf()
        family = _LANGUAGE_MODEL.sub("", values["architectures"][0])
        return {**values, "architectures": [f"{family}ForSequenceClassification"]}
    return {"model_type": config.model_type, **dataclasses.asdict(config)}


def _from_json(stored: Mapping[str, Any], *, where: str) -> ClassifierConfig:
    kind = str(stored.get("model_type"))
    if kind in NAMES:
        return EncoderConfig.from_hf(stored, where=where)
    if kind in FAMILIES["decoders"]:
        return decoder_config(stored, where=where)
    if kind not in _OWN:
        raise unsupported(kind, where, usable=(*NAMES, *FAMILIES["decoders"]))
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
