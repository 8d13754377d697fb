"""The recipe of learning by rewards: that of a chat model, with what sampling and checking answers adds."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from rung.recipe import Section
from rung.tasks.chat.tuning_recipe import ChatRecipe, ChatTrainingSection


class RewardSection(Section):
    """How answers are sampled, and what they earn."""

    answers: int = Field(default=8, ge=2, le=256, description="answers to a prompt, which are compared")
    max_tokens: int = Field(default=64, ge=1, description="tokens after which an answer is cut off")
    temperature: float = Field(default=1.0, gt=0, le=5, description="of the sampling")
    ended: float = Field(default=0.1, ge=0, le=1, description="what an answer earns by ending its turn; 1: being right")
    beta: float = Field(default=0.0, ge=0, description="how dear distance from the base is; 0 needs no second network")
    normalised: bool = Field(default=False, description="advantages over their group's standard deviation")


class RewardTrainingSection(ChatTrainingSection):
    """The budget, the optimiser and the schedule, with a long warm-up.

    The gradient of rewards is mostly noise, and until Adam knows how much, its steps are several times too long. With a
    warm-up of 4 steps, the share of held-back sums that a small model solved fell from 0.73 to 0.63 before it rose.
    """

    warmup_share: float = Field(default=0.2, ge=0, lt=1)


class RewardRecipe(ChatRecipe):
    """What to make of which chat model by rewards that can be checked."""

    usual_rates: ClassVar = {}
    """The plan knows the size of the network: `rung.tasks.chat.rates`."""

    training: RewardTrainingSection = RewardTrainingSection()
    reward: RewardSection = RewardSection()
