"""The plan: from minutes, text and machine to a recipe without gaps.

Given minutes, shapes are compared by the bits per byte that they are forecast to reach in the time there is; the one
that looks best is timed with real steps, the speeds of the others are estimated from it, and this repeats until the
one that looks best has been timed. Given steps, no clock is read: the number of tokens is then fixed, and the network
gets one matrix parameter per `TOKENS_PER_PARAMETER` of them.

Every number that the recipe gives stands; what is missing is decided here, and what was assumed is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from rung.errors import DataError, PlanError
from rung.nets.language_models import Config
from rung.recipe import Recipe
from rung.training.forecast import forecast_bits_per_byte
from rung.training.optimizers import DEFAULTS, OptimizerName
from rung.training.schedule import Schedule
from rung.training.shapes import (
    Memory,
    candidate_configs,
    choose_context,
    compiles,
    context_field,
    learning_rate_factor,
    memory_needed,
    net_values,
    shape_in_words,
)
from rung.training.timing import StepTimer

TOKENS_PER_PARAMETER = 11  # Hoffmann et al. 2022 found 20; small runs want fewer (nanochat: 10 to 12)
COMPILE_SPEEDUP = 1.3  # on CPU: 1.48 at 4 layers x 192, 1.22 at 6 x 384 (bench/training_throughput.py)
COMPILE_SECONDS = 25.0  # on 2 cores, nothing cached; the loop's pace corrects what differs
_FIRST_GUESS_FLOPS = 2e11  # per second: two CPU cores; corrected by the first timing
_RATE_POWER = 0.4  # roughly: 75, 136 and 331 GFLOP/s at 0.6, 1.9 and 12 M parameters, on 2 cores
_FEWEST_STEPS = 20
_VALIDATIONS = 16
_SHORTEST_PERIOD = 10  # steps: a run of a few steps would spend its time on validating and saving
_SMALLEST_BATCH = 2048  # tokens per step, right for _SMALLEST_BATCH_TOKENS of training
_SMALLEST_BATCH_TOKENS = 4e6
_SMALLEST_GPU_BATCH = 16_384  # fewer leave a GPU idle
_DROPOUT_UP_TO_EPOCHS = ((8.0, 0.0), (20.0, 0.1), (math.inf, 0.2))
_T = TypeVar("_T")


@dataclass(frozen=True)
class TextFacts:
    """What the plan needs to know about the prepared text."""

    train_bytes: int
    train_tokens: int
    valid_tokens: int
    vocab_size: int
    eos_token_id: int

    @property
    def bytes_per_token(self) -> float:
        """Mean UTF-8 bytes of a training token."""
        return self.train_bytes / self.train_tokens


@dataclass(frozen=True)
class Machine:
    """What the plan needs to know about the machine. `threads` and `memory` (bytes) are what may be used."""

    device: str
    threads: int
    memory: int
    bf16: bool
    can_compile: bool
    ranks: int = 1


@dataclass(frozen=True)
class Plan:
    """A recipe without gaps, and why it is so. Speeds are None in a plan by steps, which reads no clock."""

    recipe: Recipe
    config: Config
    tokens: int
    epochs: float
    predicted_bits_per_byte: float
    memory: Memory
    tokens_per_second: float | None
    training_seconds: float | None
    assumptions: tuple[str, ...] = field(default=())

    def beginning_at(self, step: int, schedule: Schedule) -> Plan:
        """The same plan as a continuation of a run at `step` of `schedule`, before its decay: flat on, then down."""
        longer = schedule.revised(step, step + (self.recipe.training.steps or 0))
        changed = {"training.steps": longer.steps, "training.schedule": longer.to_json()}
        return replace(self, recipe=self.recipe.with_overrides(changed, where="plan"))

    def lines(self) -> list[str]:
        """The plan in a few sentences, for people."""
        net, training = self.recipe.net, self.recipe.training
        speed = "" if self.tokens_per_second is None else f" at {self.tokens_per_second:,.0f} tokens/s"
        compiled = ", compiled" if training.compile else ""
        millions = self.config.num_parameters / 1e6
        return [
            f"network: {net.family}, {millions:.2f} M parameters; {shape_in_words(net)}, "
            f"vocabulary {self.config.vocab_size:,}",
            f"training: {training.steps:,} steps, {self.tokens / 1e6:.1f} M tokens{speed}, the text read "
            f"{self.epochs:.1f} times; {training.optimizer}, {training.precision}{compiled}, dropout {net.dropout}, "
            f"{training.threads} threads, {self.memory.total / 2**20:,.0f} MiB",
            f"expected: about {self.predicted_bits_per_byte:.2f} bits per byte on held-out text",
            *(f"assumed: {assumption}" for assumption in self.assumptions),
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values for rung.json and `--json`."""
        return {
            "parameters": self.config.num_parameters,
            "tokens": self.tokens,
            "epochs": round(self.epochs, 3),
            "predicted_bits_per_byte": round(self.predicted_bits_per_byte, 3),
            "memory_bytes": self.memory.total,
            "tokens_per_second": self.tokens_per_second and round(self.tokens_per_second),
            "training_seconds": self.training_seconds and round(self.training_seconds, 1),
            "assumptions": list(self.assumptions),
            "recipe": self.recipe.to_json(),
        }


def choose_vocab_size(train_bytes: int) -> int:
    """512 tokens for a megabyte of text, twice as many for four times the text, from 512 to 32,768.

    A small text cannot teach many tokens, and a small network cannot afford their embeddings: on one megabyte a
    prototype did better with 512 than with 1,024, though it differed in dropout too. Not yet compared on its own.
    """
    wanted = 512 * math.sqrt(train_bytes / 1e6)
    return int(min(32_768, max(512, 2 ** round(math.log2(max(wanted, 1))))))


def make_plan(
    recipe: Recipe, text: TextFacts, machine: Machine, *, seconds: float | None, timer: StepTimer | None
) -> Plan:
    """Decide what `recipe` leaves open.

    `seconds` is the time for training itself, without reading, evaluating and saving; None when the recipe gives
    steps. `timer` times real steps and is only asked when `seconds` is given.

    Raises DataError when the text is too short, PlanError when the result does not fit the memory or the minutes.
    """
    if recipe.training.compile and not compiles(recipe.net):
        raise PlanError(f"a network of the family {recipe.net.family} is not compiled", hint="leave out compile")
    steps = recipe.training.steps
    if steps is not None:
        choice = _choose_for_steps(recipe, text, machine, steps)
    elif seconds is not None and timer is not None:
        choice = _choose_for_seconds(recipe, text, machine, seconds, timer)
    else:
        raise PlanError("a plan needs minutes or steps", hint="give --minutes M or --steps N")
    return _fill_in(recipe, text, machine, choice)


@dataclass(frozen=True)
class _Choice:
    """The decisions that hang together; `sequences` is the batch size."""

    config: Config
    sequences: int
    steps: int
    compile: bool
    tokens_per_second: float | None
    seconds: float | None
    assumptions: tuple[str, ...]

    @property
    def tokens_per_step(self) -> int:
        return self.sequences * self.config.window

    @property
    def tokens(self) -> int:
        return self.steps * self.tokens_per_step


def _choose_for_steps(recipe: Recipe, text: TextFacts, machine: Machine, steps: int) -> _Choice:
    """The tokens are given, so the network follows from them; text beyond its 16th reading counts no more."""
    tokens = steps * _tokens_per_step(steps * _SMALLEST_BATCH, machine)
    configs = _configs(recipe, text, tokens)
    window = configs[0].window
    sequences = _sequences(recipe, machine, tokens, window)
    tokens = steps * sequences * window
    wanted = min(tokens, 16 * text.train_tokens) / TOKENS_PER_PARAMETER
    config = min(configs, key=lambda one: abs(math.log(one.num_matmul_parameters / max(wanted, 1))))
    said = f"by steps: nothing was timed; one matrix parameter per {TOKENS_PER_PARAMETER} tokens"
    return _Choice(config, sequences, steps, recipe.training.compile or False, None, None, (said,))


@dataclass
class _Speeds:
    """Floating-point operations per second over all ranks, by timed shape; others are judged by the nearest of them.

    Larger networks have larger matrices, which run faster. Without that, the first shape timed would always win.
    """

    first_guess: float
    measured: dict[Config, float] = field(default_factory=dict)

    @property
    def highest(self) -> float:
        return max(self.measured.values(), default=self.first_guess)

    def tokens_per_second(self, config: Config) -> float:
        nearest = min(
            self.measured, key=lambda one: abs(math.log(one.num_parameters / config.num_parameters)), default=None
        )
        rate = self.first_guess
        if nearest is not None:
            rate = self.measured[nearest] * (config.num_parameters / nearest.num_parameters) ** _RATE_POWER
        return rate / config.flops_per_token(config.window)


def _choose_for_seconds(recipe: Recipe, text: TextFacts, machine: Machine, seconds: float, timer: StepTimer) -> _Choice:
    """Time the shape that looks best until the one that looks best has been timed."""
    compiled = _unless(recipe.training.compile, compiles(recipe.net) and _pays_to_compile(machine, seconds))
    usable = seconds - COMPILE_SECONDS if compiled else seconds
    speeds = _Speeds(_FIRST_GUESS_FLOPS * machine.ranks)
    while True:
        configs = _configs(recipe, text, math.sqrt(usable * speeds.highest * TOKENS_PER_PARAMETER / 6))
        best = min(configs, key=lambda one: _forecast(one, text, usable * speeds.tokens_per_second(one)))
        tokens_per_second, window = speeds.tokens_per_second(best), best.window
        sequences = _sequences(recipe, machine, usable * tokens_per_second, window)
        if best in speeds.measured:
            break
        micro = _micro_batch(recipe, machine, best, sequences)
        _check_memory(recipe, machine, best, micro)
        tokens = machine.ranks * micro * window * (COMPILE_SPEEDUP if compiled else 1.0)
        speeds.measured[best] = best.flops_per_token(window) * tokens / timer(best, micro, window)
    steps = int(usable * tokens_per_second / (sequences * window))
    if steps < _FEWEST_STEPS:
        raise PlanError(
            f"only {max(steps, 0)} training steps of {sequences * window:,} tokens fit into the time there is",
            hint="give more --minutes, or set a smaller net.hidden_size or training.batch_size",
        )
    said = [f"{tokens_per_second:,.0f} tokens/s, from timing {len(speeds.measured)} shape(s) with real steps"]
    if compiled:
        said.append(f"compiling takes about {COMPILE_SECONDS:.0f} s and then gains a factor of {COMPILE_SPEEDUP}")
    return _Choice(best, sequences, steps, compiled, tokens_per_second, seconds, tuple(said))


def _fill_in(recipe: Recipe, text: TextFacts, machine: Machine, choice: _Choice) -> Plan:
    """What follows from the decisions, as a recipe without gaps."""
    training, config = recipe.training, choice.config
    epochs = choice.tokens / text.train_tokens
    micro = _micro_batch(recipe, machine, config, choice.sequences)
    memory = _check_memory(recipe, machine, config, micro)
    optimizer: OptimizerName = training.optimizer or "muon"
    warmup = training.warmup_steps
    if warmup is None:
        warmup = min(choice.steps // 10, max(choice.steps // 50, 40))
    schedule = Schedule.warmup_flat_decay(
        choice.steps,
        warmup=warmup,
        decay_fraction=training.decay_fraction,
        final=training.final_learning_rate_fraction,
    )
    period = max(_SHORTEST_PERIOD, choice.steps // _VALIDATIONS)
    values: dict[str, Any] = {
        "net": net_values(config) | {"dropout": _unless(recipe.net.dropout, _dropout(epochs))},
        "tokenizer": {"vocab_size": text.vocab_size},
        "training": {
            "minutes": None,
            "steps": choice.steps,
            "batch_size": choice.sequences,
            "micro_batch_size": micro,
            "optimizer": optimizer,
            "learning_rate": _unless(training.learning_rate, _learning_rate(recipe, optimizer, choice)),
            "weight_decay": _unless(training.weight_decay, DEFAULTS[optimizer].weight_decay),
            "warmup_steps": warmup,
            "schedule": _unless(training.schedule, schedule.to_json()),
            "precision": _unless(training.precision, "bf16" if machine.bf16 else "fp32"),
            "compile": choice.compile,
            "threads": machine.threads,
            "validate_every": _unless(training.validate_every, period),
            "checkpoint_every": _unless(training.checkpoint_every, period),
        },
    }
    flat = {f"{section}.{key}": value for section, entries in values.items() for key, value in entries.items()}
    megabytes = text.train_bytes / 1e6
    said = f"forecast from {megabytes:,.1f} MB of text read {epochs:,.1f} times; a rough law, off by up to 0.4"
    return Plan(
        recipe=recipe.with_overrides(flat, where="plan"),
        config=config,
        tokens=choice.tokens,
        epochs=epochs,
        predicted_bits_per_byte=_forecast(config, text, choice.tokens),
        memory=memory,
        tokens_per_second=choice.tokens_per_second,
        training_seconds=choice.seconds,
        assumptions=(*choice.assumptions, said),
    )


def _unless(given: _T | None, decided: _T) -> _T:
    return decided if given is None else given


def _configs(recipe: Recipe, text: TextFacts, tokens: float) -> list[Config]:
    """The shapes to choose from, for training on so many tokens."""
    context = choose_context(recipe.net, tokens=tokens, bytes_per_token=text.bytes_per_token)
    if text.train_tokens < context:
        raise DataError(
            f"the training text has {text.train_tokens:,} tokens, less than one context of {context}",
            hint=f"give more text, or set {context_field(recipe.net)} to a smaller number",
        )
    return candidate_configs(recipe.net, vocab_size=text.vocab_size, context=context, eos_token_id=text.eos_token_id)


def _forecast(config: Config, text: TextFacts, tokens: float) -> float:
    return forecast_bits_per_byte(config.num_matmul_parameters, text.train_bytes, tokens * text.bytes_per_token)


def _tokens_per_step(tokens: float, machine: Machine) -> int:
    """Batches grow with D^0.383, rounded to a power of two (the exponent is nanochat's)."""
    smallest = _SMALLEST_BATCH if machine.device == "cpu" else _SMALLEST_GPU_BATCH
    return int(smallest * 2 ** max(0, round(math.log2(max(tokens, 1) / _SMALLEST_BATCH_TOKENS) * 0.383)))


def _sequences(recipe: Recipe, machine: Machine, tokens: float, window: int) -> int:
    """Sequences per step over all ranks, a multiple of the ranks."""
    if recipe.training.batch_size is not None:
        return recipe.training.batch_size
    per_rank = _tokens_per_step(tokens, machine) / window / machine.ranks
    return max(1, round(per_rank)) * machine.ranks


def _micro_batch(recipe: Recipe, machine: Machine, config: Config, sequences: int) -> int:
    """The largest divisor of a rank's share whose activations fit a quarter of the memory."""
    if recipe.training.micro_batch_size is not None:
        return recipe.training.micro_batch_size
    share = max(1, sequences // machine.ranks)
    one = memory_needed(config, micro_batch=1, bytes_per_value=2 if machine.bf16 else 4).activations
    most = max(1, min(machine.memory // 4 // one, share))
    return next(size for size in range(int(most), 0, -1) if share % size == 0)


def _check_memory(recipe: Recipe, machine: Machine, config: Config, micro_batch: int) -> Memory:
    memory = memory_needed(config, micro_batch=micro_batch, bytes_per_value=2 if machine.bf16 else 4)
    if memory.total > machine.memory:
        knob = "net.hidden_size"
        if memory.activations > memory.weights:
            knob = f"training.micro_batch_size or {context_field(recipe.net)}"
        raise PlanError(
            f"training needs about {memory.total / 2**30:,.1f} GiB ({memory.weights / 2**30:,.1f} for weights and "
            f"optimiser, {memory.activations / 2**30:,.1f} for activations); "
            f"{machine.memory / 2**30:,.1f} GiB are free",
            hint=f"set a smaller {knob}",
        )
    return memory


def _pays_to_compile(machine: Machine, seconds: float) -> bool:
    """Whether what compilation saves over the run is more than it takes."""
    return machine.can_compile and seconds * (1 - 1 / COMPILE_SPEEDUP) > COMPILE_SECONDS


def _learning_rate(recipe: Recipe, optimizer: OptimizerName, choice: _Choice) -> float:
    """The family's; smaller for wider nets, larger for larger batches (by the square root, as nanochat does)."""
    batch = math.sqrt(choice.tokens_per_step / _SMALLEST_BATCH)
    width = math.sqrt(192 / max(choice.config.hidden_size, 192))
    rate = DEFAULTS[optimizer].learning_rate * learning_rate_factor(recipe.net)
    return float(f"{rate * min(batch, 4.0) * width:.3g}")


def _dropout(epochs: float) -> float:
    """None while the text is fresh; the thresholds rest on one pair of runs (LOG.md, 2026-11-22)."""
    return next(rate for most, rate in _DROPOUT_UP_TO_EPOCHS if epochs <= most)
