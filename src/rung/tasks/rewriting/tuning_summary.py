"""What is told about an encoder-decoder that was tuned on pairs: to who tuned it, and on its card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rung.data.pairs import Pairs
from rung.evaluation.intervals import compare, difference_interval
from rung.evaluation.summed import SummedScores
from rung.evaluation.translation import bleu_scores, chrf_scores
from rung.records import Record
from rung.tasks.rewriting.measuring import Measured
from rung.tasks.rewriting.summary import Example
from rung.tasks.rewriting.tuning_recipe import RewriteTuningRecipe
from rung.tasks.run import Run
from rung.tasks.tuning.card import TunedCard, parts_in_words
from rung.tasks.tuning.summary import Tuned

BEFORE, GAINED, UNCHANGED = "{}_before", "{}_gained", "bleu_of_unchanged_source"


@dataclass(frozen=True)
class RewritingTuned(Tuned[RewriteTuningRecipe]):
    """How tuning went. `records` are the metrics after tuning, before it, and the paired differences."""

    items = "pairs"
    unit = "target tokens"
    next_commands = ('rung predict {run} "..."', "rung eval {run} pairs.csv")

    examples: tuple[Example, ...] = ()

    def shown(self) -> list[str]:
        """What was written for some sources."""
        lines = []
        for one in self.examples:
            lines += ["", f"  {one.source}", f"  -> {one.written}", f"  (wanted: {one.reference})"]
        return lines

    def further(self) -> dict[str, Any]:
        """What was written for some sources."""
        return {"examples": [vars(example) for example in self.examples]}

    def card(self, run: Run, recipe: RewriteTuningRecipe) -> str:
        """The model card of a finished run."""
        data, training = run.header["data"], recipe.training
        remarks = [*data["remarks"], "no source is in two parts"]
        prefix = f", with `{recipe.pairs.prefix}` before every source" if recipe.pairs.prefix else ""
        return TunedCard(
            pipeline_tag="text2text-generation",
            about=f"tuned to rewrite {data['source']} to {data['target']}{prefix}",
            measured="Base and tuned model write with the same settings. `bleu_gained` and its like are positive\n"
            "where tuning helped.",
            data=parts_in_words(data, self.items, remarks=remarks, key="{}_pairs"),
            steps=f"about {training.tokens_per_batch:,} tokens a side, dropout {training.dropout:g}, label smoothing "
            f"{training.label_smoothing:g}",
            limits="On texts unlike those it was tuned on it writes fluent nonsense.",
            digits=2,
        ).text(run, recipe, self)


def compared(before: Measured, after: Measured) -> list[Record]:
    """The metrics after and before tuning, their paired differences, and BLEU of sources left as they are."""
    pairs = after.pairs
    gains = [
        _difference(
            name, count(pairs.ids, before.written, pairs.targets), count(pairs.ids, after.written, pairs.targets)
        )
        for name, count in (("bleu", bleu_scores), ("chrf", chrf_scores))
    ]
    for name, scores in after.scores.items():
        gain = compare(scores, before.scores[name], name=name, unit="F1")
        gains.insert(0, gain.model_copy(update={"name": GAINED.format(name), "data_sha256": pairs.sha256}))
    renamed = [record.model_copy(update={"name": BEFORE.format(record.name)}) for record in before.records]
    return [*after.records, *renamed, *gains, _of_unchanged(pairs)]


def _difference(name: str, before: SummedScores, after: SummedScores) -> Record:
    return Record(
        name=GAINED.format(name),
        value=after.value - before.value,
        unit="points of 100",
        n=len(after.ids),
        interval=difference_interval(after, before),
        signature="paired by pair",
    )


def _of_unchanged(pairs: Pairs) -> Record:
    """What a model that rewrites nothing would have: much where texts are corrected, little in translation."""
    return Record(
        name=UNCHANGED,
        value=bleu_scores(pairs.ids, pairs.sources, pairs.targets).value,
        unit="points of 100",
        n=len(pairs),
        interval=None,
        signature="the source taken for the target",
        data_sha256=pairs.sha256,
    )
