"""Which architectures can be opened, by the `model_type` of their `config.json`, and the refusals of all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rung.errors import RunFolderError

FAMILIES: dict[str, tuple[str, ...]] = {
    "encoders": ("bert", "roberta", "distilbert"),
    "decoders": ("llama", "mistral", "qwen2", "qwen3", "gpt2"),
    "encoder-decoders": ("t5", "mt5", "bart", "marian"),
    "Rung's own classifiers": ("rung-cnn", "rung-rnn", "rung-lstm", "rung-gru"),
    "Rung's own language models": ("rung-lm-rnn", "rung-lm-lstm", "rung-lm-gru", "rung-lm-feedforward", "rung-ngram"),
    "Rung's own encoder-decoders": ("rung-lstm-attention",),
}
# Keys by which a folder asks whoever opens it to run Python code that it brings along (transformers'
# `trust_remote_code`): the classes in `auto_map`, and pipelines of its own.
_CODE_KEYS = ("auto_map", "custom_pipelines")


def unsupported(model_type: str, where: str, *, usable: Sequence[str] = ()) -> RunFolderError:
    """The error for a `model_type` that Rung, or whoever read `where`, has no network for: it lists what there is.

    `usable`: the `model_type`s that can be used where this one cannot.
    """
    known = [name for names in FAMILIES.values() for name in names]
    supported = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in FAMILIES.items())
    if model_type in known:
        kind = next(kind for kind, names in FAMILIES.items() if model_type in names)
        return RunFolderError(
            f"a network of type '{model_type}' ({kind}) cannot be used here",
            where=where,
            hint=f"what can be: {', '.join(usable)}" if usable else None,
        )
    return RunFolderError(
        f"model_type '{model_type:.80}' is not supported",
        where=where,
        hint=f"supported are {supported}",
    )


def refuse_code(config: Mapping[str, Any], where: str) -> None:
    """Raise RunFolderError when a `config.json` wants code of its own to be run: Rung never runs code from a model."""
    for key in _CODE_KEYS:
        if config.get(key):
            raise RunFolderError(
                f"{key} asks to run Python code that the model brings along ({config[key]!r:.200})",
                where=where,
                hint="code from a model folder is never run; take a model of a supported architecture without it",
            )
