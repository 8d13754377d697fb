"""What the recipes of all tuning have in common. `None` means "the plan decides", as in `rung.recipe`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, model_validator

from rung.recipe import AnyRecipe, Section
from rung.tasks.tuning.method import TuningMethod


class DataSection(Section):
    """Which data."""

    files: tuple[str, ...] = Field(default=(), description="what to tune on")
    valid: tuple[str, ...] = Field(default=(), description="what to validate on, instead of a split")
    test: tuple[str, ...] = Field(default=(), description="what to test on, instead of a split")


class TuningSection(Section):
    """The budget, the optimiser and the schedule."""

    minutes: float | None = Field(default=None, gt=0, description="wall time of the whole command")
    epochs: float | None = Field(default=None, gt=0, description="readings of the training data")
    steps: int | None = Field(default=None, ge=1, description="optimiser steps")
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    decay_share: float = Field(default=0.95, gt=0, le=1, description="share of the steps in the final linear decay")
    schedule: dict[str, Any] | None = Field(
        default=None, description="the whole schedule as a finished run stored it, revisions included"
    )
    precision: Literal["bf16", "fp32"] | None = None
    threads: int | None = Field(default=None, ge=1)

    @property
    def is_limited(self) -> bool:
        """Whether something says how long to tune."""
        return any(value is not None for value in (self.minutes, self.epochs, self.steps))

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if sum(value is not None for value in (self.minutes, self.epochs, self.steps)) > 1 and self.schedule is None:
            raise ValueError("give one of training.minutes, training.epochs and training.steps")
        return self


class ItemsSection(TuningSection):
    """The same for what is read item by item: texts, sentences, rows."""

    batch_size: int = Field(default=32, ge=1, description="items in a batch; fewer where there are few items")
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    decay_share: float = Field(default=0.9, gt=0, le=1, description="share of the steps in the final linear decay")
    max_length: int | None = Field(default=None, ge=4, description="tokens of a text that are read")
    validations: int | None = Field(default=None, ge=1, description="times that validation items are scored")


class TuningRecipe(AnyRecipe):
    """What to tune which base to."""

    usual_rates: ClassVar[Mapping[str, float]] = {}
    """The learning rate of each kind of method, where it does not depend on the network."""

    base: str = Field(default="", description="what `rung.tasks.bases.resolve_base` takes")
    method: dict[str, Any] = Field(default_factory=dict, description="full, frozen or LoRA: `TuningMethod`")
    training: TuningSection = TuningSection()

    @property
    def tuning(self) -> TuningMethod:
        """How the base is tuned."""
        return TuningMethod.from_json(self.method)

    @property
    def learning_rate(self) -> float:
        """The rate that is asked for, or the usual one of the method; 0 where the plan has yet to fill it in."""
        return self.training.learning_rate or self.usual_rates.get(self.tuning.kind, 0.0)


AnyTuningRecipe = TypeVar("AnyTuningRecipe", bound=TuningRecipe)
