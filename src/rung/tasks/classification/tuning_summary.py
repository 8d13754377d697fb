"""What is told about a tuned classifier in the end: to who tuned it, and on its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rung.records import Record
from rung.tasks.classification.tuning_recipe import ClassifyRecipe
from rung.tasks.run import Run
from rung.tasks.tuning.card import TunedCard, parts_in_words
from rung.tasks.tuning.summary import Tuned

MAJORITY = "majority_accuracy"
_TOLD = ("accuracy", "macro_f1", MAJORITY)


@dataclass(frozen=True)
class ClassifierTuned(Tuned[ClassifyRecipe]):
    """How tuning a classifier to tell `labels` apart went. `note`: how the head of a frozen body was found."""

    items = unit = "texts"
    next_commands = ('rung predict {run} "some text"', "rung eval {run} labelled.csv")

    note: str = ""
    labels: tuple[str, ...] = ()

    def told(self) -> Sequence[Record]:
        """The few that sum the others up."""
        return [self.record(name) for name in _TOLD]

    def remarks_told(self) -> Sequence[str]:
        """The note."""
        return [self.note] if self.note else []

    def further(self) -> Mapping[str, Any]:
        """The note."""
        return {"note": self.note}

    def card(self, run: Run, recipe: ClassifyRecipe) -> str:
        """The model card of a finished run."""
        data = run.header["data"]
        classes = f"{', '.join(self.labels[:20])}{', ...' if len(self.labels) > 20 else ''}"
        left_out = f"{data['leaked']:,} test items that leaked into training were left out (split {data['split']})"
        return TunedCard(
            library="transformers",
            pipeline_tag="text-classification",
            about=f"tuned to tell {len(self.labels)} classes apart: {classes}",
            data=parts_in_words(data, self.items, remarks=[left_out]),
            steps=f"up to {recipe.training.batch_size} texts of up to {recipe.training.max_length} tokens",
            solved="The head was solved for by logistic regression on the frozen body.",
            limits="These figures hold for texts like those it was tuned on; nothing is known of others.",
        ).text(run, recipe, self)
