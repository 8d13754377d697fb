"""What a run will do: the network for these pairs and minutes, found by timing a few real steps of each candidate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

import numpy as np
import torch

from rung.data.pair_batches import PairBatches
from rung.data.span_batches import SpanBatches
from rung.errors import PlanError, RecipeError
from rung.nets.encoder_decoder import EncoderDecoder, EncoderDecoderConfig, parameter_shapes
from rung.nets.encoder_decoder_folder import SequenceNet
from rung.nets.recurrent_encoder_decoder import (
    RecurrentEncoderDecoder,
    RecurrentEncoderDecoderConfig,
    recurrent_parameter_shapes,
)
from rung.objectives.sequence_to_sequence import SequenceToSequence
from rung.tasks.rewriting.preparation import PreparedPairs
from rung.tasks.rewriting.pretraining_text import GappedText
from rung.tasks.rewriting.recipe import Family, RewritingRecipe
from rung.training.gradients import autocast, to_device
from rung.training.machine import has_bf16_instructions
from rung.training.optimizers import build_optimizer, rate_like_adamw
from rung.training.schedule import Schedule

Config = EncoderDecoderConfig | RecurrentEncoderDecoderConfig
Net = SequenceNet
Precision = Literal["fp32", "bf16"]

_TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 4096}
"""Tokens a side in a batch: small, because minutes are few and many small steps learn more than few large ones."""
_RATES_FOR = 2048  # tokens a batch, that the learning rates below are for; they grow with its square root
_LEAST_EPOCHS = 10.0
"""Passes over the pairs that a larger network must have time for: below, a smaller one learns more."""
_VALIDATIONS = 24
_FEWEST_STEPS_BETWEEN = 25
_TIMED, _WARMING_UP = 4, 1
_MOST_WARMUP = 1000
_CLEARLY = 0.9


@dataclass(frozen=True)
class _Shape:
    """A size on the ladder of one family, for at least `least_tokens` target tokens to learn from."""

    least_tokens: int
    hidden_size: int
    layers: int
    intermediate_size: int
    heads: int
    dropout: float
    learning_rate: float


# The first Transformer is the "tiny" one that Wu et al. (2021, arXiv 2105.14462, section 3) found best on 29,000 pairs,
# the last is the base network of Vaswani et al. (2017, table 3).
_SHAPES: dict[Family, tuple[_Shape, ...]] = {
    "transformer": (
        _Shape(0, 128, 4, 256, 4, 0.2, 3e-3),
        _Shape(2_000_000, 256, 4, 1024, 4, 0.2, 1.5e-3),
        _Shape(20_000_000, 512, 6, 2048, 8, 0.1, 7e-4),
    ),
    "lstm": (
        _Shape(0, 256, 1, 0, 0, 0.3, 2e-3),
        _Shape(2_000_000, 512, 2, 0, 0, 0.2, 1.5e-3),
        _Shape(20_000_000, 1024, 2, 0, 0, 0.1, 7e-4),
    ),
}


@dataclass(frozen=True)
class RewritingPlan:
    """A recipe without gaps, and what it means; `steps` and `epochs` are those on pairs."""

    recipe: RewritingRecipe
    parameters: int
    steps: int
    epochs: float
    pairs: int
    target_tokens: int
    padding: float
    seconds_per_step: float | None
    remarks: tuple[str, ...]
    pretraining_steps: int = 0
    pretraining_epochs: float = 0.0
    pretraining_tokens: int = 0

    def lines(self) -> list[str]:
        """The plan for people."""
        net, training = self.recipe.net, self.recipe.training
        inner = f", inner {net.intermediate_size}, {net.num_attention_heads} heads" if net.num_attention_heads else ""
        rate = f" at {self.seconds_per_step:.2f} s each" if self.seconds_per_step else ""
        before = (
            f"pretraining: {self.pretraining_steps:,} steps to restore hidden spans of raw text, "
            f"{self.pretraining_epochs:.1f} times over {self.pretraining_tokens:,} tokens"
        )
        return [
            *self.remarks,
            f"pairs: {self.pairs:,} to train on, {self.target_tokens:,} target tokens of "
            f"{self.recipe.tokenizer.vocab_size:,} kinds",
            f"network: {net.family}, {self.parameters:,} parameters: {net.num_hidden_layers} layers a side, "
            f"hidden {net.hidden_size}{inner}, dropout {net.dropout}",
            *([before] if self.pretraining_steps else []),
            f"training: {self.steps:,} steps of about {training.tokens_per_batch:,} tokens a side{rate}, "
            f"{self.epochs:.1f} times over the pairs, {self.padding:.0%} padding, {training.precision}",
            f"learning rate {training.learning_rate:g}, {training.warmup_steps:,} steps of warm-up, "
            f"label smoothing {training.label_smoothing:g}",
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values; the recipe stands beside it in `rung.json`."""
        return {key: value for key, value in asdict(self).items() if key != "recipe"} | {
            "recipe": self.recipe.to_json()
        }


def make_plan(
    wanted: RewritingRecipe, pairs: PreparedPairs, device: torch.device, seconds: Callable[[Config], float] | None
) -> RewritingPlan:
    """Fill the gaps of `wanted`.

    `seconds` says how much time training has with a network (a clock is read then, and real steps are timed); None
    plans for the recipe's steps without reading one. Raises PlanError when not one step fits into the time,
    RecipeError when so few steps are asked for that none is left for one of two phases.
    """
    tokens = wanted.training.tokens_per_batch or _TOKENS_PER_BATCH[device.type]
    planner = _Planner(wanted, pairs, tokens, training_batches(pairs, tokens=tokens, seed=wanted.seed), device)
    shapes = planner.shapes()
    if seconds is None:
        recipe = planner.filled(shapes[0], wanted.training.precision or planner.precisions()[-1])
        return planner.finished(recipe, *planner.shared(wanted.training.steps or len(planner.batches)), None)
    for place, shape in enumerate(shapes):
        recipe, cost = planner.timed(shape)
        on_text = planner.seconds_on_text(recipe)
        time_left = seconds(network_config(recipe, pairs))
        share = wanted.training.pretraining_share if on_text else 0.0
        steps = int((1 - share) * time_left / cost)
        if steps >= _LEAST_EPOCHS * len(planner.batches) or (place == len(shapes) - 1 and steps > 0):
            return planner.finished(recipe, max(1, int(share * time_left / on_text)) if on_text else 0, steps, cost)
    raise PlanError(
        "the minutes do not suffice for a single step of training",
        hint="give more --minutes, or a smaller network: --set net.hidden_size=64",
    )


def network_config(recipe: RewritingRecipe, pairs: PreparedPairs) -> Config:
    """The shape of a resolved recipe's network."""
    net, tokenizer = recipe.net, pairs.tokenizer
    size, layers = net.hidden_size or 1, net.num_hidden_layers or 1
    heads, inner = net.num_attention_heads or 1, net.intermediate_size or 1
    vocab_size, longest = recipe.tokenizer.vocab_size or 1, net.max_position_embeddings or 1
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    start = pad  # as Marian has it
    if net.family == "lstm":
        return RecurrentEncoderDecoderConfig(
            vocab_size, size, size, layers, longest, pad, end, start, attention=net.attention
        )
    return EncoderDecoderConfig(vocab_size, size, layers, layers, heads, heads, inner, inner, longest, pad, end, start)


def new_network(config: Config, *, dropout: float, seed: int) -> Net:
    """A network drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(config, EncoderDecoderConfig):
            return EncoderDecoder(config, dropout=dropout)
        return RecurrentEncoderDecoder(config, dropout=dropout)


def num_parameters(config: Config) -> int:
    """Learned numbers of a network, none of them allocated."""
    if isinstance(config, EncoderDecoderConfig):
        shapes = parameter_shapes(config)
    else:
        shapes = recurrent_parameter_shapes(config)
    return sum(math.prod(shape) for shape in shapes.values())


def training_batches(pairs: PreparedPairs, *, tokens: int, seed: int) -> PairBatches:
    """The training pairs as the loop takes them."""
    pad = pairs.tokenizer.pad_token_id
    return PairBatches(pairs.train, tokens=tokens, pad_token_id=pad, start_token_id=pad, seed=seed)


def pretraining_batches(pairs: PreparedPairs, text: GappedText, *, tokens: int, seed: int) -> SpanBatches:
    """Windows of raw text with gaps, as the loop takes them."""
    pad = pairs.tokenizer.pad_token_id
    return SpanBatches(text.train, tokens=tokens, pad_token_id=pad, start_token_id=pad, seed=seed)


@dataclass(frozen=True)
class _Planner:
    """What all candidates of one plan share."""

    wanted: RewritingRecipe
    pairs: PreparedPairs
    tokens: int
    batches: PairBatches
    device: torch.device

    def shapes(self) -> list[_Shape]:
        """The shapes to consider, the largest that these pairs can feed first; of a size that was asked for, one."""
        found = [one for one in _SHAPES[self.wanted.net.family] if one.least_tokens <= self.pairs.target_tokens]
        return found[::-1] if self.wanted.net.hidden_size is None else found[:1]

    def precisions(self) -> tuple[Precision, ...]:
        """What this machine computes in, the one that is probably fastest last."""
        return ("fp32", "bf16") if self.device.type == "cuda" or has_bf16_instructions() else ("fp32",)

    def filled(self, shape: _Shape, precision: Precision) -> RewritingRecipe:
        """The recipe with this shape where it does not say otherwise; steps and schedule are still open."""
        net, training = self.wanted.net, self.wanted.training
        # A size of the user's own is judged by the nearest of ours; wider networks want smaller steps.
        width = net.hidden_size or shape.hidden_size
        sizes: dict[str, Any] = {
            "hidden_size": width,
            "num_hidden_layers": shape.layers,
            "dropout": shape.dropout,
            "max_position_embeddings": self.pairs.longest,
        }
        if net.family == "transformer":
            inner = max(8, shape.intermediate_size * width // shape.hidden_size)
            sizes |= {"intermediate_size": inner, "num_attention_heads": shape.heads}
        gaps = {f"net.{name}": value for name, value in sizes.items() if getattr(net, name) is None}
        gaps["tokenizer.vocab_size"] = self.pairs.tokenizer.vocab_size
        gaps["training.tokens_per_batch"] = self.tokens
        gaps["training.precision"] = precision
        gaps["training.threads"] = training.threads or torch.get_num_threads()
        if training.learning_rate is None:
            rate = shape.learning_rate * min(1.0, shape.hidden_size / width) * math.sqrt(self.tokens / _RATES_FOR)
            gaps["training.learning_rate"] = round(rate_like_adamw(training.optimizer, rate), 6)
        return self.wanted.with_overrides(gaps)

    def timed(self, shape: _Shape) -> tuple[RewritingRecipe, float]:
        """The recipe of a shape in the faster precision, and the seconds of one step."""
        asked = self.wanted.training.precision
        recipes = {one: self.filled(shape, one) for one in (self.precisions() if asked is None else (asked,))}
        times = {precision: self._seconds_per_step(recipe, self.batches) for precision, recipe in recipes.items()}
        # bfloat16 must win clearly: it also computes less exactly.
        best = min(times, key=lambda one: times[one] * (_CLEARLY if one == "fp32" else 1.0))
        return recipes[best], times[best]

    @property
    def text_batches(self) -> SpanBatches | None:
        """Batches of raw text, where there is some to pretrain on."""
        text = self.pairs.text
        if text is None:
            return None
        return pretraining_batches(self.pairs, text, tokens=self.tokens, seed=self.wanted.seed)

    def seconds_on_text(self, recipe: RewritingRecipe) -> float:
        """The seconds of one step of pretraining; 0 where there is none."""
        batches = self.text_batches
        return self._seconds_per_step(recipe, batches) if batches else 0.0

    def shared(self, steps: int) -> tuple[int, int]:
        """So many steps on raw text and on pairs, of `steps` in all."""
        if self.pairs.text is None:
            return 0, steps
        if steps < 2:
            raise RecipeError("one step cannot be shared by pretraining and pairs", hint="give more steps")
        before = min(max(1, round(self.wanted.training.pretraining_share * steps)), steps - 1)
        return before, steps - before

    def finished(
        self, recipe: RewritingRecipe, pretraining_steps: int, steps: int, seconds_per_step: float | None
    ) -> RewritingPlan:
        """The plan with schedules for so many steps, or with those that the recipe brings."""
        training, on_text = recipe.training, self.text_batches
        if training.schedule is not None:
            schedule = Schedule.from_json(training.schedule)
        else:
            schedule = _schedule(recipe, steps, training.warmup_steps)
        changes: dict[str, Any] = {}
        if on_text is not None:
            stored = training.pretraining_schedule
            before = Schedule.from_json(stored) if stored else _schedule(recipe, pretraining_steps, None)
            pretraining_steps = before.steps
            changes["training.pretraining_schedule"] = before.to_json()
        changes |= {
            "training.steps": pretraining_steps + schedule.steps,
            "training.minutes": None,
            "training.schedule": schedule.to_json(),
            "training.warmup_steps": schedule.warmup,
            "training.validate_every": training.validate_every
            or max(_FEWEST_STEPS_BETWEEN, -(-schedule.steps // _VALIDATIONS)),
        }
        return RewritingPlan(
            recipe=recipe.with_overrides(changes),
            parameters=num_parameters(network_config(recipe, self.pairs)),
            steps=schedule.steps,
            epochs=schedule.steps / len(self.batches),
            pairs=len(self.pairs.train),
            target_tokens=self.pairs.target_tokens,
            padding=self.batches.padding(),
            seconds_per_step=seconds_per_step,
            remarks=tuple(self.pairs.remarks),
            pretraining_steps=pretraining_steps,
            pretraining_epochs=pretraining_steps / len(on_text) if on_text else 0.0,
            pretraining_tokens=self.pairs.text.num_tokens if self.pairs.text else 0,
        )

    def _seconds_per_step(self, recipe: RewritingRecipe, batches: PairBatches | SpanBatches) -> float:
        """The median of real steps on batches of an epoch."""
        device, training = self.device, recipe.training
        net = new_network(network_config(recipe, self.pairs), dropout=recipe.net.dropout or 0.0, seed=0)
        net = net.to(device).train()
        optimizer = build_optimizer(net, name=training.optimizer, learning_rate=1e-5)
        objective = SequenceToSequence(training.label_smoothing)
        times = []
        for number in range(_WARMING_UP + _TIMED):
            began = time.perf_counter()
            batch = to_device(device, batches.batch(np.array([number % len(batches)])))
            with autocast(training.precision or "fp32", device):
                loss = objective(net, batch)
            loss.total.backward()  # type: ignore[no-untyped-call]
            optimizer.clip_grad_norm(1.0)
            optimizer.step(1.0)
            optimizer.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - began)
        return median(times[_WARMING_UP:])


def _schedule(recipe: RewritingRecipe, steps: int, warmup: int | None) -> Schedule:
    """The schedule of one phase; `warmup` None: a sixth of the steps."""
    training = recipe.training
    return Schedule.warmup_flat_decay(
        steps,
        warmup=min(_MOST_WARMUP, steps // 6) if warmup is None else warmup,
        decay_fraction=training.decay_fraction,
        final=training.final_learning_rate_fraction,
    )
