"""What is told about a language model that was tuned on raw text: to who tuned it, and on its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rung.evaluation.bits_per_byte import NAME
from rung.tasks.run import Run
from rung.tasks.text.tuning_recipe import TextTuningRecipe
from rung.tasks.tuning.card import TunedCard
from rung.tasks.tuning.summary import Tuned

AFTER = NAME
BEFORE = f"{NAME}_before"
GAIN = f"{NAME}_gained"


@dataclass(frozen=True)
class TextTuned(Tuned[TextTuningRecipe]):
    """How tuning went. `records`: bits per byte of the same held-out text after and before, their paired difference."""

    items = "documents"
    unit = "tokens"
    next_commands = ('rung generate {run} "Once upon a"', "rung eval {run} TEXT")

    tokens: int = 0
    sample: str = ""

    def shown(self) -> Sequence[str]:
        """A sample."""
        return ["", "It writes:", f"  {self.sample.strip()}"]

    def further(self) -> Mapping[str, Any]:
        """Tokens that were trained on, and a sample."""
        return {"tokens": self.tokens, "sample": self.sample}

    def card(self, run: Run, recipe: TextTuningRecipe) -> str:
        """The model card of a finished run."""
        data, training = run.header["data"], recipe.training
        size = f"{data['train_bytes']:,} bytes, {data['train_tokens']:,} tokens"
        sample = "\n".join(f"> {line}" for line in self.sample.strip().splitlines())
        return TunedCard(
            pipeline_tag="text-generation",
            about="carried on with texts of the user's own",
            measured="The held-out text chose nothing: the weights are those of the last step.\n"
            f"`{GAIN}` is positive where fewer bits are needed after tuning than before.",
            data=f"{data['train_documents']:,} documents ({size}) to tune on,\nno near-duplicate of what was held out.",
            steps=f"{training.batch_size} rows of {training.context_length} tokens",
            limits="The model invents facts and may quote the texts it was tuned on word for word.",
            further=f"## A sample\n\n{sample or '> (empty)'}",
        ).text(run, recipe, self)
