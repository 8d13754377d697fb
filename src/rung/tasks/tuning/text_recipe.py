"""The recipe of a language model that is tuned on raw text. `None` means "the plan decides", as in `rung.recipe`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rung.errors import UsageError
from rung.recipe import AnyRecipe, Recipe, Section, TextSection
from rung.tasks.tuning.method import TuningMethod

DEFAULT_EPOCHS = 1.0
# All weights: Devlin et al. 2019, appendix A.3; adapters: ten times as much (Hu et al. 2021, table D.9). Other rates
# have not been compared here yet.
RATES = {"full": 5e-5, "lora": 5e-4}


class TextTuningSection(Section):
    """The budget, the optimiser and the schedule."""

    minutes: float | None = Field(default=None, gt=0, description="wall time of the whole command")
    epochs: float | None = Field(default=None, gt=0, description="readings of the text")
    steps: int | None = Field(default=None, ge=1, description="optimiser steps")
    context_length: int | None = Field(default=None, ge=2, description="tokens of a row; a decoder's own at most")
    batch_size: int | None = Field(default=None, ge=1, description="rows of an optimiser step")
    micro_batch_size: int | None = Field(default=None, ge=1, description="rows of a forward pass")
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    decay_share: float = Field(default=0.95, gt=0, le=1, description="share of the steps in the final linear decay")
    gradient_clip: float = Field(default=1.0, gt=0)
    schedule: dict[str, Any] | None = Field(
        default=None, description="the whole schedule as a finished run stored it, revisions included"
    )
    precision: Literal["bf16", "fp32"] | None = None
    threads: int | None = Field(default=None, ge=1)
    validate_every: int | None = Field(default=None, ge=1, description="steps between validations and checkpoints")
    evaluation_bytes: int | None = Field(default=None, ge=1, description="held-out text that is measured, at most")
    vital_signs_every: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if sum(value is not None for value in (self.minutes, self.epochs, self.steps)) > 1 and self.schedule is None:
            raise ValueError("give one of training.minutes, training.epochs and training.steps")
        return self


class TextTuningRecipe(AnyRecipe):
    """What language model to tune on which text."""

    base: str = Field(default="", description="what `rung.tasks.bases.resolve_base` takes")
    method: dict[str, Any] = Field(default_factory=dict, description="full or LoRA: `TuningMethod`")
    text: TextSection = TextSection()
    test: tuple[str, ...] = Field(default=(), description="texts to measure on, instead of the held-out part")
    training: TextTuningSection = TextTuningSection()

    @property
    def tuning(self) -> TuningMethod:
        """How the base is tuned."""
        return TuningMethod.from_json(self.method)

    @property
    def learning_rate(self) -> float:
        """The rate that is asked for, or the usual one of the method."""
        return self.training.learning_rate or RATES[self.tuning.kind]

    @property
    def reading(self) -> Recipe:
        """The same text for those who prepare text by the recipe of a training run."""
        return Recipe(text=self.text, seed=self.seed)


def wished(
    base: str,
    texts: Sequence[str | Path],
    method: TuningMethod | None,
    overrides: Mapping[str, Any] | None,
    given: Mapping[str, Any],
) -> TextTuningRecipe:
    """One recipe of what a caller asked for: `given` single settings win over `overrides`.

    Raises RecipeError or UsageError for what is unknown, contradictory or missing.
    """
    if not texts:
        raise UsageError("there is no text to tune on", hint="give files or folders: rung tune smollm2 my_texts/")
    method = method or TuningMethod()
    if method.kind == "frozen":
        raise UsageError("a language model has no new head to train on a frozen body", hint="tune with --lora")
    recipe = TextTuningRecipe(base=base, method=method.to_json()).with_overrides(overrides or {})
    changes = {key: value for key, value in given.items() if value not in (None, ())}
    recipe = recipe.with_overrides({"text.files": tuple(map(str, texts)), **changes})
    training = recipe.training
    if training.minutes is None and training.epochs is None and training.steps is None:
        recipe = recipe.with_overrides({"training.epochs": DEFAULT_EPOCHS})
    return recipe
