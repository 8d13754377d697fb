"""The rungs of a comparison of text-to-text networks; each fit is a run of `rung train --task translate`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rung.errors import TrainingError, UsageError, did_you_mean
from rung.progress import Progress
from rung.tasks.rewriting import training
from rung.tasks.rewriting.recipe import Family, RewritingRecipe
from rung.tasks.task import FitReport, Indices, Plan, Rung, UsualRung

if TYPE_CHECKING:
    from rung.tasks.rewriting.task import RewritingTask


@dataclass(frozen=True)
class RewritingRung(UsualRung):
    """One kind of encoder-decoder. It has no learning curve: see `RewritingTask.learning_sizes`."""

    name: str
    description: str
    height: int
    family: Family
    learns = False

    def plan(self, task: RewritingTask, seconds: float | None, *, seed: int) -> Plan:
        """The recipe without gaps: sized by timing real steps, or without a clock for one pass over the pairs."""
        minutes = None if seconds is None else seconds / 60
        made = training.plan(
            [task.files["train"]],
            source=task.pairs["train"].source_name,
            target=task.pairs["train"].target_name,
            valid=[task.files["valid"]],
            test=[task.files["test"]],
            net=self.family,
            minutes=minutes,
            steps=1 if minutes is None else None,
            seed=seed,
            threads=task.threads,
        )
        return made.recipe.to_json()

    def fit(
        self, task: RewritingTask, plan: Plan, *, items: Indices, seed: int, folder: Path, progress: Progress
    ) -> FitReport:
        """Train by the plan, which reads no clock, on all pairs."""
        assert len(items) == len(task.pairs["train"])  # noqa: S101 - `learning_sizes` offers nothing else
        began, cpu = time.monotonic(), time.process_time()
        recipe = RewritingRecipe.parse({**plan, "seed": seed}, where="plan")
        summary = training.train(recipe=recipe, out=folder, progress=progress)
        if summary.ended == "interrupted":
            raise KeyboardInterrupt
        if summary.ended not in ("finished", "stopped early"):
            raise TrainingError(f"training ended: {summary.ended}", where=str(folder))
        net = recipe.net
        return FitReport(
            seconds=time.monotonic() - began,
            cpu_seconds=time.process_time() - cpu,
            finished=True,
            note=summary.weights,
            steps=summary.steps,
            epochs=summary.epochs,
            chosen={"hidden_size": net.hidden_size, "layers": net.num_hidden_layers, "dropout": net.dropout},
        )


RUNGS = (
    RewritingRung("lstm-attention", "an LSTM that attends to its source (Luong et al. 2015)", 7, "lstm"),
    RewritingRung(
        "transformer", 'the Transformer of "Attention Is All You Need" (Vaswani et al. 2017)', 8, "transformer"
    ),
)


def make_rungs(names: Sequence[str] | None) -> list[Rung]:
    """The networks of these names, or all, from the lowest up. Raises UsageError for an unknown name."""
    known = {rung.name: rung for rung in RUNGS}
    for name in names or ():
        if name not in known:
            raise UsageError(
                f"there is no rung '{name}' for pairs of texts{did_you_mean(name, list(known))}",
                hint=", ".join(known),
            )
    return [rung for rung in RUNGS if names is None or rung.name in names]
