"""What is told about a tuned classifier in the end: to who tuned it, and on its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rung.records import Record
from rung.tasks.card_parts import USE_OF_THE_MEAN
from rung.tasks.classification.tuning_recipe import ClassifyRecipe
from rung.tasks.run import Run
from rung.tasks.tuning.card import TunedCard, parts_in_words
from rung.tasks.tuning.summary import Tuned

MAJORITY = "majority_accuracy"
_TOLD = ("accuracy", "macro_f1", MAJORITY)
_ADAPTED_BODY = """peft opens the adapter of the body (AutoPeftModelForFeatureExtraction); the head reads the mean
over its tokens and lies in `2_Dense`. Other programs open the whole model: `rung export {run} --to hf`."""


@dataclass(frozen=True)
class ClassifierTuned(Tuned[ClassifyRecipe]):
    """How tuning a classifier to tell `labels` apart went. `note`: how the head of a frozen body was found.

    `reads_the_mean`: over an encoder's tokens, instead of what its family makes of the first one.
    """

    items = unit = "texts"
    next_commands = ('rung predict {run} "some text"', "rung eval {run} labelled.csv")

    note: str = ""
    labels: tuple[str, ...] = ()
    reads_the_mean: bool = False

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
        on_mean, adapted = self.reads_the_mean, recipe.tuning.kind == "lora"
        left_out = f"{data['leaked']:,} test items that leaked into training were left out (split {data['split']})"
        return TunedCard(
            library="sentence-transformers" if on_mean and not adapted else None,
            pipeline_tag="text-classification",
            about=f"tuned to tell {len(self.labels)} classes apart: {classes}",
            use=USE_OF_THE_MEAN.format(run=run.folder) if on_mean and not adapted else "",
            adapter=_ADAPTED_BODY.format(run=run.folder) if on_mean and adapted else "",
            data=parts_in_words(data, self.items, remarks=[left_out]),
            steps=f"up to {recipe.training.batch_size} texts of up to {recipe.training.max_length} tokens",
            solved="The head was solved for by logistic regression on the frozen body.",
            limits="These figures hold for texts like those it was tuned on; nothing is known of others.",
        ).text(run, recipe, self)
