"""GloVe against glove-python3: seconds of counting and of an epoch, and rank correlations after equal epochs.

    python bench/glove.py --data shared/data --words 2000000 --peer-python /path/to/python3.10

glove-python3 0.1.0 is the one GloVe on PyPI that still builds (its C sources need Python 3.10 or older, numpy 1 and
scipy: `pip install --no-deps --no-build-isolation glove-python3`), so it runs in an interpreter of its own; rounds
alternate. glove_python, glove-py and glove-python-binary do not install, glovpy fetches sources, and mittens needs all
pairs of words as one dense matrix. Both read the same numbered lines: window 10, 100 dimensions, x_max 100, alpha 0.75,
learning rate 0.05. An epoch is one pass over all distinct pairs; ours updates both directions of each, theirs one.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import lzma
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from rung.data.cache import cache_folder
from rung.data.corpus import prepare_corpus
from rung.data.word_corpus import LINE_END, WordCorpus, word_corpus
from rung.data.word_sets import SimilaritySet, read_word_set
from rung.evaluation.word_similarity import word_similarity
from rung.nets.word_vectors import WordVectors
from rung.training.glove.trainer import GloVeSettings, train_glove

SETS = ("word-similarity/wordsim353-all.tsv", "word-similarity/men.csv")

PEER = """
import json, sys, time
import numpy as np
from glove import Corpus, Glove
source, target, vocabulary, epochs, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
lines = [line.split() for line in open(source)]
began = time.perf_counter()
corpus = Corpus(dictionary={str(number): number for number in range(vocabulary)})
corpus.fit(lines, window=10)
counted = time.perf_counter() - began
began = time.perf_counter()
model = Glove(no_components=100, learning_rate=0.05, alpha=0.75, max_count=100, random_state=1)
model.fit(corpus.matrix, epochs=epochs, no_threads=threads)
np.save(target, model.word_vectors)
print(json.dumps({"counting": counted, "epoch": (time.perf_counter() - began) / epochs, "pairs": corpus.matrix.nnz}))
"""


def ours(stream: np.ndarray[Any, Any], vocabulary: int, epochs: int, threads: int) -> tuple[dict[str, float], Any]:
    """Seconds of counting and of an epoch, and the vectors."""
    with tempfile.TemporaryDirectory() as folder:
        made = train_glove(
            stream, vocabulary, GloVeSettings(epochs=epochs), folder=Path(folder) / "state", threads=threads
        )
    seconds = {"counting": made.counting_seconds, "epoch": made.training_seconds / epochs, "pairs": made.pairs}
    return seconds, made.vectors


def theirs(
    python: str, lines: Path, vocabulary: int, epochs: int, threads: int
) -> tuple[dict[str, float], np.ndarray[Any, Any]]:
    """The same of the peer, in its own interpreter."""
    target = lines.with_name("peer.npy")
    words = [python, "-W", "ignore", "-c", PEER, str(lines), str(target), *map(str, (vocabulary, epochs, threads))]
    told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    seconds: dict[str, float] = json.loads(told.splitlines()[-1])
    return seconds, np.load(target)


def main() -> None:
    """Run the rounds and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--words", type=int, default=2_000_000)
    parser.add_argument("--epochs", type=int, default=3, help="of a speed round")
    parser.add_argument("--quality-epochs", type=int, default=0, help="of one more round, judged on similarity sets")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--peer-python", help="an interpreter that has glove-python3; without it only Rung runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cache = cache_folder()  # a second run begins with the rounds
        corpus = prepare_corpus([_novels(options, folder / "novels.jsonl")], cache_dir=cache)
        words = word_corpus(corpus, cache_dir=cache)
        stream = np.asarray(words.stream)
        lines = folder / "lines.txt"
        lines.write_text(" ".join(map(str, stream.tolist())).replace(f" {LINE_END}", "\n"), encoding="ascii")
        found = [_rounds(options, stream, len(words.words), lines, threads) for threads in options.threads]
        result: dict[str, Any] = {"words": words.kept_words, "vocabulary": len(words.words), "speed": found}
        if options.quality_epochs:
            result["quality"] = _quality(options, stream, words, lines)
    print(json.dumps(result))


def _novels(options: argparse.Namespace, target: Path) -> Path:
    """As many novels as make about the words wanted, in a file."""
    left = options.words
    novels = options.data / "english-novels" / "train.jsonl.xz"
    with lzma.open(novels, "rt", encoding="utf-8") as source, target.open("w", encoding="utf-8") as file:
        for line in source:
            file.write(line)
            left -= line.count(" ")
            if left <= 0:
                break
    return target


def _rounds(
    options: argparse.Namespace, stream: np.ndarray[Any, Any], vocabulary: int, lines: Path, threads: int
) -> dict[str, Any]:
    """Medians over alternating rounds, and their ratios (above 1: Rung is faster)."""
    rows: dict[str, list[dict[str, float]]] = {"rung": [], "peer": []}
    for _ in range(options.rounds):
        rows["rung"].append(ours(stream, vocabulary, options.epochs, threads)[0])
        if options.peer_python:
            rows["peer"].append(theirs(options.peer_python, lines, vocabulary, options.epochs, threads)[0])
    told: dict[str, Any] = {"threads": threads}
    for name, row in rows.items():
        if row:
            told[name] = {key: median(one[key] for one in row) for key in row[0]}
            print(threads, name, told[name], flush=True)
    if options.peer_python:
        told["ratio"] = {key: told["peer"][key] / told["rung"][key] for key in ("counting", "epoch")}
    return told


def _quality(
    options: argparse.Namespace, stream: np.ndarray[Any, Any], words: WordCorpus, lines: Path
) -> dict[str, dict[str, str]]:
    """Rank correlations of both after the same number of epochs."""
    settings = (len(words.words), options.quality_epochs, options.threads[-1])
    made = {"rung": ours(stream, *settings)[1]}
    if options.peer_python:
        made["peer"] = theirs(options.peer_python, lines, *settings)[1]
    told: dict[str, dict[str, str]] = {}
    for name, vectors in made.items():
        told[name] = {}
        for path in SETS:
            test = read_word_set(options.data / "word-benchmarks" / path)
            assert isinstance(test, SimilaritySet)
            told[name][test.name] = str(word_similarity(WordVectors(words.words, vectors), test).record)
    return told


if __name__ == "__main__":
    main()
