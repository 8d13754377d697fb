"""Text classification as a task of the comparison: labelled items in three parts, the rungs, and the scores."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from rung.data.labelled import LabelledItems
from rung.evaluation.power import power_statement
from rung.evaluation.summed import SummedScores
from rung.records import ItemScores, Record
from rung.tasks.classification.initial_vectors import InitialVectors
from rung.tasks.classification.predictions import Predictions
from rung.tasks.classification.rungs import NAMES, make_rungs
from rung.tasks.classification.scoring import METRICS, details, primary, scores, temperature
from rung.tasks.task import Indices, Part, Rung

_SMALLEST_SIZE = 50
_STEPS_OF_A_DECADE = (1, 2, 5)


@dataclass(frozen=True)
class ClassificationTask:
    """Items with one label each.

    `unlabelled` is text for pretraining that shares nothing with validation and test items; `more_rungs` are those that
    need more than a name (a prompted model with its endpoint and price). `leaked` (test items,) are predicted but count
    in no metric: `details` scores them apart. Networks over words start from `vectors`. `bases` are pretrained models
    that give rungs of their own. `facts` tell the report what is known of the data.
    """

    items: Mapping[Part, LabelledItems]
    unlabelled: Sequence[str] = ()
    threads: int = 1
    primary_metric: str = METRICS[0]
    more_rungs: tuple[Rung, ...] = ()
    leaked: NDArray[np.bool_] | None = None
    vectors: InitialVectors | None = None
    bases: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    name: str = field(default="classification", init=False)

    @property
    def pipeline_tag(self) -> str:
        """What the Hugging Face hub calls this task."""
        return "text-classification"

    def power(self, margin: float) -> dict[str, Any]:
        """What the test items can decide; those that leaked do not count."""
        counted = len(self.items["test"]) - (0 if self.leaked is None else int(self.leaked.sum()))
        return {**vars(power_statement(counted, margin))}

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes, in the order of label numbers."""
        return self.items["train"].label_names

    @cached_property
    def sha256(self) -> str:
        """The identity of all items and of the part that each is in."""
        parts = ":".join(f"{part}={self.items[part].sha256}" for part in sorted(self.items))
        return hashlib.sha256(parts.encode()).hexdigest()

    def rungs(self, names: Sequence[str] | None) -> list[Rung]:
        """The rungs of these names and those given to the task, from the lowest up; by default all that there are."""
        if names is None:
            names = (*NAMES, *self._of_bases())
        chosen = make_rungs(names, self.bases)
        return sorted([*chosen, *self.more_rungs], key=lambda rung: rung.height)

    def _of_bases(self) -> list[str]:
        """The rungs that bases give."""
        if not self.bases:
            return []
        from rung.tasks.classification.pretrained import names_of  # late: it imports torch

        return [name for base in self.bases for name in names_of(base)]

    def inputs(self, part: Part) -> Sequence[str]:
        """The texts of a part."""
        return self.items[part].texts

    def ids(self, part: Part) -> list[str]:
        """The item ids of a part."""
        return self.items[part].ids

    def primary(self, predictions: Predictions, part: Part) -> ItemScores | SummedScores:
        """The primary metric of these predictions by item."""
        return primary(self.primary_metric, *self._counted(predictions, part))

    def score(
        self, predictions: Predictions, validation: Predictions | None
    ) -> tuple[list[Record], dict[str, ItemScores]]:
        """All quality records of test predictions, and per-item scores of those that are means over items."""
        records, by_item = scores(*self._counted(predictions, "test"))
        if validation is not None:
            records.append(temperature(self.items["valid"], validation))
        return records, by_item

    def details(self, predictions: Predictions, part: Part) -> dict[str, Any]:
        """Tables by class and by group, confusion, reliability, risk and coverage."""
        found = details(*self._counted(predictions, part))
        if part == "test" and self.leaked is not None and self.leaked.any():
            asked = len(predictions.probabilities)
            right = (predictions.labels == self.items["test"].labels[:asked])[self.leaked[:asked]]
            if len(right):
                found["leaked"] = {"n": len(right), "accuracy": float(right.mean())}
        return found

    def _counted(self, predictions: Predictions, part: Part) -> tuple[LabelledItems, Predictions]:
        """Items and predictions without the leaked ones.

        Predictions may be of the first items only. That is a random sample: items stand in the order of their ids,
        which are hashes.
        """
        asked = len(predictions.probabilities)
        items = self.items[part]
        items = items if asked == len(items) else items.take(np.arange(asked))
        if part != "test" or self.leaked is None or not self.leaked[:asked].any():
            return items, predictions
        kept = np.flatnonzero(~self.leaked[:asked])
        failed = None if predictions.failed is None else predictions.failed[kept]
        return items.take(kept), Predictions(predictions.probabilities[kept], failed)

    def differing(self, first: Predictions, second: Predictions, part: Part) -> list[dict[str, str]]:
        """Items that two rungs answer differently, in the order of their ids."""
        items = self.items[part]
        names = [*self.label_names, "no answer"]  # -1 counts from the end
        both = min(len(first.labels), len(second.labels))
        found = np.flatnonzero(first.labels[:both] != second.labels[:both])
        return [
            {
                "id": items.ids[i],
                "text": items.texts[i],
                "label": names[items.labels[i]],
                "first": names[first.labels[i]],
                "second": names[second.labels[i]],
            }
            for i in found
        ]

    def write_predictions(self, path: Path, predictions: Mapping[Part, Predictions]) -> None:
        """Keep predictions by part as plain arrays."""
        arrays = {f"{part}.probabilities": found.probabilities for part, found in predictions.items()}
        failed = {f"{part}.failed": found.failed for part, found in predictions.items() if found.failed is not None}
        save_file({**arrays, **failed}, path)

    def read_predictions(self, path: Path, part: Part) -> Predictions:
        """What `write_predictions` kept."""
        arrays = load_file(path)
        return Predictions(arrays[f"{part}.probabilities"], arrays.get(f"{part}.failed"))

    def learning_sizes(self) -> list[int]:
        """50, 100, 200, 500 ... training items, and all of them."""
        most = len(self.items["train"])
        decades = (10**power for power in range(1, len(str(most)) + 1))
        sizes = [step * decade for decade in decades for step in _STEPS_OF_A_DECADE]
        return [size for size in sizes if max(_SMALLEST_SIZE, 2 * len(self.label_names)) <= size < 0.8 * most] + [most]

    def learning_subset(self, size: int, *, seed: int) -> tuple[Self, Indices]:
        """This task with a validation part as small as `size` of the training items are, and those training items.

        Who has 200 labels has no 1,000 others to stop early by. Stratified; for one seed, smaller subsets lie inside
        larger ones.
        """
        train, valid = self.items["train"], self.items["valid"]
        if size >= len(train):
            return self, np.arange(len(train))
        kept = max(len(self.label_names), round(len(valid) * size / len(train)))
        held_out = valid.take(np.sort(_stratified_order(valid, seed)[:kept]))
        smaller = replace(self, items={**self.items, "valid": held_out})
        return smaller, np.sort(_stratified_order(train, seed)[:size])


def _stratified_order(items: LabelledItems, seed: int) -> NDArray[np.int64]:
    """An order of the items, drawn by their ids, of which every beginning has the classes in their proportions."""
    keys = np.array([_draw(item, seed) for item in items.ids])
    place = np.empty(len(items))
    for label in np.unique(items.labels):
        members = np.flatnonzero(items.labels == label)
        drawn = members[np.argsort(keys[members], kind="stable")]
        place[drawn] = (np.arange(len(drawn)) + 0.5) / len(drawn)
    return np.lexsort((keys, place))


def _draw(item: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{item}".encode(), digest_size=7).digest())
