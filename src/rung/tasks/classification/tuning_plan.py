"""What tuning a classifier will do: how texts are cut, how many steps there are, in which precision."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from rung.data.label_batches import LabelBatches
from rung.data.labelled import LabelledItems
from rung.errors import PlanError
from rung.nets.classifier import Classifier
from rung.objectives.classification import Classification
from rung.progress import SILENT
from rung.tasks.classification.families import Start
from rung.tasks.classification.network_training import (
    LabelledTexts,
    Training,
    device,
    faster_precision,
    seconds_per_step,
    tuning_rate,
)
from rung.tasks.classification.sequence_folder import FolderNetworks
from rung.tasks.classification.task import ClassificationTask
from rung.tasks.classification.tuning_recipe import ClassifyRecipe
from rung.training.contracts import LoopSettings, Precision
from rung.training.machine import has_bf16_instructions, usable_cores

_LENGTH_SHARE = 0.98
"""Texts longer than this share of the training texts are cut to its length."""
_MOST_EPOCHS = {"full": 10.0, "lora": 20.0, "frozen": 1.0}
_FEWEST_VALIDATIONS, _MOST_VALIDATIONS = 4, 10
_STEPS_BETWEEN = 25  # at least: a checkpoint takes as long as some steps
_FORWARD_SHARE = 0.35  # of a training step, to score as many texts
_FILES_SECONDS = 4.0  # checkpoints, hashes, the card


@dataclass(frozen=True)
class TuningPlan:
    """A recipe without gaps, and what it comes to: `trained` of the `parameters` move.

    `seconds` of training and `seconds_after` it, for measuring and files, are forecasts; None and 0 without a clock.
    """

    recipe: ClassifyRecipe
    parameters: int
    trained: int
    items: int
    seconds: float | None = None
    seconds_after: float = 0.0

    @property
    def training(self) -> Training:
        """The recipe in the form that training takes."""
        return training_of(self.recipe)

    @property
    def settings(self) -> LoopSettings:
        """What the loop is told."""
        return loop_settings(self.recipe, self.items, validated=True)

    def lines(self) -> list[str]:
        """The plan for people."""
        training, settings = self.recipe.training, self.settings
        method = self.recipe.tuning.kind
        lines = [
            f"{self.trained:,} of {self.parameters:,} parameters are trained ({method}); texts are read up to "
            f"{training.max_length} tokens."
        ]
        if method == "frozen":
            return [*lines, "The body stays as it is; logistic regression on its states is solved for the head."]
        steps, epochs = settings.schedule.steps, settings.schedule.steps * settings.batch_size / self.items
        taken = "" if self.seconds is None else f", about {self.seconds:,.0f} s"
        lines.append(
            f"{steps:,} steps of {settings.batch_size} texts ({epochs:.1f} times over {self.items:,}) in "
            f"{training.precision}, learning rate {self.recipe.learning_rate:g}{taken}."
        )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the run folder and `--json`."""
        return {
            "parameters": self.parameters,
            "trained_parameters": self.trained,
            "items": self.items,
            "steps": 0 if self.recipe.tuning.kind == "frozen" else self.settings.schedule.steps,
            "seconds": self.seconds,
            "recipe": self.recipe.to_json(),
        }


def training_of(recipe: ClassifyRecipe) -> Training:
    """The part of a recipe that networks are trained by."""
    wanted = recipe.training
    return Training(
        epochs=wanted.epochs or 0.0,
        batch_size=wanted.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=wanted.weight_decay,
        least_steps=1,
        warmup_share=wanted.warmup_share,
        decay_share=wanted.decay_share,
        patience=None,
        precision=wanted.precision or "fp32",
        steps=wanted.steps,
    )


def loop_settings(recipe: ClassifyRecipe, items: int, *, validated: bool) -> LoopSettings:
    """What the loop is told: a checkpoint with every validation, so that the best weights are those of one."""
    settings = training_of(recipe).settings(items, seed=recipe.seed, validated=validated)
    steps = settings.schedule.steps
    epochs = round(steps * settings.batch_size / items)
    usual = min(max(epochs, _FEWEST_VALIDATIONS), _MOST_VALIDATIONS, max(1, steps // _STEPS_BETWEEN))
    every = math.ceil(steps / (recipe.training.validations or usual))
    return replace(settings, validate_every=every if validated else None, checkpoint_every=every)


def start_of(recipe: ClassifyRecipe, family: FolderNetworks, task: ClassificationTask) -> Start:
    """The network with its new head, ready to be tuned by the family's method, and its tokenizer."""
    return family.start(task, {}, np.arange(0), seed=recipe.seed, progress=SILENT)


def encoded(start: Start, items: LabelledItems, max_length: int) -> LabelledTexts:
    """Texts as the network reads them."""
    return LabelledTexts(start.encoder.encode(items.texts, max_length=max_length), items.labels)


def make_plan(
    recipe: ClassifyRecipe, family: FolderNetworks, task: ClassificationTask, *, seconds: float | None
) -> TuningPlan:
    """Fill the gaps of `recipe`; with `seconds` (for training and all that follows) by timing a few real steps.

    Without, no clock is read: bfloat16 is taken where the processor multiplies it. PlanError when not one step fits.
    """
    items = task.items["train"]
    start = start_of(recipe, family, task)
    lengths = start.encoder.encode(items.texts, max_length=family.longest).lengths
    longest = min(recipe.training.max_length or family.longest, family.longest)
    max_length = min(longest, int(np.quantile(lengths, _LENGTH_SHARE, method="higher")))
    usual = tuning_rate(recipe.tuning.kind, start.net.head.in_features)
    recipe = recipe.with_overrides(
        {
            "training.max_length": max_length,
            "training.threads": recipe.training.threads or usable_cores(),
            "training.learning_rate": recipe.training.learning_rate or usual or None,
        }
    )
    whole = count(start.net), count(start.net, trained=True), len(items)
    if recipe.tuning.kind == "frozen":
        return TuningPlan(recipe.with_overrides({"training.precision": "fp32"}), *whole)
    if seconds is None:
        precision: Precision = "bf16" if has_bf16_instructions() or device().type == "cuda" else "fp32"
        return TuningPlan(recipe.with_overrides({"training.precision": recipe.training.precision or precision}), *whole)
    precision, step = _timed(recipe, start, items, max_length)
    batch = training_of(recipe).batch_of(len(items))
    scored = (2 * len(task.items["valid"]) + len(task.items["test"])) / batch  # the last validation, and the outcome
    after = _FILES_SECONDS + _FORWARD_SHARE * step * scored
    validating = _FORWARD_SHARE * step * len(task.items["valid"]) / batch * _FEWEST_VALIDATIONS
    left = seconds - after - validating
    steps = min(int(left / step), math.ceil(_MOST_EPOCHS[recipe.tuning.kind] * len(items) / batch))
    if steps < 1:
        raise PlanError(
            f"no step of training fits into {max(0.0, seconds):.0f} s: one takes {step:.2f} s, and measuring the "
            f"outcome about {after + validating:.0f} s",
            hint="give more --minutes, or tune --frozen",
        )
    recipe = recipe.with_overrides({"training.precision": precision, "training.steps": steps, "training.minutes": None})
    return TuningPlan(recipe, *whole, seconds=steps * step, seconds_after=after)


def _timed(recipe: ClassifyRecipe, start: Start, items: LabelledItems, max_length: int) -> tuple[Precision, float]:
    """The faster precision (or the one that is asked for), and its seconds a step."""
    train, training = encoded(start, items, max_length), training_of(recipe)
    batch = training.batch_of(len(items))
    batches = LabelBatches(
        train.texts, train.labels, pad_token_id=start.encoder.pad_token_id, batch_size=batch, seed=recipe.seed
    )
    net = start.net.to(device())

    def timed(precision: Precision) -> float:
        wanted = replace(training, precision=precision, steps=1)
        settings = wanted.settings(len(items), seed=recipe.seed, validated=False)
        return seconds_per_step(net, Classification(), batches, settings, wanted, samples=len(items))

    asked = recipe.training.precision
    return faster_precision(timed) if asked is None else (asked, timed(asked))


def count(net: nn.Module | Classifier, *, trained: bool = False) -> int:
    """Numbers of a network; those that are trained."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad or not trained)
