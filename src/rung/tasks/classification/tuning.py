"""Others' weights and labelled texts in, a classifier out."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rung.errors import UsageError
from rung.nets.classifier_folder import reads_the_mean
from rung.objectives.classification import Classification
from rung.records import Record
from rung.runfolder import write_folder
from rung.tasks.bases import resolve_base
from rung.tasks.classification.families import Start
from rung.tasks.classification.frozen import solve_head, states_of
from rung.tasks.classification.network_predictor import load
from rung.tasks.classification.network_training import LabelledTexts, course_of, device, optimizer_of, training_of
from rung.tasks.classification.predictions import Predictions
from rung.tasks.classification.reading import read_task
from rung.tasks.classification.sequence_folder import FolderNetworks
from rung.tasks.classification.task import ClassificationTask
from rung.tasks.classification.tuned_folder import save_tuned_classifier, take_up
from rung.tasks.classification.tuning_plan import ClassifierPlan, encoded, loop_settings, make_plan, start_of
from rung.tasks.classification.tuning_recipe import ClassifyRecipe
from rung.tasks.classification.tuning_summary import MAJORITY, ClassifierTuned
from rung.tasks.run import Run
from rung.tasks.task import Part
from rung.tasks.tuning.frame import Job, Session
from rung.tasks.tuning.method import rate_of
from rung.tasks.tuning.tuner import Outcome, Request, Tuner, Tuning
from rung.training.checkpoint import CHECKPOINTS, Checkpoint
from rung.training.machine import usable_cores

_SCORED_AT_ONCE = 64


class ClassifierTuning(Tuning[ClassifyRecipe, ClassifierTuned]):
    """Tunes an encoder or decoder to the labels of tables, whose items are split as `rung compare` does it."""

    summary = ClassifierTuned

    def __init__(self, recipe: ClassifyRecipe, session: Session) -> None:
        """Check the base, then read the items."""
        super().__init__(recipe, session)
        training = recipe.training
        self.family = FolderNetworks.open(
            resolve_base(recipe.base), dropout=training.dropout, pooling=training.pooling, method=recipe.tuning
        )
        threads = training.threads or usable_cores()
        self.task = read_task(recipe.labels.sources, seed=recipe.seed, threads=threads, progress=session.progress)

    def describe(self) -> dict[str, Any]:
        """What `rung.json` says about the data."""
        split = self.task.facts["split"]
        parts = {str(part): len(items) for part, items in self.task.items.items()}
        return {"sha256": self.task.sha256, "split": split["method"], "leaked": split["leaked"], **parts}

    def header(self) -> dict[str, Any]:
        """The columns, so that tables to predict for are read alike."""
        facts = self.task.facts
        return {"columns": {"target": facts["target"], "text": list(facts["text_columns"])}}

    def plan(self, seconds: float | None) -> ClassifierPlan:
        """Fill the gaps of the recipe."""
        return make_plan(self.recipe, self.family, self.task, seconds=seconds)

    @cached_property
    def start(self) -> Start:
        """The network with its new head, ready to be tuned by a recipe without gaps, and its tokenizer."""
        start = start_of(self.recipe, self.family, self.task)
        start.net.to(device())
        return start

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which the texts are read once."""
        items = len(self.task.items["train"])
        return items / training_of(self.recipe.training, self.recipe.learning_rate).batch_of(items)

    def go(self, run: Run, *, deadline: float | None, checkpoint: Checkpoint | None = None) -> ClassifierTuned:
        """Tune until the schedule ends, or solve for the head of a frozen body."""
        if self.recipe.tuning.kind != "frozen":
            return super().go(run, deadline=deadline, checkpoint=checkpoint)
        run.write("training")
        folder = run.folder / CHECKPOINTS / "solved"
        note = self._solve()
        write_folder(folder, lambda target: self._save(run, target), {"task": "classification", "kind": "checkpoint"})
        return self.publish(run, folder, replace(self.summarise(run, None), note=note))

    def _solve(self) -> str:
        """Find the head of a frozen body, and say how."""
        net, progress = self.start.net, self.session.progress
        train, valid = self._encoded("train"), self._encoded("valid")
        with progress.task("reading texts with the frozen body", len(train) + len(valid), "texts") as advance:
            states = []
            for part in (train, valid):
                states.append(states_of(net, part, self.start.encoder.pad_token_id))
                advance(len(part))
        solved = solve_head(net, *states, progress=progress)
        note = f"The head was solved for with C = {solved.C:g}, chosen on validation items."
        return note if solved.converged else f"{note} The solver did not converge."

    def _encoded(self, part: Part) -> LabelledTexts:
        return encoded(self.start, self.task.items[part], self.recipe)

    def job(self, run: Run) -> Job:
        """The network with its new head, its texts, and how both are trained."""
        recipe, net = self.recipe, self.start.net
        train, valid = self._encoded("train"), self._encoded("valid")
        training = training_of(recipe.training, recipe.learning_rate)
        course = course_of(net, train, valid, training, pad_token_id=self.start.encoder.pad_token_id, seed=recipe.seed)
        return Job(
            net=net,
            objective=Classification(),
            batches=course.batches,
            optimizer=optimizer_of(net, training, rate_of=rate_of(net, recipe.tuning)),
            settings=loop_settings(recipe, len(train), validated=len(valid) > 0),
            unit="texts",
            save=lambda folder: self._save(run, folder),
            load=lambda folder: take_up(net, folder, method=recipe.tuning),
            validate=course.validate,
        )

    def _save(self, run: Run, folder: Path) -> None:
        length, parent = self.recipe.training.max_length or self.family.longest, run.header["parent"]
        save_tuned_classifier(self.start, folder, self.task.label_names, length, method=self.recipe.tuning, base=parent)

    def measure(self, weights: Path) -> Outcome:
        """Measure the folder `weights` as it will be opened."""
        task, predictor = self.task, load(weights)
        predicted = {}
        parts: tuple[Part, ...] = ("valid", "test")
        with self.session.progress.task("measuring", sum(len(task.items[one]) for one in parts), "texts") as advance:
            for part in parts:
                predicted[part] = predictor.predict(task.inputs(part), batch_size=_SCORED_AT_ONCE)
                advance(len(task.items[part]))
        records, scores = task.score(predicted["test"], predicted["valid"] if len(task.items["valid"]) else None)
        told = {"labels": task.label_names, "reads_the_mean": reads_the_mean(self.start.net.config)}
        return Outcome([*records, _of_majority(task)], scores, told)


def _of_majority(task: ClassificationTask) -> Record:
    """The accuracy of always saying the commonest class of the training items, on the same test items."""
    commonest = np.bincount(task.items["train"].labels, minlength=len(task.label_names)).argmax()
    always = np.eye(len(task.label_names))[np.full(len(task.items["test"]), commonest)]
    records, _ = task.score(Predictions(always), None)
    (accuracy,) = (record for record in records if record.name == "accuracy")
    return accuracy.model_copy(update={"name": MAJORITY})


def _check(asked: Request) -> None:
    budget = [name for name in ("minutes", "epochs", "steps") if getattr(asked, name) is not None]
    if asked.how.kind == "frozen" and budget:
        raise UsageError(
            f"--{budget[0]} means nothing to a frozen body: its head is solved for, not trained in steps",
            hint="leave it out",
        )


TUNER = Tuner(
    recipe=ClassifyRecipe,
    open=ClassifierTuning,
    kind="classification",
    items="labelled texts",
    example="rung tune minilm data.csv --task classify",
    budget={"training.epochs": 4.0},
    places={
        "data": "labels.files",
        "valid": "labels.valid",
        "test": "labels.test",
        "target": "labels.target",
        "text": "labels.text",
        "allow_leaks": "labels.allow_leaks",
    },
    has_head=True,
    check=_check,
)
