"""What tuning a sentence encoder will do: which loss, how texts are cut, how many steps there are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rung.data.related_batches import RelatedBatches
from rung.data.related_texts import RelatedSplit, RelatedTexts
from rung.data.text_encoder import EncodedTexts
from rung.errors import DataError, UsageError
from rung.objectives.similarity import WHOLE_BATCH, CoSent, CosineRegression, MultipleNegatives
from rung.tasks.classification.network_training import device, timed_step, training_of
from rung.tasks.similarity.encoder import SentenceEncoder
from rung.tasks.similarity.tuning_recipe import SimilarityRecipe
from rung.tasks.tuning.plan import TuningPlan, count, steps_within, usual_precision
from rung.training.contracts import LoopSettings, Objective
from rung.training.machine import usable_cores

_LENGTH_SHARE = 0.99
"""Texts longer than this share of the training texts are cut to its length."""
_MOST_EPOCHS = {"full": 10.0, "lora": 20.0}
_VALIDATIONS = 8
_FORWARD_SHARE = 0.35  # of a training step, to embed as many texts
_FILES_SECONDS = 6.0  # checkpoints, hashes, intervals, the card


@dataclass(frozen=True, kw_only=True)
class SimilarityPlan(TuningPlan[SimilarityRecipe]):
    """The plan of tuning on so many `rows` of a `kind`. `truncated` counts training texts that are cut."""

    kind: str
    rows: int
    batch_size: int
    truncated: int

    def lines(self) -> list[str]:
        """The plan for people."""
        training, readings = self.recipe.training, self.steps * self.batch_size / self.rows
        return [
            f"{self.what_moves} on {self.rows:,} {self.kind}, loss {training.loss}.",
            f"Texts are read up to {training.max_length} tokens; {self.truncated:,} are longer and cut there.",
            f"{self.steps:,} steps of {self.batch_size} rows ({readings:.1f} times over all) {self.how}.",
        ]

    def facts(self) -> dict[str, Any]:
        """What the rows are and how many, of a step too, and how many texts are cut."""
        names = ("kind", "rows", "batch_size", "truncated")
        return {name: getattr(self, name) for name in names}


def loop_settings(recipe: SimilarityRecipe, rows: int) -> LoopSettings:
    """What the loop is told. A micro-batch is the whole batch, whose rows are compared with each other."""
    settings = training_of(recipe.training, recipe.learning_rate).settings(rows, seed=recipe.seed, validated=True)
    every = math.ceil(settings.schedule.steps / (recipe.training.validations or _VALIDATIONS))
    return replace(settings, validate_every=every, checkpoint_every=every)


def objective_of(recipe: SimilarityRecipe, rows: RelatedTexts) -> Objective:
    """The loss that the recipe names, for the scores that `rows` have."""
    match recipe.training.loss:
        case "cosent":
            return CoSent()
        case "cosine" if rows.scores is not None:
            return CosineRegression(float(rows.scores.min()), float(rows.scores.max()))
        case _:
            return MultipleNegatives()


def encoded(model: SentenceEncoder, rows: RelatedTexts, max_length: int) -> list[EncodedTexts]:
    """Each column of `rows` as the network reads it."""
    return [model.encoder.encode(column, max_length=max_length) for column in rows.columns]


def batches_of(
    recipe: SimilarityRecipe, model: SentenceEncoder, rows: RelatedTexts, columns: list[EncodedTexts]
) -> RelatedBatches:
    """Training batches of encoded rows."""
    return RelatedBatches(
        columns,
        scores=rows.scores if recipe.training.loss != "ranking" else None,
        texts=rows.comparable(),
        pad_token_id=model.encoder.pad_token_id,
        batch_size=training_of(recipe.training, recipe.learning_rate).batch_of(len(rows)),
        compared=recipe.training.loss in WHOLE_BATCH,
        seed=recipe.seed,
    )


def make_plan(
    recipe: SimilarityRecipe, model: SentenceEncoder, split: RelatedSplit, *, seconds: float | None
) -> SimilarityPlan:
    """Fill the gaps of `recipe`; with `seconds` (for training and all that follows) by timing a few real steps.

    `model` has been given the recipe's method. Without `seconds` no clock is read: bfloat16 is taken where the
    processor multiplies it. Raises PlanError when not one step fits, UsageError for a loss that the rows do not suit.
    """
    rows = split.train
    if len(rows) < 2:
        raise DataError(f"{len(rows)} rows are too few: they are compared with each other", hint="give more rows")
    loss = _loss(recipe, rows)
    longest = min(recipe.training.max_length or model.max_length, model.max_length)
    lengths = np.concatenate([column.lengths for column in encoded(model, rows, longest)])
    max_length = int(np.quantile(lengths, _LENGTH_SHARE, method="higher"))
    columns = encoded(model, rows, max_length)
    recipe = recipe.with_overrides(
        {
            "training.loss": loss,
            "training.max_length": max_length,
            "training.threads": recipe.training.threads or usable_cores(),
            "training.learning_rate": recipe.learning_rate,
        }
    )
    training = training_of(recipe.training, recipe.learning_rate)
    batch = training.batch_of(len(rows))
    steps = training.settings(len(rows), seed=0, validated=True).schedule.steps
    precision = recipe.training.precision or usual_precision(device())
    taken, after = None, 0.0
    if seconds is not None:
        net, objective = model.net.to(device()), objective_of(recipe, rows)
        precision, step = timed_step(
            net,
            objective,
            batches_of(recipe, model, rows, columns),
            training,
            asked=recipe.training.precision,
            samples=len(rows),
            seed=recipe.seed,
        )
        scoring = _FORWARD_SHARE * step / batch
        after = _FILES_SECONDS + scoring * 2 * len(split.test)  # before and after tuning
        validating = scoring * len(split.valid) * (recipe.training.validations or _VALIDATIONS)
        most = _MOST_EPOCHS[recipe.tuning.kind] * len(rows) / batch
        steps = steps_within(seconds, step=step, around=after + validating, most=most)
        taken = steps * step
    changes = {"precision": precision, "steps": steps, "epochs": None, "minutes": None}
    return SimilarityPlan(
        recipe=recipe.with_overrides({f"training.{name}": value for name, value in changes.items()}),
        parameters=count(model.net),
        trained=count(model.net, trained=True),
        kind=rows.kind,
        rows=len(rows),
        batch_size=batch,
        truncated=sum(column.truncated for column in columns),
        seconds=taken,
        seconds_after=after,
    )


def _loss(recipe: SimilarityRecipe, rows: RelatedTexts) -> str:
    """The loss that is asked for, or the usual one.

    MiniLM on STSb, dev Spearman 0.867 at the start, 2e-5, batches of 16: cosine 0.882 after 80 steps (of 80), CoSENT
    0.864 after 100 and 0.858 after 200 (of 200). At 5e-6 and batches of 32 CoSENT has 0.870 after 30 (of 60).
    """
    asked = recipe.training.loss
    if asked is None:
        return "ranking" if rows.scores is None else "cosine"
    if (asked == "ranking") != (rows.scores is None):
        raise UsageError(
            f"the loss {asked} does not suit {rows.kind}",
            hint="cosent and cosine are for pairs with a score, ranking for pairs without one and for triplets",
        )
    return asked
