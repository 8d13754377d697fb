"""Others' weights and labelled texts in, a classifier out: `tune`, `plan`, `resume`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rung.nets.adapters import load_adapter
from rung.nets.classifier_folder import load_classifier
from rung.objectives.classification import Classification
from rung.progress import SILENT, Progress
from rung.records import Record
from rung.runfolder import write_folder
from rung.tasks.bases import base_record, resolve_base
from rung.tasks.classification.families import Start
from rung.tasks.classification.frozen import solve_head, states_of
from rung.tasks.classification.network_predictor import load
from rung.tasks.classification.network_training import course_of, device, optimizer_of, threads_of
from rung.tasks.classification.predictions import Predictions
from rung.tasks.classification.reading import read_task
from rung.tasks.classification.sequence_folder import FolderNetworks
from rung.tasks.classification.task import ClassificationTask
from rung.tasks.classification.tuned_folder import save_tuned_classifier, stored_names
from rung.tasks.classification.tuning_plan import (
    TuningPlan,
    encoded,
    loop_settings,
    make_plan,
    start_of,
    training_of,
)
from rung.tasks.classification.tuning_recipe import ClassifyRecipe, Wish
from rung.tasks.classification.tuning_summary import MAJORITY, ClassifierTuned, card
from rung.tasks.run import Run, free_folder, require_empty
from rung.tasks.task import Part
from rung.tasks.tuning.frame import Job, Session, open_interrupted, require_unchanged, run_loop
from rung.tasks.tuning.method import TuningMethod, gradual_unfreezing, rate_of
from rung.tasks.tuning.tune import TUNED_FOR
from rung.training.checkpoint import CHECKPOINTS, Checkpoint, latest_good
from rung.training.contracts import LoopResult
from rung.training.machine import usable_cores
from rung.training.meter import SILENT_DISPLAY, Display

Files = Sequence[str | Path]
_SCORED_AT_ONCE = 64


def tune(
    base: str | Path,
    data: Files,
    *,
    method: TuningMethod | None = None,
    target: str | None = None,
    text: Sequence[str] | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    out: Path | None = None,
    seed: int | None = None,
    threads: int | None = None,
    valid: Files = (),
    test: Files = (),
    allow_leaks: bool = False,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
    display: Display = SILENT_DISPLAY,
    started: float | None = None,
) -> ClassifierTuned:
    """Tune the encoder or decoder `base` to the labels in `data`, and leave a run folder that transformers opens too.

    `data` are tables with a column `target` of labels and one or more `text` columns (guessed where not named);
    validation and test items are split off as `rung compare` does it, unless files are given. `method` (default: full)
    says which weights move. `minutes` is the wall time of it all, counted from `started` (a reading of
    `time.monotonic()`; default: now); `epochs` (default: 4) or `steps` read no clock.

    Raises UsageError, RecipeError, DataError, PlanError, TrainingError or RunFolderError, each saying what to do.
    """
    session = Session(progress, display, time.monotonic() if started is None else started)
    budget = {"minutes": minutes, "epochs": epochs, "steps": steps, "threads": threads}
    labels = {"target": target, "text": text, "valid": valid, "test": test, "allow_leaks": allow_leaks}
    recipe = _recipe(base, data, method, labels, budget, seed=seed, overrides=overrides)
    out = out or free_folder(f"{Path(recipe.labels.files[0]).name.split('.')[0]}-{Path(base).name.split('.')[0]}")
    require_empty(out)
    family, task = _opened(recipe, progress)
    with threads_of(recipe.training.threads or usable_cores()):
        deadline = session.deadline(recipe.training.minutes)
        made = make_plan(recipe, family, task, seconds=_left(deadline))
        for line in made.lines():
            progress.say(line)
        run = Run.create(
            out,
            recipe=made.recipe,
            plan=made.to_json(),
            data=_describe(task),
            parent=base_record(family.folder),
            task="classification",
        )
        columns = {"target": task.facts["target"], "text": list(task.facts["text_columns"])}
        run.header |= {TUNED_FOR: "classify", "columns": columns}
        run.write("planned")
        return _Tuning(run, made.recipe, family, task, session).go(
            deadline=None if deadline is None else deadline - made.seconds_after
        )


def plan(
    base: str | Path,
    data: Files,
    *,
    method: TuningMethod | None = None,
    target: str | None = None,
    text: Sequence[str] | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    threads: int | None = None,
    valid: Files = (),
    test: Files = (),
    allow_leaks: bool = False,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
    started: float | None = None,
) -> TuningPlan:
    """Do all that `tune` does before tuning, and return what it would do. Arguments and errors as in `tune`."""
    session = Session(progress, SILENT_DISPLAY, time.monotonic() if started is None else started)
    budget = {"minutes": minutes, "epochs": epochs, "steps": steps, "threads": threads}
    labels = {"target": target, "text": text, "valid": valid, "test": test, "allow_leaks": allow_leaks}
    recipe = _recipe(base, data, method, labels, budget, seed=seed, overrides=overrides)
    family, task = _opened(recipe, progress)
    with threads_of(recipe.training.threads or usable_cores()):
        return make_plan(recipe, family, task, seconds=_left(session.deadline(recipe.training.minutes)))


def resume(
    run: str | Path, *, threads: int | None = None, progress: Progress = SILENT, display: Display = SILENT_DISPLAY
) -> ClassifierTuned:
    """Go on with an interrupted run, exactly as if it had not been interrupted (bit for bit on CPU).

    Raises RunFolderError when the run is finished or damaged, or its base or items have changed since.
    """
    session = Session(progress, display, time.monotonic())
    opened = open_interrupted(run, threads=threads)
    recipe = ClassifyRecipe.parse(opened.header["recipe"], where=str(opened.folder / "rung.json"))
    family, task = _opened(recipe, progress)
    require_unchanged(opened, base=recipe.base, data_sha256=task.sha256, files=recipe.labels.files)
    checkpoint = latest_good(opened.folder, progress.say)
    with threads_of(recipe.training.threads or usable_cores()):
        return _Tuning(opened, recipe, family, task, session).go(deadline=None, checkpoint=checkpoint)


def _recipe(
    base: str | Path,
    data: Files,
    method: TuningMethod | None,
    labels: Mapping[str, Any],
    budget: Mapping[str, Any],
    *,
    seed: int | None,
    overrides: Mapping[str, Any] | None,
) -> ClassifyRecipe:
    """One recipe of all that a caller asked for."""
    lists = {name: tuple(map(str, labels[name] or ())) for name in ("text", "valid", "test")}
    given = {f"labels.{name}": value for name, value in {**labels, **lists}.items()}
    given |= {f"training.{name}": value for name, value in budget.items()} | {"seed": seed}
    origin = base_record(resolve_base(base))["origin"]
    return Wish(origin, tuple(map(str, data)), method or TuningMethod(), overrides or {}, given).as_recipe()


def _opened(recipe: ClassifyRecipe, progress: Progress) -> tuple[FolderNetworks, ClassificationTask]:
    """The base, checked before any data is read, and the items in three parts."""
    training = recipe.training
    family = FolderNetworks.open(
        resolve_base(recipe.base), dropout=training.dropout, pooling=training.pooling, method=recipe.tuning
    )
    threads = training.threads or usable_cores()
    return family, read_task(recipe.labels.sources, seed=recipe.seed, threads=threads, progress=progress)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.monotonic()


def _describe(task: ClassificationTask) -> dict[str, Any]:
    """What `rung.json` says about the data."""
    split = task.facts["split"]
    parts = {str(part): len(items) for part, items in task.items.items()}
    return {"sha256": task.sha256, "split": split["method"], "leaked": split["leaked"], **parts}


class _Tuning:
    """Tunes a run by its recipe, measures it, and makes its folder a model: the same path for new and resumed runs."""

    def __init__(
        self, run: Run, recipe: ClassifyRecipe, family: FolderNetworks, task: ClassificationTask, session: Session
    ) -> None:
        """Take a run whose recipe has no gaps, its base and its items."""
        self.run, self.recipe, self.family, self.task, self.session = run, recipe, family, task, session
        self.method = recipe.tuning
        self.max_length = recipe.training.max_length or family.longest

    def go(self, *, deadline: float | None, checkpoint: Checkpoint | None = None) -> ClassifierTuned:
        """Tune from `checkpoint` or from the base until the schedule ends, or solve for the head of a frozen body."""
        if self.method.kind == "frozen":
            self.run.write("training")
            return self._solve()
        result = run_loop(self.run, self.recipe, self._job(), self.session, deadline=deadline, checkpoint=checkpoint)[0]
        self.recipe = ClassifyRecipe.parse(self.run.header["recipe"])
        if result.ended == "interrupted":
            return self._summary(result)
        return self._publish(result.best_checkpoint or result.checkpoint, self._summary(result))

    def _solve(self) -> ClassifierTuned:
        """The head of a frozen body."""
        start = start_of(self.recipe, self.family, self.task)
        train, valid = (encoded(start, self.task.items[part], self.max_length) for part in ("train", "valid"))
        net, progress = start.net.to(device()), self.session.progress
        with progress.task("reading texts with the frozen body", len(train) + len(valid), "texts") as advance:
            states = []
            for part in (train, valid):
                states.append(states_of(net, part, start.encoder.pad_token_id))
                advance(len(part))
        solved = solve_head(net, *states, progress=progress)
        folder = self.run.folder / CHECKPOINTS / "solved"
        write_folder(folder, lambda target: self._save(start, target), {"task": "classification", "kind": "checkpoint"})
        note = f"The head was solved for with C = {solved.C:g}, chosen on validation items."
        if not solved.converged:
            note += " The solver did not converge."
        return self._publish(folder, replace(self._summary(None), note=note))

    def _job(self) -> Job:
        """The network with its new head, its texts, and how both are trained."""
        recipe, method = self.recipe, self.method
        start = start_of(recipe, self.family, self.task)
        net = start.net.to(device())
        train, valid = (encoded(start, self.task.items[part], self.max_length) for part in ("train", "valid"))
        training, settings = training_of(recipe), loop_settings(recipe, len(train), validated=len(valid) > 0)
        course = course_of(net, train, valid, training, pad_token_id=start.encoder.pad_token_id, seed=recipe.seed)
        thaw = None
        if method.gradual:
            per_epoch = max(1, round(len(train) / settings.batch_size))
            thaw = gradual_unfreezing(net, steps_per_epoch=per_epoch, epochs=settings.schedule.steps / per_epoch)
        return Job(
            net=net,
            objective=Classification(),
            batches=course.batches,
            optimizer=optimizer_of(net, training, rate_of=rate_of(net, method)),
            settings=settings,
            save=lambda folder: self._save(start, folder),
            load=lambda folder: self._load(start, folder),
            validate=course.validate,
            thaw=thaw,
        )

    def _save(self, start: Start, folder: Path) -> None:
        save_tuned_classifier(
            start, folder, self.task.label_names, self.max_length, method=self.method, base=self.run.header["parent"]
        )

    def _load(self, start: Start, folder: Path) -> None:
        """Give the network the weights of a checkpoint."""
        if self.method.kind == "lora":
            load_adapter(start.net, folder, stored=stored_names(start.net))
        else:
            start.net.load_state_dict(load_classifier(folder).state_dict())

    def _publish(self, folder: Path, summary: ClassifierTuned) -> ClassifierTuned:
        """Measure the weights in `folder` on test items, and make the run folder that model."""
        task, progress = self.task, self.session.progress
        predictor = load(folder)
        predicted = {}
        parts: tuple[Part, ...] = ("valid", "test")
        with progress.task("measuring", sum(len(task.items[part]) for part in parts), "texts") as advance:
            for part in parts:
                predicted[part] = predictor.predict(task.inputs(part), batch_size=_SCORED_AT_ONCE)
                advance(len(task.items[part]))
        valid = predicted["valid"] if len(task.items["valid"]) else None
        records, scores = task.score(predicted["test"], valid)
        summary = replace(summary, records=(*records, _of_majority(task)), seconds=self.session.seconds)
        text = card(self.run, self.recipe, summary, labels=task.label_names)
        self.run.publish(folder, card=text, records=summary.records, scores=scores)
        return summary

    def _summary(self, result: LoopResult | None) -> ClassifierTuned:
        plan = self.run.header["plan"]
        steps = 0 if result is None else result.step
        texts = steps * training_of(self.recipe).batch_of(plan["items"])
        return ClassifierTuned(
            run=self.run.folder,
            ended="finished" if result is None else result.ended,
            steps=steps,
            epochs=texts / plan["items"],
            parameters=plan["parameters"],
            trained=plan["trained_parameters"],
            seconds=self.session.seconds,
            texts_per_second=0.0 if result is None or not result.seconds else texts / result.seconds,
            records=(),
            plan=plan,
            skipped={} if result is None else result.skipped,
        )


def _of_majority(task: ClassificationTask) -> Record:
    """The accuracy of always saying the commonest class of the training items, on the same test items."""
    commonest = np.bincount(task.items["train"].labels, minlength=len(task.label_names)).argmax()
    always = np.eye(len(task.label_names))[np.full(len(task.items["test"]), commonest)]
    records, _ = task.score(Predictions(always), None)
    (accuracy,) = (record for record in records if record.name == "accuracy")
    return accuracy.model_copy(update={"name": MAJORITY})
