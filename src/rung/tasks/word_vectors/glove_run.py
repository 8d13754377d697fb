"""One training of GloVe vectors inside its run folder: metrics and Ctrl-C."""

from __future__ import annotations

from pathlib import Path

from rung.data.word_corpus import WordCorpus
from rung.progress import Progress
from rung.tasks.word_vectors.recipe import WordVectorsRecipe
from rung.tasks.word_vectors.word2vec_run import METRICS, MadeVectors
from rung.training.glove.trainer import Epoch, GloVeSettings, train_glove
from rung.training.metrics_log import MetricsLog

# 100 is for billions of words (Pennington et al. 2014, section 4.2); on 4 M words 10 is better (LOG.md).
_X_MAX, _X_MAX_OF_LARGE, _LARGE = 10.0, 100.0, 10**8


def train_glove_vectors(
    run: Path, state: Path, recipe: WordVectorsRecipe, words: WordCorpus, progress: Progress
) -> MadeVectors:
    """Train to the end or to Ctrl-C; what the folder `state` holds of this training is gone on with.

    The words per second are those of counting and of the epochs together.
    """
    net, training = recipe.net, recipe.training
    settings = GloVeSettings(
        vector_size=net.vector_size,
        window=net.window or 10,
        x_max=net.x_max or (_X_MAX_OF_LARGE if words.raw_words >= _LARGE else _X_MAX),
        epochs=training.epochs or 25,
        learning_rate=training.learning_rate or 0.05,
        seed=recipe.seed,
        deterministic=training.deterministic,
    )
    epochs: list[Epoch] = []
    state.mkdir(exist_ok=True)
    with MetricsLog(run / METRICS, from_step=settings.epochs) as log:

        def after_epoch(epoch: Epoch) -> None:
            epochs.append(epoch)
            log.append({"step": epoch.number, "epoch": epoch.number, "loss": epoch.loss, "seconds": epoch.seconds})

        try:
            made = train_glove(
                words.stream,
                len(words.words),
                settings,
                folder=state,
                threads=training.threads or 1,
                after_epoch=after_epoch,
                progress=progress,
            )
        except KeyboardInterrupt:
            losses = tuple(epoch.loss for epoch in epochs)
            return MadeVectors(None, None, losses, 0.0, sum(epoch.seconds for epoch in epochs), 0.0)
    seconds = made.counting_seconds + made.training_seconds
    return MadeVectors(
        vectors=made.vectors,
        ngrams=None,
        losses=tuple(epoch.loss for epoch in made.epochs),
        words_per_second=words.raw_words * len(made.epochs) / seconds,
        training_seconds=seconds,
        compile_seconds=0.0,
    )
