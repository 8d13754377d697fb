"""The arrays that the kernels of word2vec and fastText work on, in groups that belong together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Floats64 = NDArray[np.float64]
Ints32 = NDArray[np.int32]
Ints64 = NDArray[np.int64]
UInts32 = NDArray[np.uint32]


class Tables(NamedTuple):
    """What is looked up: the sigmoid and -log(sigmoid) at the middle of equal steps in (-6, 6)."""

    sigmoid: Floats
    log_loss: Floats


class Matrices(NamedTuple):
    """What is learned: rows (rows, width) of inputs and outputs, width a multiple of `LANE`.

    The inputs are words, then n-gram buckets; the outputs words or inner nodes of the Huffman tree.
    """

    inputs: Floats
    outputs: Floats


class Draws(NamedTuple):
    """Chances as fractions of 2**32: of keeping each word, and of Walker's alias table for negatives."""

    keep: UInts32
    stay: UInts32
    alias: Ints32


class Paths(NamedTuple):
    """Huffman paths: of word w the `nodes` and `labels` from starts[w] to starts[w + 1]."""

    starts: Ints64
    nodes: Ints32
    labels: Floats


class Subwords(NamedTuple):
    """Input rows of word w: `rows` from starts[w] to starts[w + 1], its own first."""

    starts: Ints64
    rows: Ints32


class Shape(NamedTuple):
    """The variant: CBOW or skip-gram; the widest window to each side; negatives (0: hierarchical softmax).

    `shared`: outputs are gathered once a window and not once a pair.
    """

    is_cbow: bool
    window: int
    negatives: int
    shared: bool


class Scratch(NamedTuple):
    """Memory of one thread; `rows`, `labels`, `scores` (outputs,), `outputs`, `gradients` (outputs * width,)."""

    line: Ints32
    upcoming: Ints64
    rows: Ints64
    labels: Floats
    scores: Floats
    outputs: Floats
    gradients: Floats
    x: Floats
    error: Floats
    hidden: Floats
    before: Floats
