"""The recipe of a tuned classifier."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rung.data.label_split import Method
from rung.tasks.classification.reading import DataSources
from rung.tasks.tuning.recipe import DataSection, ItemsSection, TuningRecipe


class LabelsSection(DataSection):
    """Which labelled texts: tables."""

    target: str | None = Field(default=None, description="column of the labels")
    text: tuple[str, ...] | None = Field(default=None, description="columns of text")
    group: str | None = Field(default=None, description="items of one group stay in one part")
    time: str | None = Field(default=None, description="the latest items test")
    split: Method | None = None
    allow_leaks: bool = False

    @property
    def sources(self) -> DataSources:
        """The same for the reader."""
        return DataSources(
            self.files,
            target=self.target,
            text_columns=self.text,
            group=self.group,
            time=self.time,
            test=self.test,
            valid=self.valid,
            split=self.split,
            allow_leaks=self.allow_leaks,
        )


class ClassifySection(ItemsSection):
    """The budget, the optimiser and the schedule; and what the base leaves open."""

    dropout: float = Field(default=0.1, ge=0, lt=1, description="of a decoder, whose configuration has none")
    pooling: Literal["cls", "mean"] | None = Field(
        default=None, description="of an encoder: what its family makes of the first token, or the mean of all"
    )


class ClassifyRecipe(TuningRecipe):
    """What classifier to tune from which base. The learning rate depends on the network's width: the plan knows it."""

    labels: LabelsSection = LabelsSection()
    training: ClassifySection = ClassifySection()
