"""What tuning a classifier will do: how texts are cut, how many steps there are, in which precision."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rung.data.label_batches import LabelBatches
from rung.data.labelled import LabelledItems
from rung.objectives.classification import Classification
from rung.progress import SILENT
from rung.tasks.classification.families import Start
from rung.tasks.classification.network_training import (
    LabelledTexts,
    device,
    timed_step,
    training_of,
    tuning_rate,
)
from rung.tasks.classification.sequence_folder import FolderNetworks
from rung.tasks.classification.task import ClassificationTask
from rung.tasks.classification.tuning_recipe import ClassifyRecipe
from rung.tasks.tuning.plan import TuningPlan, count, steps_within, usual_precision
from rung.training.contracts import LoopSettings, Precision
from rung.training.machine import usable_cores

_LENGTH_SHARE = 0.98
"""Texts longer than this share of the training texts are cut to its length."""
_MOST_EPOCHS = {"full": 10.0, "lora": 20.0, "frozen": 1.0}
_FEWEST_VALIDATIONS, _MOST_VALIDATIONS = 4, 10
_STEPS_BETWEEN = 25  # at least: a checkpoint takes as long as some steps
_FORWARD_SHARE = 0.35  # of a training step, to score as many texts
_FILES_SECONDS = 4.0  # checkpoints, hashes, the card


@dataclass(frozen=True, kw_only=True)
class ClassifierPlan(TuningPlan[ClassifyRecipe]):
    """The plan of tuning a classifier on so many `texts`, `batch_size` of them a step."""

    texts: int
    batch_size: int

    def lines(self) -> list[str]:
        """The plan for people."""
        first = f"{self.what_moves}; texts are read up to {self.recipe.training.max_length} tokens."
        if self.recipe.tuning.kind == "frozen":
            return [first, "The body stays as it is; logistic regression on its states is solved for the head."]
        readings = self.steps * self.batch_size / self.texts
        return [
            first,
            f"{self.steps:,} steps of {self.batch_size} texts ({readings:.1f} times over {self.texts:,}) {self.how}.",
        ]

    def facts(self) -> dict[str, Any]:
        """How many texts there are, and in a step."""
        return {"texts": self.texts, "batch_size": self.batch_size}


def loop_settings(recipe: ClassifyRecipe, items: int, *, validated: bool) -> LoopSettings:
    """What the loop is told: a checkpoint with every validation, so that the best weights are those of one."""
    settings = training_of(recipe.training, recipe.learning_rate).settings(items, seed=recipe.seed, validated=validated)
    steps = settings.schedule.steps
    epochs = round(steps * settings.batch_size / items)
    usual = min(max(epochs, _FEWEST_VALIDATIONS), _MOST_VALIDATIONS, max(1, steps // _STEPS_BETWEEN))
    every = math.ceil(steps / (recipe.training.validations or usual))
    return replace(settings, validate_every=every if validated else None, checkpoint_every=every)


def start_of(recipe: ClassifyRecipe, family: FolderNetworks, task: ClassificationTask) -> Start:
    """The network with its new head, ready to be tuned by the family's method, and its tokenizer."""
    return family.start(task, {}, np.arange(0), seed=recipe.seed, progress=SILENT)


def encoded(start: Start, items: LabelledItems, recipe: ClassifyRecipe) -> LabelledTexts:
    """Texts as the network reads them, by a recipe without gaps."""
    return LabelledTexts(start.encoder.encode(items.texts, max_length=recipe.training.max_length), items.labels)


def make_plan(
    recipe: ClassifyRecipe, family: FolderNetworks, task: ClassificationTask, *, seconds: float | None
) -> ClassifierPlan:
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
            "training.learning_rate": recipe.learning_rate or usual or None,
        }
    )
    training = training_of(recipe.training, recipe.learning_rate)
    batch = training.batch_of(len(items))
    precision = recipe.training.precision or usual_precision(device())
    steps: int | None = training.settings(len(items), seed=0, validated=False).schedule.steps
    taken, after = None, 0.0
    if recipe.tuning.kind == "frozen":
        precision, steps = "fp32", None
    elif seconds is not None:
        precision, step = _timed(recipe, start, items)
        scored = 2 * len(task.items["valid"]) + len(task.items["test"])  # the last validation, and the outcome
        after = _FILES_SECONDS + _FORWARD_SHARE * step * scored / batch
        validating = _FORWARD_SHARE * step * len(task.items["valid"]) / batch * _FEWEST_VALIDATIONS
        steps = steps_within(
            seconds,
            step=step,
            around=after + validating,
            most=_MOST_EPOCHS[recipe.tuning.kind] * len(items) / batch,
            hint="give more --minutes, or tune --frozen",
        )
        taken = steps * step
    changes = {"precision": precision, "steps": steps, "epochs": None, "minutes": None}
    return ClassifierPlan(
        recipe=recipe.with_overrides({f"training.{name}": value for name, value in changes.items()}),
        parameters=count(start.net),
        trained=count(start.net, trained=True),
        texts=len(items),
        batch_size=batch,
        seconds=taken,
        seconds_after=after,
    )


def _timed(recipe: ClassifyRecipe, start: Start, items: LabelledItems) -> tuple[Precision, float]:
    """The precision to train in, and its seconds a step."""
    train, training = encoded(start, items, recipe), training_of(recipe.training, recipe.learning_rate)
    batches = LabelBatches(
        train.texts,
        train.labels,
        pad_token_id=start.encoder.pad_token_id,
        batch_size=training.batch_of(len(items)),
        seed=recipe.seed,
    )
    asked, net = recipe.training.precision, start.net.to(device())
    return timed_step(net, Classification(), batches, training, asked=asked, samples=len(items), seed=recipe.seed)
