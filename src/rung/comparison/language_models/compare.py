"""Raw text in, every kind of language model out, measured side by side: climb, measure, judge."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rung.comparison.language_models.curves import crossing_sentences
from rung.comparison.language_models.fitting import MEASURED_BYTES, CannotFit, Fitting, LanguageFit
from rung.comparison.language_models.result import Fit, LanguageLadder, LanguageRungResult
from rung.comparison.language_models.rungs import LanguageRung, chosen_rungs
from rung.comparison.language_models.settings import LadderSettings
from rung.comparison.language_models.text import CutText
from rung.comparison.language_models.verdict import judge
from rung.errors import EvaluationError
from rung.progress import SILENT, Progress
from rung.records import Record
from rung.version import __version__

_MEASURING_SHARE = 0.1
_MEASURING_SECONDS = 12.0  # a rung: the test text, two samples
_NOT_SHAPE = ("family", "parameters")


def compare_language_models(
    text: CutText,
    settings: LadderSettings,
    *,
    out: Path,
    command: str = "",
    started: float | None = None,
    progress: Progress = SILENT,
) -> LanguageLadder:
    """Train and measure the rungs in the folder `out`; what is done there already is not done again.

    `started`: the reading of `time.monotonic()` from which the minutes count. Raises UsageError for rungs that do not
    exist, EvaluationError when fewer than two could be trained, KeyboardInterrupt when one was interrupted.
    """
    started = time.monotonic() if started is None else started
    ladder = chosen_rungs(settings.rungs)
    fitting = Fitting(out, text, settings, progress)
    fits, notes = _climb(fitting, ladder, settings, started, progress)
    if len(fits) < 2:
        told = "; ".join(f"{name}: {note.splitlines()[0]}" for name, note in notes.items())
        raise EvaluationError(
            f"{len(fits)} of {len(ladder)} rungs could be trained, so there is nothing to compare ({told})",
            hint="give more --minutes or more text, or name cheaper --rungs",
        )
    pairs, verdict = judge(
        {name: [fit.scores for fit in several] for name, several in fits.items()},
        {name: [fit.valid_bits_per_byte for fit in several] for name, several in fits.items()},
        margin=settings.margin,
        seed=settings.seed,
    )
    best = {name: _best(several) for name, several in fits.items()}
    return LanguageLadder(
        rung_version=__version__,
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=time.monotonic() - started,
        machine=f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}",
        settings=settings.model_dump(mode="json"),
        text=text.facts | {"measured_bytes": _measured_bytes(best), "most_measured_bytes": MEASURED_BYTES},
        rungs=[_result(rung, fits.get(rung.name, []), notes.get(rung.name, ""), out) for rung in ladder],
        floors=next(iter(best.values())).floors,
        pairs=pairs,
        crossings=crossing_sentences([(name, fit.curve) for name, fit in best.items()]),
        verdict=verdict,
    )


def _climb(
    fitting: Fitting, ladder: Sequence[LanguageRung], settings: LadderSettings, started: float, progress: Progress
) -> tuple[dict[str, list[LanguageFit]], dict[str, str]]:
    """The fits of each rung that can be trained, from the lowest up, and why the others cannot."""
    fits: dict[str, list[LanguageFit]] = {}
    notes: dict[str, str] = {}
    seeds = range(settings.seed, settings.seed + settings.seeds)
    seconds = _seconds_each(ladder, settings, started)
    for rung in ladder:
        progress.say(f"{rung.name}: {rung.description}")
        try:
            wanted = seeds[:1] if rung.is_counted else seeds
            fits[rung.name] = [fitting.fit(rung, seed=seed, seconds=seconds) for seed in wanted]
        except CannotFit as error:
            notes[rung.name] = str(error)
            progress.say(f"{rung.name} is left out: {str(error).splitlines()[0]}")
    return fits, notes


def _seconds_each(ladder: Sequence[LanguageRung], settings: LadderSettings, started: float) -> float | None:
    """An equal part of what is left of the minutes for every training by gradient steps."""
    if settings.minutes is None:
        return None
    total = 60 * settings.minutes
    trained = max(1, sum(not rung.is_counted for rung in ladder) * settings.seeds)
    measuring = max(_MEASURING_SHARE * total, _MEASURING_SECONDS * len(ladder))
    left = total - (time.monotonic() - started) - measuring
    return max(left, total / 2) / trained


def _best(fits: Sequence[LanguageFit]) -> LanguageFit:
    return min(fits, key=lambda fit: fit.valid_bits_per_byte)


def _measured_bytes(best: dict[str, LanguageFit]) -> int:
    return int(next(iter(best.values())).scores.weights.sum())


def _result(rung: LanguageRung, fits: Sequence[LanguageFit], note: str, out: Path) -> LanguageRungResult:
    common: dict[str, Any] = {"name": rung.name, "description": rung.description, "height": rung.height, "note": note}
    if not fits:
        return LanguageRungResult(**common, finished=False)
    best = _best(fits)
    shape = best.header["recipe"]["net"]
    return LanguageRungResult(
        **common,
        finished=True,
        folder=best.folder.relative_to(out).as_posix(),
        shape={key: value for key, value in shape.items() if value is not None and key not in _NOT_SHAPE},
        fits=[
            Fit(
                seed=fit.seed,
                folder=fit.folder.relative_to(out).as_posix(),
                bits_per_byte=fit.record,
                valid_bits_per_byte=fit.valid_bits_per_byte,
                curve=fit.curve,
            )
            for fit in fits
        ],
        metrics=_metrics(best, fits),
        samples=best.samples,
    )


def _metrics(best: LanguageFit, fits: Sequence[LanguageFit]) -> list[Record]:
    """What the ladder's table shows of a rung; quality is that of the fit that is kept."""
    files = best.header.get("files", {})
    size = sum(int(told["bytes"]) for told in files.values())
    return [
        best.record,
        _number("mean_bits_per_byte", float(np.mean([fit.scores.mean for fit in fits])), "bits per byte", len(fits)),
        _number("parameters", best.parameters, "parameters"),
        _number("bytes_on_disk", size or None, "bytes"),
        _number("train_seconds", best.seconds, "s"),
        _number("text_read", best.curve[-1].text_bytes, "bytes"),
        _number("training_bytes_per_second", best.training_bytes_per_second, "bytes/s"),
        _number("generation_characters_per_second", best.characters_per_second, "characters/s"),
        Record(name="energy", value=None, unit="J", n=0, not_measured="energy of training is not measured yet"),
    ]


def _number(name: str, value: float | None, unit: str, n: int = 1) -> Record:
    reason = None if value is not None else "the run does not tell"
    return Record(name=name, value=value, unit=unit, n=n, not_measured=reason)
