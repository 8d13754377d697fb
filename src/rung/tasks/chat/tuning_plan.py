"""What tuning to chat will do: rows, steps, precision; timed where there is a clock."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rung.data.packing import TrainingRows
from rung.nets.decoder import CausalLM
from rung.objectives.answers import AnswerTokens
from rung.tasks.chat.preparation import PreparedChat
from rung.tasks.chat.tuning_recipe import ChatRecipe
from rung.tasks.tuning.plan import TuningPlan, count, steps_within, usual_precision
from rung.tasks.tuning.stepping import compute_dtype, with_steps
from rung.training.machine import usable_cores

_BATCH_TOKENS, _MICRO_TOKENS = 2048, 2048
_CHECKPOINTS = 4
_MOST_EPOCHS = 6.0
_FORWARD_SHARE = 0.35  # of a training step, to read as many rows
_TIMED = 2
_FILES_SECONDS = 4.0
_ANSWER_TOKEN_ROWS = 0.04  # a written token takes about so much of a row of training, in a batch of 16


@dataclass(frozen=True, kw_only=True)
class ChatPlan(TuningPlan[ChatRecipe]):
    """The plan of tuning to chat. `data`: what `facts_of` says."""

    data: dict[str, Any]
    remarks: tuple[str, ...] = ()

    @property
    def epochs(self) -> float:
        """Readings of the training conversations."""
        return self.steps * self.recipe.training.rows / int(self.data["train_rows"])

    def lines(self) -> list[str]:
        """The plan for people."""
        training, data = self.recipe.training, self.data
        return [
            *self.remarks,
            f"{self.what_moves}.",
            f"{data['train_conversations']:,} conversations in {data['train_rows']:,} rows of "
            f"{training.context_length} tokens ({100 * data['padding']:.1f} % padding); {data['train_targets']:,} "
            f"tokens are learned, the assistant's.",
            f"{self.steps:,} steps of {training.batch_size} rows ({self.epochs:.2f} times over them) {self.how}.",
        ]

    def facts(self) -> dict[str, Any]:
        """What the data come to, how often they are read, and what was left out."""
        return {**self.data, "epochs": self.epochs, "remarks": list(self.remarks)}


def make_plan(recipe: ChatRecipe, prepared: PreparedChat, net: CausalLM, *, seconds: float | None) -> ChatPlan:
    """Fill the gaps of `recipe`; with `seconds` for all that is left to do, by timing steps of `net`.

    Without, no clock is read: bfloat16 is taken where the processor multiplies it. PlanError when not one step fits.
    """
    training, train = recipe.training, prepared.rows["train"]
    rows = min(training.batch_size or max(1, _BATCH_TOKENS // prepared.context_length), len(train))
    micro = min(training.micro_batch_size or max(1, _MICRO_TOKENS // prepared.context_length), rows)
    recipe = recipe.with_overrides(
        {
            "training.batch_size": rows,
            "training.micro_batch_size": math.gcd(micro, rows),
            "training.precision": training.precision or usual_precision(next(net.parameters()).device),
            "training.learning_rate": recipe.learning_rate,
            "training.threads": training.threads or usable_cores(),
        }
    )
    taken, after = None, 0.0
    if seconds is None:
        steps = training.steps or max(1, math.ceil((training.epochs or 1.0) * len(train) / rows))
    else:
        row = _seconds_of_row(recipe, prepared, net)
        after = row * _rows_of_measuring(recipe, prepared) + _FILES_SECONDS
        steps = steps_within(seconds, step=rows * row, around=after, most=_MOST_EPOCHS * len(train) / rows)
        taken = steps * rows * row
    return ChatPlan(
        recipe=with_steps(recipe, steps, validations=_CHECKPOINTS),
        parameters=count(net),
        trained=count(net, trained=True),
        data=facts_of(prepared),
        remarks=tuple(prepared.remarks),
        seconds=taken,
        seconds_after=after,
    )


def facts_of(prepared: PreparedChat) -> dict[str, Any]:
    """What the data come to."""
    facts: dict[str, Any] = {"padding": round(prepared.rows["train"].padding, 4)}
    for part, rows in prepared.rows.items():
        facts |= {f"{part}_conversations": len(rows.examples), f"{part}_rows": len(rows)}
        facts |= {f"{part}_tokens": int(rows.examples.lengths.sum()), f"{part}_targets": rows.examples.num_targets}
    return facts


def _rows_of_measuring(recipe: ChatRecipe, prepared: PreparedChat) -> float:
    """Validations, two readings of the test part and the written answers, in rows of training."""
    read = _CHECKPOINTS * len(prepared.rows["valid"]) + 2 * len(prepared.rows["test"])
    prompts = min(recipe.measuring.prompts, len(prepared.rows["test"].examples))
    return _FORWARD_SHARE * read + _ANSWER_TOKEN_ROWS * prompts * recipe.measuring.max_tokens


def _seconds_of_row(recipe: ChatRecipe, prepared: PreparedChat, net: CausalLM) -> float:
    """Seconds to train on one row, with its share of the optimiser's step. `net` is left as it was."""
    micro, device = recipe.training.micro_batch_size or 1, next(net.parameters()).device
    net.compute_dtype = compute_dtype(recipe)
    batch = TrainingRows(prepared.rows["train"], seed=recipe.seed).batch(np.arange(micro))
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    times = []
    for _ in range(_TIMED):
        began = time.perf_counter()
        AnswerTokens()(net, batch).total.backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    net.zero_grad(set_to_none=True)
    return min(times) / micro
