"""What a `config.json` says of a classifier: the names of its classes, and what its head reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rung.errors import RunFolderError


def named_labels(config: Mapping[str, Any], *, where: str) -> tuple[str, ...] | None:
    """The names in `id2label`, in the order of their numbers; None where it is left out.

    RunFolderError when it names no classes, or not each number from 0 on once.
    """
    names = config.get("id2label")
    if names is None:
        return None
    if not isinstance(names, dict) or not names or set(names) != {str(number) for number in range(len(names))}:
        raise RunFolderError("id2label does not name the classes 0, 1, 2, ...", where=where)
    return tuple(str(names[str(number)]) for number in range(len(names)))


def usual_labels(config: Mapping[str, Any], count: int, *, where: str) -> tuple[str, ...]:
    """LABEL_0, LABEL_1, ...: what transformers calls `count` classes that have no names.

    It leaves such names out of `config.json` where there are two. RunFolderError when `num_labels` is another number.
    """
    if config.get("num_labels", count) != count:
        raise RunFolderError(
            f"num_labels is {config['num_labels']!r}, and the weights are those of {count} classes", where=where
        )
    return tuple(f"LABEL_{number}" for number in range(count))


def is_mean_classifier(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is of an encoder's classifier that reads the mean over tokens.

    transformers has no class for it; its folder is sentence-transformers' (see `rung.nets.pooled_classifier_folder`).
    """
    return config.get("classifier_pooling") == "mean" and "id2label" in config
