"""What tuning by preferences will do: pairs, steps, precision; timed where there is a clock."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from rung.data.conversation_split import PARTS
from rung.nets.decoder import CausalLM
from rung.objectives.preference import DirectPreference
from rung.tasks.chat.preference_data import PreparedPairs, batches
from rung.tasks.chat.preference_recipe import PreferenceRecipe
from rung.tasks.chat.rates import PREFERENCES
from rung.tasks.tuning.plan import TuningPlan, count, steps_within, usual_precision
from rung.tasks.tuning.stepping import compute_dtype, with_steps
from rung.training.machine import usable_cores

_BATCH_PAIRS, _MICRO_TOKENS = 16, 2048
_VALIDATIONS = 4
_MOST_EPOCHS = 3.0
_FORWARD_SHARE = 0.35  # of a training step, to score as many pairs
_FILES_SECONDS = 4.0


@dataclass(frozen=True, kw_only=True)
class PreferencePlan(TuningPlan[PreferenceRecipe]):
    """The plan of tuning by preferences. `data`: what `PreparedPairs.facts` says."""

    data: dict[str, Any]

    def lines(self) -> list[str]:
        """The plan for people."""
        training, recipe = self.recipe.training, self.recipe
        form = "means over tokens" if recipe.preference.length_normalised else "sums over tokens"
        epochs = self.steps * training.rows / self.data["train_pairs"]
        return [
            *self.data["remarks"],
            f"{self.what_moves}.",
            f"{self.steps:,} steps of {training.batch_size} pairs ({epochs:.2f} times over "
            f"{self.data['train_pairs']:,}), beta {recipe.beta:g} on {form}, {self.how}.",
        ]

    def facts(self) -> dict[str, Any]:
        """What the data come to."""
        return self.data


def make_plan(
    recipe: PreferenceRecipe, prepared: PreparedPairs, net: CausalLM, *, seconds: float | None
) -> PreferencePlan:
    """Fill the gaps of `recipe`; with `seconds` for all that is left to do, by timing a step of `net`."""
    training, rows = recipe.training, prepared.rows("train")
    pairs = min(training.batch_size or _BATCH_PAIRS, len(rows))
    micro = min(training.micro_batch_size or max(1, _MICRO_TOKENS // (2 * rows.context_length)), pairs)
    recipe = recipe.with_overrides(
        {
            "training.batch_size": pairs,
            "training.micro_batch_size": math.gcd(micro, pairs),
            "training.precision": training.precision or usual_precision(next(net.parameters()).device),
            "training.learning_rate": training.learning_rate or PREFERENCES.rate(count(net), recipe.tuning),
            "training.threads": training.threads or usable_cores(),
            "preference.beta": recipe.beta,
        }
    )
    taken: float | None = None
    after = 0.0
    if seconds is None:
        steps = training.steps or max(1, math.ceil((training.epochs or 1.0) * len(rows) / pairs))
    else:
        pair = _seconds_of_pair(recipe, prepared, net)
        scored = sum(len(prepared.rows(part)) for part in PARTS)  # by the reference
        scored += _VALIDATIONS * len(prepared.rows("valid")) + len(prepared.rows("test"))
        after = 2 * _FORWARD_SHARE * pair * len(prepared.rows("test")) + _FILES_SECONDS
        around = after + _FORWARD_SHARE * pair * scored
        steps = steps_within(seconds, step=pairs * pair, around=around, most=_MOST_EPOCHS * len(rows) / pairs)
        taken = steps * pairs * pair
    return PreferencePlan(
        recipe=with_steps(recipe, steps, validations=_VALIDATIONS),
        parameters=count(net),
        trained=count(net, trained=True),
        data=prepared.facts(),
        seconds=taken,
        seconds_after=after,
    )


def _seconds_of_pair(recipe: PreferenceRecipe, prepared: PreparedPairs, net: CausalLM) -> float:
    """Seconds to train on one pair, from a step forth and back. `net` is left as it was."""
    micro, rows = recipe.training.micro_batch_size or 1, prepared.rows("train")
    net.compute_dtype = compute_dtype(recipe)
    reference = {"train": np.zeros((len(rows), 2))}
    batch = batches(prepared, reference, "train", recipe.seed).batch(np.arange(micro))
    batch = {name: tensor.to(next(net.parameters()).device) for name, tensor in batch.items()}
    times = []
    for _ in range(2):
        began = time.perf_counter()
        DirectPreference()(net, batch).total.backward()  # type: ignore[no-untyped-call]
        times.append(time.perf_counter() - began)
    net.zero_grad(set_to_none=True)
    return min(times) / micro
