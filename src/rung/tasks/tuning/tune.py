"""`rung.tune`: another model's weights, tuned to a task; `plan` and `resume` beside it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from rung.errors import RunFolderError
from rung.nets.sentence_folder import body_folder
from rung.progress import SILENT, Progress
from rung.tasks.bases import base_record, origin_of, resolve_base
from rung.tasks.classification.network_training import threads_of
from rung.tasks.run import Run, free_folder, require_empty
from rung.tasks.tuning.frame import Session, require_same
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.plan import TuningPlan
from rung.tasks.tuning.summary import Tuned
from rung.tasks.tuning.table import TUNED_FOR, home_of, task_of
from rung.tasks.tuning.tuner import Request, Tuner
from rung.training.checkpoint import latest_good
from rung.training.machine import usable_cores
from rung.training.meter import SILENT_DISPLAY, Display

Files = Sequence[str | Path]


def tune(
    base: str | Path,
    data: Files,
    *,
    task: str,
    method: TuningMethod | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    out: Path | None = None,
    seed: int | None = None,
    threads: int | None = None,
    valid: Files = (),
    test: Files = (),
    overrides: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
    display: Display = SILENT_DISPLAY,
    started: float | None = None,
    **columns: Any,
) -> Tuned[Any]:
    """Tune the model `base` to `task` on `data`, and leave a run folder that the ecosystem opens too.

    `base` is a folder, a run, a .gguf file, or a name such as "minilm"; `task` one of `rung.tasks.tuning.table.TASKS`,
    which say what `data` they take and what `columns` they know (`target`, `text`, `source`, ...). Validation and test
    data are split off, unless `valid` and `test` bring them. `method` (default: full) says which weights move.
    `minutes` is the wall time of it all, counted from `started` (a reading of `time.monotonic()`; default: now);
    `epochs` or `steps` read no clock; with none of them the task has a usual number. `overrides` are single settings
    of the recipe.

        rung.tune("minilm", ["questions.csv"], task="classify", target="label", epochs=3)

    Raises UsageError, RecipeError, DataError, TokenizerError, PlanError, TrainingError, GenerationError,
    EvaluationError or RunFolderError, each saying what to do.
    """
    session = Session(progress, display, time.monotonic() if started is None else started)
    asked = Request(task, base, data, method, minutes, epochs, steps, seed, threads, valid, test, overrides, columns)
    tuner = tuner_of(task)
    tuner.require_sense(asked)
    parent = _parent_of(base)
    recipe = tuner.recipe_of(asked, parent)
    out = out or free_folder(f"{Path(data[0]).name.split('.')[0]}-{Path(base).name.split('.')[0]}")
    require_empty(out)
    with threads_of(recipe.training.threads or usable_cores()):
        deadline = session.deadline(recipe.training.minutes)
        tuning = tuner.open(recipe, session)
        made = tuning.fill(deadline=deadline)
        for line in made.lines():
            progress.say(line)
        described = tuning.describe()
        run = Run.create(out, recipe=made.recipe, plan=made.to_json(), data=described, parent=parent, task=tuner.kind)
        run.header |= {TUNED_FOR: task, **tuning.header()}
        run.write("planned")
        tuned: Tuned[Any] = tuning.go(run, deadline=None if deadline is None else deadline - made.seconds_after)
        return tuned


def plan(
    base: str | Path,
    data: Files,
    *,
    task: str,
    progress: Progress = SILENT,
    started: float | None = None,
    **wishes: Any,
) -> TuningPlan[Any]:
    """Do all that `tune` does before tuning, and return what it would do. `wishes` and errors as in `tune`."""
    session = Session(progress, SILENT_DISPLAY, time.monotonic() if started is None else started)
    asked = Request.of(task, base, data, wishes)
    tuner = tuner_of(task)
    tuner.require_sense(asked)
    recipe = tuner.recipe_of(asked, _parent_of(base))
    with threads_of(recipe.training.threads or usable_cores()):
        return tuner.open(recipe, session).fill(deadline=session.deadline(recipe.training.minutes))


def resume(
    run: str | Path, *, threads: int | None = None, progress: Progress = SILENT, display: Display = SILENT_DISPLAY
) -> Tuned[Any]:
    """Go on with an interrupted run, exactly as if it had not been interrupted (bit for bit on CPU).

    Raises RunFolderError when the run is none of `tune`, finished or damaged, or its base or data have changed since.
    """
    session = Session(progress, display, time.monotonic())
    tuner = tuner_of(task_of(Path(run)))
    opened = Run.open_unfinished(Path(run), threads=threads, instead="tune anew, for longer")
    recipe = tuner.recipe.parse(opened.header["recipe"], where=str(opened.folder / "rung.json"))
    if Path(recipe.base).is_absolute() and not Path(recipe.base).exists():
        raise RunFolderError(
            f"the base of this run is not at {recipe.base} any more",
            where=str(opened.folder),
            hint="bring it back there; a link will do",
        )
    with threads_of(recipe.training.threads or usable_cores()):
        tuning = tuner.open(recipe, session)
        require_same(opened, _parent_of(recipe.base), tuning.describe()["sha256"], files=tuner.files_of(recipe))
        tuned: Tuned[Any] = tuning.go(opened, deadline=None, checkpoint=latest_good(opened.folder, progress.say))
        return tuned


def tuner_of(task: str) -> Tuner[Any]:
    """Who tunes for `task`. UsageError for an unknown one."""
    tuner: Tuner[Any] = import_module(home_of(task)).TUNER
    return tuner


def _parent_of(base: str | Path) -> dict[str, Any]:
    """The record of a base; where its network lies in a subfolder, of that. RunFolderError when there is none such."""
    folder = resolve_base(base)
    network = body_folder(folder)
    return base_record(network) | ({} if network == folder else {"origin": origin_of(folder)})
