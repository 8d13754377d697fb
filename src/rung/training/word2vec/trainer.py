"""Training word2vec and fastText vectors: the text in chunks, threads that take them, a state that can be saved.

A chunk's learning rate and random numbers follow from its number alone, so a training that was cut off goes on as if it
had not been: bit for bit with one thread. With more, threads write over each other now and then (Hogwild), and no two
runs are equal.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rung.data.hashing import mix64
from rung.data.word_corpus import WordCorpus
from rung.errors import RunFolderError, TrainingError, UsageError
from rung.runfolder import verify, write_folder, write_json
from rung.training.compiled import LANE, aligned_rows, lanes_of
from rung.training.word2vec.arrays import Floats, Matrices, Scratch, Shape
from rung.training.word2vec.chances import huffman_paths, make_draws, no_paths, own_rows, subword_rows
from rung.training.word2vec.kernels import (
    KEPT,
    LOSS,
    PAIRS,
    make_scratch,
    make_tables,
    train_range,
)

Architecture = Literal["skip-gram", "cbow"]

_STATE = "word2vec-state"
_CHUNKS_PER_EPOCH = 200  # so that the learning rate falls smoothly over a short text too
_LEAST_CHUNK, _MOST_CHUNK = 1_000, 20_000  # words: from 1 to 20 ms; gensim's jobs have 10,000
_ROWS_AT_ONCE = 1 << 12


@dataclass(frozen=True)
class NgramSettings:
    """Character n-grams of `min_n` to `max_n` characters, hashed into `buckets` rows (Bojanowski et al. 2017)."""

    min_n: int = 3
    max_n: int = 6
    buckets: int = 200_000

    def __post_init__(self) -> None:
        if not 1 <= self.min_n <= self.max_n:
            raise UsageError(f"n-grams of {self.min_n} to {self.max_n} characters make no sense")
        if self.buckets < 1:
            raise UsageError(f"there must be a bucket for n-grams, not {self.buckets}")


@dataclass(frozen=True)
class Word2VecSettings:
    """What decides the vectors; defaults are those of word2vec.c and gensim.

    `negatives` 0 means hierarchical softmax. `shared_negatives`: skip-gram draws them once for a window, not for each
    pair, which is about three times faster and no worse (bench/word2vec.py). `exponent` of the counts by which
    negatives are drawn. `subsample`: the frequency from which occurrences of a word are left out; 0 keeps all.
    The learning rate falls linearly.
    """

    architecture: Architecture = "skip-gram"
    vector_size: int = 100
    window: int = 5
    negatives: int = 5
    shared_negatives: bool = True
    exponent: float = 0.75
    subsample: float = 1e-3
    ngrams: NgramSettings | None = None
    epochs: int = 5
    learning_rate: float = 0.025
    final_learning_rate: float = 0.0001
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("vector_size", "window", "epochs", "learning_rate"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}, it must be above 0")
        for name in ("negatives", "subsample", "final_learning_rate"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}, it must not be below 0")


@dataclass
class Epoch:
    """One pass over the text. `loss`: the mean over pairs in nats, of the logistic loss summed over a pair's outputs.

    A pair is a vector that met its outputs: each word around each centre in skip-gram, each centre in CBOW. `kept`:
    words left after subsampling. `chunks`: how many are done, of those of an epoch.
    """

    number: int
    chunks: int = 0
    loss_sum: float = 0.0
    pairs: int = 0
    kept: int = 0

    @property
    def loss(self) -> float:
        return self.loss_sum / self.pairs if self.pairs else 0.0


@dataclass
class _Done:
    """How far the training is: chunks over all epochs, and seconds spent in the kernels."""

    chunks: int = 0
    seconds: float = 0.0
    epochs: list[Epoch] = field(default_factory=list)


class Word2VecTrainer:
    """Vectors in training. `run` may be called again after it was told to stop.

    `matrices`: the rows in training, padded with zeros; see `rung.training.word2vec.kernels.Matrices`.
    """

    def __init__(self, corpus: WordCorpus, settings: Word2VecSettings, *, threads: int = 1) -> None:
        """Draw the first vectors from the seed; numba compiles here. With one thread the result is repeatable."""
        self.corpus, self.settings, self.threads = corpus, settings, threads
        self._stream = corpus.stream.view()
        self._stream.flags.writeable = False  # as a memory map is: numba compiles for either
        words, ngrams = len(corpus.words), settings.ngrams
        self._subwords = (
            own_rows(words)
            if ngrams is None
            else subword_rows(corpus.words, min_n=ngrams.min_n, max_n=ngrams.max_n, buckets=ngrams.buckets)
        )
        self._draws = make_draws(corpus.counts, subsample=settings.subsample, exponent=settings.exponent)
        self._paths = no_paths() if settings.negatives else huffman_paths(corpus.counts)
        self._shape = Shape(
            settings.architecture == "cbow", settings.window, settings.negatives, settings.shared_negatives
        )
        self._tables, self._lanes = make_tables(), lanes_of(settings.vector_size)
        self.matrices = self._first_matrices()
        size = len(corpus.stream) // _CHUNKS_PER_EPOCH
        self._chunk = min(max(size, _LEAST_CHUNK), _MOST_CHUNK)
        self.chunks_per_epoch = -(-len(corpus.stream) // self._chunk)
        self.done = _Done()
        self.compile_seconds = self._compile()

    def _first_matrices(self) -> Matrices:
        """Inputs uniform in +-0.5 / d as in word2vec.c, outputs zero."""
        settings, words = self.settings, len(self.corpus.words)
        random = np.random.Generator(np.random.Philox(settings.seed))
        rows = words + (settings.ngrams.buckets if settings.ngrams else 0)
        inputs, size = aligned_rows(rows, settings.vector_size), settings.vector_size
        for start in range(0, rows, _ROWS_AT_ONCE):
            some = inputs[start : start + _ROWS_AT_ONCE]
            some[:, :size] = (random.random((len(some), size), np.float32) - 0.5) / size
        return Matrices(inputs, aligned_rows(words, size))

    def _compile(self) -> float:
        """Compile the kernels, or read them from numba's cache; the seconds it took."""
        began = time.perf_counter()
        self._train_range(0, 0, number=0, rate=0.0, scratch=self._scratch(), tally=np.zeros(3))
        return time.perf_counter() - began

    @property
    def chunks(self) -> int:
        """Chunks of all epochs together."""
        return self.chunks_per_epoch * self.settings.epochs

    @property
    def is_done(self) -> bool:
        return self.done.chunks >= self.chunks

    @property
    def words_per_second(self) -> float:
        """Words of the text before any cut, per second of training; compilation, reading and saving left out."""
        share = self.done.chunks / self.chunks_per_epoch
        return share * self.corpus.raw_words / self.done.seconds if self.done.seconds else 0.0

    def learning_rate(self, chunk: int) -> float:
        """The rate of the chunk of this number, counted over all epochs."""
        first, last = self.settings.learning_rate, self.settings.final_learning_rate
        return max(last, first - (first - last) * chunk / self.chunks)

    def run(
        self,
        *,
        until: Callable[[], bool] = lambda: False,
        advance: Callable[[float], None] = lambda _words: None,
    ) -> None:
        """Train to the end of the current epoch, or until `until` says so: it is asked before every chunk.

        `advance` hears of words of the text. Raises TrainingError when the loss is no number.
        """
        if self.is_done:
            return
        number = self.done.chunks // self.chunks_per_epoch
        if len(self.done.epochs) <= number:
            self.done.epochs.append(Epoch(number + 1))
        epoch = self.done.epochs[number]
        end = (number + 1) * self.chunks_per_epoch
        lock, next_chunk = Lock(), self.done.chunks
        words_per_chunk = self.corpus.raw_words / self.chunks_per_epoch

        def take() -> int | None:
            nonlocal next_chunk
            with lock:
                if next_chunk >= end or until():
                    return None
                next_chunk += 1
                return next_chunk - 1

        def work() -> None:
            scratch = self._scratch()
            while (chunk := take()) is not None:
                tally = np.zeros(3)
                start = chunk % self.chunks_per_epoch * self._chunk
                stop = min(start + self._chunk, len(self.corpus.stream))
                rate = self.learning_rate(chunk)
                self._train_range(start, stop, number=chunk + 1, rate=rate, scratch=scratch, tally=tally)
                with lock:
                    epoch.chunks += 1
                    epoch.loss_sum += float(tally[LOSS])
                    epoch.pairs += int(tally[PAIRS])
                    epoch.kept += int(tally[KEPT])
                    advance(words_per_chunk)

        began = time.perf_counter()
        with ThreadPoolExecutor(self.threads) as pool:
            for future in [pool.submit(work) for _ in range(self.threads)]:
                future.result()
        self.done.seconds += time.perf_counter() - began
        self.done.chunks = next_chunk
        if not math.isfinite(epoch.loss_sum):
            raise TrainingError(
                f"the loss of epoch {epoch.number} is no number",
                hint=f"lower training.learning_rate ({self.settings.learning_rate:g})",
            )

    def _train_range(
        self, start: int, stop: int, *, number: int, rate: float, scratch: Scratch, tally: NDArray[np.float64]
    ) -> None:
        """Run the kernel; everything random in it follows from the seed and `number`."""
        seed = mix64(np.array([self.settings.seed * 0x9E3779B97F4A7C15 + number & 0xFFFFFFFFFFFFFFFF], np.uint64))
        train_range(
            self._stream,
            start,
            stop,
            self.matrices,
            self._subwords,
            self._shape,
            self._draws,
            self._paths,
            self._tables,
            scratch,
            np.float32(rate),
            seed[0],
            tally,
            self._lanes,
        )

    def _scratch(self) -> Scratch:
        longest = int(np.diff(self._paths.starts).max(initial=0))
        most = self.settings.negatives + 1 if self.settings.negatives else longest
        return make_scratch(len(self._lanes) * LANE, most_outputs=most, window=self.settings.window)

    def vectors(self) -> Floats:
        """The vector (words, d) of each word: its row, or the mean of its own and those of its n-grams."""
        size, words = self.settings.vector_size, len(self.corpus.words)
        inputs, starts = self.matrices.inputs, self._subwords.starts
        if self.settings.ngrams is None:
            return inputs[:words, :size].copy()
        vectors = np.empty((words, size), np.float32)
        for first in range(0, words, _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE, words)
            rows = inputs[self._subwords.rows[starts[first] : starts[last]], :size]
            sums = np.add.reduceat(rows, starts[first:last] - starts[first], axis=0)
            vectors[first:last] = sums / np.diff(starts[first : last + 1])[:, None]
        return vectors

    def ngram_vectors(self) -> Floats:
        """The vectors (buckets, d) of n-grams; none without them."""
        return self.matrices.inputs[len(self.corpus.words) :, : self.settings.vector_size].copy()

    def save(self, folder: Path) -> None:
        """Replace `folder` by the whole state in one step. Raises RunFolderError when the disk is full."""
        from safetensors.numpy import save_file

        def fill(target: Path) -> None:
            size = self.settings.vector_size
            tensors = {name: matrix[:, :size].copy() for name, matrix in self.matrices._asdict().items()}
            save_file(tensors, target / "state.safetensors")
            write_json(target / "state.json", {**self._identity(), "done": asdict(self.done)})

        write_folder(folder, fill, {"kind": _STATE})

    def restore(self, folder: Path) -> None:
        """Go on from what `save` wrote. Raises RunFolderError when it is damaged or of another training."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        verify(folder)
        try:
            stored = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            tensors = load_file(folder / "state.safetensors")
            done = stored.pop("done")
            epochs = [Epoch(**epoch) for epoch in done.pop("epochs")]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise RunFolderError(f"the state of this training cannot be read: {error}", where=str(folder)) from error
        wanted = self._identity()
        if changed := [name for name in wanted if stored.get(name) != wanted[name]]:
            raise RunFolderError(
                f"this is the state of another training: {', '.join(changed)} differ", where=str(folder)
            )
        for name, matrix in self.matrices._asdict().items():
            matrix[:, : self.settings.vector_size] = tensors[name]
        self.done = _Done(**done, epochs=epochs)

    def _identity(self) -> dict[str, object]:
        """What a saved state must agree with."""
        return {"settings": json.loads(json.dumps(asdict(self.settings))), "corpus": self.corpus.sha256}
