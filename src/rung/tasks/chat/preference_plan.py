"""What tuning by preferences will do: pairs, steps, precision; timed where there is a clock."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rung.data.conversation_split import PARTS
from rung.errors import PlanError
from rung.nets.decoder import CausalLM
from rung.objectives.preference import DirectPreference
from rung.tasks.chat.plan import compute_dtype
from rung.tasks.chat.preference_data import PreparedPairs, batches
from rung.tasks.chat.preference_recipe import PreferenceRecipe
from rung.training.machine import has_bf16_instructions, usable_cores
from rung.training.schedule import Schedule

_BATCH_PAIRS, _MICRO_TOKENS = 16, 2048
_VALIDATIONS = 4
_MOST_EPOCHS = 3.0
_FORWARD_SHARE = 0.35  # of a training step, to score as many pairs
_FILES_SECONDS = 4.0


@dataclass(frozen=True)
class PreferencePlan:
    """A recipe without gaps, and what it comes to. `seconds` is a forecast of training, None without a clock."""

    recipe: PreferenceRecipe
    parameters: int
    trained: int
    facts: dict[str, Any]
    seconds: float | None = None
    seconds_after: float = 0.0

    def lines(self) -> list[str]:
        """The plan for people."""
        training, steps = self.recipe.training, self.recipe.training.steps or 0
        taken = "" if self.seconds is None else f", about {self.seconds:,.0f} s"
        form = "means over tokens" if self.recipe.preference.length_normalised else "sums over tokens"
        epochs = steps * (training.batch_size or 1) / self.facts["train_pairs"]
        return [
            *self.facts["remarks"],
            f"{self.trained:,} of {self.parameters:,} parameters are trained ({self.recipe.tuning.kind}).",
            f"{steps:,} steps of {training.batch_size} pairs ({epochs:.2f} times over {self.facts['train_pairs']:,}) "
            f"in {training.precision}, learning rate {self.recipe.learning_rate:g}, beta {self.recipe.beta:g} on {form}"
            f"{taken}.",
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the run folder and `--json`."""
        return {
            "parameters": self.parameters,
            "trained_parameters": self.trained,
            **self.facts,
            "steps": self.recipe.training.steps,
            "seconds": self.seconds,
            "recipe": self.recipe.to_json(),
        }


def make_plan(
    recipe: PreferenceRecipe, prepared: PreparedPairs, net: CausalLM, *, seconds: float | None
) -> PreferencePlan:
    """Fill the gaps of `recipe`; with `seconds` for all that is left to do, by timing a step of `net`."""
    training, rows = recipe.training, prepared.rows("train")
    pairs = min(training.batch_size or _BATCH_PAIRS, len(rows))
    micro = min(training.micro_batch_size or max(1, _MICRO_TOKENS // (2 * rows.context_length)), pairs)
    on_gpu = next(net.parameters()).device.type == "cuda"
    recipe = recipe.with_overrides(
        {
            "training.batch_size": pairs,
            "training.micro_batch_size": math.gcd(micro, pairs),
            "training.precision": training.precision or ("bf16" if on_gpu or has_bf16_instructions() else "fp32"),
            "training.learning_rate": recipe.learning_rate,
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
        left = seconds - _FORWARD_SHARE * pair * scored - after
        steps = int(min(left / pair, _MOST_EPOCHS * len(rows)) / pairs)
        taken = steps * pairs * pair
    if steps < 1:
        raise PlanError(f"no step of training fits into {seconds or 0.0:.0f} s", hint="give more --minutes, or --steps")
    schedule = Schedule.warmup_flat_decay(
        steps,
        warmup=min(round(steps * training.warmup_share), steps - 1),
        decay_fraction=training.decay_share,
        final=training.final_learning_rate_fraction,
    )
    recipe = recipe.with_overrides(
        {
            "training.schedule": training.schedule or schedule.to_json(),
            "training.steps": steps,
            "training.epochs": None,
            "training.validate_every": training.validate_every or max(1, math.ceil(steps / _VALIDATIONS)),
        }
    )
    own = [parameter for name, parameter in net.named_parameters() if ".lora_" not in name]
    return PreferencePlan(
        recipe,
        parameters=sum(one.numel() for one in own),
        trained=sum(one.numel() for one in net.parameters() if one.requires_grad),
        facts=prepared.facts(),
        seconds=taken,
        seconds_after=after,
    )


def _seconds_of_pair(recipe: PreferenceRecipe, prepared: PreparedPairs, net: CausalLM) -> float:
    """Seconds to train on one pair, from a step forth and back. `net` is left as it was."""
    micro, rows = recipe.training.micro_batch_size or 1, prepared.rows("train")
    torch.set_num_threads(recipe.training.threads or usable_cores())
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
