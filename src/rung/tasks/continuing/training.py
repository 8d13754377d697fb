"""One carried-on run from its resolved recipe to a finished folder: the usual path, begun from the parent's weights."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rung.errors import RunFolderError
from rung.nets.language_models import Net
from rung.records import Record
from rung.runfolder import read_header
from rung.tasks.continuing.asked import Continuation
from rung.tasks.continuing.card import card_section, continued_json
from rung.tasks.continuing.drifting import DriftReport
from rung.tasks.continuing.gains import Before, Change, HeldOut, Measured, held_out
from rung.tasks.continuing.task_scores import TaskItems, TaskTable, score_again, score_items
from rung.tasks.prompting.local_model import LocalModel
from rung.tasks.ranked_training import Session
from rung.tasks.run import Run, TrainSummary, model_folder
from rung.tasks.text_preparation import PreparedText
from rung.tasks.text_reading import Replay, TextReading
from rung.tasks.text_training import Further, TextTraining
from rung.training.anchor import Anchor, Anchored
from rung.training.contracts import LoopResult, Optimizer

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class ContinuedSummary(TrainSummary):
    """A training summary, and what was gained and lost. After an interruption there are no changes yet.

    `changes` are of bits per byte, `task_scores` of accuracies on labelled tables.
    """

    changes: tuple[Change, ...] = ()
    task_scores: tuple[Change, ...] = ()
    drift: DriftReport | None = None
    distance: float | None = None
    not_measured: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        told = continued_json(
            changes=self.changes,
            task_scores=self.task_scores,
            drift=self.drift,
            distance=self.distance,
            not_measured=self.not_measured,
        )
        return {**super().to_json(), "continued": told}


class ContinuedTraining(TextTraining):
    """Trains a run that begins with another's weights, reads old text among the new, and tells what that changed."""

    def __init__(
        self, run: Run, text: PreparedText, session: Session, *, old: Sequence[PreparedText], asked: Continuation
    ) -> None:
        """Take a run whose header names its parent, the new text, and the old texts where they can be had."""
        super().__init__(run, text, session)
        self._old, self._asked = tuple(old), asked
        self._told: dict[str, Any] = {}

    def measure_before(
        self, drift: DriftReport | None, not_measured: Mapping[str, str], tasks: Sequence[TaskItems] = ()
    ) -> float:
        """Measure the parent on what is held out, and keep that in the run folder: before the first step.

        Returns the seconds that it took: measuring again after training takes as long.
        """
        began, progress = time.monotonic(), self.session.progress
        net = self._network(None).eval()
        measured = {one.name: one.measure(net, progress) for one in self._held_out()}
        scored = {}
        if tasks:
            model = LocalModel(parent_model(self.run.header["parent"]))
            scored = {one.table.name: score_items(model, one.items, progress) for one in tasks}
        Before(measured, scored, drift, dict(not_measured)).save(self.run.folder)
        return time.monotonic() - began

    def _held_out(self) -> tuple[HeldOut, ...]:
        return held_out(self.text, self._old, self._evaluation_bytes(self.run.header["plan"]["tokens"]))

    def _network(self, checkpoint: Path | None) -> Net:
        if checkpoint is not None:
            return super()._network(checkpoint)
        net = super()._network(parent_model(self.run.header["parent"]))
        for parameter in net.parameters():  # out of the mapped file: equal bits want equally aligned memory
            parameter.data = parameter.data.clone()
        return net

    def _anchor(self, net: Net) -> Anchor:
        return Anchor(net, self._network(None))

    def _reading(self, net: Net) -> TextReading:
        replay = Replay([text.train for text in self._old], self._asked.share) if self._asked.replay else None
        return TextReading(
            net,
            self.recipe,
            self.text,
            self.session.world,
            validation_tokens=self._validation_tokens(),
            replay=replay,
            watched={"distance_from_parent": self._anchor(net).distance},
        )

    def _optimizer(self, net: Net) -> Optimizer:
        optimizer = super()._optimizer(net)
        if not self._asked.penalty:
            return optimizer
        rate = self.recipe.training.learning_rate or 0.0
        return Anchored(optimizer, self._anchor(net), learning_rate=rate, weight=self._asked.penalty)

    def _further(self, net: Net, checkpoint: Path) -> Further:
        """Measure again what was measured before training, on the same documents and labelled items."""
        before = Before.load(self.run.folder)
        changes = before.changes({one.name: one.measure(net, self.session.progress) for one in self._held_out()})
        self._told = {
            "changes": changes,
            "task_scores": self._task_scores(before, checkpoint),
            "drift": before.drift,
            "distance": self._anchor(net).distance(),
            "not_measured": before.not_measured,
        }
        found = continued_json(**self._told)
        return Further(results={"continued": found}, section=card_section(self._asked, **self._told))

    def _task_scores(self, before: Before, checkpoint: Path) -> tuple[Change, ...]:
        """The scores on labelled tables, with what they are now."""
        stored = self.run.header["continues"].get("tasks", [])
        if not stored:
            return ()
        model = LocalModel(checkpoint)
        after: dict[str, Measured | str] = {}
        for table in map(TaskTable.from_json, stored):
            try:
                after[table.name] = score_again(table, model, before.tasks[table.name][1], self.session.progress)
            except RunFolderError as error:  # a trained network is not lost for it: the report says why
                after[table.name] = error.problem
        return before.task_changes(after, {one["name"]: one["majority"] for one in stored})

    def _summary(
        self, result: LoopResult, *, record: Record | None = None, floors: tuple[Record, ...] = (), sample: str = ""
    ) -> ContinuedSummary:
        summary = super()._summary(result, record=record, floors=floors, sample=sample)
        values = {one.name: getattr(summary, one.name) for one in fields(TrainSummary)}
        values["epochs"] = summary.epochs * float(1 - self._asked.share)
        return ContinuedSummary(**values, **self._told)


def parent_model(parent: Mapping[str, Any]) -> Path:
    """The folder of the weights that a run began with. RunFolderError when they are gone, damaged or others now."""
    hint = "bring the parent run back to where it was; its weights are needed until this run is finished"
    try:
        folder = model_folder(parent["run"])
    except RunFolderError as error:
        raise RunFolderError(
            f"the parent run cannot be read any more: {error.problem}", where=str(parent["run"]), hint=hint
        ) from error
    if weights_sha256(folder) != parent["weights_sha256"]:
        raise RunFolderError("the parent run has other weights now", where=str(folder), hint=hint)
    return folder


def weights_sha256(folder: Path) -> str:
    """The hash that a folder's header gives its weights; RunFolderError where it lists none."""
    listed: dict[str, Any] = read_header(folder).get("files", {}).get(WEIGHTS, {})
    if "sha256" not in listed:
        raise RunFolderError(f"this run lists no {WEIGHTS}", where=str(folder))
    return str(listed["sha256"])
