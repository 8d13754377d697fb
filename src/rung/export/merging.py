"""An adapter's folder as a whole model: merged into its base, in the layout that its family is stored in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from rung.errors import UsageError
from rung.nets.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from rung.nets.pretrained import GENERATION_CONFIG, read_config_file
from rung.runfolder import HEADER_NAME, read_json
from rung.tasks.tuning.folder import TUNED, open_adapted

_OF_THE_ADAPTER = (HEADER_NAME, ADAPTER_WEIGHTS, ADAPTER_CONFIG, TUNED)


def write_merged(folder: Path, merged: Path, pipeline: str) -> None:
    """Fill the empty folder `merged` with the model of the adapter's `folder`; `pipeline` is what it does.

    Raises RunFolderError when the base is gone or changed, UsageError for a kind of model that has no adapters.
    """
    if pipeline not in _MERGERS:
        raise UsageError(
            f"an adapter for {pipeline} cannot be merged here",
            where=str(folder),
            hint="peft merges it: merge_and_unload(), then export that folder",
        )
    for path in folder.iterdir():
        if path.is_file() and path.name not in _OF_THE_ADAPTER:
            shutil.copyfile(path, merged / path.name)
    _MERGERS[pipeline](folder, merged)


def _language_model(folder: Path, merged: Path) -> None:
    from rung.nets.language_models import load_language_model, save_language_model

    save_language_model(open_adapted(folder, load_language_model), merged)


def _classifier(folder: Path, merged: Path) -> None:
    from rung.nets.classifier_folder import save_classifier
    from rung.tasks.classification.tuned_folder import open_classifier

    config = read_config_file(folder)
    save_classifier(open_classifier(folder), merged, {name: config[name] for name in ("id2label", "label2id")})


def _tagger(folder: Path, merged: Path) -> None:
    from rung.nets.tagger import save_tagger
    from rung.tasks.tagging.folder import open_tagger

    config = read_config_file(folder)
    save_tagger(open_tagger(folder), merged, {name: config[name] for name in ("id2label", "label2id")})


def _encoder_decoder(folder: Path, merged: Path) -> None:
    from rung.nets.encoder_decoder_folder import save_encoder_decoder
    from rung.tasks.rewriting.rewriter import open_encoder_decoder

    settings = folder / GENERATION_CONFIG
    generation = read_json(settings) if settings.is_file() else None
    save_encoder_decoder(open_encoder_decoder(folder), merged, generation=generation)


_MERGERS: dict[str, Callable[[Path, Path], None]] = {
    "text-generation": _language_model,
    "text-classification": _classifier,
    "token-classification": _tagger,
    "text2text-generation": _encoder_decoder,
}
