"""The recipe of a tuned sentence encoder. `None` means "the plan decides", as in `rung.recipe`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from rung.errors import UsageError
from rung.objectives.similarity import SimilarityLoss
from rung.recipe import AnyRecipe, Section
from rung.tasks.bases import resolve_base
from rung.tasks.tuning.method import TuningMethod
from rung.training.contracts import Precision

DEFAULT_EPOCHS = 4.0  # over STSb, as in Reimers and Gurevych 2019, section 4
# Reimers and Gurevych 2019, section 3.2; Hu et al. 2021, table D.9, whose rates for adapters are ten times as high.
_RATES = {"full": 2e-5, "lora": 2e-4, "frozen": 2e-5}


class RowsSection(Section):
    """Which texts belong together."""

    files: tuple[str, ...] = Field(default=(), description="tables of pairs or triplets")
    valid: tuple[str, ...] = Field(default=(), description="tables to validate on, instead of a split")
    test: tuple[str, ...] = Field(default=(), description="tables to test on, instead of a split")
    text: tuple[str, ...] = Field(default=(), description="columns of text: two, or anchor, positive, negative")
    score: str | None = Field(default=None, description="column of how alike the two texts are")


class SimilarityTraining(Section):
    """The budget, the loss, the optimiser and the schedule."""

    minutes: float | None = Field(default=None, gt=0, description="wall time of the whole command")
    epochs: float | None = Field(default=None, gt=0, description="readings of the training rows")
    steps: int | None = Field(default=None, ge=1, description="optimiser steps")
    loss: SimilarityLoss | None = Field(
        default=None, description="cosent or cosine for pairs with a score, ranking for all others"
    )
    batch_size: int = Field(default=32, ge=2, description="rows in a batch, which are compared with each other")
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    decay_share: float = Field(default=0.9, gt=0, le=1, description="share of the steps in the final linear decay")
    max_length: int | None = Field(default=None, ge=4, description="tokens of a text that are read")
    schedule: dict[str, Any] | None = Field(
        default=None, description="the whole schedule as a finished run stored it, revisions included"
    )
    precision: Precision | None = None
    threads: int | None = Field(default=None, ge=1)
    validations: int = Field(default=8, ge=1, description="times that validation rows are scored")

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if sum(value is not None for value in (self.minutes, self.epochs, self.steps)) > 1 and self.schedule is None:
            raise ValueError("give one of training.minutes, training.epochs and training.steps")
        return self


class SimilarityRecipe(AnyRecipe):
    """What sentence encoder to tune from which base."""

    base: str = Field(default="", description="what `rung.tasks.bases.resolve_base` takes")
    method: dict[str, Any] = Field(default_factory=dict, description="full or LoRA: `TuningMethod`")
    rows: RowsSection = RowsSection()
    training: SimilarityTraining = SimilarityTraining()

    @property
    def tuning(self) -> TuningMethod:
        """How the base is tuned."""
        return TuningMethod.from_json(self.method)

    @property
    def learning_rate(self) -> float:
        """The rate that is asked for, or the usual one of the method."""
        return self.training.learning_rate or _RATES[self.tuning.kind]


def wished(
    base: str | Path,
    files: tuple[str, ...],
    method: TuningMethod | None,
    overrides: Mapping[str, Any] | None,
    given: Mapping[str, Any],
) -> SimilarityRecipe:
    """One recipe of all that a caller asked for: `given` over `overrides`.

    Raises RecipeError or UsageError for what is unknown, contradictory or missing; RunFolderError without such a base.
    """
    if not files:
        raise UsageError("there are no rows to tune on", hint="give tables: rung tune minilm pairs.csv")
    method = method or TuningMethod()
    if method.kind == "frozen":
        raise UsageError(
            "a sentence encoder has no new head: with its body frozen, nothing would be trained",
            hint="leave --frozen out, or take --lora",
        )
    resolve_base(base)  # refused before any data is read
    recipe = SimilarityRecipe(base=str(base), method=method.to_json()).with_overrides(overrides or {})
    changes = {key: value for key, value in given.items() if value not in (None, ())}
    recipe = recipe.with_overrides({"rows.files": files, **changes})
    training = recipe.training
    if training.minutes is None and training.epochs is None and training.steps is None:
        recipe = recipe.with_overrides({"training.epochs": DEFAULT_EPOCHS})
    return recipe
