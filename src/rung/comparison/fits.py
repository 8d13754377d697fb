"""The fits of a comparison on disk: each is done once, whatever happens in between.

OUT/work/linear/plan.json           what every fit of this rung uses
OUT/work/linear/all-seed-0/         a run folder, on all training items
OUT/work/linear/all-seed-0.json     how it went and its quality; written last, so it tells that the fit is finished
OUT/work/linear/all-seed-0.safetensors   what it predicts for the validation and the test items
OUT/work/linear/n-200-seed-0.json   the same for a point of the learning curve, whose folder is not kept
OUT/rungs/linear/                   the fit with the best validation score: ready for `rung predict`
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rung.progress import Progress
from rung.runfolder import remove_leftovers, write_json
from rung.tasks.loading import load_predictor
from rung.tasks.task import FitReport, Indices, Part, Plan, Rung, Task

_SCORED: tuple[Part, ...] = ("valid", "test")


@dataclass(frozen=True)
class Fit:
    """A finished fit: its folder, how it went, and the primary metric on validation and test items."""

    folder: Path
    seed: int
    items: int
    report: FitReport
    valid: float
    test: float


class Fits:
    """Does the fits of one comparison in `out`, and finds those that are done."""

    def __init__(self, task: Task, out: Path, progress: Progress) -> None:
        self.task, self.out, self.progress = task, out, progress

    def plan(self, rung: Rung, seconds: float | None, *, seed: int) -> Plan:
        """The plan of all fits of `rung`: decided once, then kept. Raises PlanError when nothing fits the time."""
        path = self._work(rung) / "plan.json"
        if path.is_file():
            stored: Plan = json.loads(path.read_text(encoding="utf-8"))
            return stored
        decided = rung.plan(self.task, seconds, seed=seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, decided)
        return decided

    def on_all(self, rung: Rung, plan: Plan, *, seed: int) -> Fit:
        """Fit on all training items, and keep the folder."""
        size = len(self.task.ids("train"))
        return self._fit(rung, plan, f"all-seed-{seed}", self.task.subset(size, seed=seed), seed)

    def on_some(self, rung: Rung, plan: Plan, size: int, *, seed: int) -> Fit:
        """Fit on `size` training items, for the learning curve; only what it scored is kept."""
        fit = self._fit(rung, plan, f"n-{size}-seed-{seed}", self.task.subset(size, seed=seed), seed)
        shutil.rmtree(fit.folder, ignore_errors=True)
        return fit

    def predictions(self, fit: Fit, part: Part) -> Any:
        """What a fit on all items predicts for a part, as stored when it was fitted."""
        return self.task.read_predictions(fit.folder.with_suffix(".safetensors"), part)

    def keep(self, rung: Rung, fits: list[Fit]) -> Path:
        """Make the fit with the best validation score, the first of equals, the rung's own folder."""
        best = max(fits, key=lambda fit: fit.valid)
        kept = self.out / "rungs" / rung.name.replace(":", "-").replace("/", "-")
        if not kept.is_dir():
            remove_leftovers(kept.parent) if kept.parent.is_dir() else kept.parent.mkdir(parents=True)
            temporary = kept.with_name(f".writing-{kept.name}")
            shutil.copytree(best.folder, temporary)
            temporary.rename(kept)
        return kept

    def _fit(self, rung: Rung, plan: Plan, name: str, items: Indices, seed: int) -> Fit:
        folder = self._work(rung) / name
        done = folder.with_suffix(".json")
        if not done.is_file():
            self._clear(folder)
            report = rung.fit(self.task, plan, items=items, seed=seed, folder=folder, progress=self.progress)
            predictor = load_predictor(folder)
            predicted = {part: predictor.predict(self.task.inputs(part)) for part in _SCORED}
            self.task.write_predictions(folder.with_suffix(".safetensors"), predicted)
            scores = {part: self.task.primary(predicted[part], part) for part in _SCORED}
            write_json(done, {"report": asdict(report), "items": len(items), "seed": seed, **scores})
        found: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return Fit(folder, seed, found["items"], FitReport(**found["report"]), found["valid"], found["test"])

    def _work(self, rung: Rung) -> Path:
        return self.out / "work" / rung.name.replace(":", "-").replace("/", "-")

    @staticmethod
    def _clear(folder: Path) -> None:
        """Remove what a killed process left of this fit."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder.parent)
