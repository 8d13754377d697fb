"""What is told about a tuned tagger in the end: to who tuned it, and on its card."""

from __future__ import annotations

from dataclasses import dataclass

from rung.tasks.run import Run
from rung.tasks.tagging.tuning_recipe import TagRecipe
from rung.tasks.tuning.card import TunedCard, parts_in_words
from rung.tasks.tuning.summary import Tuned


@dataclass(frozen=True)
class TaggerTuned(Tuned[TagRecipe]):
    """How tuning a tagger went."""

    items = "sentences"
    unit = "words"
    next_commands = ('rung predict {run} "some text"', "rung eval {run} tagged.conll")

    def card(self, run: Run, recipe: TagRecipe) -> str:
        """The model card of a finished run."""
        data = run.header["data"]
        return TunedCard(
            pipeline_tag="token-classification",
            about=f"tuned to give each word of a text one of {len(data['tags'])} tags:\n{', '.join(data['tags'])}",
            data=parts_in_words(data, "sentences", remarks=data["remarks"]),
            steps=f"{recipe.training.batch_size} sentences",
            limits="These figures hold for sentences like those it was tuned on, cut into words as those were.",
        ).text(run, recipe, self)
