"""Training on one process or on several, of which one writes: what is the same whatever is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from rung.progress import SILENT, Progress
from rung.recipe import AnyRecipe
from rung.tasks.run import Run
from rung.training.checkpoint import Checkpoint, TrainerState
from rung.training.contracts import LoopResult
from rung.training.distributed import World, world_from_environment
from rung.training.meter import Display
from rung.training.precision import tune_allocator
from rung.training.schedule import Schedule

R = TypeVar("R", bound=AnyRecipe)
Summary = TypeVar("Summary")


@dataclass(frozen=True)
class Session:
    """Where a command runs, who watches it, and when it began (a reading of `time.monotonic()`)."""

    world: World
    progress: Progress
    display: Display
    began: float


@contextmanager
def open_session(progress: Progress, display: Display, began: float) -> Iterator[Session]:
    """Where training runs, from a launcher's environment; only the main process is watched."""
    tune_allocator()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with world_from_environment(device) as world:
        yield Session(world, progress if world.is_main else SILENT, display, began)


class RankedTraining(ABC, Generic[R, Summary]):
    """Trains `run` by its recipe, measures it, and makes its folder a model. Every rank does; the main one writes."""

    def __init__(self, run: Run, recipe: R, session: Session) -> None:
        """Take a run and its recipe, which has no gaps."""
        self.run, self.recipe, self.session = run, recipe, session

    def train(self, *, deadline: float | None, checkpoint: Checkpoint | None = None) -> Summary:
        """Train from `checkpoint` or from the beginning until the schedule ends; see `rung.training.loop.train`."""
        world = self.session.world
        torch.set_num_threads(self.run.header["recipe"]["training"]["threads"] or torch.get_num_threads())
        if world.is_main:
            self.run.write("training")
        result = self._loop(deadline, checkpoint)
        world.wait_for_all()
        if not world.is_main:
            return self._summary(result)
        if result.ended == "interrupted":
            self.run.write("interrupted")
            return self._summary(result)
        return self._publish(result)

    @abstractmethod
    def _loop(self, deadline: float | None, checkpoint: Checkpoint | None) -> LoopResult:
        """Train, and call `_on_revision` whenever the deadline moves the end."""

    @abstractmethod
    def _publish(self, result: LoopResult) -> Summary:
        """Measure the best checkpoint, and make the run folder that model."""

    @abstractmethod
    def _summary(self, result: LoopResult) -> Summary:
        """How training went, with nothing measured."""

    def _on_revision(self, state: TrainerState) -> None:
        """Keep the stored recipe true: with its schedule, the same run can be had again without a clock."""
        self._store_schedule(state.schedule)
        self.run.write("training")

    def _store_schedule(self, schedule: Schedule) -> None:
        changed = {"training.steps": schedule.steps, "training.schedule": schedule.to_json()}
        self.recipe = self.recipe.with_overrides(changed)
        self.run.header["recipe"] = self.recipe.to_json()
