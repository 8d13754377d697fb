"""Text to text as a task of the comparison: pairs in three parts, the networks that rewrite, and BLEU and chrF."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from rung.data.pairs import Pairs
from rung.evaluation.summed import Floats, SummedScores
from rung.evaluation.translation import bleu, bleu_scores, chrf, chrf_scores, translation_records
from rung.records import ItemScores, Record
from rung.tasks.rewriting.predicting import Rewritten
from rung.tasks.rewriting.rungs import make_rungs
from rung.tasks.task import Indices, Part, Rung

METRICS = ("bleu", "chrf")


@dataclass(frozen=True)
class RewritingTask:
    """Pairs of a source and a target; `files` are those of each part, on which the networks are trained.

    Scores are shares here (BLEU 32.1 is 0.321), as all metrics that a verdict rests on; reports write them times 100.
    """

    pairs: Mapping[Part, Pairs]
    files: Mapping[Part, Path]
    facts: Mapping[str, Any]
    threads: int = 1
    primary_metric: str = METRICS[0]
    name: str = field(default="rewriting", init=False)

    @property
    def pipeline_tag(self) -> str:
        """What the Hugging Face hub calls this task."""
        return "translation"

    @cached_property
    def sha256(self) -> str:
        """The identity of all pairs and of the part that each is in."""
        parts = ":".join(f"{part}={self.pairs[part].sha256}" for part in sorted(self.pairs))
        return hashlib.sha256(parts.encode()).hexdigest()

    def power(self, margin: float) -> dict[str, Any]:
        """What the test pairs can decide: for these metrics that shows in the interval, not before."""
        sentence = (
            f"{len(self.pairs['test']):,} test pairs; how small a difference they tell apart depends on how alike the "
            f"networks write, so the interval shows it."
        )
        return {"n": len(self.pairs["test"]), "margin": margin, "sentence": sentence}

    def rungs(self, names: Sequence[str] | None) -> list[Rung]:
        """The networks of these names, from the lowest up; by default all that there are."""
        return make_rungs(names)

    def inputs(self, part: Part) -> Sequence[str]:
        """The sources of a part."""
        return self.pairs[part].sources

    def ids(self, part: Part) -> list[str]:
        """The ids of a part's pairs."""
        return self.pairs[part].ids

    def primary(self, predictions: Rewritten, part: Part) -> SummedScores:
        """The primary metric of these predictions as a function of sums over pairs."""
        pairs = self.pairs[part]
        count, metric = {"bleu": (bleu_scores, bleu), "chrf": (chrf_scores, chrf)}[self.primary_metric]
        found = count(pairs.ids, predictions.texts, pairs.targets)
        return SummedScores(found.ids, found.codes, found.rows, _as_share(metric))

    def score(self, predictions: Rewritten, validation: Rewritten | None) -> tuple[list[Record], dict[str, ItemScores]]:
        """BLEU and chrF of test predictions; neither is a mean over pairs. `validation` is not needed."""
        del validation  # nothing is fitted after training
        pairs = self.pairs["test"]
        found = translation_records(pairs.ids, predictions.texts, pairs.targets, data_sha256=pairs.sha256)
        return [_share_record(record) for record in found], {}

    def details(self, predictions: Rewritten, part: Part) -> dict[str, Any]:
        """Nothing beside the records."""
        del predictions, part
        return {}

    def write_predictions(self, path: Path, predictions: Mapping[Part, Rewritten]) -> None:
        """Keep predictions by part: scores, and texts as the bytes of a JSON list."""
        arrays: dict[str, NDArray[Any]] = {}
        for part, found in predictions.items():
            arrays[f"{part}.scores"] = found.scores
            arrays[f"{part}.texts"] = np.frombuffer(json.dumps(found.texts).encode(), dtype=np.uint8)
        save_file(arrays, path)

    def read_predictions(self, path: Path, part: Part) -> Rewritten:
        """What `write_predictions` kept."""
        arrays = load_file(path)
        return Rewritten(json.loads(arrays[f"{part}.texts"].tobytes()), arrays[f"{part}.scores"])

    def differing(self, first: Rewritten, second: Rewritten, part: Part) -> list[dict[str, str]]:
        """Sources that two networks rewrite differently, in the order of their ids."""
        pairs = self.pairs[part]
        shown = zip(pairs.ids, pairs.sources, pairs.targets, first.texts, second.texts, strict=True)
        return [
            {"id": name, "text": source, "label": target, "first": one, "second": other}
            for name, source, target, one, other in shown
            if one != other
        ]

    def learning_sizes(self) -> list[int]:
        """All pairs: a curve over fewer would cost more than the comparison."""
        return [len(self.pairs["train"])]

    def learning_subset(self, size: int, *, seed: int) -> tuple[Self, Indices]:
        """This task and all its pairs."""
        del seed
        return self, np.arange(size)


def _as_share(metric: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    return lambda totals: metric(totals) / 100


def _share_record(record: Record) -> Record:
    """A record of points of 100 as one of shares."""
    interval = record.interval and record.interval.model_copy(
        update={"low": record.interval.low / 100, "high": record.interval.high / 100}
    )
    value = None if record.value is None else record.value / 100
    return record.model_copy(update={"value": value, "interval": interval, "unit": "share"})
