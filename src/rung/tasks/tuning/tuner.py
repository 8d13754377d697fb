"""What a task brings to be tuned for: a `Tuner` that says what it takes, and a `Tuning` that does it.

Both are handled by `rung.tasks.tuning.tune`. A new task needs a module with a `Tuner` called `TUNER`, and a line in
`rung.tasks.tuning.table.TASKS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from rung.errors import UsageError
from rung.records import ItemScores, Record
from rung.tasks.card_parts import rounded_base_words
from rung.tasks.run import Run
from rung.tasks.tuning.frame import Job, Session, run_loop
from rung.tasks.tuning.method import TuningMethod, gradual_unfreezing, require_epochs
from rung.tasks.tuning.plan import TuningPlan
from rung.tasks.tuning.recipe import AnyTuningRecipe
from rung.tasks.tuning.summary import Tuned
from rung.training.checkpoint import Checkpoint
from rung.training.contracts import LoopResult

AnyTuned = TypeVar("AnyTuned", bound=Tuned[Any])

_COMMON = {
    "seed": "seed",
    "minutes": "training.minutes",
    "epochs": "training.epochs",
    "steps": "training.steps",
    "threads": "training.threads",
}


@dataclass(frozen=True)
class Request:
    """What a caller of `tune` asked for; None, or empty, for what was not asked for.

    `columns`: arguments that only some tasks know, most of them columns of the data.
    """

    task: str
    base: str | Path
    data: Sequence[str | Path]
    method: TuningMethod | None = None
    minutes: float | None = None
    epochs: float | None = None
    steps: int | None = None
    seed: int | None = None
    threads: int | None = None
    valid: Sequence[str | Path] = ()
    test: Sequence[str | Path] = ()
    overrides: Mapping[str, Any] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, task: str, base: str | Path, data: Sequence[str | Path], wishes: Mapping[str, Any]) -> Self:
        """The same from `wishes` by name: those that all tasks know, and columns."""
        common = {one.name for one in fields(cls)} - {"columns"}
        columns = {name: value for name, value in wishes.items() if name not in common}
        return cls(task, base, data, columns=columns, **{name: wishes[name] for name in wishes.keys() - columns.keys()})

    @property
    def how(self) -> TuningMethod:
        """Which weights move: all of them, unless something else was asked for."""
        return self.method or TuningMethod()

    def settings(self, places: Mapping[str, str]) -> dict[str, Any]:
        """What was asked for, by the key of the recipe that `places` gives for each argument."""
        asked = {name: getattr(self, name) for name in ("data", "valid", "test", *_COMMON)} | dict(self.columns)
        plain = {name: tuple(map(str, one)) if isinstance(one, list | tuple) else one for name, one in asked.items()}
        return {places[name]: value for name, value in plain.items() if _is_asked(value)}


def _is_asked(value: object) -> bool:
    return not (value is None or value is False or value in ((), []))


@dataclass(frozen=True)
class Tuner(Generic[AnyTuningRecipe]):
    """What a task takes.

    recipe    the class of its recipe
    open      opens the base and reads the data of such a recipe
    kind      what the header of a run calls the task: `rung.tasks.loading` goes by it
    items     what its data are made of, in the plural
    example   a command that tunes
    budget    settings that limit a run which nothing else limits
    places    the key of the recipe for each argument that goes by task: data, valid, test, and those columns it knows
    has_head  whether it puts a new head on the base, which can be trained alone
    check     raises UsageError for what makes no sense for this task
    """

    recipe: type[AnyTuningRecipe]
    open: Callable[[AnyTuningRecipe, Session], Tuning[AnyTuningRecipe, Any]]
    items: str
    example: str
    budget: Mapping[str, float]
    places: Mapping[str, str]
    kind: str = "text"
    has_head: bool = False
    check: Callable[[Request], None] | None = None

    def recipe_of(self, asked: Request, parent: Mapping[str, Any]) -> AnyTuningRecipe:
        """One recipe of it all, on the base of the record `parent`: single arguments over `overrides`.

        Raises RecipeError for what is unknown or contradictory.
        """
        made = self.recipe(base=parent["origin"], method=asked.how.to_json()).with_overrides(asked.overrides or {})
        made = made.with_overrides(asked.settings({**_COMMON, **self.places}))
        return made if made.training.is_limited else made.with_overrides(self.budget)

    def require_sense(self, asked: Request) -> None:
        """Raise UsageError for arguments that mean nothing here, for missing data and for a method without sense."""
        unknown = [name for name, value in asked.columns.items() if name not in self.places and _is_asked(value)]
        if unknown:
            named = ", ".join(f"--{name.replace('_', '-')}" for name in unknown)
            raise UsageError(f"{named} means nothing with --task {asked.task}", hint="leave it out")
        if not asked.data:
            raise UsageError(f"there are no {self.items} to tune on", hint=f"for example: {self.example}")
        if asked.how.kind == "frozen" and not self.has_head:
            raise UsageError(
                f"--task {asked.task} has no new head to train on a frozen body",
                hint="leave --frozen out, or take --lora",
            )
        if self.check is not None:
            self.check(asked)

    def files_of(self, recipe: AnyTuningRecipe) -> tuple[str, ...]:
        """The data that `recipe` names."""
        section, name = self.places["data"].split(".")
        files: tuple[str, ...] = getattr(getattr(recipe, section), name)
        return files


@dataclass(frozen=True)
class Outcome:
    """What test items say of a tuned model: `records`, their `scores` by item, and `told`, its summary's own fields."""

    records: Sequence[Record]
    scores: Mapping[str, ItemScores]
    told: Mapping[str, Any] = field(default_factory=dict)


class Tuning(ABC, Generic[AnyTuningRecipe, AnyTuned]):
    """A recipe with its base and its data open: planned, then trained, measured and published; the same for a new run
    and for one that goes on.
    """

    summary: type[AnyTuned]
    """What is told in the end."""
    chooses_weights = True
    """Whether the checkpoint that did best on validation items is kept, and not the last one."""

    def __init__(self, recipe: AnyTuningRecipe, session: Session) -> None:
        """Take a recipe; `plan` says what fills its gaps."""
        self.recipe, self.session = recipe, session

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What `rung.json` says about the data; `sha256` is their identity."""

    def header(self) -> dict[str, Any]:
        """Further entries of `rung.json`."""
        return {}

    @abstractmethod
    def plan(self, seconds: float | None) -> TuningPlan[AnyTuningRecipe]:
        """Fill the gaps of the recipe; with `seconds` for all that is left to do, by timing a few real steps.

        Without, no clock is read. PlanError when not one step fits.
        """

    @abstractmethod
    def job(self, run: Run) -> Job:
        """What is trained, on what, and how it is kept; the recipe has no gaps any more."""

    @property
    @abstractmethod
    def steps_per_epoch(self) -> float:
        """Steps in which the training data are read once."""

    @abstractmethod
    def measure(self, weights: Path) -> Outcome:
        """Measure on test items; the network has those of the checkpoint `weights`."""

    def publishable(self, run: Run, weights: Path) -> Path:  # noqa: ARG002 - for those who publish another folder
        """The folder that the run becomes, for the checkpoint `weights`, which the network has."""
        return weights

    def fill(self, *, deadline: float | None) -> TuningPlan[AnyTuningRecipe]:
        """Plan for all that is left until `deadline`, and take the recipe without gaps."""
        made = self.plan(self.session.left(deadline))
        self.recipe = made.recipe
        if made.recipe.tuning.gradual:
            require_epochs(made.steps / self.steps_per_epoch)
        return made

    def go(self, run: Run, *, deadline: float | None, checkpoint: Checkpoint | None = None) -> AnyTuned:
        """Train from `checkpoint` or from the base until the schedule ends; measure, and make `run` the model."""
        job = self._with_thaw(self.job(run), run)
        result, self.recipe = run_loop(run, self.recipe, job, self.session, deadline=deadline, checkpoint=checkpoint)
        if result.ended == "interrupted":
            return self.summarise(run, result)
        best = (self.chooses_weights and result.best_checkpoint) or result.checkpoint
        if best != result.checkpoint:
            job.load(best)
        job.net.eval()
        return self.publish(run, self.publishable(run, best), self.summarise(run, result))

    def publish(self, run: Run, weights: Path, summary: AnyTuned) -> AnyTuned:
        """Measure, and make `run` the model in `weights`, with its card."""
        found = self.measure(weights)
        records = tuple(found.records)
        summary = replace(summary, records=records, seconds=self.session.seconds, **found.told)
        run.publish(weights, card=summary.card(run, self.recipe), records=records, scores=found.scores)
        return summary

    def summarise(self, run: Run, result: LoopResult | None) -> AnyTuned:
        """How training went; `result` is None where no step was taken. Nothing is measured yet."""
        plan, is_adapter = run.header["plan"], self.recipe.tuning.kind == "lora" and not self.summary.merged
        return self.summary(
            run=run.folder,
            ended=result.ended if result else "finished",
            steps=result.step if result else 0,
            epochs=result.step / self.steps_per_epoch if result else 0.0,
            parameters=plan["parameters"],
            trained=plan["trained_parameters"],
            seconds=self.session.seconds,
            speed=result.targets / result.seconds if result and result.seconds else 0.0,
            plan=plan,
            skipped=result.skipped if result else {},
            base_note=rounded_base_words(run.header["parent"], run.folder) if is_adapter else "",
        )

    def _with_thaw(self, job: Job, run: Run) -> Job:
        if not self.recipe.tuning.gradual:
            return job
        per_epoch = self.steps_per_epoch
        epochs = run.header["plan"]["steps"] / per_epoch  # as planned: a deadline may move the end later
        thaw = gradual_unfreezing(job.net, steps_per_epoch=max(1, round(per_epoch)), epochs=epochs)
        return replace(job, thaw=thaw)
