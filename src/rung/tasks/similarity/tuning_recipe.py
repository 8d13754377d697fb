"""The recipe of a tuned sentence encoder."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from rung.objectives.similarity import SimilarityLoss
from rung.tasks.tuning.recipe import DataSection, ItemsSection, TuningRecipe


class RowsSection(DataSection):
    """Which texts belong together: tables of pairs or triplets."""

    text: tuple[str, ...] = Field(default=(), description="columns of text: two, or anchor, positive, negative")
    score: str | None = Field(default=None, description="column of how alike the two texts are")


class SimilaritySection(ItemsSection):
    """The budget, the loss, the optimiser and the schedule. The rows of a batch are compared with each other."""

    batch_size: int = Field(default=32, ge=2, description="rows in a batch, which are compared with each other")
    loss: SimilarityLoss | None = Field(
        default=None, description="cosine or cosent for pairs with a score, ranking for all others"
    )


class SimilarityRecipe(TuningRecipe):
    """What sentence encoder to tune from which base."""

    # Reimers and Gurevych 2019, section 3.2; Hu et al. 2021, table D.9, whose rates for adapters are ten times as high.
    usual_rates: ClassVar = {"full": 2e-5, "lora": 2e-4}

    rows: RowsSection = RowsSection()
    training: SimilaritySection = SimilaritySection()
