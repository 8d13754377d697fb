"""The recipe of a tuned tagger. `None` means "the plan decides", as in `rung.recipe`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from rung.recipe import AnyRecipe, Section
from rung.tasks.classification.tuning_recipe import TuningSection
from rung.tasks.tuning.method import TuningMethod

# Devlin et al. 2019, appendix A.3; a head alone, and adapters (Hu et al. 2021, table D.9), learn ten times as fast.
_RATES = {"full": 5e-5, "lora": 5e-4, "frozen": 1e-3}


class SentencesSection(Section):
    """Which tagged sentences."""

    files: tuple[str, ...] = Field(default=(), description="CoNLL files, or tables with lists of words and tags")
    valid: tuple[str, ...] = Field(default=(), description="files to validate on, instead of a split")
    test: tuple[str, ...] = Field(default=(), description="files to test on, instead of a split")
    words: str | None = Field(default=None, description="column of the words in tables")
    tags: str | None = Field(default=None, description="column of their tags in tables")


class TagRecipe(AnyRecipe):
    """What tagger to tune from which base."""

    base: str = Field(default="", description="what `rung.tasks.bases.resolve_base` takes")
    method: dict[str, Any] = Field(default_factory=dict, description="full, frozen or LoRA: `TuningMethod`")
    sentences: SentencesSection = SentencesSection()
    training: TuningSection = TuningSection()

    @property
    def tuning(self) -> TuningMethod:
        """How the base is tuned."""
        return TuningMethod.from_json(self.method)

    @property
    def learning_rate(self) -> float:
        """The rate that is asked for, or the usual one of the method."""
        return self.training.learning_rate or _RATES[self.tuning.kind]
