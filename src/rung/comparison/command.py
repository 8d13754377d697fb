"""`rung.compare`: from files and wishes to a folder with a report."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rung.comparison.compare import compare as compare_task
from rung.comparison.folder import begin, open_folder
from rung.comparison.report import write_reports
from rung.comparison.result import Comparison
from rung.comparison.settings import Settings, checked_settings
from rung.data.label_split import Method
from rung.errors import RunFolderError, UsageError
from rung.progress import SILENT, Progress
from rung.tasks.classification.initial_vectors import InitialVectors
from rung.tasks.classification.reading import DataSources, read_task
from rung.tasks.classification.rungs import make_rungs
from rung.tasks.classification.scoring import METRICS
from rung.tasks.task import Rung


def compare(
    files: Sequence[Path | str],
    *,
    out: Path | str,
    target: str | None = None,
    text: Sequence[str] | None = None,
    group: str | None = None,
    time: str | None = None,
    test: Sequence[Path | str] = (),
    valid: Sequence[Path | str] = (),
    unlabelled: Sequence[Path | str] = (),
    split: Method | None = None,
    allow_leaks: bool = False,
    more_rungs: Sequence[Rung] = (),
    vectors: Path | str | None = None,
    freeze_vectors: bool = False,
    bases: Sequence[str] | None = None,
    plan: Path | str | None = None,
    resume: bool = False,
    command: str = "",
    started: float | None = None,
    progress: Progress = SILENT,
    **settings: Any,
) -> Comparison:
    """Fit every rung of the ladder to labelled text, measure them on the same items, judge, and write the report.

    `files` are tables with a label column `target` and one or more `text` columns (guessed where not named). `out` gets
    `report.html`, `report.json`, `report.md` and a folder for each rung under `rungs/`. `settings` are those of
    `Settings`: minutes, seed, seeds, margin, metric, rungs, reference. Networks over words start from `vectors`, a run
    of word vectors or a file of them, and with `freeze_vectors` keep them. `bases` are pretrained models (folders,
    runs, .gguf files, names): an encoder joins the ladder frozen and tuned, a decoder prompted and tuned by LoRA. By
    default those that are installed join, unless `rungs` says which rungs there are. `plan` names a finished comparison
    whose plans are used again: no clock is then read. With `resume` an interrupted comparison in `out` goes on.

    Raises DataError for data that cannot be used, UsageError for contradictory wishes, RunFolderError when `out` holds
    something else.
    """
    out = Path(out)
    wish = checked_settings(settings, METRICS)
    wish, bases = _with_bases(wish, bases)
    make_rungs(wish.rungs or (), bases)
    threads = wish.threads or os.cpu_count() or 1
    wish = wish.model_copy(update={"threads": threads})
    open_folder(out, resume=resume)
    sources = DataSources(files, target, text, group, time, test, valid, unlabelled, split, allow_leaks)
    task = read_task(
        sources, seed=wish.seed, threads=threads, metric=wish.metric, more_rungs=tuple(more_rungs), progress=progress
    )
    task = replace(task, bases=bases)
    if vectors is not None:
        task = replace(task, vectors=_initial_vectors(Path(vectors), frozen=freeze_vectors))
    elif freeze_vectors:
        raise UsageError("there are no word vectors to freeze", hint="name them with --vectors")
    begin(out, wish.model_dump(mode="json"), task.sha256)
    if plan is not None:
        _take_plans(Path(plan), out)
        wish = wish.model_copy(update={"minutes": None})
    found = compare_task(task, wish, out=out, command=command, started=started, progress=progress)
    write_reports(found, out)
    return found


def _with_bases(wish: Settings, bases: Sequence[str] | None) -> tuple[Settings, tuple[str, ...]]:
    """The bases that take part, and the wish with their rungs added to those that were named."""
    if bases is None and wish.rungs is not None:
        return wish, ()
    from rung.tasks.classification.pretrained import installed_bases, names_of  # late: it imports torch

    bases = installed_bases() if bases is None else tuple(bases)
    if wish.rungs is None:
        return wish, bases
    added = [name for base in bases for name in names_of(base)]
    return wish.model_copy(update={"rungs": (*wish.rungs, *added)}), bases


def _initial_vectors(path: Path, *, frozen: bool) -> InitialVectors:
    """The vectors, loaded at once, so that a broken file stops the comparison before it starts."""
    found = InitialVectors(path, frozen)
    _ = found.vectors
    return found


def _take_plans(source: Path, out: Path) -> None:
    """Copy the plans of another comparison."""
    plans = [
        path
        for name in ("plan.json", "fitting.json", "curve.json")
        for path in sorted((source / "fits").glob(f"*/{name}"))
    ]
    if not plans:
        raise RunFolderError("there are no plans of a comparison here", where=str(source), hint="give its --out folder")
    for path in plans:
        target = out / path.relative_to(source)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
