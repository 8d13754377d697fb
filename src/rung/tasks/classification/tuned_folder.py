"""Tuned classifiers as folders: whole ones, or an adapter and a head beside the record of their base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rung.nets.adapters import StoredName
from rung.nets.classifier import Classifier
from rung.nets.classifier_folder import load_body, load_classifier, save_classifier, save_classifier_config, stored_name
from rung.nets.pretrained import read_config_file
from rung.tasks.classification.families import Start
from rung.tasks.classification.saving import label_config
from rung.tasks.tuning.folder import is_adapted, open_adapted, save_tuned
from rung.tasks.tuning.method import TuningMethod


def stored_names(net: Classifier) -> StoredName:
    """What the parameters of `net` are called in its folder."""
    return lambda name: stored_name(name, net.config)


def save_tuned_classifier(
    start: Start,
    folder: Path,
    label_names: Sequence[str],
    max_length: int,
    *,
    method: TuningMethod,
    base: Mapping[str, Any],
) -> None:
    """Write network and tokenizer into the existing `folder`; with LoRA, what was trained and the record of `base`."""
    labels = label_config("", label_names)
    named = {name: labels[name] for name in ("id2label", "label2id")}
    if method.kind == "lora":
        save_classifier_config(start.net.config, folder, named)
        save_tuned(start.net, folder, method=method, base=base, task_type="SEQ_CLS", stored=stored_names(start.net))
    else:
        save_classifier(start.net, folder, named)
    start.encoder.save(folder, model_max_length=max_length)


def open_classifier(folder: Path) -> Classifier:
    """The network of a classifier's folder: a whole one, or an adapter merged into its base. Errors as for either."""
    if not is_adapted(folder):
        return load_classifier(folder)
    config = read_config_file(folder)

    def load_base(base: Path) -> Classifier:
        pooling = config.get("classifier_pooling", "cls")
        return load_body(
            base, len(config["id2label"]), dropout=0.0, pad_token_id=config["pad_token_id"], pooling=pooling
        )

    return open_adapted(folder, load_base, stored=stored_names)
