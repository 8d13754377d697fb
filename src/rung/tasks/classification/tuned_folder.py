"""Tuned classifiers as folders: whole ones, or an adapter and a head beside the record of their base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from rung.data.text_encoder import TOKENIZER_CONFIG
from rung.nets.adapters import StoredName, load_adapter
from rung.nets.classifier import Classifier
from rung.nets.classifier_folder import (
    load_body,
    load_classifier,
    mean_classifier,
    reads_the_mean,
    save_classifier,
    save_classifier_config,
    stored_name,
)
from rung.nets.encoder import Encoder
from rung.nets.encoder_config import EncoderConfig
from rung.nets.encoder_folder import load_encoder, read_pooler
from rung.nets.encoder_names import NAMES
from rung.nets.label_names import is_mean_classifier
from rung.nets.pooled_classifier_folder import load_head, save_head
from rung.nets.pretrained import read_config_file
from rung.runfolder import read_json, write_json
from rung.tasks.classification.families import Start
from rung.tasks.classification.saving import label_config
from rung.tasks.tuning.folder import is_adapted, lacking_head, open_adapted, save_tuned
from rung.tasks.tuning.method import TuningMethod


def save_tuned_classifier(
    start: Start,
    folder: Path,
    label_names: Sequence[str],
    max_length: int,
    *,
    method: TuningMethod,
    base: Mapping[str, Any],
) -> None:
    """Write network and tokenizer into the existing `folder`; with LoRA, what was trained and the record of `base`.

    Where the head reads the mean over tokens, the adapter is one of the body, for peft has no such classifier either;
    the head is a step of sentence-transformers.
    """
    labels, net = label_config("", label_names), start.net
    named = {name: labels[name] for name in ("id2label", "label2id")}
    if method.kind != "lora":
        save_classifier(net, folder, named)
    else:
        save_classifier_config(net.config, folder, named)
        if reads_the_mean(net.config):
            save_head(net.head, folder)
            task, stored = "FEATURE_EXTRACTION", _body_names(cast("Encoder", net.body))
            save_tuned(net.body, folder, method=method, base=base, task_type=task, stored=stored)
        else:
            save_tuned(net, folder, method=method, base=base, task_type="SEQ_CLS", stored=_stored(net))
    start.encoder.save(folder, model_max_length=max_length)
    _pad_on_the_right(folder / TOKENIZER_CONFIG)


def take_up(net: Classifier, folder: Path, *, method: TuningMethod) -> None:
    """Give `net`, ready to be tuned by `method`, the weights that `save_tuned_classifier` wrote."""
    if method.kind != "lora":
        net.load_state_dict(load_classifier(folder).state_dict())
    elif reads_the_mean(net.config):
        load_adapter(net.body, folder, stored=_body_names(cast("Encoder", net.body)))
        net.head.load_state_dict(load_head(folder, net.head.in_features, net.num_labels).state_dict())
    else:
        load_adapter(net, folder, stored=_stored(net))


def open_classifier(folder: Path) -> Classifier:
    """The network of a classifier's folder: a whole one, or an adapter merged into its base. Errors as for either."""
    if not is_adapted(folder):
        return load_classifier(folder)
    config = read_config_file(folder)
    if is_mean_classifier(config):
        body = open_adapted(folder, load_encoder, stored=_body_names)
        return mean_classifier(body, load_head(folder, body.config.hidden_size, len(config["id2label"])))

    def load_base(base: Path) -> Classifier:
        pooling = config.get("classifier_pooling", "cls")
        net = load_body(
            base, len(config["id2label"]), dropout=0.0, pad_token_id=config["pad_token_id"], pooling=pooling
        )
        lacking = lacking_head(net, folder, _stored(net))
        if isinstance(net.config, EncoderConfig) and net.config.model_type == "bert" and read_pooler(base, net.config):
            lacking = [name for name in lacking if not name.startswith("pooling.")]
        return load_classifier(base) if lacking else net

    return open_adapted(folder, load_base, stored=_stored)


def _pad_on_the_right(settings: Path) -> None:
    """Let others pad as it is done here: GPT-2 counts positions from the left, padding or not."""
    values = read_json(settings)
    if values.get("padding_side") == "left":  # usual for bases that write text
        write_json(settings, {**values, "padding_side": "right"})


def _stored(net: Classifier) -> StoredName:
    """What the parameters of `net` are called in its folder."""
    return lambda name: stored_name(name, net.config)


def _body_names(body: Encoder) -> StoredName:
    """What the parameters of an encoder are called in the folder of the body alone."""
    return NAMES[body.config.model_type].of_body
