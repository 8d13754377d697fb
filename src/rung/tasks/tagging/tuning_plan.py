"""What tuning a tagger will do: how many steps there are, in which precision; timed where there is a clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from rung.data.tag_batches import TagBatches, WordTokens
from rung.data.tagged_sentences import TaggedSplit
from rung.data.text_encoder import TextEncoder
from rung.nets.tagger import Tagger
from rung.objectives.token_classification import TokenClassification
from rung.tasks.classification.network_training import Training, device, timed_step, training_of
from rung.tasks.tagging.tuning_recipe import TagRecipe
from rung.tasks.tuning.plan import TuningPlan, count, steps_within, usual_precision
from rung.training.machine import usable_cores

VALIDATIONS = 5
_MOST_EPOCHS = 20.0
_FORWARD_SHARE = 0.4  # of a training step, to tag as many sentences
_FILES_SECONDS = 3.0


@dataclass(frozen=True)
class TagData:
    """Sentences in three parts; their tags, which are those of training sentences, for a tag that occurs in test
    sentences only could never be learned; and training sentences as tokens.
    """

    split: TaggedSplit
    encoder: TextEncoder
    train: WordTokens

    @property
    def tags(self) -> tuple[str, ...]:
        """What is told apart."""
        return self.split.train.tag_names

    def batches(self, recipe: TagRecipe) -> TagBatches:
        """Training sentences as the loop takes them."""
        number = {tag: place for place, tag in enumerate(self.tags)}
        tags = np.array([number[tag] for sentence in self.split.train.tags for tag in sentence], dtype=np.int64)
        return TagBatches(
            self.train,
            self.train.labels(tags),
            pad_token_id=self.encoder.pad_token_id,
            batch_size=self.training(recipe).batch_of(len(self.train.pieces)),
            seed=recipe.seed,
        )

    @staticmethod
    def training(recipe: TagRecipe) -> Training:
        """How the network is trained."""
        return training_of(recipe.training, recipe.learning_rate)


@dataclass(frozen=True, kw_only=True)
class TagPlan(TuningPlan[TagRecipe]):
    """The plan of tuning a tagger."""

    sentences: int
    batch_size: int

    def lines(self) -> list[str]:
        """The plan for people."""
        readings = self.steps * self.batch_size / self.sentences
        return [
            f"{self.what_moves}.",
            f"{self.steps:,} steps of {self.batch_size} sentences ({readings:.1f} times over {self.sentences:,}) "
            f"{self.how}.",
        ]

    def facts(self) -> dict[str, Any]:
        """How many sentences there are, and in a step."""
        return {"sentences": self.sentences, "batch_size": self.batch_size}


def make_plan(recipe: TagRecipe, data: TagData, net: Tagger, *, seconds: float | None) -> TagPlan:
    """Fill the gaps of `recipe`, with `seconds` by timing a few steps of `net`. PlanError when not one step fits."""
    recipe = recipe.with_overrides(
        {
            "training.threads": recipe.training.threads or usable_cores(),
            "training.learning_rate": recipe.learning_rate,
        }
    )
    training, samples = data.training(recipe), len(data.train.pieces)
    batch = training.batch_of(samples)
    steps = training.steps or math.ceil(training.epochs * samples / batch)
    precision = recipe.training.precision or usual_precision(device())
    taken, after = None, 0.0
    if seconds is not None:
        precision, step = timed_step(
            net, TokenClassification(), data.batches(recipe), training,
            asked=recipe.training.precision, samples=samples, seed=recipe.seed,
        )  # fmt: skip
        tagging = _FORWARD_SHARE * step / batch
        after = _FILES_SECONDS + tagging * (len(data.split.valid) + len(data.split.test))
        validating = tagging * VALIDATIONS * len(data.split.valid)
        steps = steps_within(seconds, step=step, around=after + validating, most=_MOST_EPOCHS * samples / batch)
        taken = steps * step
    changes = {"steps": steps, "precision": precision, "epochs": None, "minutes": None}
    return TagPlan(
        recipe=recipe.with_overrides({f"training.{name}": value for name, value in changes.items()}),
        parameters=count(net),
        trained=count(net, trained=True),
        sentences=samples,
        batch_size=batch,
        seconds=taken,
        seconds_after=after,
    )
