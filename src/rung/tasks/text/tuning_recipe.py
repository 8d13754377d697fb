"""The recipe of a language model that is tuned on raw text."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from rung.recipe import Recipe, TextSection
from rung.tasks.tuning.stepping import SteppedRecipe, TokenRowsSection


class TextTuningSection(TokenRowsSection):
    """The budget, the optimiser and the schedule."""

    evaluation_bytes: int | None = Field(default=None, ge=1, description="held-out text that is measured, at most")


class TextTuningRecipe(SteppedRecipe):
    """What language model to tune on which text."""

    # All weights: Devlin et al. 2019, appendix A.3; adapters: ten times as much (Hu et al. 2021, table D.9).
    # Other rates have not been compared here yet.
    usual_rates: ClassVar = {"full": 5e-5, "lora": 5e-4}

    text: TextSection = TextSection()
    test: tuple[str, ...] = Field(default=(), description="texts to measure on, instead of the held-out part")
    training: TextTuningSection = TextTuningSection()

    @property
    def reading(self) -> Recipe:
        """The same text for those who prepare text by the recipe of a training run."""
        return Recipe(text=self.text, seed=self.seed)
