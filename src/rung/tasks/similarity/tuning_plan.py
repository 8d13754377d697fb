"""What tuning a sentence encoder will do: which loss, how texts are cut, how many steps there are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rung.data.related_batches import RelatedBatches
from rung.data.related_texts import RelatedSplit, RelatedTexts
from rung.data.text_encoder import EncodedTexts
from rung.errors import DataError, PlanError, UsageError
from rung.nets.sentence_encoder import SentenceNet
from rung.objectives.similarity import WHOLE_BATCH, CoSent, CosineRegression, MultipleNegatives
from rung.tasks.classification.network_training import Training, device, faster_precision, seconds_per_step
from rung.tasks.similarity.encoder import SentenceEncoder
from rung.tasks.similarity.tuning_recipe import SimilarityRecipe
from rung.training.contracts import LoopSettings, Objective, Precision
from rung.training.machine import has_bf16_instructions, usable_cores

_LENGTH_SHARE = 0.99
"""Texts longer than this share of the training texts are cut to its length."""
_MOST_EPOCHS = {"full": 10.0, "lora": 20.0}
_FORWARD_SHARE = 0.35  # of a training step, to embed as many texts
_FILES_SECONDS = 6.0  # checkpoints, hashes, intervals, the card


@dataclass(frozen=True)
class SimilarityPlan:
    """A recipe without gaps, and what it comes to: `trained` of the `parameters` move; `kind` is that of the rows.

    `truncated` counts training texts that are cut. `seconds` of training and `seconds_after` it, for measuring and
    files, are forecasts; None and 0 without a clock.
    """

    recipe: SimilarityRecipe
    kind: str
    parameters: int
    trained: int
    rows: int
    truncated: int
    seconds: float | None = None
    seconds_after: float = 0.0

    def lines(self) -> list[str]:
        """The plan for people."""
        training, settings = self.recipe.training, loop_settings(self.recipe, self.rows)
        steps = settings.schedule.steps
        taken = "" if self.seconds is None else f", about {self.seconds:,.0f} s"
        return [
            f"{self.trained:,} of {self.parameters:,} parameters are trained ({self.recipe.tuning.kind}) on "
            f"{self.rows:,} {self.kind}, loss {training.loss}.",
            f"Texts are read up to {training.max_length} tokens; {self.truncated:,} are longer and cut there.",
            f"{steps:,} steps of {settings.batch_size} rows ({steps * settings.batch_size / self.rows:.1f} times over "
            f"all) in {training.precision}, learning rate {self.recipe.learning_rate:g}{taken}.",
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the run folder and `--json`."""
        return {
            "kind": self.kind,
            "parameters": self.parameters,
            "trained_parameters": self.trained,
            "rows": self.rows,
            "truncated": self.truncated,
            "steps": loop_settings(self.recipe, self.rows).schedule.steps,
            "seconds": self.seconds,
            "recipe": self.recipe.to_json(),
        }


def training_of(recipe: SimilarityRecipe) -> Training:
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


def loop_settings(recipe: SimilarityRecipe, rows: int) -> LoopSettings:
    """What the loop is told. A micro-batch is the whole batch, whose rows are compared with each other."""
    settings = training_of(recipe).settings(rows, seed=recipe.seed, validated=True)
    every = math.ceil(settings.schedule.steps / recipe.training.validations)
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
        batch_size=training_of(recipe).batch_of(len(rows)),
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
    made = SimilarityPlan(
        recipe,
        rows.kind,
        count(model.net),
        count(model.net, trained=True),
        len(rows),
        sum(column.truncated for column in columns),
    )
    if seconds is None:
        precision: Precision = "bf16" if has_bf16_instructions() or device().type == "cuda" else "fp32"
        chosen = recipe.training.precision or precision
        return replace(made, recipe=recipe.with_overrides({"training.precision": chosen}))
    precision, step = _timed(recipe, model, rows, columns)
    batch = training_of(recipe).batch_of(len(rows))
    scoring = _FORWARD_SHARE * step / batch
    after = _FILES_SECONDS + scoring * 2 * len(split.test)  # before and after tuning
    left = seconds - after - scoring * len(split.valid) * recipe.training.validations
    steps = min(int(left / step), math.ceil(_MOST_EPOCHS[recipe.tuning.kind] * len(rows) / batch))
    if steps < 1:
        raise PlanError(
            f"no step of training fits into {max(0.0, seconds):.0f} s: one takes {step:.2f} s, and measuring the "
            f"outcome about {seconds - left:.0f} s",
            hint="give more --minutes",
        )
    recipe = recipe.with_overrides({"training.precision": precision, "training.steps": steps, "training.minutes": None})
    return replace(made, recipe=recipe, seconds=steps * step, seconds_after=after)


def _loss(recipe: SimilarityRecipe, rows: RelatedTexts) -> str:
    asked = recipe.training.loss
    if asked is None:
        return "ranking" if rows.scores is None else "cosent"
    if (asked == "ranking") != (rows.scores is None):
        raise UsageError(
            f"the loss {asked} does not suit {rows.kind}",
            hint="cosent and cosine are for pairs with a score, ranking for pairs without one and for triplets",
        )
    return asked


def _timed(
    recipe: SimilarityRecipe, model: SentenceEncoder, rows: RelatedTexts, columns: list[EncodedTexts]
) -> tuple[Precision, float]:
    """The faster precision (or the one that is asked for), and its seconds a step."""
    training, batches = training_of(recipe), batches_of(recipe, model, rows, columns)
    net = model.net.to(device())

    def timed(precision: Precision) -> float:
        wanted = replace(training, precision=precision, steps=1)
        settings = wanted.settings(len(rows), seed=recipe.seed, validated=False)
        return seconds_per_step(net, objective_of(recipe, rows), batches, settings, wanted, samples=len(rows))

    asked = recipe.training.precision
    return faster_precision(timed) if asked is None else (asked, timed(asked))


def count(net: SentenceNet, *, trained: bool = False) -> int:
    """Numbers of a network; those that are trained."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad or not trained)
