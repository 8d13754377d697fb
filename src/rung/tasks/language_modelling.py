"""Raw text in, a language model out: `train`, `resume`, `extend`, `plan`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.errors import UsageError
from rung.progress import SILENT, Progress
from rung.recipe import Recipe
from rung.tasks.continuing.starting import carry_on, is_carried_on, plan_carry_on
from rung.tasks.continuing.starting import resume as resume_carried_on
from rung.tasks.evaluating import EvaluationSummary, evaluate
from rung.tasks.language_model import LanguageModel, load
from rung.tasks.ranked_training import open_session
from rung.tasks.run import Run, TrainSummary, default_folder, require_empty
from rung.tasks.text_counting import TextCounting
from rung.tasks.text_planning import plan_and_tell, plan_network, same_text, start_run
from rung.tasks.text_preparation import is_counted, prepare_text
from rung.tasks.text_training import TextTraining, training_deadline
from rung.training.checkpoint import (
    Checkpoint,
    checkpoint_folder,
    extended,
    latest_good,
    load_checkpoint,
    pre_decay,
)
from rung.training.meter import SILENT_DISPLAY, Display
from rung.training.ngram.plan import NgramPlan
from rung.training.plan import Plan

__all__ = [
    "EvaluationSummary",
    "LanguageModel",
    "TrainSummary",
    "carry_on",
    "evaluate",
    "extend",
    "load",
    "plan",
    "plan_carry_on",
    "resume",
    "train",
]

DEFAULT_MINUTES = 10.0

Texts = Sequence[str | Path]


@dataclass(frozen=True)
class _Wish:
    """What a caller asked for: a recipe of its own, and single settings over it."""

    texts: Texts
    valid: Texts
    recipe: Recipe | Mapping[str, Any] | Path | None
    overrides: Mapping[str, Any]
    minutes: float | None
    steps: int | None
    seed: int | None
    threads: int | None

    def as_recipe(self) -> Recipe:
        """One recipe of it all. Raises RecipeError or UsageError for what is unknown, contradictory or missing."""
        base = self._base()
        changes = {**self.overrides, **self._budget(base)}
        given = {
            "text.files": [str(path) for path in self.texts],
            "text.valid": [str(path) for path in self.valid],
            "seed": self.seed,
            "training.threads": self.threads,
        }
        changes |= {key: value for key, value in given.items() if value not in (None, [])}
        wanted = base.with_overrides(changes)
        if not wanted.text.files:
            raise UsageError("there is no text to train on", hint="give files or folders: rung train my_texts/")
        if wanted.training.minutes is None and wanted.training.steps is None:
            wanted = wanted.with_overrides({"training.minutes": DEFAULT_MINUTES})
        return wanted

    def _base(self) -> Recipe:
        if self.recipe is None:
            return Recipe()
        if isinstance(self.recipe, Recipe):
            return self.recipe
        return Recipe.parse(self.recipe) if isinstance(self.recipe, Mapping) else Recipe.load(Path(self.recipe))

    def _budget(self, base: Recipe) -> dict[str, Any]:
        """Minutes or steps given here replace either in the recipe, and with it a schedule made for another length."""
        if self.minutes is not None and self.steps is not None:
            raise UsageError("minutes and steps contradict each other", hint="give one of them")
        if self.minutes is None and (self.steps is None or self.steps == base.training.steps):
            return {}
        return {"training.minutes": self.minutes, "training.steps": self.steps, "training.schedule": None}


def train(
    texts: Texts = (),
    *,
    minutes: float | None = None,
    steps: int | None = None,
    out: Path | None = None,
    recipe: Recipe | Mapping[str, Any] | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    valid: Texts = (),
    seed: int | None = None,
    threads: int | None = None,
    progress: Progress = SILENT,
    display: Display = SILENT_DISPLAY,
    started: float | None = None,
) -> TrainSummary:
    """Train a tokenizer and a language model on `texts` and leave a run folder.

    `minutes` is the wall time of it all, counted from `started` (a reading of `time.monotonic()`; default: now).
    `steps` instead makes a plan and a run that read no clock. Single arguments win over `overrides` (dotted keys),
    those over `recipe`: an object, a nested mapping, a TOML or JSON file, or a run folder whose recipe is used again.

    Raises UsageError, RecipeError, DataError, PlanError, TrainingError or RunFolderError, each saying what to do.
    """
    began = time.monotonic() if started is None else started
    wanted = _Wish(texts, valid, recipe, overrides or {}, minutes, steps, seed, threads).as_recipe()
    out = out or default_folder(wanted.text.files)
    deadline = training_deadline(wanted.training.minutes, began)
    with open_session(progress, display, began) as session:
        if session.world.is_main:
            require_empty(out)
            text = prepare_text(wanted, session.progress)
            start_run(out, plan_and_tell(wanted, text, deadline, session), text, parent=None)
        session.world.wait_for_all()
        run = Run.open(out)
        text = same_text(run, session.progress)
        if is_counted(run.recipe):
            return TextCounting(run, text, session).train()
        return TextTraining(run, text, session).train(deadline=deadline)


def plan(
    texts: Texts = (),
    *,
    minutes: float | None = None,
    steps: int | None = None,
    recipe: Recipe | Mapping[str, Any] | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    valid: Texts = (),
    seed: int | None = None,
    threads: int | None = None,
    progress: Progress = SILENT,
    started: float | None = None,
) -> Plan | NgramPlan:
    """Do all that `train` does before training, and return what it would do. Arguments and errors as in `train`."""
    began = time.monotonic() if started is None else started
    wanted = _Wish(texts, valid, recipe, overrides or {}, minutes, steps, seed, threads).as_recipe()
    with open_session(progress, SILENT_DISPLAY, began) as session:
        text = prepare_text(wanted, progress)
        return plan_and_tell(wanted, text, training_deadline(wanted.training.minutes, began), session)


def resume(
    run: str | Path,
    *,
    threads: int | None = None,
    progress: Progress = SILENT,
    display: Display = SILENT_DISPLAY,
) -> TrainSummary:
    """Go on with an interrupted run, exactly as if it had not been interrupted (bit for bit on CPU).

    Raises RunFolderError when the run is finished or damaged, or its text has changed since.
    """
    instead = f"train it on with: rung train --extend {run} --minutes M"
    opened = Run.open_unfinished(Path(run), threads=threads, instead=instead)
    with open_session(progress, display, time.monotonic()) as session:
        if is_carried_on(opened):
            return resume_carried_on(opened, session)
        text = same_text(opened, session.progress)
        if is_counted(opened.recipe):
            return TextCounting(opened, text, session).train()
        checkpoint = latest_good(opened.folder, session.progress.say) or _parent_checkpoint(opened)
        return TextTraining(opened, text, session).train(deadline=None, checkpoint=checkpoint)


def extend(
    run: str | Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    out: Path | None = None,
    threads: int | None = None,
    progress: Progress = SILENT,
    display: Display = SILENT_DISPLAY,
    started: float | None = None,
) -> TrainSummary:
    """Train a run on for `minutes` of wall time, or `steps` more, from where its learning rate began to fall.

    The result is a run folder of its own, `out` (default: the old name with `-extended`); the old one stays as it is.

    Raises UsageError without a budget, RunFolderError when the run has no checkpoint from before its decay.
    """
    if (minutes is None) == (steps is None):
        raise UsageError("how long to train on is missing", hint="give either --minutes M or --steps N")
    began = time.monotonic() if started is None else started
    deadline = training_deadline(minutes, began)
    parent = Run.open(Path(run))
    if is_counted(parent.recipe):
        raise UsageError(
            "an n-gram model counts its text once: there is nothing to train on",
            where=str(run),
            hint="count more text: rung train TEXT --net ngram",
        )
    if is_carried_on(parent):
        raise UsageError(
            "a run that was carried on from another is not extended: its replay and its pull would be lost",
            where=str(run),
            hint=f"carry it on again: rung train --from {run} TEXT",
        )
    out = out or parent.folder.with_name(f"{parent.folder.name}-extended")
    with open_session(progress, display, began) as session:
        checkpoint = pre_decay(parent.folder, session.progress.say)
        if session.world.is_main:
            require_empty(out)
            text = same_text(parent, session.progress)
            budget = {"training.minutes": minutes, "training.steps": steps, "training.schedule": None}
            budget |= {} if threads is None else {"training.threads": threads}
            made = plan_network(parent.recipe.with_overrides(budget), text, deadline, session)
            made = made.beginning_at(checkpoint.state.step, checkpoint.state.schedule)
            start_run(out, made, text, parent={"run": str(parent.folder.resolve()), "step": checkpoint.state.step})
        session.world.wait_for_all()
        child = Run.open(out)
        text = same_text(child, session.progress)
        return TextTraining(child, text, session).train(deadline=deadline, checkpoint=_parent_checkpoint(child))


def _parent_checkpoint(run: Run) -> Checkpoint | None:
    """Where an extended run without a checkpoint of its own begins; None for a run that began from nothing."""
    parent = run.header["parent"]
    if parent is None:
        return None
    return extended(
        load_checkpoint(checkpoint_folder(Path(parent["run"]), parent["step"])), run.recipe.training.steps or 0
    )
