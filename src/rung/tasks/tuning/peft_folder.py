"""Adapters that peft wrote: a folder in the cache makes a model folder of one, with what it lacks from its base.

peft keeps settings and tensors alone, and names the base by a folder or a hub name. Nothing is fetched, and nothing
tells whether those are the weights that the adapter was trained on: whoever opens it gets a `RungWarning`.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from rung.data.cache import cache_folder, note_use
from rung.errors import RunFolderError
from rung.nets.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_adapter_config, trained_beside
from rung.nets.encoder_names import NAMES as ENCODERS
from rung.nets.label_names import named_labels
from rung.nets.pretrained import CONFIG, GENERATION_CONFIG, read_config_file
from rung.nets.sentence_folder import body_folder
from rung.runfolder import new_folder, read_json, write_json
from rung.tasks.bases import CACHED, KNOWN_BASES, MODELS, RECORD, licence_of, origin_of
from rung.tasks.encoding import load_encoder
from rung.tasks.run import lacks_its_base
from rung.tasks.tuning.folder import TOKENIZER, TUNED, TUNED_VERSION, copy_files, locate_base
from rung.tasks.tuning.method import TuningMethod

_BASE = "base_model_name_or_path"
_HEADED = {"SEQ_CLS": "ForSequenceClassification", "TOKEN_CLS": "ForTokenClassification"}
_LAST_LAYERS = ("classifier.weight", "classifier.out_proj.weight", "score.weight")
_FAMILY = re.compile(r"(.+?)(?:LMHeadModel|For[A-Z]\w*|Model)$")


def completed(folder: Path) -> Path:
    """The model folder that peft's `folder` makes with its base, written into the cache when first asked for.

    RunFolderError when the base is not here, or the adapter asks for what is not known here.
    """
    read_adapter_config(folder)  # what it asks for that is not known is told first
    origin = _origin(folder)
    if lacks_its_base(Path(origin)):
        raise RunFolderError(
            f"the base of this adapter, {origin}, is an adapter itself",
            where=str(folder / ADAPTER_CONFIG),
            hint=f"merge that one first: rung export {origin} --to hf",
        )
    base = body_folder(locate_base(folder, origin, origin))
    if not (base / CONFIG).is_file():
        raise RunFolderError(
            f"the base of this adapter, {origin}, is no model: it has no {CONFIG}",
            where=str(folder / ADAPTER_CONFIG),
            hint=f"write the place of the base there as {_BASE}",
        )
    made = cache_folder() / CACHED / _version(folder, base)
    if made.is_dir():
        note_use(made)
        return made
    try:
        with new_folder(made) as writing:
            _fill(writing, folder, base, origin)
    except RunFolderError:
        if not made.is_dir():  # another process was not quicker
            raise
    return made


def _fill(writing: Path, folder: Path, base: Path, origin: str) -> None:
    lora, config = read_adapter_config(folder), _config(folder, base)
    write_json(writing / ADAPTER_CONFIG, read_json(folder / ADAPTER_CONFIG))
    if (folder / ADAPTER_WEIGHTS).is_file():  # otherwise whoever reads them tells what is there instead
        (writing / ADAPTER_WEIGHTS).symlink_to((folder / ADAPTER_WEIGHTS).resolve())
    copy_files(folder if (folder / TOKENIZER[0]).is_file() else base, writing, TOKENIZER)
    copy_files(folder if (folder / GENERATION_CONFIG).is_file() else base, writing, [GENERATION_CONFIG])
    write_json(writing / CONFIG, config)
    if "id2label" in config and config.get("pad_token_id") is None:  # by it the last token of a text is found
        write_json(writing / CONFIG, {**config, "pad_token_id": load_encoder(writing).pad_token_id})
    noted = {"name": folder.resolve().name, "origin": str(folder.resolve()), "licence": licence_of(folder)}
    write_json(writing / RECORD, noted | {"source": "adapter of peft"})
    recorded = {"name": origin, "origin": origin_of(base)}
    method = TuningMethod("lora", lora=lora).to_json()
    write_json(writing / TUNED, {"tuned_version": TUNED_VERSION, "method": method, "base": recorded})


def _origin(folder: Path) -> str:
    """What `resolve_base` knows the base by that `adapter_config.json` names."""
    place = read_json(folder / ADAPTER_CONFIG).get(_BASE)
    if not isinstance(place, str) or not place:
        raise RunFolderError(
            f"{ADAPTER_CONFIG} does not name a base",
            where=str(folder / ADAPTER_CONFIG),
            hint=f"write its folder, or its name on the hub, there as {_BASE}",
        )
    known = next((base.name for base in KNOWN_BASES.values() if base.hub == place), place)
    return place if Path(place).exists() or (MODELS / place).is_dir() else known


def _version(folder: Path, base: Path) -> str:
    """A name for the folder in the cache: it changes with every file of the adapter, and the base's settings."""
    read = [*sorted(path for path in folder.iterdir() if path.is_file()), base / CONFIG]
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in read]
    return hashlib.sha256(repr((1, stats)).encode()).hexdigest()[:32]


def _config(folder: Path, base: Path) -> dict[str, Any]:
    """The adapter's own `config.json` or else its base's; with the head that the task type tells, and its classes."""
    config = read_config_file(folder if (folder / CONFIG).is_file() else base)
    task_type = read_json(folder / ADAPTER_CONFIG).get("task_type")
    if task_type not in _HEADED:
        if config["model_type"] in ENCODERS:
            raise RunFolderError(
                f"adapters on an encoder are opened for classes of texts or tokens, not for {task_type}",
                where=str(folder / ADAPTER_CONFIG),
                hint="merge it into its base with peft (merge_and_unload), and use that model",
            )
        return config
    named = config.get("architectures")
    family = _FAMILY.fullmatch(str(named[0])) if isinstance(named, list) and named else None
    if family is None:
        raise RunFolderError(f"{CONFIG} names no architecture for this adapter's head", where=str(base / CONFIG))
    beside = trained_beside(folder)
    counts = [shape[0] for name, shape in beside.items() if name in _LAST_LAYERS]
    names = named_labels(config, where=str(base / CONFIG)) or ()
    if counts and len(names) != counts[0]:
        names = tuple(f"LABEL_{number}" for number in range(counts[0]))
    return {
        **{name: value for name, value in config.items() if name != "num_labels"},
        "architectures": [family[1] + _HEADED[task_type]],
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }
