"""The fits of a comparison on disk: each is done once, whatever happens in between.

OUT/fits/linear/plan.json                what every fit of this rung uses
OUT/fits/linear/all-seed-0/              a run folder, on all training items
OUT/fits/linear/all-seed-0.safetensors   what it predicts for the validation and the test items
OUT/fits/linear/all-seed-0.json          how it went; written last, so it tells that the fit is finished
OUT/fits/linear/n-200-seed-0.json        the same for a point of the learning curve, whose folder is not kept
OUT/rungs/linear/                        the fit with the best validation score: ready for `rung predict`
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rung.errors import PlanError
from rung.evaluation.summed import SummedScores
from rung.progress import SILENT, Progress
from rung.records import ItemScores, Record
from rung.runfolder import read_header, readable_write_errors, remove_leftovers, write_header, write_json
from rung.tasks.loading import load_predictor
from rung.tasks.run import write_measurements
from rung.tasks.task import FitReport, Part, Plan, Rung, Task


@dataclass(frozen=True)
class Fit:
    """A finished fit: its run folder, how it went, and the file with what it predicts."""

    folder: Path
    seed: int
    items: int
    report: FitReport
    predictions: Path


class Fits:
    """Does the fits of one comparison in `out`, and finds those that are done."""

    def __init__(self, task: Task, out: Path, progress: Progress) -> None:
        self.task, self.out, self.progress = task, out, progress

    def plan(self, rung: Rung, seconds: float | None, *, seed: int, undertrained_too: bool = True) -> Plan:
        """The plan of all fits of `rung`: decided once, then kept.

        Raises PlanError when nothing fits the time, or, without `undertrained_too`, nothing that is trained enough.
        """
        stored = self.stored(rung, "plan")
        if stored is None:
            stored = rung.plan(self.task, seconds, seed=seed)
            if not undertrained_too and rung.is_undertrained(stored):
                raise PlanError(f"no fit gets enough steps in {seconds:.0f} s", where=f"rung {rung.name}")
            self.store(rung, "plan", stored)
        return stored

    def on_all(self, rung: Rung, plan: Plan, *, seed: int) -> Fit:
        """Fit on all training items, and keep the folder."""
        return self._fit(rung, plan, f"all-seed-{seed}", len(self.task.ids("train")), seed)

    def on_some(self, rung: Rung, plan: Plan, size: int, *, seed: int) -> Fit:
        """Fit on `size` training items, for the learning curve; only what it predicts is kept."""
        fit = self._fit(rung, plan, f"n-{size}-seed-{seed}", size, seed)
        shutil.rmtree(fit.folder, ignore_errors=True)
        return fit

    def predictions(self, fit: Fit, part: Part) -> Any:
        """What a fit predicts for the validation or the test items."""
        return self.task.read_predictions(fit.predictions, part)

    def scores(self, fit: Fit) -> ItemScores | SummedScores:
        """The primary metric of a fit by test item."""
        return self.task.primary(self.predictions(fit, "test"), "test")

    def validation(self, fit: Fit) -> float:
        """The primary metric of a fit on validation items."""
        if fit.report.validation_score is not None:
            return fit.report.validation_score
        scores = self.task.primary(self.predictions(fit, "valid"), "valid")
        return scores.mean if isinstance(scores, ItemScores) else scores.value

    def keep(self, rung: Rung, best: Fit) -> Path:
        """Make this fit the rung's own folder."""
        kept = self.out / "rungs" / _folder_name(rung)
        if not kept.is_dir():
            kept.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(kept.parent)
            temporary = kept.with_name(f".writing-{kept.name}")
            with readable_write_errors(kept):
                for path in best.folder.rglob("*"):
                    if path.is_file():
                        copy = temporary / path.relative_to(best.folder)
                        copy.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy2(path, copy)
                temporary.rename(kept)
        return kept

    @staticmethod
    def describe(
        kept: Path, card: str, facts: dict[str, Any], *, records: Sequence[Record], scores: Mapping[str, ItemScores]
    ) -> None:
        """Give a rung's own folder its card and measurements, and `facts` beside what its header says."""
        header = {key: value for key, value in read_header(kept).items() if key not in ("files", "format_version")}
        write_measurements(kept, card=card, records=records, scores=scores)
        write_header(kept, {**header, **facts})

    def stored(self, rung: Rung, name: str) -> dict[str, Any] | None:
        """A JSON object kept beside the fits of `rung`, or None."""
        path = self._place(rung) / f"{name}.json"
        if not path.is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def store(self, rung: Rung, name: str, value: dict[str, Any]) -> None:
        """Keep a JSON object beside the fits of `rung`."""
        self._place(rung).mkdir(parents=True, exist_ok=True)
        write_json(self._place(rung) / f"{name}.json", value)

    def _fit(self, rung: Rung, plan: Plan, name: str, size: int, seed: int) -> Fit:
        folder = self._place(rung) / name
        arrays = folder.with_name(f"{name}.safetensors")
        if self.stored(rung, name) is None:
            self._clear(folder)
            task, items = self.task.learning_subset(size, seed=seed)
            progress = self.progress if size == len(self.task.ids("train")) else SILENT  # a curve has its own bar
            report = rung.fit(task, plan, items=items, seed=seed, folder=folder, progress=progress)
            predictor = load_predictor(folder)
            parts: tuple[Part, ...] = ("valid", "test") if report.validation_score is None else ("test",)
            asked = {"test": plan.get("test_items")}  # None: all of them
            predicted = {
                part: predictor.predict(self.task.inputs(part)[: asked.get(part)], batch_size=128) for part in parts
            }
            with readable_write_errors(arrays):
                self.task.write_predictions(arrays, predicted)
            self.store(rung, name, {"items": size, "seed": seed, "report": asdict(report)})
        found = self.stored(rung, name) or {}
        return Fit(folder, seed, found["items"], FitReport(**found["report"]), arrays)

    def _place(self, rung: Rung) -> Path:
        return self.out / "fits" / _folder_name(rung)

    @staticmethod
    def _clear(folder: Path) -> None:
        """Remove what a killed process left of this fit."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        remove_leftovers(folder.parent)


def _folder_name(rung: Rung) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in rung.name)
