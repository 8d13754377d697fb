"""What tuning a language model on raw text will do: rows, steps, precision; timed where there is a clock."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from rung.nets.body import carries_state
from rung.nets.language_models import Net
from rung.objectives.next_token import NextToken
from rung.tasks.text.tuning_recipe import TextTuningRecipe
from rung.tasks.tuning.plan import TuningPlan, count, steps_within, usual_precision
from rung.tasks.tuning.stepping import optimizer_of, with_steps
from rung.training.machine import usable_cores
from rung.training.precision import bf16_is_faster

_ROWS = 8
_CONTEXT = 512  # tokens of a row where the base could take more: long rows are slow, and most text does not need them
_MICRO_TOKENS = 2048  # of a forward pass: enough for products to be fast
_FEWEST_STEPS = 60  # a short run takes fewer rows a step until it has so many
_MOST_EPOCHS = 4.0  # more readings of a text bring little (Muennighoff et al. 2023, arXiv 2305.16264)
_CHECKPOINTS = 4
_EVALUATION_SHARE = 0.12  # of the time, for each of the two measurements on held-out text
_EVALUATION_BYTES = 100_000  # without a clock
_FILES_SECONDS = 4.0
_TIMED = 3
_TIMED_TOKENS = 512
VALIDATION_ROWS = 8
_LOOKED_AT = 200  # steps from which on vital signs are worth their first look, which takes as long as a few steps


@dataclass(frozen=True, kw_only=True)
class TextTuningPlan(TuningPlan[TextTuningRecipe]):
    """The plan of tuning on so many `tokens`."""

    tokens: int

    @property
    def epochs(self) -> float:
        """Readings of the text."""
        training = self.recipe.training
        return self.steps * training.rows * (training.context_length or 1) / self.tokens

    def lines(self) -> list[str]:
        """The plan for people."""
        training = self.recipe.training
        return [
            f"{self.what_moves}.",
            f"{self.steps:,} steps of {training.batch_size} rows of {training.context_length} tokens "
            f"({self.epochs:.2f} times over {self.tokens:,}) {self.how}.",
        ]

    def facts(self) -> dict[str, Any]:
        """How many tokens there are, and how often they are read."""
        return {"tokens": self.tokens, "epochs": self.epochs}


def make_plan(
    recipe: TextTuningRecipe, net: Net, *, tokens: int, bytes_per_token: float, seconds: float | None
) -> TextTuningPlan:
    """Fill the gaps of `recipe` for a text of `tokens` tokens; with `seconds` for all that is left, by timing steps.

    `net` is ready to be tuned. Without `seconds` no clock is read: bfloat16 is taken where the processor multiplies it.
    PlanError when not one step fits.
    """
    training = recipe.training
    longest = net.config.window if carries_state(net) else net.config.max_length
    context = min(training.context_length or _CONTEXT, longest)
    precision = training.precision or _precision(next(net.parameters()).device, clock=seconds is not None)
    micro = training.micro_batch_size or max(1, _MICRO_TOKENS // context)
    rows, per_epoch = training.batch_size or _ROWS, math.ceil(tokens / context)
    taken, after, most_bytes = None, 0.0, training.evaluation_bytes or _EVALUATION_BYTES
    if seconds is None:
        steps = training.steps or max(1, round((training.epochs or 1.0) * per_epoch / rows))
    else:
        row, reading = _seconds_of_row(recipe, net, context, precision)
        measuring = _EVALUATION_SHARE * seconds
        read = measuring / reading * context / 2  # windows overlap by half
        most_bytes = training.evaluation_bytes or max(1, round(read * bytes_per_token))
        after = 2 * measuring + _FILES_SECONDS
        around = after + _CHECKPOINTS * VALIDATION_ROWS * reading
        rows = training.batch_size or max(1, min(_ROWS, int((seconds - around) / row / _FEWEST_STEPS)))
        steps = steps_within(seconds, step=rows * row, around=around, most=_MOST_EPOCHS * per_epoch / rows)
        taken = steps * rows * row
    micro = math.gcd(min(micro, rows), rows)
    if carries_state(net):
        micro = rows
    vital = training.vital_signs_every
    filled = with_steps(recipe, steps, validations=_CHECKPOINTS).with_overrides(
        {
            "training.context_length": context,
            "training.batch_size": rows,
            "training.micro_batch_size": micro,
            "training.precision": precision,
            "training.learning_rate": recipe.learning_rate,
            "training.threads": training.threads or usable_cores(),
            "training.evaluation_bytes": most_bytes,
            "training.vital_signs_every": 0 if vital is None and steps < _LOOKED_AT else vital,
        }
    )
    return TextTuningPlan(
        recipe=filled,
        parameters=net.config.num_parameters,
        trained=count(net, trained=True),
        tokens=tokens,
        seconds=taken,
        seconds_after=after,
    )


def _precision(device: torch.device, *, clock: bool) -> str:
    usual = usual_precision(device)
    return "fp32" if clock and usual == "bf16" and not bf16_is_faster(device) else usual


def _seconds_of_row(recipe: TextTuningRecipe, net: Net, context: int, precision: str) -> tuple[float, float]:
    """Seconds to train on one row of `context` tokens, with its share of the optimiser's step; those to read it."""
    device, rows = next(net.parameters()).device, max(1, _TIMED_TOKENS // context)
    before, net.compute_dtype = net.compute_dtype, torch.bfloat16 if precision == "bf16" else torch.float32
    optimizer, objective = optimizer_of(net, recipe), NextToken()
    tokens = torch.randint(net.config.vocab_size, (rows, context + 1), device=device)
    batch = {"input_ids": tokens[:, :-1].contiguous(), "labels": tokens[:, 1:].contiguous()}
    was_training = net.training
    net.train()
    times = []
    for _ in range(_TIMED):
        began = time.perf_counter()
        objective(net, batch).total.backward()  # type: ignore[no-untyped-call]
        computed = time.perf_counter()
        optimizer.step(0.0)  # moves nothing
        times.append((computed - began) / rows + (time.perf_counter() - computed) / _ROWS)
        optimizer.zero_grad()
    net.eval()
    began = time.perf_counter()
    with torch.no_grad():
        objective(net, batch)
    reading = (time.perf_counter() - began) / rows
    net.train(was_training)
    net.compute_dtype = before
    return median(times[1:]), reading
