"""A fitted text classifier from its folder: what `rung.load` gives and `rung predict` uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.errors import RunFolderError
from rung.nets.label_names import is_mean_classifier, named_labels
from rung.runfolder import HEADER_NAME, read_json, verify

if TYPE_CHECKING:
    from rung.tasks.classification.predictions import Predictions
    from rung.tasks.task import AskedPredictor, Predictor

_PACKAGE = "rung.tasks.classification"
_HOMES = {
    "rung-majority": f"{_PACKAGE}.counting",
    "rung-naive-bayes": f"{_PACKAGE}.counting",
    "rung-linear": f"{_PACKAGE}.counting",
    "rung-feedforward": f"{_PACKAGE}.feedforward",
    "rung-prompted": "rung.tasks.prompting.predicting",
}
_NETWORKS = f"{_PACKAGE}.network_predictor"


@dataclass(frozen=True)
class Prediction:
    """The label of one text and the probability of every label."""

    label: str | None
    probabilities: dict[str, float]

    @property
    def probability(self) -> float:
        """How probable the label is by the model's own account; 0 where no answer could be read."""
        return 0.0 if self.label is None else self.probabilities[self.label]


class Classifier:
    """A fitted rung: `predict` for scores in the order of `labels`, `classify` for people."""

    def __init__(self, folder: Path, predictor: Predictor, labels: tuple[str, ...], header: dict[str, Any]) -> None:
        self.folder, self.labels, self.header = folder, labels, header
        self._predictor = predictor

    @property
    def num_parameters(self) -> int | None:
        """Learned numbers; None when nobody knows (an endpoint)."""
        return self._predictor.num_parameters

    @property
    def asked(self) -> AskedPredictor | None:
        """The predictor, if it asks a model elsewhere."""
        from rung.tasks.prompting.predicting import PromptedPredictor

        return self._predictor if isinstance(self._predictor, PromptedPredictor) else None

    def predict(self, inputs: Sequence[str], *, batch_size: int = 32) -> Predictions:
        """Probabilities (texts, labels) of `inputs`, in their order."""
        predictions: Predictions = self._predictor.predict(inputs, batch_size=batch_size)  # type: ignore[assignment]
        return predictions

    def classify(self, texts: Sequence[str] | str, *, batch_size: int = 32) -> list[Prediction]:
        """A label and probabilities for each text."""
        predictions = self.predict([texts] if isinstance(texts, str) else texts, batch_size=batch_size)
        rows = zip(predictions.labels.tolist(), predictions.probabilities.tolist(), strict=True)
        return [
            Prediction(None if best < 0 else self.labels[best], dict(zip(self.labels, row, strict=True)))
            for best, row in rows
        ]


def load_classifier(folder: Path) -> Classifier:
    """Load the classifier in `folder`: a run, each file checked by its hash, or others' ...ForSequenceClassification.

    Raises RunFolderError when the folder is damaged or holds no classifier.
    """
    _require_folder(folder)
    header = verify(folder) if (folder / HEADER_NAME).exists() else {}
    config = read_json(folder / "config.json")
    task = header.get("task")  # a fetched folder has a header, and its `config.json` must tell
    if task != "classification" and (task is not None or not is_sequence_classifier(config)):
        raise RunFolderError(
            "this folder holds no classifier",
            where=str(folder),
            hint="give a rung's folder that `rung compare` made, or a ...ForSequenceClassification; a language model "
            "labels by `rung prompt`",
        )
    home = import_module(_HOMES.get(str(config.get("model_type")), _NETWORKS))
    return Classifier(folder, home.load(folder), _labels(folder, config), header)


def is_sequence_classifier(config: Mapping[str, Any]) -> bool:
    """Whether the content of a `config.json` says that it is of a classifier: transformers', or one on the mean."""
    classes = config.get("architectures")
    named = isinstance(classes, list) and any(str(name).endswith("ForSequenceClassification") for name in classes)
    return named or is_mean_classifier(config)


def _labels(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes. RunFolderError for heads whose scores are no probabilities of classes."""
    where = str(folder / "config.json")
    labels = named_labels(config, where=where)
    if labels is None:
        from rung.nets.classifier_folder import label_names  # late: it imports torch

        labels = label_names(folder)
    if config.get("problem_type") not in (None, "single_label_classification"):
        raise RunFolderError(f"problem_type {config['problem_type']!r} is not supported", where=where)
    if len(labels) == 1:
        raise RunFolderError("its head has one output: a score, and no classes", where=where)
    return labels


def _require_folder(folder: Path) -> None:
    """Tell a folder that is missing, or a comparison's own, from a damaged rung. Raises RunFolderError."""
    hint = "give a rung's folder that `rung compare` made, such as OUT/rungs/linear"
    if not folder.is_dir():
        raise RunFolderError("there is no such folder", where=str(folder), hint=hint)
    rungs = sorted(path.parent for path in (folder / "rungs").glob(f"*/{HEADER_NAME}"))
    if rungs and not (folder / HEADER_NAME).exists():
        raise RunFolderError(
            "this folder holds a whole comparison", where=str(folder), hint=f"name a rung: {', '.join(map(str, rungs))}"
        )
    if not any((folder / name).exists() for name in (HEADER_NAME, "config.json")):
        raise RunFolderError(
            "this is not a Rung run folder, nor one of transformers: it has neither rung.json nor config.json",
            where=str(folder),
            hint=hint,
        )
