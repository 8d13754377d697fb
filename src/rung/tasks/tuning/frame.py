"""What every tuning run does between its plan and its model: the loop, its checkpoints, the schedule kept true."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from rung.errors import RunFolderError
from rung.progress import Progress
from rung.recipe import AnyRecipe
from rung.tasks.run import Run
from rung.training import loop
from rung.training.checkpoint import Checkpoint, TrainerState
from rung.training.contracts import Batches, LoopResult, LoopSettings, Objective, Optimizer, Validation
from rung.training.distributed import alone
from rung.training.meter import Display, Figures
from rung.training.schedule import Schedule

R = TypeVar("R", bound=AnyRecipe)

_FINISH_SHARE = 0.03  # of the minutes, for what no estimate foresees


@dataclass(frozen=True)
class Session:
    """Who watches a command, and when it began (a reading of `time.monotonic()`)."""

    progress: Progress
    display: Display
    began: float

    def deadline(self, minutes: float | None) -> float | None:
        """The reading of the clock by which everything must be done; None without minutes."""
        return None if minutes is None else self.began + 60 * minutes * (1 - _FINISH_SHARE)

    @staticmethod
    def left(deadline: float | None) -> float | None:
        """Seconds until `deadline`; None without one."""
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    @property
    def seconds(self) -> float:
        """Since the command began."""
        return time.monotonic() - self.began


@dataclass(frozen=True)
class Job:
    """What is trained, on what, and how it is kept.

    `save` writes the network into an existing folder, `load` gives it the weights of one that `save` filled.
    `unit`: what the objective counts. `thaw`: see `rung.tasks.tuning.method.gradual_unfreezing`.
    """

    net: nn.Module
    objective: Objective
    batches: Batches
    optimizer: Optimizer
    settings: LoopSettings
    save: Callable[[Path], None]
    load: Callable[[Path], None]
    validate: Callable[[], Validation] | None = None
    unit: str = "tokens"
    thaw: Callable[[int], None] | None = None


def run_loop(
    run: Run, recipe: R, job: Job, session: Session, *, deadline: float | None, checkpoint: Checkpoint | None
) -> tuple[LoopResult, R]:
    """Train `job` inside `run`, from `checkpoint` or from its start; and the recipe with the schedule it ended by.

    `recipe.training` has `steps`, `epochs` and `schedule`. Whenever the deadline moves the end, the header is written
    anew, so that the same run can be had again without a clock. An interrupted run says so in its header.
    """
    kept = ("rung_version", "task", "data", "parent")
    header = {key: run.header[key] for key in kept} | {"kind": "checkpoint"}
    if checkpoint is not None:
        job.load(checkpoint.folder)
    settings = job.settings
    stored = run.header["recipe"]["training"]["schedule"]
    if stored is not None:
        settings = replace(settings, schedule=Schedule.from_json(stored))

    def store(schedule: Schedule) -> R:
        changed = {"training.steps": schedule.steps, "training.epochs": None, "training.schedule": schedule.to_json()}
        resolved = recipe.with_overrides(changed)
        run.header["recipe"] = resolved.to_json()
        return resolved

    def on_revision(state: TrainerState) -> None:
        store(state.schedule)
        run.write("training")

    run.write("training")
    result = loop.train(
        job.net,
        job.objective,
        job.batches,
        job.optimizer,
        settings,
        run_folder=run.folder,
        save_model=job.save,
        header=header,
        validate=job.validate,
        world=alone(next(job.net.parameters()).device),
        display=session.display,
        figures=Figures(unit=job.unit),
        deadline=deadline,
        resume=checkpoint,
        on_revision=on_revision,
        resume_command="rung tune --resume",
        before_step=job.thaw,
    )
    if result.ended == "interrupted":
        run.write("interrupted")
        return result, recipe
    return result, store(result.schedule)


def require_same(run: Run, parent: Mapping[str, Any], data_sha256: str, *, files: Sequence[str]) -> None:
    """Raise RunFolderError when the base of record `parent` or the data are not those that `run` was planned with."""
    _require_same("base", parent["weights_sha256"], run.header["parent"]["weights_sha256"], parent["origin"])
    _require_same("data", data_sha256, run.header["data"]["sha256"], ", ".join(files))


def _require_same(what: str, found: str, planned: str, where: str) -> None:
    if found != planned:
        raise RunFolderError(
            f"the {what} changed since this run was planned, so going on would not be the same run",
            where=where,
            hint=f"bring the old {what} back, or tune anew",
        )
