"""Tuned networks as folders: a whole model, or an adapter that names the base it belongs to by place and hash.

An adapter's folder is peft's (`rung.nets.adapters`) with the network's `config.json` and tokenizer, so that whatever
looks at a model folder finds what it expects, and with `tuned.json`: how it was tuned, and `base_record` of the base.
transformers opens it by itself where the base is a folder that transformers opens.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from rung.errors import RunFolderError, RungWarning
from rung.nets.adapters import StoredName, as_is, holds_adapter, load_adapter, save_adapter, trained_beside
from rung.nets.language_models import Net as LanguageNet
from rung.nets.language_models import load_language_model
from rung.nets.lora import merge_lora
from rung.nets.quantized import restore_layers
from rung.nets.sentence_folder import body_folder
from rung.runfolder import write_bytes, write_json
from rung.tasks.bases import HUB_NAME, KNOWN_BASES, resolve_base, weights_sha256
from rung.tasks.run import lacks_its_base
from rung.tasks.tuning.method import NEW_HEADS, TuningMethod, freeze_and_store
from rung.training.checkpoint import CHECKPOINTS

TUNED = "tuned.json"
CONFIGURATION = ("config.json", "generation_config.json")
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json", "vocab.txt"),
    *("vocab.json", "merges.txt", "source.spm", "target.spm"),
)
"""What a tuned model keeps of its base as it was, byte for byte."""
TUNED_VERSION = 1

Net = TypeVar("Net", bound=nn.Module)


def save_tuned(
    net: nn.Module,
    folder: Path,
    *,
    method: TuningMethod,
    base: Mapping[str, Any],
    task_type: str | None,
    stored: StoredName = as_is,
) -> None:
    """Write what LoRA has trained, and the record of its base, into the existing `folder`.

    `base` is `rung.tasks.bases.base_record` of the base; `task_type` peft's name for the task. The configuration and
    the tokenizer are the caller's to add.
    """
    place = KNOWN_BASES[base["name"]].hub if base["name"] in KNOWN_BASES else base["origin"]
    save_adapter(net, folder, base=place, task_type=task_type, stored=stored)
    write_json(folder / TUNED, {"tuned_version": TUNED_VERSION, "method": method.to_json(), "base": dict(base)})


def copy_files(base: Path, folder: Path, names: Sequence[str]) -> None:
    """Copy those files `names` that `base` has into the existing `folder`."""
    for name in names:
        if (base / name).is_file():
            write_bytes(folder / name, (base / name).read_bytes())


def open_language_model(folder: Path) -> LanguageNet:
    """The language model of a model folder: a whole one, or an adapter merged into its base. Errors as for either."""
    return open_adapted(folder, open_language_model) if is_adapted(folder) else load_language_model(folder)


def is_adapted(folder: Path) -> bool:
    """Whether `folder` holds an adapter on a base instead of a whole network."""
    return holds_adapter(folder)


def base_of(folder: Path) -> Path:
    """The folder of the base that the adapter in `folder` belongs to.

    It is looked for where it was, and then, under the same name, beside the adapter. Of a base that no hash proves -
    that of an adapter which peft wrote - a `RungWarning` says so.

    RunFolderError when it is at neither place, or its weights are not those that the adapter was trained on.
    """
    record = _read(folder)["base"]
    base = body_folder(locate_base(folder, record["origin"], record["name"]))
    wanted = record.get("weights_sha256")
    if wanted is None:
        unproven = f"the adapter does not tell its base by hash; by its name it is taken to be {record['origin']}"
        warnings.warn(unproven, RungWarning, stacklevel=1)
    elif weights_sha256(base) != wanted:
        raise RunFolderError(
            f"this adapter belongs to other weights than those in {base}: their SHA-256 differs",
            where=str(folder),
            hint=f"bring the old weights back: {wanted[:16]}...",
        )
    return base


def locate_base(folder: Path, origin: str, name: str) -> Path:
    """The folder of the base `name` from `origin`, or else what has its name beside the adapter in `folder`.

    RunFolderError when it is at neither place, or damaged.
    """
    home = folder.resolve()
    if home.parent.name == CHECKPOINTS:
        home = home.parents[1]
    beside = home.parent / Path(origin).name
    try:
        return resolve_base(origin)
    except RunFolderError as error:
        if Path(origin).exists():  # and is damaged
            raise
        if beside.exists() and not lacks_its_base(beside):
            return resolve_base(beside)
        can_be_had = origin in KNOWN_BASES or HUB_NAME.fullmatch(origin)
        bring = f"bring it back, or put it (a link will do) at {beside}"
        gone = "here" if name == origin else f"at {origin} any more"
        raise RunFolderError(
            f"this model is an adapter, and its base {name} is not {gone}",
            where=str(folder),
            hint=f"{error.hint}; or {bring}" if can_be_had else bring,
        ) from error


def method_of(folder: Path) -> TuningMethod:
    """How the adapter in `folder` was tuned. RunFolderError when its record is missing or damaged."""
    return TuningMethod.from_json(_read(folder)["method"])


def lacking_head(net: nn.Module, folder: Path, stored: StoredName) -> list[str]:
    """The parameters of a head new in `net` that the adapter in `folder` does not bring: its base had them.

    Rung keeps all of a new head with its adapter, peft only what it was told to.
    """
    brought = trained_beside(folder)
    return [name for name, _ in net.named_parameters() if name.startswith(NEW_HEADS) and stored(name) not in brought]


def open_adapted(
    folder: Path, load_base: Callable[[Path], Net], *, stored: Callable[[Net], StoredName] | None = None
) -> Net:
    """The network of an adapter's folder, merged: plain layers in float32 that compute what it was trained to.

    `load_base` reads the base's folder into a network of the adapter's task, with a new head where there is one;
    `stored(net)` gives the stored names of its parameters (default: as they are).

    Raises RunFolderError when the base is gone or changed, or the adapter does not fit it; TrainingError when the
    merged network would not compute the same.
    """
    net = load_base(base_of(folder))
    freeze_and_store(net, method_of(folder))
    load_adapter(net, folder, stored=stored(net) if stored is not None else as_is)
    merge_lora(net)
    restore_layers(net)
    return net


def _read(folder: Path) -> dict[str, Any]:
    """The content of `tuned.json`."""
    path = folder / TUNED
    if not path.is_file():
        raise RunFolderError(
            "this adapter lacks the record of its base",
            where=str(path),
            hint="open the folder with `rung.load`, which looks for the base by its name",
        )
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = int(value["tuned_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{TUNED} cannot be read ({error})", where=str(path)) from error
    if version > TUNED_VERSION:
        raise RunFolderError(
            f"this adapter has format {version}; this Rung reads up to {TUNED_VERSION}",
            where=str(path),
            hint="update with `pip install --upgrade rung`",
        )
    return value
