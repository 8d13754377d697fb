"""The recipe of a tuned classifier. `None` means "the plan decides", as in `rung.recipe`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rung.data.label_split import Method
from rung.errors import UsageError
from rung.recipe import AnyRecipe, Section
from rung.tasks.classification.reading import DataSources
from rung.tasks.tuning.method import TuningMethod

DEFAULT_EPOCHS = 4.0


class LabelsSection(Section):
    """Which labelled texts."""

    files: tuple[str, ...] = Field(default=(), description="tables")
    valid: tuple[str, ...] = Field(default=(), description="tables to validate on, instead of a split")
    test: tuple[str, ...] = Field(default=(), description="tables to test on, instead of a split")
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


class TuningSection(Section):
    """The budget, the optimiser and the schedule."""

    minutes: float | None = Field(default=None, gt=0, description="wall time of the whole command")
    epochs: float | None = Field(default=None, gt=0, description="readings of the training items")
    steps: int | None = Field(default=None, ge=1, description="optimiser steps")
    batch_size: int = Field(default=32, ge=1, description="texts in a batch; fewer where there are few texts")
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    decay_share: float = Field(default=0.9, gt=0, le=1, description="share of the steps in the final linear decay")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="of a decoder, whose configuration has none")
    max_length: int | None = Field(default=None, ge=4, description="tokens of a text that are read")
    pooling: Literal["cls", "mean"] | None = Field(
        default=None, description="of an encoder: what its family makes of the first token, or the mean of all"
    )
    schedule: dict[str, Any] | None = Field(
        default=None, description="the whole schedule as a finished run stored it, revisions included"
    )
    precision: Literal["bf16", "fp32"] | None = None
    threads: int | None = Field(default=None, ge=1)
    validations: int | None = Field(default=None, ge=1, description="times that validation items are scored")

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if sum(value is not None for value in (self.minutes, self.epochs, self.steps)) > 1 and self.schedule is None:
            raise ValueError("give one of training.minutes, training.epochs and training.steps")
        return self


class ClassifyRecipe(AnyRecipe):
    """What classifier to tune from which base."""

    base: str = Field(default="", description="what `rung.tasks.bases.resolve_base` takes")
    method: dict[str, Any] = Field(default_factory=dict, description="full, frozen or LoRA: `TuningMethod`")
    labels: LabelsSection = LabelsSection()
    training: TuningSection = TuningSection()

    @property
    def tuning(self) -> TuningMethod:
        """How the base is tuned."""
        return TuningMethod.from_json(self.method)

    @property
    def learning_rate(self) -> float:
        """The rate that is asked for, or that the plan has filled in; 0 where nothing is trained in steps."""
        return self.training.learning_rate or 0.0


@dataclass(frozen=True)
class Wish:
    """What a caller asked for: single arguments over `overrides`."""

    base: str
    files: tuple[str, ...]
    method: TuningMethod
    overrides: Mapping[str, Any]
    given: Mapping[str, Any]

    def as_recipe(self) -> ClassifyRecipe:
        """One recipe of it all. Raises RecipeError or UsageError for what is unknown, contradictory or missing."""
        if not self.files:
            raise UsageError("there are no labelled texts to tune on", hint="give tables: rung tune minilm data.csv")
        budget = {key: self.given.get(f"training.{key}") for key in ("minutes", "epochs", "steps")}
        changes = {key: value for key, value in self.given.items() if value not in (None, (), False)}
        recipe = ClassifyRecipe(base=self.base, method=self.method.to_json()).with_overrides(self.overrides)
        recipe = recipe.with_overrides({"labels.files": self.files, **changes})
        if self.method.kind == "frozen" and (names := [key for key, value in budget.items() if value is not None]):
            raise UsageError(
                f"--{names[0]} means nothing to a frozen body: its head is solved for, not trained in steps",
                hint="leave it out",
            )
        training = recipe.training
        if training.minutes is None and training.epochs is None and training.steps is None:
            recipe = recipe.with_overrides({"training.epochs": DEFAULT_EPOCHS})
        return recipe
