"""The recipe of a chat model."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from pydantic import Field

from rung.data.packing import Overlong
from rung.recipe import Section
from rung.tasks.tuning.recipe import DataSection
from rung.tasks.tuning.stepping import SteppedRecipe, TokenRowsSection


class ConversationsSection(DataSection):
    """Which conversations (.jsonl or .json: messages, ShareGPT, Alpaca, prompts), and how they become tokens."""

    valid_share: float = Field(default=0.05, gt=0, lt=0.4, description="share that is split off to validate on")
    test_share: float = Field(default=0.1, gt=0, lt=0.4, description="share that is split off to test on")
    template: str | None = Field(
        default=None, description="file of a chat template, or chatml; default: the base's own"
    )
    now: str | None = Field(default=None, description="the date that templates are told which write it; ISO 8601")
    overlong: Overlong = Field(default="refuse", description="conversations of more tokens than the context")


class ChatTrainingSection(TokenRowsSection):
    """The budget, the optimiser and the schedule. Conversations share rows."""

    context_length: int | None = Field(default=None, ge=16, description="tokens of a row that conversations share")
    decay_share: float = Field(default=0.7, gt=0, le=1, description="share of the steps in the final linear decay")
    final_learning_rate_fraction: float = Field(default=0.05, ge=0, le=1)
    vital_signs_every: int | None = Field(default=0, ge=0)


class MeasuringSection(Section):
    """What the result is measured on."""

    prompts: int = Field(default=50, ge=0, le=10_000, description="test prompts that are answered, greedily")
    max_tokens: int = Field(default=128, ge=1, description="tokens after which an answer counts as not ended")


class ChatRecipe(SteppedRecipe):
    """What chat model to make of which base."""

    # Full: the rate of nanochat's and SmolLM2's instruction tuning lies between 1e-5 and 1e-3, the smaller the model
    # the higher; LoRA learns at about ten times the rate (Schulman 2025, "LoRA without regret").
    usual_rates: ClassVar = {"full": 1e-4, "lora": 5e-4}

    data: ConversationsSection = ConversationsSection()
    training: ChatTrainingSection = ChatTrainingSection()
    measuring: MeasuringSection = MeasuringSection()


AnyChatRecipe = TypeVar("AnyChatRecipe", bound=ChatRecipe)

PLACES = {"data": "data.files", "valid": "data.valid", "test": "data.test"}
"""Where these recipes keep what `tune` takes; see `rung.tasks.tuning.tuner.Tuner`."""
