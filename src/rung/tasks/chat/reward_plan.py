"""What learning by rewards will do: prompts, steps, precision; timed where there is a clock."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from rung.nets.decoder import CausalLM
from rung.tasks.chat.rates import REWARDS
from rung.tasks.chat.reward_data import PreparedProblems
from rung.tasks.chat.reward_recipe import RewardRecipe
from rung.tasks.chat.rollouts import ProblemBatches, Rollouts
from rung.tasks.chat.tuning_base import base_network
from rung.tasks.tuning.plan import TuningPlan, count, steps_within, usual_precision
from rung.tasks.tuning.stepping import compute_dtype, with_steps
from rung.training.machine import usable_cores

_BATCH_PROMPTS = 8  # with 8 answers each: as many as are written at once
_VALIDATIONS = 4
_FILES_SECONDS = 4.0
_FORWARD_SHARE = 0.6  # of a step a prompt and answer, to answer greedily


@dataclass(frozen=True, kw_only=True)
class RewardPlan(TuningPlan[RewardRecipe]):
    """The plan of learning by rewards. `data`: what `PreparedProblems.facts` says."""

    data: dict[str, Any]

    def lines(self) -> list[str]:
        """The plan for people."""
        prompts, answers = self.recipe.training.batch_size, self.recipe.reward.answers
        return [
            f"{self.what_moves}.",
            f"{self.steps:,} steps of {prompts} prompts with {answers} answers each "
            f"({self.data['train_problems']:,} problems) {self.how}.",
            *self.data["remarks"],
        ]

    def facts(self) -> dict[str, Any]:
        """What the data come to."""
        return self.data


def make_plan(recipe: RewardRecipe, prepared: PreparedProblems, net: CausalLM, *, seconds: float | None) -> RewardPlan:
    """Fill the gaps of `recipe`; with `seconds` for all that is left to do, by timing a step. PlanError: none fits."""
    training, problems = recipe.training, len(prepared.train)
    batch = min(training.batch_size or _BATCH_PROMPTS, problems)
    recipe = recipe.with_overrides(
        {
            "training.batch_size": batch,
            "training.micro_batch_size": training.micro_batch_size or batch,
            "training.precision": training.precision or usual_precision(next(net.parameters()).device),
            "training.learning_rate": training.learning_rate or REWARDS.rate(count(net), recipe.tuning),
            "training.threads": training.threads or usable_cores(),
        }
    )
    steps = training.steps or max(1, math.ceil((training.epochs or 1.0) * problems / batch))
    taken, after = None, 0.0
    if seconds is not None:
        step = _seconds_of_step(recipe, prepared, net)
        greedy = _FORWARD_SHARE * step / (batch * recipe.reward.answers)
        after = 2 * greedy * len(prepared.test) + _FILES_SECONDS
        steps = steps_within(
            seconds,
            step=step,
            around=after + _VALIDATIONS * greedy * len(prepared.valid),
            most=math.inf,
            hint="give more --minutes, or fewer problems to test on: --test FILE",
        )
        taken = steps * step
    return RewardPlan(
        recipe=with_steps(recipe, steps, validations=_VALIDATIONS),
        parameters=count(net),
        trained=count(net, trained=True),
        data=prepared.facts(),
        seconds=taken,
        seconds_after=after,
    )


def _seconds_of_step(recipe: RewardRecipe, prepared: PreparedProblems, net: CausalLM) -> float:
    """Seconds of one step, sampling included. `net` is left as it was."""
    net.compute_dtype = compute_dtype(recipe)
    batch = ProblemBatches(len(prepared.train), seed=recipe.seed).batch(np.arange(recipe.training.rows))
    began = time.perf_counter()
    rollouts(recipe, prepared)(net, batch).total.backward()  # type: ignore[no-untyped-call]
    net.zero_grad(set_to_none=True)
    return time.perf_counter() - began


def rollouts(recipe: RewardRecipe, prepared: PreparedProblems) -> Rollouts:
    """The objective. Where distance from the base has its price, the base is held beside the network."""
    reference = base_network(prepared.base, recipe).eval() if recipe.reward.beta else None
    precision = recipe.training.precision or "fp32"
    return Rollouts(prepared.base, prepared.train, recipe.reward, recipe.seed, precision, reference)
