"""word2vec and subword vectors against gensim: words per second of training, and accuracy after equal epochs.

    python bench/word2vec.py --data shared/data                    # speed and accuracy, all of the novels
    python bench/word2vec.py --data shared/data --words 2000000 --only speed --threads 1

Both read the same numbered text: skip-gram, 100 dimensions, window 5, 5 negatives, subsampling 1e-3, one pass for
speed. Runs alternate; gensim runs from a list of sentences in memory and from a file; its better mode
counts. Words are those of the text in the vocabulary, before subsampling, and the time is that of training alone:
building vocabularies and compiling are left out, and reported apart. Accuracies come from Rung's evaluators for both.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from rung.data.corpus import prepare_corpus
from rung.data.word_corpus import LINE_END, WordCorpus, word_corpus
from rung.data.word_sets import AnalogySet, SimilaritySet, read_word_set
from rung.evaluation.analogies import analogies
from rung.evaluation.word_similarity import word_similarity
from rung.nets.word_vectors import WordVectors
from rung.training.word2vec.trainer import NgramSettings, Word2VecSettings, Word2VecTrainer

SETS = ("word-similarity/wordsim353-all.tsv", "word-similarity/men.csv", "word-analogy/google-analogies.csv")
NGRAMS = NgramSettings(buckets=200_000)


class Text:
    """The same words for both programs: numbers for Rung, sentences and a file of lines for gensim."""

    def __init__(self, corpus: WordCorpus, words: int | None, folder: Path) -> None:
        stream = corpus.stream
        if words:
            stream = stream[: int(np.searchsorted(np.cumsum(stream != LINE_END), words)) + 1]
        counts = np.bincount(stream[stream >= 0], minlength=len(corpus.words))
        order = np.argsort(-counts, kind="stable")
        order = order[counts[order] > 0]
        number = np.full(len(counts) + 1, LINE_END, np.int32)  # the last place is that of LINE_END, -1
        number[order] = np.arange(len(order))
        self.corpus = WordCorpus(
            words=[corpus.words[place] for place in order.tolist()],
            counts=counts[order],
            stream=np.append(number[stream], np.int32(LINE_END)),
            raw_words=int(counts.sum()),
            lines=0,
            sha256=f"{corpus.sha256} {words}",
        )
        ends = np.flatnonzero(self.corpus.stream == LINE_END)
        lines = np.split(self.corpus.stream, ends + 1)
        names = self.corpus.words
        self.sentences = [[names[word] for word in line[:-1].tolist()] for line in lines if len(line) > 1]
        self.file = folder / "novels.txt"
        self.file.write_text("\n".join(" ".join(sentence) for sentence in self.sentences), encoding="utf-8")


def rung(text: Text, settings: Word2VecSettings, threads: int) -> Word2VecTrainer:
    """Train with Rung."""
    trainer = Word2VecTrainer(text.corpus, settings, threads=threads)
    while not trainer.is_done:
        trainer.run()
    return trainer


def gensim(text: Text, settings: Word2VecSettings, threads: int, *, from_file: bool) -> tuple[Any, float]:
    """Train with gensim; its model and the seconds of training."""
    from gensim.models import FastText, Word2Vec

    common = {
        "vector_size": settings.vector_size,
        "window": settings.window,
        "negative": settings.negatives,
        "sg": 1,
        "sample": settings.subsample,
        "min_count": 1,
        "workers": threads,
        "seed": settings.seed + 1,
    }
    if settings.ngrams:
        ngrams = {"min_n": settings.ngrams.min_n, "max_n": settings.ngrams.max_n, "bucket": settings.ngrams.buckets}
        model = FastText(**common, **ngrams)
    else:
        model = Word2Vec(**common)
    source: dict[str, Any] = {"corpus_file": str(text.file)} if from_file else {"corpus_iterable": text.sentences}
    model.build_vocab(**source)
    began = time.perf_counter()
    model.train(
        **source,
        total_examples=model.corpus_count,
        total_words=model.corpus_total_words,
        epochs=settings.epochs,
    )
    return model, time.perf_counter() - began


def speeds(text: Text, settings: Word2VecSettings, threads: int, rounds: int) -> dict[str, Any]:
    """Words per second of alternating runs: medians, and the ratio to gensim's better mode."""
    words = text.corpus.raw_words
    found: dict[str, list[float]] = {"rung": [], "gensim, list": [], "gensim, file": []}
    compile_seconds = Word2VecTrainer(text.corpus, settings).compile_seconds
    for _ in range(rounds):
        found["rung"].append(rung(text, settings, threads).words_per_second)
        found["gensim, list"].append(words / gensim(text, settings, threads, from_file=False)[1])
        found["gensim, file"].append(words / gensim(text, settings, threads, from_file=True)[1])
    result: dict[str, Any] = {name: round(median(values)) for name, values in found.items()}
    better = max(result["gensim, list"], result["gensim, file"])
    return {**result, "ratio": round(result["rung"] / better, 2), "compile_seconds": round(compile_seconds, 2)}


def accuracy(vectors: WordVectors, sets: list[SimilaritySet | AnalogySet]) -> dict[str, Any]:
    """Spearman's correlation on similarity sets, accuracy on analogies, with their intervals."""
    found: dict[str, Any] = {}
    for one in sets:
        record = (
            word_similarity(vectors, one).record if isinstance(one, SimilaritySet) else analogies(vectors, one).accuracy
        )
        interval = [round(record.interval.low, 4), round(record.interval.high, 4)] if record.interval else None
        found[one.name] = {"value": record.value and round(record.value, 4), "interval": interval, "n": record.n}
    return found


def accuracies(
    text: Text, settings: Word2VecSettings, threads: int, sets: list[SimilaritySet | AnalogySet]
) -> dict[str, Any]:
    """Of both programs after the same epochs, over words of the vocabulary."""
    trainer = rung(text, settings, threads)
    ours = WordVectors(text.corpus.words, trainer.vectors())
    model, _ = gensim(text, settings, threads, from_file=False)
    theirs = WordVectors(model.wv.index_to_key, model.wv.vectors)
    return {
        "rung": accuracy(ours, sets),
        "gensim": accuracy(theirs, sets),
        "rung_loss": [round(epoch.loss, 4) for epoch in trainer.done.epochs],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--words", type=int, help="only the first so many words of the novels")
    parser.add_argument("--epochs", type=int, default=3, help="for the accuracies")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", choices=["speed", "accuracy"])
    parser.add_argument("--vectors", choices=["words", "subwords"], nargs="+", default=["words", "subwords"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.getLogger("gensim").setLevel(logging.ERROR)
    results: dict[str, Any] = {}

    def tell(name: str, measure: Callable[[], Any]) -> None:
        results[name] = measure()
        print(name, json.dumps(results[name]), flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        from rung.data.cache import cache_folder

        corpus = prepare_corpus([options.data / "english-novels" / "train.jsonl.xz"], cache_dir=cache_folder())
        text = Text(word_corpus(corpus, cache_dir=cache_folder()), options.words, Path(scratch))
        results |= {"words": text.corpus.raw_words, "vocabulary": len(text.corpus.words)}
        sets = [read_word_set(options.data / "word-benchmarks" / name) for name in SETS]
        tests = [one for one in sets if one is not None]
        for kind in options.vectors:
            once = Word2VecSettings(epochs=1, ngrams=NGRAMS if kind == "subwords" else None, seed=options.seed)
            if options.only != "accuracy":
                for threads in options.threads:
                    tell(
                        f"{kind}: words/s, {threads} threads",
                        lambda: speeds(text, once, threads, options.rounds),  # noqa: B023 - called at once
                    )
            if options.only != "speed":
                more = replace(once, epochs=options.epochs)
                tell(
                    f"{kind}: accuracy after {options.epochs} epochs",
                    lambda: accuracies(text, more, max(options.threads), tests),  # noqa: B023
                )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
