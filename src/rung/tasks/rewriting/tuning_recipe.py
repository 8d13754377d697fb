"""The recipe of an encoder-decoder that is tuned on pairs."""

from __future__ import annotations

from pydantic import Field

from rung.recipe import Section
from rung.tasks.rewriting.recipe import PairsSection
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.stepping import SteppedRecipe, SteppedSection

_RATES = {"full": 1e-3, "lora": 5e-3}
_RATES_WIDTH = 128
"""The width that these rates are for: wider networks want smaller ones, about 1e-4 at the 512 of T5's small one."""


class TunedPairsSection(PairsSection):
    """The pairs to tune on, and what is put before every source."""

    prefix: str = Field(default="", description='put before every source: "summarize: "')


class RewriteTuningSection(SteppedSection):
    """The budget, the optimiser and the schedule; batches are of so many tokens."""

    longest: int | None = Field(default=None, ge=2, description="tokens of a text; the network's own at most")
    tokens_per_batch: int = Field(default=2048, ge=16, description="tokens a side in one batch, with padding")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    measured: int | None = Field(default=None, ge=2, description="test pairs that are measured, at most")


class TunedBeamSection(Section):
    """How targets are searched for; by default as the base does it."""

    num_beams: int | None = Field(default=None, ge=1, le=64)
    length_penalty: float | None = Field(default=None, ge=-10, le=10)


class RewriteTuningRecipe(SteppedRecipe):
    """What encoder-decoder to tune on which pairs. The learning rate depends on its width: the plan knows it."""

    pairs: TunedPairsSection = TunedPairsSection()
    training: RewriteTuningSection = RewriteTuningSection()
    beam: TunedBeamSection = TunedBeamSection()


def usual_rate(method: TuningMethod, hidden_size: int) -> float:
    """The learning rate to begin with for a network of this width."""
    return float(f"{_RATES[method.kind] * (_RATES_WIDTH / hidden_size) ** 1.5:.2g}")
