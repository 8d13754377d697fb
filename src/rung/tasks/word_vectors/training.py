"""Text in, word vectors out: `train` and `resume` for word2vec, fastText's vectors and GloVe."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rung.data.cache import cache_folder
from rung.data.corpus import Corpus
from rung.data.word_corpus import VocabularyRules, WordCorpus, word_corpus
from rung.errors import PlanError, RunFolderError, UsageError, did_you_mean
from rung.nets.word_vectors import ModelType, Subwords, WordVectors
from rung.progress import SILENT, Progress
from rung.recipe import Recipe
from rung.runfolder import write_text
from rung.tasks.run import CARD, Run, default_folder, require_empty
from rung.tasks.word_vectors.recipe import Family, WordVectorsRecipe
from rung.tasks.word_vectors.summary import WordVectorsSummary, some_neighbours
from rung.tasks.word_vectors.using import TASK
from rung.tasks.word_vectors.word2vec_run import MadeVectors, epochs_within, train_word2vec

_MODEL_TYPES: dict[Family, ModelType] = {
    "word2vec": "rung-word2vec",
    "fasttext-vectors": "rung-fasttext-vectors",
    "glove": "rung-glove",
}
_EPOCHS: dict[Family, int] = {"word2vec": 5, "fasttext-vectors": 5, "glove": 25}
_WINDOWS: dict[Family, int] = {"word2vec": 5, "fasttext-vectors": 5, "glove": 10}
_LEARNING_RATE, _FAST_LEARNING_RATE = 0.025, 0.05  # skip-gram; CBOW and GloVe, which takes AdaGrad's steps
_FINISH_SHARE, _FINISH_SECONDS = 0.02, 1.0  # of the minutes: the files and the end of the process
_TRAINER = "trainer"

Texts = Sequence[str | Path]


@dataclass(frozen=True)
class _Prepared:
    corpus: Corpus
    words: WordCorpus


def train(
    texts: Texts = (),
    *,
    net: str | None = None,
    minutes: float | None = None,
    out: Path | None = None,
    recipe: WordVectorsRecipe | Mapping[str, Any] | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    valid: Texts = (),
    seed: int | None = None,
    threads: int | None = None,
    progress: Progress = SILENT,
    started: float | None = None,
) -> WordVectorsSummary:
    """Train word vectors on `texts` and leave a run folder.

    `net` is "word2vec" (default), "fasttext-vectors" or "glove". Without `minutes` the recipe's epochs are trained (5,
    GloVe 25); with `minutes`, the wall time of it all counted from `started`, as many as fit. `valid` is text that is
    left out. Single arguments win over `overrides` (dotted keys such as "net.vector_size"), those over `recipe`.

        from rung.tasks.word_vectors import train, load_vectors
        summary = train(["my_texts/"], overrides={"net.architecture": "cbow"})
        load_vectors(summary.run).neighbours("house")

    Raises UsageError, RecipeError, DataError, PlanError, TrainingError or RunFolderError, each saying what to do.
    """
    from rung.training import compiled  # noqa: F401 - without numba it says so now, before any text is read

    began = time.monotonic() if started is None else started
    wanted = _wish(
        texts,
        net=net,
        minutes=minutes,
        recipe=recipe,
        overrides=overrides,
        valid=valid,
        seed=seed,
        threads=threads,
    )
    out = out or default_folder(wanted.text.files)
    require_empty(out)
    prepared = _prepare(wanted, progress)
    resolved = _resolve(wanted, prepared.words, began, progress)
    run = Run.create(out, recipe=resolved, plan={}, data=_describe(prepared), parent=None, task=TASK)
    run.write("planned")
    return _train(run, resolved, prepared, progress, began)


def resume(run: str | Path, *, threads: int | None = None, progress: Progress = SILENT) -> WordVectorsSummary:
    """Go on with an interrupted run; a deterministic one exactly as if it had not been interrupted.

    Raises RunFolderError when the run is finished or damaged, or its text has changed since.
    """
    began = time.monotonic()
    opened = Run.open_unfinished(Path(run), threads=threads, instead="train anew, with more training.epochs")
    planned = WordVectorsRecipe.parse(opened.header["recipe"], where=str(opened.folder))
    prepared = _prepare(planned, progress)
    if _describe(prepared)["sha256"] != opened.header["data"]["sha256"]:
        raise RunFolderError(
            "the text has changed since this run was planned, so going on would not be the same run",
            where=", ".join(planned.text.files),
            hint="bring the old text back, or train anew",
        )
    return _train(opened, planned, prepared, progress, began)


def _wish(
    texts: Texts,
    *,
    net: str | None,
    minutes: float | None,
    recipe: WordVectorsRecipe | Mapping[str, Any] | Path | None,
    overrides: Mapping[str, Any] | None,
    valid: Texts,
    seed: int | None,
    threads: int | None,
) -> WordVectorsRecipe:
    """One recipe of all that a caller asked for."""
    if net is not None and net not in get_args(Family):
        raise UsageError(
            f"there are no word vectors by '{net}'{did_you_mean(net, get_args(Family))}",
            hint=f"there are {', '.join(get_args(Family))}",
        )
    if recipe is None:
        base = WordVectorsRecipe()
    elif isinstance(recipe, WordVectorsRecipe):
        base = recipe
    else:
        base = WordVectorsRecipe.parse(recipe) if isinstance(recipe, Mapping) else WordVectorsRecipe.load(Path(recipe))
    changes: dict[str, Any] = dict(overrides or {})
    if minutes is not None:
        changes |= {"training.minutes": minutes, "training.epochs": None}
    given = {
        "text.files": [str(path) for path in texts],
        "text.valid": [str(path) for path in valid],
        "net.family": net,
        "seed": seed,
        "training.threads": threads,
    }
    changes |= {key: value for key, value in given.items() if value not in (None, [])}
    wanted = base.with_overrides(changes)
    if not wanted.text.files:
        raise UsageError(
            "there is no text to train on", hint="give files or folders: rung train my_texts/ --net word2vec"
        )
    if wanted.training.deterministic and (wanted.training.threads or 1) > 1:
        raise UsageError("a deterministic training has one thread", hint="leave --threads out")
    if wanted.net.family == "glove" and wanted.training.minutes is not None:
        raise UsageError(
            "GloVe's counting cannot be timed beforehand", hint="give epochs instead: --set training.epochs=25"
        )
    return wanted


def _prepare(recipe: WordVectorsRecipe, progress: Progress) -> _Prepared:
    from rung.tasks.text_preparation import read_corpus  # late, as all that imports torch

    corpus = read_corpus(Recipe(seed=recipe.seed, text=recipe.text), progress)
    rules = VocabularyRules(**recipe.vocabulary.model_dump())
    return _Prepared(corpus, word_corpus(corpus, rules, cache_dir=cache_folder(), progress=progress))


def _describe(prepared: _Prepared) -> dict[str, Any]:
    """What `rung.json` says about the data."""
    words = prepared.words
    return {
        "sha256": prepared.corpus.sha256,
        "words_sha256": words.sha256,
        "raw_words": words.raw_words,
        "kept_words": words.kept_words,
        "lines": words.lines,
        "report": prepared.corpus.report.to_json(),
    }


def _resolve(recipe: WordVectorsRecipe, words: WordCorpus, began: float, progress: Progress) -> WordVectorsRecipe:
    """The recipe without gaps; the epochs that fit the minutes are found by timing some of the text."""
    from rung.training.machine import usable_cores

    net, training = recipe.net, recipe.training
    is_fast = net.family == "glove" or net.architecture == "cbow"
    threads = 1 if training.deterministic else training.threads or usable_cores()
    resolved = recipe.with_overrides(
        {
            "net.window": net.window or _WINDOWS[net.family],
            "training.learning_rate": training.learning_rate or (_FAST_LEARNING_RATE if is_fast else _LEARNING_RATE),
            "training.threads": threads,
            "training.minutes": None,
            "training.epochs": training.epochs or _EPOCHS[net.family],
        }
    )
    if training.minutes is None:
        return resolved
    deadline = began + 60 * training.minutes * (1 - _FINISH_SHARE) - _FINISH_SECONDS
    epochs, seconds = epochs_within(resolved, words, deadline)
    if not epochs:
        already = time.monotonic() - began
        raise PlanError(
            f"one pass over the text takes about {seconds:.0f} s after {already:.0f} s of preparation, more than "
            f"the {training.minutes:g} minutes there are",
            hint=f"give --minutes {(1.2 * seconds + already) / 60 + 0.1:.1f}, or less text",
        )
    progress.say(f"{epochs} epochs of about {seconds:.1f} s fit the {training.minutes:g} minutes")
    return resolved.with_overrides({"training.epochs": epochs})


def _train(
    run: Run, recipe: WordVectorsRecipe, prepared: _Prepared, progress: Progress, began: float
) -> WordVectorsSummary:
    """Train, and make the run folder the vectors; an interrupted training leaves its state in `trainer/`."""
    run.write("training")
    trainer = run.folder / _TRAINER
    if recipe.net.family == "glove":
        from rung.tasks.word_vectors.glove_run import train_glove_vectors

        made = train_glove_vectors(run.folder, trainer, recipe, prepared.words, progress)
    else:
        made = train_word2vec(run.folder, trainer, recipe, prepared.words, progress)
    if made.vectors is None:
        run.write("interrupted")
        return _summary(run, recipe, prepared, made, began, ended="interrupted")
    vectors = WordVectors(
        prepared.words.words,
        made.vectors,
        prepared.words.counts,
        None if made.ngrams is None else Subwords(recipe.net.min_n, recipe.net.max_n, made.ngrams),
        model_type=_MODEL_TYPES[recipe.net.family],
        where=str(run.folder),
    )
    vectors.save(run.folder)
    summary = _summary(run, recipe, prepared, made, began, ended="finished", neighbours=some_neighbours(vectors))
    write_text(run.folder / CARD, summary.card())
    run.write("finished", result={key: value for key, value in summary.to_json().items() if key != "run"})
    shutil.rmtree(trainer, ignore_errors=True)
    return summary


def _summary(
    run: Run,
    recipe: WordVectorsRecipe,
    prepared: _Prepared,
    made: MadeVectors,
    began: float,
    *,
    ended: str,
    neighbours: Mapping[str, tuple[str, ...]] | None = None,
) -> WordVectorsSummary:
    return WordVectorsSummary(
        run=run.folder,
        ended=ended,
        recipe=recipe,
        vocab_size=len(prepared.words.words),
        raw_words=prepared.words.raw_words,
        kept_words=prepared.words.kept_words,
        losses=made.losses,
        words_per_second=made.words_per_second,
        training_seconds=made.training_seconds,
        compile_seconds=made.compile_seconds,
        seconds=time.monotonic() - began,
        neighbours=neighbours or {},
    )
