"""What tuning will do: what the plans of all tasks have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic

import torch
from torch import nn

from rung.errors import PlanError
from rung.tasks.tuning.recipe import AnyTuningRecipe
from rung.training.contracts import Precision
from rung.training.machine import has_bf16_instructions


@dataclass(frozen=True, kw_only=True)
class TuningPlan(ABC, Generic[AnyTuningRecipe]):
    """A recipe without gaps, and what it comes to: `trained` of the `parameters` move.

    `seconds` of training and `seconds_after` it, for measuring and files, are forecasts; None and 0 without a clock.
    """

    recipe: AnyTuningRecipe
    parameters: int
    trained: int
    seconds: float | None = None
    seconds_after: float = 0.0

    @property
    def steps(self) -> int:
        """Steps of the optimiser; 0 where what is trained is solved for."""
        return self.recipe.training.steps or 0

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What the data come to, as plain values."""

    @abstractmethod
    def lines(self) -> list[str]:
        """The plan for people."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the run folder and `--json`."""
        return {
            "parameters": self.parameters,
            "trained_parameters": self.trained,
            **self.facts(),
            "steps": self.steps,
            "seconds": self.seconds,
            "recipe": self.recipe.to_json(),
        }

    @property
    def what_moves(self) -> str:
        """How much is trained, for the first line."""
        return f"{self.trained:,} of {self.parameters:,} parameters are trained ({self.recipe.tuning.kind})"

    @property
    def how(self) -> str:
        """How steps are made, for the end of the line that counts them."""
        taken = "" if self.seconds is None else f", about {self.seconds:,.0f} s"
        return f"in {self.recipe.training.precision}, learning rate {self.recipe.learning_rate:g}{taken}"


def steps_within(seconds: float, *, step: float, around: float, most: float, hint: str = "give more --minutes") -> int:
    """The steps of `step` seconds that fit into `seconds` beside `around` seconds of measuring and files, up to `most`.

    PlanError when not one fits.
    """
    steps = int(min((seconds - around) / step, most))
    if steps < 1:
        raise PlanError(
            f"no step of training fits into {max(0.0, seconds):.0f} s: one takes {step:.2f} s, and measuring and files "
            f"{around:.0f} s",
            hint=hint,
        )
    return steps


def count(net: nn.Module, *, trained: bool = False) -> int:
    """The network's own numbers; or those that are trained, an adapter's included."""
    counted = (one.requires_grad if trained else ".lora_" not in name for name, one in net.named_parameters())
    return sum(one.numel() for one, is_counted in zip(net.parameters(), counted, strict=True) if is_counted)


def usual_precision(device: torch.device) -> Precision:
    """What to compute in where no clock is read: bfloat16 where `device` multiplies it."""
    return "bf16" if device.type == "cuda" or has_bf16_instructions() else "fp32"
