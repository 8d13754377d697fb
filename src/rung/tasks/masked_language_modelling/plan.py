"""What a run will do: the network for this text and these minutes, found by timing real steps."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import Any, TypeVar

import torch

from rung.data.masked_batches import MaskedTokenBatches, Masking
from rung.data.wordpiece import choose_vocab_size
from rung.errors import PlanError
from rung.nets.blank import without_values
from rung.nets.encoder import Encoder
from rung.nets.encoder_config import EncoderConfig
from rung.nets.masked_language_model import MaskedLanguageModel
from rung.objectives.masked_token import MaskedToken
from rung.tasks.masked_language_modelling.preparation import MaskedText
from rung.tasks.masked_language_modelling.recipe import MaskedRecipe
from rung.training.contracts import Batches, LoopSettings, Precision
from rung.training.distributed import World
from rung.training.gradients import BatchGradient
from rung.training.optimizers import DEFAULTS, build_optimizer, rate_like_adamw
from rung.training.schedule import Schedule

# (hidden_size, num_hidden_layers), the last of them BERT's base size.
_LADDER = ((64, 2), (128, 2), (128, 4), (256, 4), (384, 6), (512, 8), (768, 12))
TOKENS_PER_PARAMETER = 10
"""Tokens to read for each parameter of the layers. A decoder wants about as many (Hoffmann et al. 2022: 20)."""
_CONTEXT = 128  # BERT took nine tenths of its steps at this length (Devlin et al. 2019, A.2)
_WINDOWS = {"cpu": 32, "cuda": 256}
_USUAL_WIDTH, _USUAL_BATCH = 192, 2048  # tokens a step; for these, and AdamW, the rate below holds
_ADAMW_RATE = 0.0014  # post-norm bears half of what a decoder bears (LOG.md, "BERT on little time")
_DROPOUT_FROM_EPOCHS = 8.0
_FEWEST_STEPS = 20
_VALIDATIONS = 16
_SHORTEST_PERIOD = 10  # steps
_WARM_UP, _TIMED = 2, 3
_CLEARLY = 0.8  # bfloat16 computes less exactly and must win clearly
_NEXT_IS_QUICKER = 1.3  # larger matrices run at a higher rate
_T = TypeVar("_T")


@dataclass(frozen=True)
class MaskedPlan:
    """A recipe without gaps, and what it means. Speeds are None in a plan by steps, which reads no clock."""

    recipe: MaskedRecipe
    config: EncoderConfig
    parameters: int
    tokens: int
    epochs: float
    tokens_per_second: float | None
    assumptions: tuple[str, ...]

    def lines(self) -> list[str]:
        """The plan for people."""
        net, training, masking = self.recipe.net, self.recipe.training, self.recipe.masking
        hidden = "words" if masking.whole_words else "tokens"
        speed = "" if self.tokens_per_second is None else f" at {self.tokens_per_second:,.0f} tokens/s"
        return [
            f"network: {self.parameters / 1e6:.2f} M parameters; {net.num_hidden_layers} layers, hidden size "
            f"{net.hidden_size}, windows of {net.max_position_embeddings} tokens, vocabulary "
            f"{self.config.vocab_size:,}",
            f"training: {training.steps:,} steps, {self.tokens / 1e6:.1f} M tokens{speed}, the text read "
            f"{self.epochs:.1f} times; {masking.share:.0%} of the {hidden} hidden; "
            f"{training.optimizer}, {training.precision}, dropout {net.dropout}, {training.threads} threads",
            *(f"assumed: {assumption}" for assumption in self.assumptions),
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values for rung.json and `--json`."""
        return {
            "parameters": self.parameters,
            "vocab_size": self.config.vocab_size,
            "tokens": self.tokens,
            "epochs": round(self.epochs, 3),
            "tokens_per_second": self.tokens_per_second and round(self.tokens_per_second),
            "assumptions": list(self.assumptions),
            "recipe": self.recipe.to_json(),
        }


def make_plan(
    wanted: MaskedRecipe, text: MaskedText, world: World, *, threads: int, bf16: bool, seconds: float | None
) -> MaskedPlan:
    """Fill the gaps of `wanted` for training of `seconds`, or for the recipe's steps without reading a clock (None).

    The largest network of the ladder is taken that can read `TOKENS_PER_PARAMETER` tokens for each parameter of its
    layers. Raises PlanError when not even a few steps fit, RunFolderError for a shape that cannot be.
    """
    draft = _Draft(wanted, text, world, threads)
    if seconds is None:
        return draft.by_steps(wanted.training.steps or 1, "bf16" if bf16 else "fp32")
    return draft.by_clock(seconds, bf16=bf16)


def encoder_config(recipe: MaskedRecipe, text: MaskedText, *, hidden: int = 0, layers: int = 0) -> EncoderConfig:
    """The shape of a resolved recipe's network, or of another with this size where the recipe leaves it open."""
    net = recipe.net
    hidden = net.hidden_size or hidden
    return EncoderConfig(
        vocab_size=text.encoder.vocab_size,
        hidden_size=hidden,
        num_hidden_layers=net.num_hidden_layers or layers,
        num_attention_heads=net.num_attention_heads or _heads(hidden),
        intermediate_size=net.intermediate_size or 4 * hidden,
        max_position_embeddings=net.max_position_embeddings or _CONTEXT,
        hidden_dropout_prob=net.dropout or 0.0,
        attention_probs_dropout_prob=0.0,  # its masks would cost the fused attention
        pad_token_id=text.encoder.pad_token_id,
    )


def masked_batches(
    recipe: MaskedRecipe, text: MaskedText, config: EncoderConfig, batch_size: int
) -> MaskedTokenBatches:
    """The training batches of a recipe."""
    masking = Masking(
        text.encoder, seed=recipe.seed, share=recipe.masking.share, whole_words=recipe.masking.whole_words
    )
    windows = text.windows(text.train, config.max_position_embeddings)
    return MaskedTokenBatches(windows, masking, batch_size=batch_size, seed=recipe.seed)


def draw_network(config: EncoderConfig, *, seed: int) -> MaskedLanguageModel:
    """A network drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MaskedLanguageModel(Encoder(config))


@dataclass
class _Draft:
    wanted: MaskedRecipe
    text: MaskedText
    world: World
    threads: int

    def by_steps(self, steps: int, precision: Precision) -> MaskedPlan:
        tokens = steps * self._batch_size * self._tokens_per_window
        fitting = [one for one in self._candidates() if tokens >= TOKENS_PER_PARAMETER * _layer_parameters(one)]
        said = f"by steps: nothing was timed; {TOKENS_PER_PARAMETER} tokens per parameter of the layers"
        return self._finished((fitting or self._candidates())[-1 if fitting else 0], steps, precision, None, (said,))

    def by_clock(self, seconds: float, *, bf16: bool) -> MaskedPlan:
        """Time the shapes from the smallest up, until the next is too large for the time."""
        per_step = self._batch_size * self._tokens_per_window
        best: tuple[EncoderConfig, Precision, float] | None = None
        timed = 0
        for config in self._candidates():
            work = TOKENS_PER_PARAMETER * _layer_parameters(config)
            if best is not None:
                larger = flops_per_token(config, self.wanted.masking.share) / flops_per_token(
                    best[0], self.wanted.masking.share
                )
                if seconds / (best[2] * larger / _NEXT_IS_QUICKER) * per_step < work:
                    break
            precision, cost = self._timed(config, bf16=bf16)
            timed += 1
            if best is not None and seconds / cost * per_step < work:
                break
            best = config, precision, cost
        if best is None or seconds / best[2] < _FEWEST_STEPS:
            raise PlanError(
                f"fewer than {_FEWEST_STEPS} training steps fit into the time there is",
                hint="give more --minutes, or set a smaller net.hidden_size or training.batch_size",
            )
        config, precision, cost = best
        said = f"{per_step / cost:,.0f} tokens/s, from timing {timed} shape(s) with real steps"
        return self._finished(config, int(seconds / cost), precision, per_step / cost, (said,))

    @property
    def _batch_size(self) -> int:
        ranks = self.world.size
        return self.wanted.training.batch_size or max(1, _WINDOWS[self.world.device.type] // ranks) * ranks

    @cached_property
    def _tokens_per_window(self) -> float:
        windows = self.text.windows(self.text.train, self.wanted.net.max_position_embeddings or _CONTEXT)
        return windows.num_tokens / len(windows)

    def _candidates(self) -> list[EncoderConfig]:
        configs = [encoder_config(self.wanted, self.text, hidden=hidden, layers=layers) for hidden, layers in _LADDER]
        return list(dict.fromkeys(configs))

    def _timed(self, config: EncoderConfig, *, bf16: bool) -> tuple[Precision, float]:
        """The faster precision for a shape, and its seconds a step."""
        asked = self.wanted.training.precision
        options: tuple[Precision, ...] = (asked,) if asked else ("fp32", "bf16") if bf16 else ("fp32",)
        batches = masked_batches(self.wanted, self.text, config, self._batch_size)
        times = {one: self._seconds_per_step(config, batches, one) for one in options}
        best = min(times, key=lambda one: times[one] * (_CLEARLY if one == "fp32" else 1.0))
        return best, times[best]

    def _seconds_per_step(self, config: EncoderConfig, batches: Batches, precision: Precision) -> float:
        net = draw_network(config, seed=0).to(self.world.device).train()
        optimizer = build_optimizer(net, name=self.wanted.training.optimizer, learning_rate=1e-5)
        micro = self._micro_batch_size(self._batch_size)
        settings = LoopSettings(
            schedule=Schedule.warmup_flat_decay(1, warmup=0, decay_fraction=1.0, final=1.0),
            batch_size=self._batch_size,
            micro_batch_size=micro,
            precision=precision,
        )
        gradient = BatchGradient(
            net=net,
            objective=MaskedToken(),
            batches=batches,
            optimizer=optimizer,
            settings=settings,
            world=self.world,
        )
        times = []
        for number in range(_WARM_UP + _TIMED):
            began = time.perf_counter()
            gradient.compute(number * self._batch_size, lambda: 0)
            optimizer.step(0.0)
            times.append(time.perf_counter() - began)
        return median(times[_WARM_UP:])

    def _micro_batch_size(self, batch_size: int) -> int:
        share = batch_size // self.world.size
        most = min(self.wanted.training.micro_batch_size or share, _WINDOWS[self.world.device.type], share)
        return next(size for size in range(max(most, 1), 0, -1) if share % size == 0)

    def _finished(
        self,
        config: EncoderConfig,
        steps: int,
        precision: Precision,
        tokens_per_second: float | None,
        assumptions: tuple[str, ...],
    ) -> MaskedPlan:
        training = self.wanted.training
        tokens = round(steps * self._batch_size * self._tokens_per_window)
        epochs = tokens / self.text.train_tokens
        dropout = _unless(self.wanted.net.dropout, 0.0 if epochs < _DROPOUT_FROM_EPOCHS else 0.1)
        config = replace(config, hidden_dropout_prob=dropout)
        warmup = _unless(training.warmup_steps, min(steps // 10, max(steps // 20, 100)))
        schedule = Schedule.warmup_flat_decay(
            steps,
            warmup=warmup,
            decay_fraction=training.decay_fraction,
            final=training.final_learning_rate_fraction,
        )
        period = max(_SHORTEST_PERIOD, steps // _VALIDATIONS)
        batch = self._batch_size * self._tokens_per_window / _USUAL_BATCH
        scale = math.sqrt(_USUAL_WIDTH / max(config.hidden_size, _USUAL_WIDTH) * min(batch, 16.0))
        recipe = self.wanted.with_overrides(
            {
                "tokenizer.vocab_size": self.wanted.tokenizer.vocab_size
                or choose_vocab_size(self.text.corpus.num_bytes("train")),
                "net.hidden_size": config.hidden_size,
                "net.num_hidden_layers": config.num_hidden_layers,
                "net.num_attention_heads": config.num_attention_heads,
                "net.intermediate_size": config.intermediate_size,
                "net.max_position_embeddings": config.max_position_embeddings,
                "net.dropout": dropout,
                "training.minutes": None,
                "training.steps": steps,
                "training.batch_size": self._batch_size,
                "training.micro_batch_size": self._micro_batch_size(self._batch_size),
                "training.learning_rate": _unless(
                    training.learning_rate, float(f"{rate_like_adamw(training.optimizer, _ADAMW_RATE * scale):.3g}")
                ),
                "training.weight_decay": _unless(training.weight_decay, DEFAULTS[training.optimizer].weight_decay),
                "training.warmup_steps": warmup,
                "training.schedule": _unless(training.schedule, schedule.to_json()),
                "training.precision": training.precision or precision,
                "training.threads": self.threads,
                "training.validate_every": _unless(training.validate_every, period),
                "training.checkpoint_every": _unless(training.checkpoint_every, period),
            },
            where="plan",
        )
        return MaskedPlan(recipe, config, num_parameters(config), tokens, epochs, tokens_per_second, assumptions)


def num_parameters(config: EncoderConfig) -> int:
    """All parameters of a masked language model, the output matrix counted once."""
    with without_values():
        return sum(p.numel() for p in MaskedLanguageModel(Encoder(config)).parameters())


def _layer_parameters(config: EncoderConfig) -> int:
    """Parameters in the matrices of the layers."""
    return config.num_hidden_layers * config.hidden_size * (4 * config.hidden_size + 2 * config.intermediate_size)


def flops_per_token(config: EncoderConfig, share: float) -> float:
    """Floating-point operations to train on one token of a window, `share` of which reach the output matrix."""
    attention = 12 * config.num_hidden_layers * config.hidden_size * config.max_position_embeddings
    output = share * config.hidden_size * (config.vocab_size + config.hidden_size)
    return 6 * (_layer_parameters(config) + output) + attention


def _heads(hidden: int) -> int:
    """Heads of 64, as BERT has them, where the width allows; else one."""
    return hidden // 64 if hidden % 64 == 0 else 1


def _unless(given: _T | None, decided: _T) -> _T:
    return decided if given is None else given
