"""How networks are tuned by steps that the plan lays down: recipe, schedule, optimiser, settings of the loop."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from pydantic import Field
from torch import nn

from rung.recipe import OptimizerName
from rung.tasks.tuning.method import rate_of
from rung.tasks.tuning.recipe import TuningRecipe, TuningSection
from rung.training.contracts import LoopSettings, Optimizer, Precision
from rung.training.optimizers import build_optimizer
from rung.training.schedule import Schedule


class SteppedSection(TuningSection):
    """The budget, the optimiser and the schedule."""

    optimizer: OptimizerName = "adamw"
    final_learning_rate_fraction: float = Field(default=0.0, ge=0, le=1)
    gradient_clip: float = Field(default=1.0, gt=0)
    validate_every: int | None = Field(default=None, ge=1, description="steps between validations and checkpoints")
    vital_signs_every: int | None = Field(default=None, ge=0)

    @property
    def rows(self) -> int:
        """Samples of a step."""
        return 1

    @property
    def rows_at_once(self) -> int:
        """Samples of a forward pass."""
        return 1


class TokenRowsSection(SteppedSection):
    """The same for rows of tokens, as language models read them."""

    context_length: int | None = Field(default=None, ge=2, description="tokens of a row; the network's own at most")
    batch_size: int | None = Field(default=None, ge=1, description="rows of an optimiser step")
    micro_batch_size: int | None = Field(default=None, ge=1, description="rows of a forward pass")

    @property
    def rows(self) -> int:
        """Rows of a step."""
        return self.batch_size or 1

    @property
    def rows_at_once(self) -> int:
        """Rows of a forward pass."""
        return self.micro_batch_size or 1


class SteppedRecipe(TuningRecipe):
    """A recipe whose plan lays down every step."""

    training: SteppedSection = SteppedSection()


AnySteppedRecipe = TypeVar("AnySteppedRecipe", bound=SteppedRecipe)


def with_steps(recipe: AnySteppedRecipe, steps: int, *, validations: int) -> AnySteppedRecipe:
    """`recipe` with `steps` steps, their schedule and about so many `validations`."""
    training = recipe.training
    schedule = Schedule.warmup_flat_decay(
        steps,
        warmup=min(round(steps * training.warmup_share), steps - 1),
        decay_fraction=training.decay_share,
        final=training.final_learning_rate_fraction,
    )
    return recipe.with_overrides(
        {
            "training.schedule": training.schedule or schedule.to_json(),
            "training.steps": steps,
            "training.epochs": None,
            "training.validate_every": training.validate_every or max(1, math.ceil(steps / validations)),
        }
    )


def loop_settings(recipe: SteppedRecipe, *, precision: Precision = "fp32", keep_last: int = 1) -> LoopSettings:
    """What the loop is told by a recipe without gaps.

    `precision` is that of an autocast region: fp32, that is none, for networks that have a `compute_dtype`.
    """
    training = recipe.training
    return LoopSettings(
        schedule=Schedule.from_json(training.schedule or {}),
        batch_size=training.rows,
        micro_batch_size=training.rows_at_once,
        seed=recipe.seed,
        gradient_clip=training.gradient_clip,
        precision=precision,
        validate_every=training.validate_every,
        checkpoint_every=training.validate_every,
        keep_last=keep_last,
        vital_signs_every=training.vital_signs_every,
    )


def optimizer_of(net: nn.Module, recipe: SteppedRecipe) -> Optimizer:
    """The optimiser over what is trained."""
    return build_optimizer(
        net,
        name=recipe.training.optimizer,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.training.weight_decay,
        betas=(0.9, 0.999),
        rate_of=rate_of(net, recipe.tuning),
    )


def compute_dtype(recipe: TuningRecipe) -> torch.dtype:
    """What activations of a language model are computed in."""
    return torch.bfloat16 if recipe.training.precision == "bf16" else torch.float32
