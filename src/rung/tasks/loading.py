"""`rung.load`: any model as an object with the verbs that its task supports."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.errors import UsageError
from rung.runfolder import HEADER_NAME, read_header
from rung.tasks.bases import find_model

if TYPE_CHECKING:
    from rung.generation.matrices import Precision
    from rung.nets.word_vectors import WordVectors
    from rung.tasks.classification.classifier import Classifier
    from rung.tasks.language_model import LanguageModel
    from rung.tasks.masked_language_modelling.model import MaskedModel
    from rung.tasks.rewriting.predicting import RewritingPredictor
    from rung.tasks.rewriting.rewriter import Rewriter
    from rung.tasks.similarity.encoder import SentenceEncoder
    from rung.tasks.tagging.tagger import Tagger

REWRITERS = frozenset(
    {
        "BartForConditionalGeneration",
        "BartModel",
        "MT5ForConditionalGeneration",
        "MarianMTModel",
        "T5ForConditionalGeneration",
    }
)
"""Classes of transformers that load as a `Rewriter`; a bare `BartModel` too, with which BART's base is published."""

MASKED_LANGUAGE_MODELS = frozenset(
    {"BertForMaskedLM", "BertForPreTraining", "DistilBertForMaskedLM", "RobertaForMaskedLM"}
)
"""Classes of transformers that load as a `MaskedModel`."""


def is_classifier(folder: Path) -> bool:
    """Whether `folder` holds a classifier: by its own word, or by what its `config.json` says."""
    if (told := _task_of(folder)) is not None:
        return told == "classification"
    from rung.tasks.classification.classifier import is_sequence_classifier

    return is_sequence_classifier(_config(folder))


def holds_word_vectors(path: Path) -> bool:
    """Whether `path` is a run of word vectors, or a file: no other kind of model is one."""
    return path.is_file() or _task_of(path) == "word-vectors"


def is_rewriter(folder: Path) -> bool:
    """Whether `folder` holds a network that rewrites texts: by its own word, or as a T5, BART or Marian of others."""
    if (told := _task_of(folder)) is not None:
        return told == "rewriting"
    return bool(set(_architectures(folder)) & REWRITERS)


def is_tagger(folder: Path) -> bool:
    """Whether `folder` holds a tagger: by its own word, or by transformers' ...ForTokenClassification."""
    if (told := _task_of(folder)) is not None:
        return told == "tagging"
    return any(name.endswith("ForTokenClassification") for name in _architectures(folder))


def is_masked_language_model(folder: Path) -> bool:
    """Whether `folder` holds a masked language model: by its own word, or by transformers' ...ForMaskedLM."""
    if (told := _task_of(folder)) is not None:
        return told == "masked-language-model"
    return bool(MASKED_LANGUAGE_MODELS & set(_architectures(folder)))


def is_sentence_encoder(folder: Path) -> bool:
    """Whether `folder` holds a sentence encoder: by its own word, or as a folder of sentence-transformers."""
    if (told := _task_of(folder)) is not None:
        return told == "similarity"
    return (folder / "modules.json").is_file() and not is_classifier(folder)


def _task_of(folder: Path) -> str | None:
    """What a run says that it does; None for others' folders, fetched ones too: their `config.json` must tell."""
    return read_header(folder).get("task") if (folder / HEADER_NAME).is_file() else None


def _architectures(folder: Path) -> list[str]:
    """What the configuration of a folder names as its classes in transformers."""
    found = _config(folder).get("architectures")
    return list(map(str, found)) if isinstance(found, list) else []


def _config(folder: Path) -> dict[str, Any]:
    """The configuration of a folder; empty where there is none."""
    if not (folder / "config.json").is_file():
        return {}
    from rung.nets.pretrained import read_config_file  # late: it imports torch

    return read_config_file(folder)


_HOMES: tuple[tuple[Callable[[Path], bool], str, str], ...] = (
    (is_sentence_encoder, "rung.tasks.similarity.encoder", "load_sentence_encoder"),
    (is_masked_language_model, "rung.tasks.masked_language_modelling.model", "load"),
    (is_tagger, "rung.tasks.tagging.tagger", "load"),
    (holds_word_vectors, "rung.tasks.word_vectors.using", "load_vectors"),
    (is_classifier, "rung.tasks.classification.classifier", "load_classifier"),
)
"""What tells a kind of model, and the function that loads it; language models are what is left."""


def load(
    folder: str | Path, *, precision: Precision = "fp32", invariant: bool = False
) -> Classifier | LanguageModel | MaskedModel | Rewriter | SentenceEncoder | Tagger | WordVectors:
    """Load a model by its place or name: a run, a folder of others, a GGUF file, ORG/NAME once fetched, "smollm2".

    It is a `Classifier` (predict, classify), `WordVectors` (neighbours, analogy; a file of them, too),
    a `MaskedModel` (fill, pseudo_log_likelihood), a `Rewriter` (rewrite), a `Tagger` (tag), a `SentenceEncoder`
    (embed, similarity) or a `LanguageModel` (generate, score).

    `precision` and `invariant` say how a language model computes, `precision` also how a rewriter does; see
    `rung.tasks.language_model.load`.

    Raises RunFolderError when the folder is missing or damaged, NewerFormatError when a newer Rung wrote it, UsageError
    for language-model options on anything else.
    """
    folder = find_model(folder)
    if is_rewriter(folder):
        if invariant:
            raise UsageError("invariant is for language models", where=str(folder), hint="leave it out")
        from rung.tasks.rewriting.rewriter import load_rewriter

        return load_rewriter(folder, precision=precision)
    home = next((home for is_kind, *home in _HOMES if is_kind(folder)), None)
    if home is None:
        from rung.tasks.language_model import load as load_language_model

        return load_language_model(folder, precision=precision, invariant=invariant)
    if precision != "fp32" or invariant:
        raise UsageError("precision and invariant are for language models", where=str(folder), hint="leave them out")
    module, function = home
    loaded: Classifier | MaskedModel | SentenceEncoder | Tagger | WordVectors
    loaded = getattr(import_module(module), function)(folder)
    return loaded


def load_predictor(folder: Path) -> Classifier | RewritingPredictor:
    """Load a run folder that answers items, as every rung of a comparison does. Raises RunFolderError for others."""
    if is_rewriter(folder):
        from rung.tasks.rewriting.predicting import load_predictor as load_rewriting

        return load_rewriting(folder)
    from rung.tasks.classification.classifier import load_classifier

    return load_classifier(folder)
