"""How well a language model predicts a text: `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rung.data.cache import cache_folder
from rung.data.corpus import prepare_corpus
from rung.data.tokenise import tokenise_corpus
from rung.errors import UsageError
from rung.evaluation.bits_per_byte import bits_per_byte
from rung.evaluation.compressors import compressor_floors
from rung.progress import SILENT, Progress
from rung.recipe import Recipe
from rung.records import ItemScores, Record
from rung.runfolder import HEADER_NAME, read_header
from rung.tasks.language_model import load
from rung.tasks.text.tuning_recipe import TextTuningRecipe
from rung.tasks.text_preparation import prepare_text
from rung.tasks.tuning.table import TUNED_FOR


@dataclass(frozen=True)
class EvaluationSummary:
    """Bits per byte of a model on a text, beside gzip, bz2 and xz on the same bytes; `scores` by document."""

    run: Path
    bits_per_byte: Record
    floors: tuple[Record, ...]
    scores: ItemScores

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`; without the per-document scores."""
        return {
            "run": str(self.run),
            "bits_per_byte": self.bits_per_byte.model_dump(mode="json"),
            "floors": [floor.model_dump(mode="json") for floor in self.floors],
        }


def evaluate(
    run: str | Path,
    texts: Sequence[str | Path] = (),
    *,
    max_bytes: int | None = None,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> EvaluationSummary:
    """Measure a model's bits per byte on `texts`, or on the validation text its run held out.

    The texts are taken whole: nothing is deduplicated away, only what cannot be read is left out (and reported). With
    `max_bytes`, an evenly spread sample of their documents is measured, always the same.

    Raises UsageError when there is no text to measure on, DataError when none can be read, RunFolderError.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    model = load(run)
    if texts:
        corpus = prepare_corpus([], cache_dir=cache_folder(), valid_paths=[Path(t) for t in texts], progress=progress)
        shards = tokenise_corpus(corpus, model.tokenizer, cache_dir=cache_folder(), progress=progress)["valid"]
    else:
        recipe = _recipe_of(Path(run))
        prepared = prepare_text(recipe, progress, tokenizer=model.tokenizer)
        corpus, shards = prepared.corpus, prepared.valid
    record, scores = bits_per_byte(model.net, shards, max_bytes=max_bytes, progress=progress)
    floors = compressor_floors(corpus.texts("valid", max_bytes), data_sha256=record.data_sha256)
    return EvaluationSummary(Path(run), record, tuple(floors), scores)


def _recipe_of(run: Path) -> Recipe:
    header = read_header(run) if (run / HEADER_NAME).exists() else {}
    if "recipe" not in header:
        raise UsageError(
            "this folder does not say what text was held out in its training", where=str(run), hint="name a TEXT"
        )
    if TUNED_FOR in header:
        return TextTuningRecipe.parse(header["recipe"], where=str(run / HEADER_NAME)).reading
    return Recipe.parse(header["recipe"], where=str(run / HEADER_NAME))
