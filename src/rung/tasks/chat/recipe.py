"""The recipe of a chat model. `None` means "the plan decides", as in `rung.recipe`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from rung.data.packing import Overlong
from rung.errors import UsageError
from rung.recipe import AnyRecipe, OptimizerName, Section
from rung.tasks.bases import base_record, resolve_base
from rung.tasks.tuning.method import TuningMethod

# Full: the rate of nanochat's and SmolLM2's instruction tuning lies between 1e-5 and 1e-3, the smaller the model the
# higher; LoRA learns at about ten times the rate (Schulman 2025, "LoRA without regret").
_RATES = {"full": 1e-4, "lora": 5e-4}


class ConversationsSection(Section):
    """Which conversations, and how they become tokens."""

    files: tuple[str, ...] = Field(default=(), description=".jsonl or .json: messages, ShareGPT, Alpaca, prompts")
    valid: tuple[str, ...] = Field(default=(), description="conversations to validate on, instead of a split")
    test: tuple[str, ...] = Field(default=(), description="conversations to test on, instead of a split")
    valid_share: float = Field(default=0.05, gt=0, lt=0.4, description="share that is split off to validate on")
    test_share: float = Field(default=0.1, gt=0, lt=0.4, description="share that is split off to test on")
    template: str | None = Field(
        default=None, description="file of a chat template, or chatml; default: the base's own"
    )
    now: str | None = Field(default=None, description="the date that templates are told which write it; ISO 8601")
    overlong: Overlong = Field(default="refuse", description="conversations of more tokens than the context")


class ChatTrainingSection(Section):
    """The budget, the optimiser and the schedule."""

    minutes: float | None = Field(default=None, gt=0, description="wall time of the whole command")
    epochs: float | None = Field(default=None, gt=0, description="readings of the conversations")
    steps: int | None = Field(default=None, ge=1, description="optimiser steps; plans without a clock")
    context_length: int | None = Field(default=None, ge=16, description="tokens of a row that conversations share")
    batch_size: int | None = Field(default=None, ge=1, description="rows of a batch")
    micro_batch_size: int | None = Field(default=None, ge=1, description="rows that go through the network at once")
    optimizer: OptimizerName = "adamw"
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    decay_share: float = Field(default=0.7, gt=0, le=1, description="share of the steps in the final linear decay")
    final_learning_rate_fraction: float = Field(default=0.05, ge=0, le=1)
    schedule: dict[str, Any] | None = Field(
        default=None, description="the whole schedule as a finished run stored it, revisions included"
    )
    gradient_clip: float = Field(default=1.0, gt=0)
    precision: Literal["bf16", "fp32"] | None = None
    threads: int | None = Field(default=None, ge=1)
    validate_every: int | None = Field(default=None, ge=1, description="steps between validations and checkpoints")

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if sum(value is not None for value in (self.minutes, self.epochs, self.steps)) > 1 and self.schedule is None:
            raise ValueError("give one of training.minutes, training.epochs and training.steps")
        return self


class MeasuringSection(Section):
    """What the result is measured on."""

    prompts: int = Field(default=50, ge=0, le=10_000, description="test prompts that are answered, greedily")
    max_tokens: int = Field(default=128, ge=1, description="tokens after which an answer counts as not ended")


class ChatRecipe(AnyRecipe):
    """What chat model to make of which base."""

    base: str = Field(default="", description="what `rung.tasks.bases.resolve_base` takes")
    method: dict[str, Any] = Field(default_factory=dict, description="full or LoRA: `TuningMethod`")
    data: ConversationsSection = ConversationsSection()
    training: ChatTrainingSection = ChatTrainingSection()
    measuring: MeasuringSection = MeasuringSection()

    @property
    def tuning(self) -> TuningMethod:
        """How the base is tuned."""
        return TuningMethod.from_json(self.method)

    @property
    def learning_rate(self) -> float:
        """The rate that is asked for, or the usual one of the method."""
        return self.training.learning_rate or _RATES[self.tuning.kind]


AnyChatRecipe = TypeVar("AnyChatRecipe", bound=ChatRecipe)


@dataclass(frozen=True)
class Wish:
    """What a caller of `tune` asked for: single arguments over `overrides`; None for what was not asked for."""

    base: str | Path
    data: Sequence[str | Path]
    method: TuningMethod | None = None
    minutes: float | None = None
    epochs: float | None = None
    steps: int | None = None
    seed: int | None = None
    threads: int | None = None
    valid: Sequence[str | Path] = ()
    test: Sequence[str | Path] = ()
    overrides: Mapping[str, Any] | None = None

    def as_recipe(self, kind: type[AnyChatRecipe], *, budget: Mapping[str, float], example: str) -> AnyChatRecipe:
        """One recipe of it all. `budget` is how long to tune where nothing says it; `example` shows the command.

        Raises RecipeError or UsageError for what is unknown, contradictory or missing, RunFolderError without a base.
        """
        method = self.method or TuningMethod()
        if not self.data:
            raise UsageError("there is nothing to tune on", hint=example)
        if method.kind == "frozen":
            raise UsageError(
                "a chat model has no new head that could be trained alone", hint="tune all of it, or --lora"
            )
        given = {
            "data.files": tuple(map(str, self.data)),
            "data.valid": tuple(map(str, self.valid)),
            "data.test": tuple(map(str, self.test)),
            "training.minutes": self.minutes,
            "training.epochs": self.epochs,
            "training.steps": self.steps,
            "training.threads": self.threads,
            "seed": self.seed,
        }
        origin = base_record(resolve_base(self.base))["origin"]
        recipe = kind(base=origin, method=method.to_json()).with_overrides(self.overrides or {})
        recipe = recipe.with_overrides({key: value for key, value in given.items() if value not in (None, ())})
        training = recipe.training
        unlimited = training.minutes is None and training.epochs is None and training.steps is None
        return recipe.with_overrides(budget) if unlimited else recipe
