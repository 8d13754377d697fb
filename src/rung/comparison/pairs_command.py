"""`rung compare PAIRS --task translate`: from pairs of texts to a folder with a report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rung.comparison.compare import compare
from rung.comparison.folder import begin, open_folder
from rung.comparison.report import write_reports
from rung.comparison.result import Comparison
from rung.comparison.settings import checked_settings
from rung.progress import SILENT, Progress
from rung.tasks.rewriting.reading import read_task
from rung.tasks.rewriting.rungs import make_rungs
from rung.tasks.rewriting.task import METRICS


def compare_pairs(
    files: Sequence[Path | str],
    *,
    out: Path | str,
    source: str | None = None,
    target: str | None = None,
    test: Sequence[Path | str] = (),
    valid: Sequence[Path | str] = (),
    resume: bool = False,
    command: str = "",
    started: float | None = None,
    progress: Progress = SILENT,
    **settings: Any,
) -> Comparison:
    """Train every kind of encoder-decoder on the same pairs, measure them on the same sources, judge, and report.

    `files` are tables with the columns `source` and `target`, or two files aligned line by line. `settings` are those
    of `Settings`, `metric` "bleu" (default) or "chrf". With `resume` an interrupted comparison in `out` goes on.

    Raises DataError for pairs that cannot be used, UsageError for contradictory wishes, RunFolderError when `out` holds
    something else.
    """
    out = Path(out)
    wish = checked_settings(settings, METRICS)
    wish = wish.model_copy(update={"threads": wish.threads or os.cpu_count() or 1})
    make_rungs(wish.rungs)
    open_folder(out, resume=resume)
    task = read_task(
        files,
        folder=out / "pairs",
        source=source,
        target=target,
        valid=valid,
        test=test,
        seed=wish.seed,
        threads=wish.threads or 1,
        metric=wish.metric,
        progress=progress,
    )
    begin(out, wish.model_dump(mode="json"), task.sha256)
    found = compare(task, wish, out=out, command=command, started=started, progress=progress)
    write_reports(found, out)
    return found
