"""Training GloVe vectors: Pennington, Socher and Manning 2014, "GloVe: Global Vectors for Word Representation"."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rung.errors import RunFolderError, TrainingError, UsageError
from rung.progress import SILENT, Progress
from rung.runfolder import verify, write_folder, write_json
from rung.training.glove.cooccurrences import Cooccurrences, count_cooccurrences, open_cooccurrences

Floats = NDArray[np.float32]

STATE = "glove-state"
"""The folder of the state after the last epoch, and `PAIRS` that of the counts, in the folder given to training."""
PAIRS = "glove-pairs"
_LANES = 16  # float32 in the widest register: rows are padded so that no loop has a rest
_PAIRS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class GloVeSettings:
    """What decides the vectors. Defaults are the paper's (section 4.2), but `epochs`: there 50, below 300 dimensions.

    `window` words to each side; a pair seen X times weighs (X / `x_max`) ** `alpha`, at most 1. With `deterministic`
    training takes one thread, and equal settings give equal vectors; else threads write over each other now and then,
    as in the authors' program.
    """

    vector_size: int = 100
    window: int = 10
    epochs: int = 25
    x_max: float = 100.0
    alpha: float = 0.75
    learning_rate: float = 0.05
    seed: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        for name in ("vector_size", "window", "epochs", "x_max", "alpha", "learning_rate"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}, it must be above 0")


@dataclass(frozen=True)
class Epoch:
    """One pass over all pairs: `loss` is the mean of f(X) (w w~ + b + b~ - log X)^2 over both directions."""

    number: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class GloVeResult:
    """`vectors` (words, d): w + w~ of each word. `pairs`: distinct ones that were counted.

    `seconds`: of counting and of the epochs, compilation of the kernels left out.
    """

    vectors: Floats
    epochs: tuple[Epoch, ...]
    pairs: int
    counting_seconds: float
    training_seconds: float


def train_glove(
    stream: NDArray[np.int32],
    vocab_size: int,
    settings: GloVeSettings,
    *,
    folder: Path,
    threads: int = 1,
    memory_bytes: int = 1 << 29,
    after_epoch: Callable[[Epoch], None] = lambda _epoch: None,
    progress: Progress = SILENT,
) -> GloVeResult:
    """Count the pairs of `stream` and fit vectors to them; what `folder` holds of the same training is gone on with.

    `stream` (length,) int32: numbers of words, the commonest smallest, negative at the end of a line. `folder` keeps
    the counts and, after each epoch, the state, so that a training that was cut off at any moment goes on from the last
    whole epoch, to the same vectors where `deterministic`. Remove it afterwards.

    Raises TrainingError when the loss is no number, RunFolderError when `folder` is of another training, DataError when
    there are no pairs. KeyboardInterrupt passes through; the state is that of the last whole epoch then.
    """
    compile_kernels()
    state = _State.load(folder / STATE, settings, vocab_size)
    workers = 1 if settings.deterministic else threads

    def count(target: Path) -> None:
        count_cooccurrences(
            stream,
            vocab_size,
            window=settings.window,
            folder=target,
            memory_bytes=memory_bytes,
            threads=threads,
            seed=settings.seed,
            progress=progress,
        )

    asked = [settings.window, settings.seed, vocab_size, len(stream)]
    pairs, counting = _counted(folder / PAIRS, asked, count)
    both_ways = 2 * len(pairs) - int(np.count_nonzero(pairs.first == pairs.second))
    while len(state.epochs) < settings.epochs:
        began = time.perf_counter()
        number = len(state.epochs) + 1
        with progress.task(f"GloVe, epoch {number} of {settings.epochs}", len(pairs), "pairs") as advance:
            total = _train_epoch(state, pairs, settings, workers, advance)
        loss = total / both_ways
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss of epoch {number} is no number",
                hint=f"lower the learning rate ({settings.learning_rate:g})",
            )
        epoch = Epoch(number, loss, time.perf_counter() - began)
        state.epochs.append(epoch)
        state.save(folder / STATE, settings)
        after_epoch(epoch)
    return GloVeResult(
        vectors=state.vectors(settings.vector_size),
        epochs=tuple(state.epochs),
        pairs=len(pairs),
        counting_seconds=counting,
        training_seconds=sum(epoch.seconds for epoch in state.epochs),
    )


def compile_kernels() -> None:
    """Compile the kernels, or read them from numba's cache: what a clock should not count."""
    from rung.training.glove.kernels import NO_PAIR, count_pairs, fit

    one, tables = np.zeros(1, np.int32), np.full(4, NO_PAIR)
    count_pairs(one, 0, 1, np.ones(1, np.int64), 1, np.zeros((1, 1), np.int64), tables, np.zeros(4, np.int64), 0, 2)
    one.flags.writeable = False  # as memory maps are: numba compiles for either
    count_pairs(one, 0, 1, np.ones(1, np.int64), 1, np.zeros((1, 1), np.int64), tables, np.zeros(4, np.int64), 0, 2)
    ones = np.ones(1, np.float32)
    fit(np.ones((1, 4, _LANES), np.float32), np.ones((1, 4), np.float32), one, one, ones, ones, 0.0)


def _counted(folder: Path, asked: list[int], count: Callable[[Path], None]) -> tuple[Cooccurrences, float]:
    """The pairs in `folder`, made by `count` unless they are there, and the seconds that counting took."""
    if not folder.exists():
        made: dict[str, Any] = {"kind": PAIRS, "asked": asked}

        def fill(target: Path) -> None:
            began = time.perf_counter()
            count(target)
            made["seconds"] = time.perf_counter() - began

        write_folder(folder, fill, made)
    header = verify(folder)
    if header.get("asked") != asked:
        raise RunFolderError(
            "these counts are of another text, window or seed", where=str(folder), hint="start in an empty folder"
        )
    return open_cooccurrences(folder), float(header["seconds"])


class _State:
    """Parameters (words, 4, d padded), biases (words, 4) and the epochs that made them."""

    def __init__(self, parameters: Floats, biases: Floats, epochs: list[Epoch]) -> None:
        self.parameters, self.biases, self.epochs = parameters, biases, epochs

    @classmethod
    def new(cls, vocab_size: int, settings: GloVeSettings) -> _State:
        """As the authors' program begins: uniform in +-0.5 / (d + 1), sums of squares at 1."""
        size = settings.vector_size
        random = np.random.Generator(np.random.Philox(settings.seed))
        parameters = np.zeros((vocab_size, 4, -(-size // _LANES) * _LANES), np.float32)
        biases = np.ones((vocab_size, 4), np.float32)
        parameters[:, :2, :size] = (random.random((vocab_size, 2, size), np.float32) - 0.5) / (size + 1)
        parameters[:, 2:] = 1
        biases[:, :2] = (random.random((vocab_size, 2), np.float32) - 0.5) / (size + 1)
        return cls(parameters, biases, [])

    @classmethod
    def load(cls, folder: Path, settings: GloVeSettings, vocab_size: int) -> _State:
        """What `save` wrote, or a new state where nothing stands. RunFolderError for the state of another training."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        if not folder.exists():
            return cls.new(vocab_size, settings)
        verify(folder)
        try:
            stored = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            tensors = load_file(folder / "state.safetensors")
            epochs = [Epoch(**epoch) for epoch in stored["epochs"]]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise RunFolderError(f"the state of this training cannot be read: {error}", where=str(folder)) from error
        wanted = asdict(settings)
        changed = [name for name, value in stored["settings"].items() if wanted.get(name) != value]
        if changed or len(tensors["biases"]) != vocab_size:
            what = ", ".join(changed) or "the number of words"
            raise RunFolderError(f"this is the state of another training: {what} differs", where=str(folder))
        return cls(tensors["parameters"], tensors["biases"], epochs)

    def save(self, folder: Path, settings: GloVeSettings) -> None:
        """Replace `folder` in one step."""
        from safetensors.numpy import save_file

        def fill(target: Path) -> None:
            save_file({"parameters": self.parameters, "biases": self.biases}, target / "state.safetensors")
            stored = {"settings": asdict(settings), "epochs": [asdict(epoch) for epoch in self.epochs]}
            write_json(target / "state.json", stored)

        write_folder(folder, fill, {"kind": STATE})

    def vectors(self, size: int) -> Floats:
        """w + w~ (words, d): section 4.2 of the paper."""
        result: Floats = self.parameters[:, :2, :size].sum(axis=1)
        return result


def _train_epoch(
    state: _State, pairs: Cooccurrences, settings: GloVeSettings, threads: int, advance: Callable[[float], None]
) -> float:
    """One pass over the pairs, blocks of them in an order of this epoch's own; returns the sum of squared errors."""
    starts = np.arange(0, len(pairs), _PAIRS_AT_ONCE)
    random = np.random.Generator(np.random.Philox(key=[settings.seed, len(state.epochs) + 1]))
    blocks: Iterator[int] = iter(random.permutation(starts).tolist())
    lock, stop = Lock(), Event()

    def next_block() -> int | None:
        with lock:
            return None if stop.is_set() else next(blocks, None)

    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(_fit_blocks, state, pairs, settings, next_block, advance) for _ in range(threads)]
        try:
            wait(futures)
        finally:  # after Ctrl-C the threads end with the block they are in
            stop.set()
        return math.fsum(future.result() for future in futures)


def _fit_blocks(
    state: _State,
    pairs: Cooccurrences,
    settings: GloVeSettings,
    next_block: Callable[[], int | None],
    advance: Callable[[float], None],
) -> float:
    from rung.training.glove.kernels import fit

    total = 0.0
    while (start := next_block()) is not None:
        block = slice(start, start + _PAIRS_AT_ONCE)
        counts = np.asarray(pairs.counts[block])
        weights = np.minimum(counts / np.float32(settings.x_max), np.float32(1)) ** np.float32(settings.alpha)
        total += fit(
            state.parameters,
            state.biases,
            np.asarray(pairs.first[block]),
            np.asarray(pairs.second[block]),
            np.log(counts),
            weights,
            settings.learning_rate,
        )
        advance(len(counts))
    return total
