"""Trains the rungs of the ladder, each once a seed, and measures each on the test text; what is done is not done again.

OUT/text/train.jsonl ...          the parts of the text that were not given
OUT/rungs/lstm/                   the run folder of the first seed (others: lstm-seed-1 ...), resumable as any run
OUT/fits/lstm/test.json           what was measured of it on the test text, and what it writes; scores.jsonl by document
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung.comparison.language_models.result import CurvePoint, Sample
from rung.comparison.language_models.rungs import LanguageRung
from rung.comparison.language_models.settings import LadderSettings
from rung.comparison.language_models.text import CutText
from rung.errors import DataError, EvaluationError, PlanError
from rung.progress import Progress
from rung.records import ItemScores, Record
from rung.runfolder import HEADER_NAME, discard, read_header, write_json
from rung.tasks import language_modelling
from rung.tasks.evaluating import EvaluationSummary, evaluate
from rung.training.recorder import METRICS

MEASURED_BYTES = 1_000_000  # of test text: 4,000 characters of it already tell rungs apart that differ by 5 %
_SAMPLE_TOKENS = 100
_SAMPLE_OPTIONS: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95, "seed": 0}
_PROMPT_WORDS = 8


@dataclass(frozen=True)
class LanguageFit:
    """A trained model and what was measured of it. `scores` holds bits and bytes by test document."""

    rung: LanguageRung
    seed: int
    folder: Path
    header: Mapping[str, Any]
    curve: list[CurvePoint]
    record: Record
    scores: ItemScores
    floors: list[Record]
    samples: list[Sample]
    characters_per_second: float
    training_bytes_per_second: float | None
    seconds: float = field(default=0.0)

    @property
    def valid_bits_per_byte(self) -> float:
        """The last word on validation text, by which the best fit is chosen."""
        return min(point.bits_per_byte for point in self.curve)

    @property
    def parameters(self) -> int | None:
        """Learned or counted numbers."""
        found = self.header["plan"].get("parameters")
        return None if found is None else int(found)


class Fitting:
    """Trains and measures in the folder `out`."""

    def __init__(self, out: Path, text: CutText, settings: LadderSettings, progress: Progress) -> None:
        self.out, self.text, self.settings, self.progress = out, text, settings, progress

    def fit(self, rung: LanguageRung, *, seed: int, seconds: float | None) -> LanguageFit:
        """The model of `rung` and `seed`, trained for `seconds` (None: by steps) unless that is done.

        Raises PlanError or DataError when it cannot be trained in that time or on this text, and KeyboardInterrupt when
        training was interrupted: its state is saved.
        """
        name = rung.name if seed == self.settings.seed else f"{rung.name}-seed-{seed}"
        folder = self.out / "rungs" / name
        self._train(rung, folder, seed=seed, seconds=seconds)
        return self._measured(rung, folder, seed=seed)

    def _train(self, rung: LanguageRung, folder: Path, *, seed: int, seconds: float | None) -> None:
        if (folder / HEADER_NAME).exists():
            if read_header(folder)["state"] != "finished":
                _require_finished(language_modelling.resume(folder, progress=self.progress).ended)
            return
        if folder.exists():  # a killed process had not even planned it
            discard(folder)
        budget: dict[str, Any] = {"steps": self.settings.steps} if seconds is None else {"minutes": seconds / 60}
        summary = language_modelling.train(
            [self.text.train],
            valid=self.text.valid,
            overrides=self._overrides(rung),
            out=folder,
            seed=seed,
            threads=self.settings.threads,
            progress=self.progress,
            started=time.monotonic(),
            **budget,
        )
        _require_finished(summary.ended)

    def _overrides(self, rung: LanguageRung) -> dict[str, Any]:
        overrides: dict[str, Any] = {"net.family": rung.name, "tokenizer.kind": self.settings.tokenizer}
        if self.settings.vocab_size is not None:
            overrides["tokenizer.vocab_size"] = self.settings.vocab_size
        if self.settings.parameters is not None and not rung.is_counted:
            overrides["net.parameters"] = self.settings.parameters
        return overrides

    def _measured(self, rung: LanguageRung, folder: Path, *, seed: int) -> LanguageFit:
        kept = self.out / "fits" / folder.name
        if not (kept / "test.json").is_file():
            found = evaluate(folder, self.text.test, max_bytes=MEASURED_BYTES, progress=self.progress)
            kept.mkdir(parents=True, exist_ok=True)
            found.scores.save(kept / "scores.jsonl")
            write_json(kept / "test.json", self._first_measurement(folder, found))
        told = json.loads((kept / "test.json").read_text(encoding="utf-8"))
        header = read_header(folder)
        curve = _curve(folder, header, Record(**told["valid"]))
        return LanguageFit(
            rung=rung,
            seed=seed,
            folder=folder,
            header=header,
            curve=curve,
            record=Record(**told["test"]),
            scores=ItemScores.load(kept / "scores.jsonl"),
            floors=[Record(**floor) for floor in told["floors"]],
            samples=[Sample(**sample) for sample in told["samples"]],
            characters_per_second=told["characters_per_second"],
            training_bytes_per_second=curve[-1].text_bytes / curve[-1].seconds if curve[-1].seconds else None,
            seconds=curve[-1].seconds,
        )

    def _first_measurement(self, folder: Path, found: EvaluationSummary) -> dict[str, Any]:
        """What goes into test.json beside the scores: the record, the samples, and how fast they were written."""
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))["records"]
        valid = next(record for record in results if record["name"] == "bits_per_byte")
        model = language_modelling.load(folder)
        prompts = ["", self._prompt()]
        model.generate(prompts[1], max_tokens=4, **_SAMPLE_OPTIONS)  # the first call makes the engine
        began = time.monotonic()
        texts = [model.generate(prompt, max_tokens=_SAMPLE_TOKENS, **_SAMPLE_OPTIONS)[0].text for prompt in prompts]
        elapsed = time.monotonic() - began
        return {
            "test": found.bits_per_byte.model_dump(mode="json"),
            "valid": valid,
            "floors": [floor.model_dump(mode="json") for floor in found.floors],
            "samples": [{"prompt": prompt, "text": text} for prompt, text in zip(prompts, texts, strict=True)],
            "characters_per_second": sum(map(len, texts)) / elapsed,
        }

    def _prompt(self) -> str:
        """The first words of the test text: every rung goes on from the same."""
        from rung.data.cache import cache_folder
        from rung.data.corpus import prepare_corpus

        corpus = prepare_corpus([], cache_dir=cache_folder(), valid_paths=self.text.test)
        first = next(corpus.texts("valid"))
        return " ".join(first.split()[:_PROMPT_WORDS])


def _require_finished(ended: str) -> None:
    if ended == "interrupted":
        raise KeyboardInterrupt


def _curve(folder: Path, header: Mapping[str, Any], valid: Record) -> list[CurvePoint]:
    """Validations over time and text; a counted model has one point, the whole text read once."""
    bytes_per_target = header["data"]["train_bytes"] / header["data"]["train_tokens"]
    log = folder / METRICS
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []
    steps = {line["step"]: line for line in lines if "targets" in line}
    points = []
    for line in lines:
        if "validation" in line and steps:
            nearest = steps[min(steps, key=lambda step: abs(step - line["step"]))]
            share = line["step"] / nearest["step"]
            points.append(
                CurvePoint(
                    seconds=nearest["seconds"] * share,
                    text_bytes=nearest["targets"] * share * bytes_per_target,
                    bits_per_byte=line["validation"]["bits_per_byte"],
                )
            )
    if points:
        return points
    if valid.value is None:
        raise EvaluationError("the run has no validation figure", where=str(folder))
    return [
        CurvePoint(
            seconds=float(header["plan"].get("training_seconds") or 0.0),
            text_bytes=float(header["data"]["train_bytes"]),
            bits_per_byte=valid.value,
        )
    ]


CannotFit = (PlanError, DataError)
