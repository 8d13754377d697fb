"""What tuning on pairs will do: steps, precision, test pairs to measure; timed where there is a clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import numpy as np
import torch

from rung.data.pair_batches import EncodedPairs, HeldOutPairs, PairBatches
from rung.data.pairs import PairSplit
from rung.nets.encoder_decoder_folder import SequenceNet
from rung.objectives.sequence_to_sequence import SequenceToSequence
from rung.tasks.rewriting.preparation import fitting_pairs
from rung.tasks.rewriting.tuning_base import TuningBase
from rung.tasks.rewriting.tuning_recipe import RewriteTuningRecipe, usual_rate
from rung.tasks.tuning.method import apply_method
from rung.tasks.tuning.plan import TuningPlan, count, steps_within, usual_precision
from rung.tasks.tuning.stepping import optimizer_of, with_steps
from rung.training.gradients import autocast, to_device
from rung.training.machine import usable_cores

_CHECKPOINTS = 6
_MOST_EPOCHS = 8.0  # with a clock: few pairs are soon known by heart
_WRITING_SHARE = 0.12  # of the time, for each of the two measurements on test pairs
_PROBED = 16  # test sources by which the time of writing is estimated
_FEWEST_MEASURED = 20
_FILES_SECONDS = 3.0
_TIMED = 3


@dataclass(frozen=True)
class TuningPairs:
    """The pairs in three parts, and what training reads of them in the base's tokens, prefix included."""

    split: PairSplit
    train: EncodedPairs
    valid: EncodedPairs
    remarks: tuple[str, ...]

    @classmethod
    def encode(cls, recipe: RewriteTuningRecipe, base: TuningBase, split: PairSplit) -> TuningPairs:
        """Leave out what is longer than the network reads. DataError when nothing is left."""
        longest = min(
            recipe.training.longest or base.config.max_position_embeddings, base.config.max_position_embeddings
        )
        remarks = list(split.remarks)

        def encoded(name: Literal["training", "validation"]) -> EncodedPairs:
            part = split.train if name == "training" else split.valid
            sources = base.tokenizer.encode([recipe.pairs.prefix + text for text in part.sources])
            pairs = EncodedPairs(sources, base.tokenizer.encode_targets(part.targets))
            return fitting_pairs(pairs, longest, name, remarks, hint="take a base that reads longer texts")

        return cls(split, encoded("training"), encoded("validation"), tuple(remarks))

    def batches(self, recipe: RewriteTuningRecipe, base: TuningBase) -> PairBatches:
        """The training pairs as the loop takes them."""
        return PairBatches(
            self.train,
            tokens=recipe.training.tokens_per_batch,
            pad_token_id=base.config.pad_token_id,
            start_token_id=base.settings.rules.start,
            seed=recipe.seed,
        )

    def held_out(self, recipe: RewriteTuningRecipe, base: TuningBase) -> HeldOutPairs:
        """The validation pairs, once."""
        return HeldOutPairs(
            self.valid,
            tokens=recipe.training.tokens_per_batch,
            pad_token_id=base.config.pad_token_id,
            start_token_id=base.settings.rules.start,
        )


@dataclass(frozen=True, kw_only=True)
class RewriteTuningPlan(TuningPlan[RewriteTuningRecipe]):
    """The plan of tuning on so many `pairs`."""

    pairs: int
    epochs: float
    remarks: tuple[str, ...]

    def lines(self) -> list[str]:
        """The plan for people."""
        training = self.recipe.training
        return [
            *self.remarks,
            f"{self.what_moves}.",
            f"{self.steps:,} steps of about {training.tokens_per_batch:,} tokens a side ({self.epochs:.1f} times over "
            f"{self.pairs:,} pairs) {self.how}.",
            f"Measured before and after on {training.measured:,} test pairs with {self.recipe.beam.num_beams} beams.",
        ]

    def facts(self) -> dict[str, Any]:
        """How many pairs there are, how often they are read, and what was left out."""
        return {"pairs": self.pairs, "epochs": self.epochs, "remarks": list(self.remarks)}


def make_plan(
    recipe: RewriteTuningRecipe, base: TuningBase, pairs: TuningPairs, device: torch.device, *, seconds: float | None
) -> RewriteTuningPlan:
    """Fill the gaps of `recipe`; with `seconds` for all that is left, by timing real steps and some writing.

    Without `seconds` no clock is read: bfloat16 is taken where the processor multiplies it. PlanError when not one step
    fits.
    """
    training, beam = recipe.training, base.beam(recipe)
    recipe = recipe.with_overrides(
        {
            "training.precision": training.precision or usual_precision(device),
            "training.threads": training.threads or usable_cores(),
            "training.learning_rate": training.learning_rate or usual_rate(recipe.tuning, base.config.hidden_size),
            "beam.num_beams": beam.num_beams,
            "beam.length_penalty": beam.length_penalty,
        }
    )
    net = new_network(recipe, base, device)
    per_epoch, measured = len(pairs.batches(recipe, base)), len(pairs.split.test)
    after, forecast = 0.0, None
    if seconds is None:
        steps = training.steps or max(1, round((training.epochs or 1.0) * per_epoch))
    else:
        one = _seconds_of_text(recipe, base, pairs, device)
        measured = min(measured, max(_FEWEST_MEASURED, int(_WRITING_SHARE * seconds / one)))
        after = 2 * measured * one + _FILES_SECONDS
        step = _seconds_of_step(recipe, base, pairs, net, device)
        steps = steps_within(seconds, step=step, around=after, most=_MOST_EPOCHS * per_epoch)
        forecast = steps * step
    measured = min(training.measured or measured, measured)
    recipe = with_steps(recipe, steps, validations=_CHECKPOINTS).with_overrides({"training.measured": measured})
    return RewriteTuningPlan(
        recipe=recipe,
        parameters=base.parameters,
        trained=count(net, trained=True),
        pairs=len(pairs.train),
        epochs=steps / per_epoch,
        remarks=pairs.remarks,
        seconds=forecast,
        seconds_after=after,
    )


def new_network(recipe: RewriteTuningRecipe, base: TuningBase, device: torch.device) -> SequenceNet:
    """The base ready to be tuned."""
    net = base.network(dropout=recipe.training.dropout)
    apply_method(net, recipe.tuning, seed=recipe.seed)
    return net.to(device)


def _seconds_of_text(recipe: RewriteTuningRecipe, base: TuningBase, pairs: TuningPairs, device: torch.device) -> float:
    """Seconds to write a test text, from writing a few."""
    rewriter = base.rewriter(base.network(dropout=0.0).to(device), recipe, base.settings)
    encoded = rewriter.encode(pairs.split.test.sources[: 4 * _PROBED])
    fits = np.flatnonzero(encoded.lengths <= rewriter.context_length)[:_PROBED].tolist()
    sources = [pairs.split.test.sources[place] for place in fits]
    began = time.perf_counter()
    rewriter.rewrite(sources)
    return (time.perf_counter() - began) / max(len(sources), 1)


def _seconds_of_step(
    recipe: RewriteTuningRecipe, base: TuningBase, pairs: TuningPairs, net: SequenceNet, device: torch.device
) -> float:
    """The median of real steps on batches of an epoch, which move nothing."""
    optimizer, batches = optimizer_of(net, recipe), pairs.batches(recipe, base)
    objective = SequenceToSequence(recipe.training.label_smoothing)
    net.train()
    times = []
    for number in range(1 + _TIMED):
        began = time.perf_counter()
        batch = to_device(device, batches.batch(np.array([number % len(batches)])))
        with autocast(recipe.training.precision or "fp32", device):
            loss = objective(net, batch)
        loss.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step(0.0)
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return median(times[1:])
