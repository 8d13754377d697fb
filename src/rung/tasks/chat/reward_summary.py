"""What is told of a model that learned by rewards: to who tuned it, and on its card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rung.tasks.chat.reward_recipe import RewardRecipe
from rung.tasks.run import Run
from rung.tasks.tuning.card import TunedCard, parts_in_words
from rung.tasks.tuning.summary import Tuned

SOLVED = "solved"
BEFORE = f"{SOLVED}_before"
GAIN = f"difference in {SOLVED}"


@dataclass(frozen=True)
class RewardTuned(Tuned[RewardRecipe]):
    """How learning by rewards went. `answers`: (prompt, answer) of the first test problems."""

    items = "problems"
    unit = "answers"
    next_commands = ("rung chat {run}",)

    answers: tuple[tuple[str, str], ...] = ()

    def remarks_told(self) -> list[str]:
        """What to do where nothing was gained."""
        gained = next((one.interval for one in self.records if one.name == GAIN), None)
        if gained is None or gained.high >= 0:
            return []
        return ["It solves fewer than its base: try half the learning rate, or more prompts a step."]

    def shown(self) -> list[str]:
        """Some answers."""
        lines = []
        for prompt, answer in self.answers:
            lines += ["", f"  {prompt}", f"  -> {answer.strip()}"]
        return lines

    def further(self) -> dict[str, Any]:
        """Some answers."""
        return {"answers": [{"prompt": prompt, "answer": answer} for prompt, answer in self.answers]}

    def card(self, run: Run, recipe: RewardRecipe) -> str:
        """The model card of a finished run."""
        data, training, reward = run.header["data"], recipe.training, recipe.reward
        remarks = ["no prompt is in two parts", *data["remarks"]]
        return TunedCard(
            pipeline_tag="text-generation",
            tags=("rung", "chat", "grpo"),
            about="which learned from its own answers to problems that can be checked (GRPO, arXiv 2402.03300)",
            data=parts_in_words(data, self.items, remarks=remarks, key="{}_problems"),
            steps=f"{training.batch_size} prompts, {reward.answers} answers to each of up to {reward.max_tokens} "
            f"tokens at temperature {reward.temperature:g},\nwhere an answer earned 1 by being right and "
            f"{reward.ended:g} by ending its turn, distance from the base weighed {reward.beta:g},\n"
            f"{training.optimizer}",
            limits="It was rewarded for final answers, not for how it came by them.",
        ).text(run, recipe, self)
