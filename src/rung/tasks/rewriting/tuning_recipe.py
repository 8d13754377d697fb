"""The recipe of an encoder-decoder that is tuned on pairs. `None` means "the plan decides", as in `rung.recipe`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rung.errors import UsageError
from rung.recipe import AnyRecipe, Section
from rung.tasks.rewriting.recipe import PairsSection
from rung.tasks.tuning.method import TuningMethod

DEFAULT_EPOCHS = 3.0
_RATES = {"full": 1e-3, "lora": 5e-3}
_RATES_WIDTH = 128
"""The width that these rates are for: wider networks want smaller ones, about 1e-4 at the 512 of T5's small one."""


class TunedPairsSection(PairsSection):
    """The pairs to tune on, and what is put before every source."""

    prefix: str = Field(default="", description='put before every source: "summarize: "')


class RewriteTuningSection(Section):
    """The budget, the optimiser and the schedule."""

    minutes: float | None = Field(default=None, gt=0, description="wall time of the whole command")
    epochs: float | None = Field(default=None, gt=0, description="readings of the pairs")
    steps: int | None = Field(default=None, ge=1, description="optimiser steps")
    longest: int | None = Field(default=None, ge=2, description="tokens of a text; the network's own at most")
    tokens_per_batch: int = Field(default=2048, ge=16, description="tokens a side in one batch, with padding")
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    decay_share: float = Field(default=0.95, gt=0, le=1, description="share of the steps in the final linear decay")
    gradient_clip: float = Field(default=1.0, gt=0)
    schedule: dict[str, Any] | None = Field(
        default=None, description="the whole schedule as a finished run stored it, revisions included"
    )
    precision: Literal["bf16", "fp32"] | None = None
    threads: int | None = Field(default=None, ge=1)
    validate_every: int | None = Field(default=None, ge=1, description="steps between validations and checkpoints")
    measured: int | None = Field(default=None, ge=2, description="test pairs that are measured, at most")
    vital_signs_every: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if sum(value is not None for value in (self.minutes, self.epochs, self.steps)) > 1 and self.schedule is None:
            raise ValueError("give one of training.minutes, training.epochs and training.steps")
        return self


class TunedBeamSection(Section):
    """How targets are searched for; by default as the base does it."""

    num_beams: int | None = Field(default=None, ge=1, le=64)
    length_penalty: float | None = Field(default=None, ge=-10, le=10)


class RewriteTuningRecipe(AnyRecipe):
    """What encoder-decoder to tune on which pairs."""

    base: str = Field(default="", description="what `rung.tasks.bases.resolve_base` takes")
    method: dict[str, Any] = Field(default_factory=dict, description="full or LoRA: `TuningMethod`")
    pairs: TunedPairsSection = TunedPairsSection()
    training: RewriteTuningSection = RewriteTuningSection()
    beam: TunedBeamSection = TunedBeamSection()

    @property
    def tuning(self) -> TuningMethod:
        """How the base is tuned."""
        return TuningMethod.from_json(self.method)


def usual_rate(method: TuningMethod, hidden_size: int) -> float:
    """The learning rate to begin with for a network of this width."""
    return float(f"{_RATES[method.kind] * (_RATES_WIDTH / hidden_size) ** 1.5:.2g}")


def wished(
    base: str,
    pairs: Sequence[str | Path],
    method: TuningMethod | None,
    overrides: Mapping[str, Any] | None,
    given: Mapping[str, Any],
) -> RewriteTuningRecipe:
    """One recipe of what a caller asked for: `given` single settings win over `overrides`.

    Raises RecipeError or UsageError for what is unknown, contradictory or missing.
    """
    if not pairs:
        raise UsageError("there are no pairs to tune on", hint="give a table: rung tune BASE pairs.csv --task rewrite")
    method = method or TuningMethod()
    if method.kind == "frozen":
        raise UsageError("a network that rewrites has no new head to train on a frozen body", hint="tune with --lora")
    recipe = RewriteTuningRecipe(base=base, method=method.to_json()).with_overrides(overrides or {})
    changes = {key: value for key, value in given.items() if value not in (None, ())}
    recipe = recipe.with_overrides({"pairs.files": tuple(map(str, pairs)), **changes})
    training = recipe.training
    if training.minutes is None and training.epochs is None and training.steps is None:
        recipe = recipe.with_overrides({"training.epochs": DEFAULT_EPOCHS})
    return recipe
