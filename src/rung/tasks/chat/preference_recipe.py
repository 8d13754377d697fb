"""The recipe of tuning by preferences: that of a chat model, with what the comparison of two answers adds."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from rung.objectives.preference import DirectPreference
from rung.recipe import Section
from rung.tasks.chat.tuning_recipe import ChatRecipe


class PreferenceSection(Section):
    """The objective."""

    beta: float | None = Field(default=None, gt=0, description="how dear distance from the reference is; 0.1, or 5")
    length_normalised: bool = Field(default=False, description="means over tokens instead of sums; beta is then 5")


class PreferenceRecipe(ChatRecipe):
    """What to make of which chat model by pairs of answers."""

    # A tenth of the rates of instruction tuning: DPO moves away from a model that is good already (Tülu 3, table 20).
    usual_rates: ClassVar = {"full": 1e-5, "lora": 1e-4}

    preference: PreferenceSection = PreferenceSection()

    @property
    def beta(self) -> float:
        """The one that is asked for; else 0.1 for sums (Rafailov et al. 2023), 5 for means (Tülu 3)."""
        return self.preference.beta or (5.0 if self.preference.length_normalised else 0.1)

    @property
    def objective(self) -> DirectPreference:
        """What is minimised."""
        return DirectPreference(self.beta, length_normalised=self.preference.length_normalised)
