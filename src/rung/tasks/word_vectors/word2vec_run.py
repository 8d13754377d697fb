"""One training of word2vec or fastText vectors inside its run folder: metrics, saved states, Ctrl-C."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rung.data.word_corpus import WordCorpus
from rung.progress import Progress
from rung.tasks.word_vectors.recipe import WordVectorsRecipe
from rung.training.interrupts import Interrupts
from rung.training.metrics_log import MetricsLog

if TYPE_CHECKING:
    from rung.training.word2vec.trainer import Word2VecSettings

Floats = NDArray[np.float32]

METRICS = "metrics.jsonl"
_SAVE_EVERY_SECONDS = 120.0
_TIMED_SECONDS = 1.5
_TIMED_SHARE = 0.1  # of the time there is, at most
_MOST_EPOCHS = 100
_STATE = "word2vec-state"


@dataclass(frozen=True)
class MadeVectors:
    """What a training made: `vectors` (words, d) and those of n-grams; none when it was interrupted."""

    vectors: Floats | None
    ngrams: Floats | None
    losses: tuple[float, ...]
    words_per_second: float
    training_seconds: float
    compile_seconds: float


def epochs_within(recipe: WordVectorsRecipe, words: WordCorpus, deadline: float) -> tuple[int, float]:
    """How many epochs are done by `deadline` (a reading of `time.monotonic()`), and the seconds of one.

    Some of the text is trained on and forgotten.
    """
    from rung.training.word2vec.trainer import Word2VecTrainer

    trainer = Word2VecTrainer(words, _settings(recipe), threads=recipe.training.threads or 1)
    now = time.monotonic()
    timed_until = now + min(_TIMED_SECONDS, _TIMED_SHARE * max(0.0, deadline - now))
    trainer.run(until=lambda: time.monotonic() > timed_until)
    if not trainer.done.chunks:
        return 0, float("inf")
    seconds = words.raw_words / trainer.words_per_second
    return min(_MOST_EPOCHS, int(max(0.0, deadline - time.monotonic()) / seconds)), seconds


def train_word2vec(
    run: Path, state: Path, recipe: WordVectorsRecipe, words: WordCorpus, progress: Progress
) -> MadeVectors:
    """Train to the end or to the first Ctrl-C; what the folder `state` holds of this training is gone on with."""
    from rung.training.word2vec.trainer import Word2VecTrainer

    trainer = Word2VecTrainer(words, _settings(recipe), threads=recipe.training.threads or 1)
    if (state / _STATE).exists():
        trainer.restore(state / _STATE)
    total = float(words.raw_words * trainer.settings.epochs)
    with (
        Interrupts(announce=True) as interrupts,
        MetricsLog(run / METRICS, from_step=trainer.done.chunks) as log,
        progress.task("training word vectors", total, "words") as advance,
    ):
        advance(words.raw_words * trainer.done.chunks / trainer.chunks_per_epoch)
        saving = _Saving(_SAVE_EVERY_SECONDS)
        while not trainer.is_done and not interrupts.wanted:
            trainer.run(until=lambda: interrupts.wanted or saving.is_due, advance=advance)
            epoch = trainer.done.epochs[-1]
            if epoch.chunks == trainer.chunks_per_epoch:
                log.append(
                    {
                        "step": trainer.done.chunks,
                        "epoch": epoch.number,
                        "loss": epoch.loss,
                        "learning_rate": trainer.learning_rate(trainer.done.chunks),
                        "words_per_second": trainer.words_per_second,
                    }
                )
            if not trainer.is_done and (interrupts.wanted or saving.is_due):
                log.sync()
                trainer.save(state / _STATE)
                saving.put_off()
    return MadeVectors(
        vectors=trainer.vectors() if trainer.is_done else None,
        ngrams=trainer.ngram_vectors() if trainer.is_done and recipe.net.family == "fasttext-vectors" else None,
        losses=tuple(epoch.loss for epoch in trainer.done.epochs),
        words_per_second=trainer.words_per_second,
        training_seconds=trainer.done.seconds,
        compile_seconds=trainer.compile_seconds,
    )


class _Saving:
    """When the state is to be saved again."""

    def __init__(self, every_seconds: float) -> None:
        self._every = every_seconds
        self.put_off()

    def put_off(self) -> None:
        """It was saved now."""
        self._at = time.monotonic() + self._every

    @property
    def is_due(self) -> bool:
        return time.monotonic() > self._at


def _settings(recipe: WordVectorsRecipe) -> Word2VecSettings:
    from rung.training.word2vec.trainer import NgramSettings, Word2VecSettings

    net, training = recipe.net, recipe.training
    has_ngrams = net.family == "fasttext-vectors"
    return Word2VecSettings(
        architecture=net.architecture,
        vector_size=net.vector_size,
        window=net.window or 5,
        negatives=net.negatives,
        shared_negatives=net.shared_negatives,
        exponent=net.exponent,
        subsample=net.subsample,
        ngrams=NgramSettings(net.min_n, net.max_n, net.buckets) if has_ngrams else None,
        epochs=training.epochs or 1,
        learning_rate=training.learning_rate or 0.025,
        seed=recipe.seed,
    )
