"""The recipe of a tuned tagger."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from rung.tasks.tuning.recipe import DataSection, ItemsSection, TuningRecipe


class SentencesSection(DataSection):
    """Which tagged sentences: CoNLL files, or tables with lists of words and of their tags."""

    words: str | None = Field(default=None, description="column of the words in tables")
    tags: str | None = Field(default=None, description="column of their tags in tables")


class TagRecipe(TuningRecipe):
    """What tagger to tune from which base."""

    # Devlin et al. 2019, appendix A.3; a head alone, and adapters (Hu et al. 2021, table D.9), learn ten times as fast.
    usual_rates: ClassVar = {"full": 5e-5, "lora": 5e-4, "frozen": 1e-3}

    sentences: SentencesSection = SentencesSection()
    training: ItemsSection = ItemsSection()
