"""What counting an n-gram model takes: its order, its memory, its time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rung.errors import PlanError
from rung.nets.ngram import NgramConfig
from rung.recipe import Recipe
from rung.training.ngram.counting import COUNTING_BYTES_PER_TOKEN
from rung.training.plan import Machine, TextFacts

_ORDERS = ((2.0, 8), (3.0, 6))
_ORDER_OF_WORDS = 5
"""By bytes of text a token: below 2 (bytes, characters), below 3, and above. On novels (LOG.md)."""
_STORED_BYTES_PER_NGRAM = 16  # token, log-probability, back-off and first child; at most one n-gram a token and order
_SECONDS_PER_TOKEN_AND_ORDER = 5e-7  # 3e-7 measured on one core, 21 million tokens and order 5


@dataclass(frozen=True)
class NgramPlan:
    """A recipe without gaps, and what it costs: `memory` bytes at most, about `seconds` of counting."""

    recipe: Recipe
    config: NgramConfig
    tokens: int
    memory: int
    seconds: float

    def lines(self) -> list[str]:
        """The plan in a few sentences, for people."""
        return [
            f"network: none; n-grams of up to {self.config.order} tokens are counted, vocabulary "
            f"{self.config.vocab_size:,}",
            f"counting: {self.tokens / 1e6:.1f} M tokens once, about {self.seconds:.0f} s and at most "
            f"{self.memory / 2**20:,.0f} MiB",
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values for rung.json and `--json`."""
        return {"tokens": self.tokens, "epochs": 1.0, "memory_bytes": self.memory}


def plan_ngram(recipe: Recipe, text: TextFacts, machine: Machine, *, seconds: float | None) -> NgramPlan:
    """Decide what `recipe` leaves open; `seconds` is the most that counting may take, None for no limit.

    Raises PlanError when the result does not fit the memory or the seconds.
    """
    order = recipe.net.order or default_order(text.bytes_per_token)
    needed = text.train_tokens * (COUNTING_BYTES_PER_TOKEN + _STORED_BYTES_PER_NGRAM * order)
    forecast = text.train_tokens * order * _SECONDS_PER_TOKEN_AND_ORDER
    if needed > machine.memory:
        raise PlanError(
            f"counting {text.train_tokens:,} tokens at order {order} may take {needed / 2**30:.1f} GiB of memory; "
            f"{machine.memory / 2**30:.1f} GiB are free",
            hint="give less text, or a lower order: --set net.order=3",
        )
    if seconds is not None and forecast > seconds:
        raise PlanError(
            f"counting takes about {forecast:.0f} s, and {max(seconds, 0):.0f} s are left",
            hint="give more --minutes, less text, or a lower order: --set net.order=3",
        )
    resolved = recipe.with_overrides(
        {"net.order": order, "tokenizer.vocab_size": text.vocab_size, "training.threads": machine.threads}, where="plan"
    )
    config = NgramConfig(order, text.vocab_size, text.eos_token_id, (text.vocab_size,))
    return NgramPlan(resolved, config, text.train_tokens, needed, forecast)


def default_order(bytes_per_token: float) -> int:
    """The order for tokens of this size: short ones need more of them to see as far."""
    return next((order for below, order in _ORDERS if bytes_per_token < below), _ORDER_OF_WORDS)
