"""What tuning to chat will do: rows, steps, precision; timed where there is a clock."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rung.data.packing import TrainingRows
from rung.errors import PlanError
from rung.nets.decoder import CausalLM
from rung.objectives.answers import AnswerTokens
from rung.tasks.chat.preparation import PreparedChat
from rung.tasks.chat.recipe import ChatRecipe
from rung.tasks.tuning.method import rate_of
from rung.training.contracts import LoopSettings
from rung.training.machine import has_bf16_instructions, usable_cores
from rung.training.optimizers import Optimizer, build_optimizer
from rung.training.schedule import Schedule

_BATCH_TOKENS, _MICRO_TOKENS = 2048, 2048
_CHECKPOINTS = 4
_MOST_EPOCHS = 6.0
_FORWARD_SHARE = 0.35  # of a training step, to read as many rows
_TIMED = 2
_FILES_SECONDS = 4.0
_ANSWER_TOKEN_ROWS = 0.04  # a written token takes about so much of a row of training, in a batch of 16


@dataclass(frozen=True)
class ChatPlan:
    """A recipe without gaps, and what it comes to. `seconds` of training and after it are forecasts, None without."""

    recipe: ChatRecipe
    parameters: int
    trained: int
    facts: dict[str, Any]
    remarks: tuple[str, ...] = ()
    seconds: float | None = None
    seconds_after: float = 0.0

    @property
    def schedule(self) -> Schedule:
        """How the learning rate runs."""
        return Schedule.from_json(self.recipe.training.schedule or {})

    @property
    def epochs(self) -> float:
        """Readings of the training conversations."""
        return self.schedule.steps * (self.recipe.training.batch_size or 1) / int(self.facts["train_rows"])

    def lines(self) -> list[str]:
        """The plan for people."""
        training, facts = self.recipe.training, self.facts
        taken = "" if self.seconds is None else f", about {self.seconds:,.0f} s"
        return [
            *self.remarks,
            f"{self.trained:,} of {self.parameters:,} parameters are trained ({self.recipe.tuning.kind}).",
            f"{facts['train_conversations']:,} conversations in {facts['train_rows']:,} rows of "
            f"{training.context_length} tokens ({100 * facts['padding']:.1f} % padding); {facts['train_targets']:,} "
            f"tokens are learned, the assistant's.",
            f"{self.schedule.steps:,} steps of {training.batch_size} rows ({self.epochs:.2f} times over them) in "
            f"{training.precision}, learning rate {self.recipe.learning_rate:g}{taken}.",
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the run folder and `--json`."""
        return {
            "parameters": self.parameters,
            "trained_parameters": self.trained,
            **self.facts,
            "steps": self.schedule.steps,
            "epochs": self.epochs,
            "seconds": self.seconds,
            "remarks": list(self.remarks),
            "recipe": self.recipe.to_json(),
        }


def make_plan(recipe: ChatRecipe, prepared: PreparedChat, net: CausalLM, *, seconds: float | None) -> ChatPlan:
    """Fill the gaps of `recipe`; with `seconds` for all that is left to do, by timing steps of `net`.

    Without, no clock is read: bfloat16 is taken where the processor multiplies it. PlanError when not one step fits.
    """
    training, train = recipe.training, prepared.rows["train"]
    rows = min(training.batch_size or max(1, _BATCH_TOKENS // prepared.context_length), len(train))
    micro = min(training.micro_batch_size or max(1, _MICRO_TOKENS // prepared.context_length), rows)
    micro = math.gcd(micro, rows)
    on_gpu = next(net.parameters()).device.type == "cuda"
    precision = training.precision or ("bf16" if on_gpu or has_bf16_instructions() else "fp32")
    recipe = recipe.with_overrides(
        {
            "training.batch_size": rows,
            "training.micro_batch_size": micro,
            "training.precision": precision,
            "training.learning_rate": recipe.learning_rate,
            "training.threads": training.threads or usable_cores(),
        }
    )
    left = None
    after = 0.0
    if seconds is not None:
        row = _seconds_of_row(recipe, prepared, net)
        after = row * _rows_of_measuring(recipe, prepared) + _FILES_SECONDS
        left = min((seconds - after) / row, _MOST_EPOCHS * len(train))
        steps = int(left / rows)
    else:
        steps = training.steps or max(1, math.ceil((training.epochs or 1.0) * len(train) / rows))
    if steps < 1:
        raise PlanError(
            f"no step of training fits into {max(0.0, seconds or 0.0):.0f} s",
            hint="give more --minutes, or --epochs 1",
        )
    warmup = min(round(steps * training.warmup_share), steps - 1)
    schedule = Schedule.warmup_flat_decay(
        steps, warmup=warmup, decay_fraction=training.decay_share, final=training.final_learning_rate_fraction
    )
    recipe = recipe.with_overrides(
        {
            "training.schedule": training.schedule or schedule.to_json(),
            "training.steps": steps,
            "training.epochs": None,
            "training.validate_every": training.validate_every or max(1, math.ceil(steps / _CHECKPOINTS)),
        }
    )
    return ChatPlan(
        recipe,
        parameters=sum(parameter.numel() for parameter in prepared_parameters(net)),
        trained=sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad),
        facts=facts_of(prepared),
        remarks=tuple(prepared.remarks),
        seconds=None if left is None else steps * rows * row,
        seconds_after=after,
    )


def facts_of(prepared: PreparedChat) -> dict[str, Any]:
    """What the data come to."""
    facts: dict[str, Any] = {"padding": round(prepared.rows["train"].padding, 4)}
    for part, rows in prepared.rows.items():
        facts |= {f"{part}_conversations": len(rows.examples), f"{part}_rows": len(rows)}
        facts |= {f"{part}_tokens": int(rows.examples.lengths.sum()), f"{part}_targets": rows.examples.num_targets}
    return facts


def prepared_parameters(net: CausalLM) -> list[torch.nn.Parameter]:
    """The parameters that are the network's own, not an adapter's."""
    return [parameter for name, parameter in net.named_parameters() if ".lora_" not in name]


def loop_settings(recipe: ChatRecipe) -> LoopSettings:
    """What the loop is told by a recipe without gaps."""
    training = recipe.training
    return LoopSettings(
        schedule=Schedule.from_json(training.schedule or {}),
        batch_size=training.batch_size or 1,
        micro_batch_size=training.micro_batch_size or 1,
        seed=recipe.seed,
        gradient_clip=training.gradient_clip,
        precision="fp32",  # no autocast: a decoder computes in its own `compute_dtype`
        validate_every=training.validate_every,
        checkpoint_every=training.validate_every,
        keep_last=1,
        vital_signs_every=0,
    )


def optimizer_of(net: CausalLM, recipe: ChatRecipe) -> Optimizer:
    """The optimiser over what is trained."""
    return build_optimizer(
        net,
        name=recipe.training.optimizer,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.training.weight_decay,
        betas=(0.9, 0.999),
        rate_of=rate_of(net, recipe.tuning),
    )


def compute_dtype(recipe: ChatRecipe) -> torch.dtype:
    """What activations are computed in."""
    return torch.bfloat16 if recipe.training.precision == "bf16" else torch.float32


def _rows_of_measuring(recipe: ChatRecipe, prepared: PreparedChat) -> float:
    """Validations, two readings of the test part and the written answers, in rows of training."""
    read = _CHECKPOINTS * len(prepared.rows["valid"]) + 2 * len(prepared.rows["test"])
    prompts = min(recipe.measuring.prompts, len(prepared.rows["test"].examples))
    return _FORWARD_SHARE * read + _ANSWER_TOKEN_ROWS * prompts * recipe.measuring.max_tokens


def _seconds_of_row(recipe: ChatRecipe, prepared: PreparedChat, net: CausalLM) -> float:
    """Seconds to train on one row, with its share of the optimiser's step. `net` is left as it was."""
    micro, device = recipe.training.micro_batch_size or 1, next(net.parameters()).device
    torch.set_num_threads(recipe.training.threads or usable_cores())
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
