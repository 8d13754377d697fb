"""What is told about a tuned sentence encoder in the end: to who tuned it, and on its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rung.objectives.similarity import WHOLE_BATCH
from rung.tasks.run import Run
from rung.tasks.similarity.tuning_recipe import SimilarityRecipe
from rung.tasks.tuning.card import TunedCard, parts_in_words
from rung.tasks.tuning.summary import Tuned

_USE = """```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("{run}").encode(["some text", "another text"])
```"""
_MERGED = "What LoRA has learned is merged into the base: this is a whole model, and no adapter is beside it."
_WHOLE_BATCH = """This loss compares the rows of a batch with each other: a batch is never cut into parts, and another
batch size is another loss."""


@dataclass(frozen=True)
class SimilarityTuned(Tuned[SimilarityRecipe]):
    """How tuning a sentence encoder went. `remarks`: what was left out of the data; `has_merged`: by LoRA."""

    items = unit = "rows"
    next_commands = ('rung embed {run} "some text" "another text"',)
    merged = True

    remarks: tuple[str, ...] = ()
    has_merged: bool = False

    def remarks_told(self) -> Sequence[str]:
        """What was left out, and what became of LoRA's additions."""
        return (*self.remarks, *([_MERGED] if self.has_merged else []))

    def further(self) -> Mapping[str, Any]:
        """What was left out."""
        return {"remarks": list(self.remarks)}

    def card(self, run: Run, recipe: SimilarityRecipe) -> str:
        """The model card of a finished run."""
        data, training = run.header["data"], recipe.training
        trained = [_MERGED] if self.has_merged else []
        trained += [_WHOLE_BATCH] if training.loss in WHOLE_BATCH else []
        return TunedCard(
            library="sentence-transformers",
            pipeline_tag="sentence-similarity",
            tags=("rung", "sentence-transformers"),
            about=f"tuned on {data['kind']}: texts that are alike get vectors that are near",
            use=_USE.format(run=run.folder),
            data=parts_in_words(data, self.items, remarks=self.remarks),
            steps=f"{training.batch_size} rows, loss {training.loss}",
            trained="\n\n".join(trained),
            limits="These figures hold for texts like those it was tuned on; nothing is known of others.",
        ).text(run, recipe, self)
