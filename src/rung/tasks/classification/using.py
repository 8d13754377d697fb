"""What a fitted classifier is used for: labels for a table of any size, and its quality on labelled data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.errors import DataError, UsageError
from rung.progress import SILENT, Progress
from rung.tasks.classification.classifier import Classifier, load_classifier

if TYPE_CHECKING:
    from rung.data.table_stream import AnnotatedTable
    from rung.records import ItemScores, Record

LABEL, PROBABILITY = "prediction", "probability"
_BATCH = 256


def predict_table(
    folder: Path,
    source: Path,
    output: Path,
    *,
    text_columns: Sequence[str] | None = None,
    progress: Progress = SILENT,
) -> AnnotatedTable:
    """Copy a table with the columns `prediction`, `probability` (of that label) and `error` added.

    Order, rows and columns stay. Rows without text keep their place, with nothing predicted and the reason in `error`;
    so do rows whose answer could not be read (a prompted model). Text columns are those that the classifier was fitted
    on, unless others are named.

    Raises UsageError when no text column is known, DataError for tables that cannot be read or written.
    """
    from rung.data.table_stream import annotate_table

    classifier = load_classifier(folder)
    columns = list(text_columns or classifier.header.get("columns", {}).get("text", ()))
    if not columns:
        raise UsageError("which column holds the text is not known", hint="name it with --text COL")

    def annotate(texts: list[str]) -> Mapping[str, Sequence[Any]]:
        found = classifier.classify(texts, batch_size=_BATCH)
        return {LABEL: [one.label for one in found], PROBABILITY: [one.probability for one in found]}

    return annotate_table(
        source,
        output,
        text_columns=columns,
        new_columns={LABEL: str, PROBABILITY: float},
        annotate=annotate,
        progress=progress,
    )


@dataclass(frozen=True)
class ClassifierEvaluation:
    """Quality of a classifier on labelled data; `scores` by item for those metrics that are means over items."""

    run: Path
    records: list[Record]
    scores: Mapping[str, ItemScores]
    unseen_labels: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`; without the scores by item."""
        return {
            "run": str(self.run),
            "metrics": [record.model_dump(mode="json") for record in self.records],
            "unseen_labels": dict(self.unseen_labels),
        }


def evaluate_classifier(
    folder: Path,
    files: Sequence[Path | str],
    *,
    target: str | None = None,
    text_columns: Sequence[str] | None = None,
    progress: Progress = SILENT,
) -> ClassifierEvaluation:
    """Measure a classifier on tables with the columns that it was fitted on, unless others are named.

    Rows with a label it has never seen cannot be right: they are counted, and left out of the metrics.
    Raises DataError for data that cannot be used.
    """
    import numpy as np

    from rung.data.labelled_reading import read_labelled
    from rung.tasks.classification.scoring import scores

    classifier: Classifier = load_classifier(folder)
    columns = classifier.header.get("columns", {})
    table = read_labelled(
        [Path(file) for file in files],
        target=target or columns.get("target"),
        text_columns=text_columns or columns.get("text"),
        label_names=classifier.labels,
        progress=progress,
    )
    known = np.flatnonzero(table.items.labels < len(classifier.labels))
    if not len(known):
        raise DataError(
            "no row has a label that this classifier knows",
            where=", ".join(table.files),
            hint=f"it knows: {', '.join(classifier.labels[:10])}",
        )
    items = table.items.take(known)
    with progress.task("predicting", len(items), "items") as advance:
        predictions = classifier.predict(items.texts, batch_size=_BATCH)
        advance(len(items))
    records, by_item = scores(items, predictions)
    return ClassifierEvaluation(folder, records, by_item, table.unseen_labels)
