"""Raw text in, a language model out: `train`, `resume`, `extend`, `plan`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rung.data.tokenizer import Tokenizer
from rung.errors import RunFolderError, UsageError
from rung.progress import SILENT, Progress
from rung.recipe import Recipe
from rung.tasks.evaluating import EvaluationSummary, evaluate
from rung.tasks.language_model import LanguageModel, load
from rung.tasks.run import Run, TrainSummary, default_folder, require_empty
from rung.tasks.text_counting import TextCounting
from rung.tasks.text_preparation import PreparedText, is_counted, matrix_rows, prepare_text, read_corpus
from rung.tasks.text_training import Session, TextTraining, training_deadline
from rung.training.checkpoint import (
    Checkpoint,
    checkpoint_folder,
    extended,
    latest_good,
    load_checkpoint,
    pre_decay,
)
from rung.training.distributed import world_from_environment
from rung.training.machine import this_machine
from rung.training.meter import SILENT_DISPLAY, Display
from rung.training.ngram.plan import NgramPlan, plan_ngram
from rung.training.plan import Plan, make_plan
from rung.training.precision import bf16_is_faster, tune_allocator
from rung.training.timing import step_timer

__all__ = [
    "EvaluationSummary",
    "LanguageModel",
    "TrainSummary",
    "evaluate",
    "extend",
    "load",
    "plan",
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
    with _session(progress, display, began) as session:
        if session.world.is_main:
            require_empty(out)
            text = prepare_text(wanted, session.progress)
            _start_run(out, _plan(wanted, text, deadline, session), text, parent=None)
        session.world.wait_for_all()
        run = Run.open(out)
        text = _same_text(run, session.progress)
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
    with _session(progress, SILENT_DISPLAY, began) as session:
        text = prepare_text(wanted, progress)
        return _plan(wanted, text, training_deadline(wanted.training.minutes, began), session)


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
    opened = Run.open(Path(run))
    if opened.header["state"] == "finished":
        raise RunFolderError(
            "this run is finished", where=str(run), hint=f"train it on with: rung train --extend {run} --minutes M"
        )
    planned = opened.recipe.training.threads
    if threads is not None and threads != planned:
        raise UsageError(
            f"this run was planned with {planned} threads; with another number its sums would differ",
            hint="leave --threads out",
        )
    with _session(progress, display, time.monotonic()) as session:
        text = _same_text(opened, session.progress)
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
    out = out or parent.folder.with_name(f"{parent.folder.name}-extended")
    with _session(progress, display, began) as session:
        checkpoint = pre_decay(parent.folder, session.progress.say)
        if session.world.is_main:
            require_empty(out)
            text = _same_text(parent, session.progress)
            budget = {"training.minutes": minutes, "training.steps": steps, "training.schedule": None}
            budget |= {} if threads is None else {"training.threads": threads}
            made = _make_plan(parent.recipe.with_overrides(budget), text, deadline, session)
            made = made.beginning_at(checkpoint.state.step, checkpoint.state.schedule)
            _start_run(out, made, text, parent={"run": str(parent.folder.resolve()), "step": checkpoint.state.step})
        session.world.wait_for_all()
        child = Run.open(out)
        text = _same_text(child, session.progress)
        return TextTraining(child, text, session).train(deadline=deadline, checkpoint=_parent_checkpoint(child))


@contextmanager
def _session(progress: Progress, display: Display, began: float) -> Iterator[Session]:
    tune_allocator()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with world_from_environment(device) as world:
        yield Session(world, progress if world.is_main else SILENT, display, began)


def _plan(wanted: Recipe, text: PreparedText, deadline: float | None, session: Session) -> Plan | NgramPlan:
    """Plan a network, or the counting of n-grams, and say so."""
    made = _counting_plan if is_counted(wanted) else _make_plan
    planned = made(wanted, text, deadline, session)
    for line in planned.lines():
        session.progress.say(line)
    return planned


def _counting_plan(wanted: Recipe, text: PreparedText, deadline: float | None, session: Session) -> NgramPlan:
    """Plan counting until `deadline` at most. Raises UsageError where several processes would count the same."""
    if session.world.size > 1:
        raise UsageError("n-grams are counted by one process", hint="leave torchrun out")
    machine = this_machine(threads=wanted.training.threads)
    left = None if deadline is None else deadline - time.monotonic()
    return plan_ngram(wanted, text.facts(text.tokenizer.vocab_size), machine, seconds=left)


def _make_plan(wanted: Recipe, text: PreparedText, deadline: float | None, session: Session) -> Plan:
    """Plan for the time until `deadline`, or for the recipe's steps without reading a clock."""
    world = session.world
    machine = this_machine(threads=wanted.training.threads, ranks=world.size, ranks_here=world.size_here)
    torch.set_num_threads(machine.threads)
    facts = text.facts(matrix_rows(wanted, text.tokenizer))
    if deadline is None:
        made = make_plan(wanted, facts, machine, seconds=None, timer=None)
    else:
        machine = replace(machine, bf16=machine.bf16 and bf16_is_faster(world.device))
        is_bf16 = machine.bf16 if wanted.training.precision is None else wanted.training.precision == "bf16"
        optimizer = wanted.training.optimizer or "muon"
        timer = step_timer(optimizer, torch.bfloat16 if is_bf16 else torch.float32, world.device)
        made = make_plan(wanted, facts, machine, seconds=max(1.0, deadline - time.monotonic()), timer=timer)
    return made


def _start_run(folder: Path, made: Plan | NgramPlan, text: PreparedText, *, parent: dict[str, Any] | None) -> None:
    """Write the plan and the tokenizer: from here on the run can be resumed."""
    run = Run.create(folder, recipe=made.recipe, plan=made.to_json(), data=_describe(text), parent=parent)
    text.tokenizer.save(folder, model_max_length=made.config.max_length)
    run.write("planned")


def _describe(text: PreparedText) -> dict[str, Any]:
    """What `rung.json` says about the data."""
    report = text.corpus.report
    return {
        "sha256": text.corpus.sha256,
        "train_sha256": text.train.sha256,
        "valid_sha256": text.valid.sha256,
        "tokenizer_sha256": text.tokenizer.sha256,
        "train_bytes": text.train.num_bytes,
        "valid_bytes": text.valid.num_bytes,
        "train_tokens": text.train.num_tokens,
        "valid_tokens": text.valid.num_tokens,
        "train_documents": text.train.num_documents,
        "valid_documents": text.valid.num_documents,
        "report": report.to_json(),
    }


def _same_text(run: Run, progress: Progress) -> PreparedText:
    """The run's text, prepared as it was. Raises RunFolderError when it is not the same any more."""
    corpus = read_corpus(run.recipe, progress)
    if corpus.sha256 != run.header["data"]["sha256"]:
        raise RunFolderError(
            "the text has changed since this run was planned, so going on would not be the same run",
            where=", ".join(run.recipe.text.files),
            hint="bring the old text back, or train anew: rung train ...",
        )
    text = prepare_text(run.recipe, progress, corpus=corpus, tokenizer=Tokenizer.load(run.folder))
    if text.tokenizer.sha256 != run.header["data"]["tokenizer_sha256"]:
        raise RunFolderError("the tokenizer is not the one this run was planned with", where=str(run.folder))
    return text


def _parent_checkpoint(run: Run) -> Checkpoint | None:
    """Where an extended run without a checkpoint of its own begins; None for a run that began from nothing."""
    parent = run.header["parent"]
    if parent is None:
        return None
    return extended(
        load_checkpoint(checkpoint_folder(Path(parent["run"]), parent["step"])), run.recipe.training.steps or 0
    )
