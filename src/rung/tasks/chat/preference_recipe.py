"""The recipe of tuning by preferences: that of a chat model, with what the comparison of two answers adds."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from rung.objectives.preference import DirectPreference
from rung.recipe import Section
from rung.tasks.chat.tuning_recipe import ChatRecipe


class PreferenceSection(Section):
    """The objective."""

    beta: float | None = Field(default=None, gt=0, description="how dear distance from the reference is; 2, or 0.1")
    length_normalised: bool = Field(default=True, description="means over tokens, not sums, where beta is then 0.1")


class PreferenceRecipe(ChatRecipe):
    """What to make of which chat model by pairs of answers."""

    usual_rates: ClassVar = {}
    """The plan knows the size of the network: `rung.tasks.chat.rates`."""

    preference: PreferenceSection = PreferenceSection()

    @property
    def beta(self) -> float:
        """The one that is asked for; else 0.1 for sums (Rafailov et al. 2023), and 2 for means.

        Tülu 3 has 5 for means, where large models stop at a gain of a fifth of a nat by token. For a small one that is
        too early: of 216 pairs held back, the chosen answer was the likelier one by token in 48 % before and, after two
        readings, in 67 % with 2 and 55 % with 5 (62 % with sums and 0.1).
        """
        return self.preference.beta or (2.0 if self.preference.length_normalised else 0.1)

    @property
    def objective(self) -> DirectPreference:
        """What is minimised."""
        return DirectPreference(self.beta, length_normalised=self.preference.length_normalised)
