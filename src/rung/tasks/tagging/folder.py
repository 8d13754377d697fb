"""Tuned taggers as folders: whole ones, or an adapter and a head beside the record of their base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rung.nets.adapters import StoredName, load_adapter
from rung.nets.tagger import Tagger, load_tagger, new_tagger, save_tagger, save_tagger_config, stored_name, tag_names
from rung.tasks.tuning.folder import is_adapted, lacking_head, open_adapted, save_tuned
from rung.tasks.tuning.method import TuningMethod


def save_tuned_tagger(
    net: Tagger, folder: Path, tags: Sequence[str], *, method: TuningMethod, base: Mapping[str, Any]
) -> None:
    """Write `net` into the existing `folder`; with LoRA, what was trained and the record of `base`."""
    labels = {
        "id2label": {str(number): tag for number, tag in enumerate(tags)},
        "label2id": {tag: number for number, tag in enumerate(tags)},
    }
    if method.kind == "lora":
        save_tagger_config(net.config, folder, labels)
        save_tuned(net, folder, method=method, base=base, task_type="TOKEN_CLS", stored=_stored(net))
    else:
        save_tagger(net, folder, labels)


def take_up(net: Tagger, folder: Path, *, method: TuningMethod) -> None:
    """Give `net`, ready to be tuned by `method`, the weights that `save_tuned_tagger` wrote."""
    if method.kind == "lora":
        load_adapter(net, folder, stored=_stored(net))
    else:
        net.load_state_dict(load_tagger(folder).state_dict())


def open_tagger(folder: Path) -> Tagger:
    """The network of a tagger's folder: a whole one, or an adapter merged into its base. Errors as for either."""
    if not is_adapted(folder):
        return load_tagger(folder)
    count = len(tag_names(folder))

    def load_base(base: Path) -> Tagger:
        net = new_tagger(base, count)
        return load_tagger(base) if lacking_head(net, folder, _stored(net)) else net

    return open_adapted(folder, load_base, stored=_stored)


def _stored(net: Tagger) -> StoredName:
    """What the parameters of `net` are called in its folder."""
    return lambda name: stored_name(name, net.config)
