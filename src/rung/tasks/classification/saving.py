"""The run folder of a classifier that is a few plain arrays and perhaps a vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rung.data.labelled import LabelledItems
from rung.errors import RunFolderError
from rung.runfolder import write_folder, write_json, write_text
from rung.version import __version__

CONFIG, WEIGHTS, VOCABULARY = "config.json", "model.safetensors", "vocabulary.json"


def label_config(model_type: str, label_names: Sequence[str]) -> dict[str, Any]:
    """The part of `config.json` that every classifier has, in Hugging Face's spelling."""
    return {
        "model_type": model_type,
        "id2label": {str(number): name for number, name in enumerate(label_names)},
        "label2id": {name: number for number, name in enumerate(label_names)},
    }


def header(rung: str, plan: Mapping[str, Any], items: LabelledItems, *, seed: int) -> dict[str, Any]:
    """The header of a finished classifier's `rung.json`; `items` are those it was fitted on."""
    return {
        "rung_version": __version__,
        "task": "classification",
        "rung": rung,
        "recipe": dict(plan),
        "seed": seed,
        "data": {"sha256": items.sha256, "items": len(items)},
        "state": "finished",
    }


def save_arrays(
    folder: Path,
    head: dict[str, Any],
    *,
    config: dict[str, Any],
    tensors: Mapping[str, NDArray[Any]],
    vocabulary: Sequence[str] | None = None,
) -> None:
    """Write a classifier's folder in one step."""
    from safetensors.numpy import save_file

    def fill(target: Path) -> None:
        write_json(target / CONFIG, config)
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, target / WEIGHTS)
        if vocabulary is not None:  # escaped: a word may hold half a surrogate pair, which UTF-8 cannot
            write_text(target / VOCABULARY, json.dumps(list(vocabulary)) + "\n")

    write_folder(folder, fill, head)


def load_arrays(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]], list[str]]:
    """Config, arrays and vocabulary of a classifier's folder; the vocabulary is empty where there is none.

    Raises RunFolderError when a file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
        path = folder / VOCABULARY
        vocabulary = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except (OSError, ValueError, SafetensorError) as error:
        raise RunFolderError(f"this classifier cannot be read: {error}", where=str(folder)) from error
    return config, tensors, vocabulary
