"""The inner loops of GloVe, compiled by numba; none of them holds the interpreter's lock."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
_Function = TypeVar("_Function", bound=Callable[..., Any])

NO_PAIR = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
"""A free place of the hash table."""
_SPREAD = np.uint64(0x9E37_79B9_7F4A_7C15)
"""2^64 over the golden ratio: the high bits of a key times it are spread evenly (Knuth, volume 3, section 6.4)."""

WEIGHT, CONTEXT, WEIGHT_SQUARES, CONTEXT_SQUARES = range(4)
"""The rows of a word in `parameters`: its two vectors, and AdaGrad's sums of squared gradients of each."""


def _compiled(**options: Any) -> Callable[[_Function], _Function]:
    decorator: Callable[[_Function], _Function] = numba.njit(
        nogil=True, cache=True, boundscheck=False, error_model="numpy", **options
    )
    return decorator


@_compiled()
def count_pairs(  # noqa: PLR0917 - numba calls by position
    stream: Ints,
    start: int,
    end: int,
    shares: NDArray[np.int64],
    vocab_size: int,
    frequent: NDArray[np.int64],
    keys: NDArray[np.uint64],
    values: NDArray[np.int64],
    held: int,
    most: int,
) -> tuple[int, int]:
    """Add the pairs of each word in `stream[start:end]` with those up to `len(shares)` places before it.

    `shares[d - 1]` is what a pair at distance d counts; a negative number in the stream is the end of a line, which no
    pair reaches over. Pairs of two of the first words add to the upper triangle of `frequent`, all others to the hash
    table `keys` (smaller number times `vocab_size` plus larger one) and `values`, which holds `held` pairs already.

    Returns the place to go on from, before `end` when the table would hold more than `most` pairs, and the pairs held.
    """
    window = len(shares)
    square = len(frequent)
    size = np.uint64(vocab_size)
    mask = np.uint64(len(keys) - 1)
    shift = np.uint64(64 - round(math.log2(len(keys))))
    for place in range(start, end):
        if held + window > most:
            return place, held
        word = stream[place]
        if word < 0:
            continue
        for distance in range(1, min(window, place) + 1):
            other = stream[place - distance]
            if other < 0:
                break
            low, high = (word, other) if word < other else (other, word)
            if high < square:
                frequent[low, high] += shares[distance - 1]
                continue
            key = np.uint64(low) * size + np.uint64(high)
            slot = (key * _SPREAD) >> shift
            while keys[slot] != key:
                if keys[slot] == NO_PAIR:
                    keys[slot] = key
                    held += 1
                    break
                slot = (slot + np.uint64(1)) & mask
            values[slot] += shares[distance - 1]
    return end, held


@_compiled(fastmath=True)
def fit(  # noqa: PLR0917 - numba calls by position
    parameters: Floats, biases: Floats, first: Ints, second: Ints, logs: Floats, weights: Floats, learning_rate: float
) -> float:
    """One AdaGrad step for each pair of words, in both directions; returns the sum of weighted squared errors.

    `parameters` (words, 4, d) float32 and `biases` (words, 4) hold, of each word, what `WEIGHT` ... number; `logs` and
    `weights` (pairs,) are log X and f(X) of Pennington et al. 2014, equations 8 and 9. As in the authors' program the
    squared gradients include the learning rate, and their sums start at 1. Dimensions beyond those in use stay zero.
    """
    width = parameters.shape[2]
    rate = np.float32(learning_rate)
    loss = 0.0
    for pair in range(len(first)):
        for direction in range(2):
            if direction == 0:
                i, j = first[pair], second[pair]
            else:
                i, j = second[pair], first[pair]
                if i == j:
                    break
            ours, theirs = parameters[i, WEIGHT], parameters[j, CONTEXT]
            our_squares, their_squares = parameters[i, WEIGHT_SQUARES], parameters[j, CONTEXT_SQUARES]
            dot = np.float32(0)
            for d in range(width):
                dot += ours[d] * theirs[d]
            error = dot + biases[i, WEIGHT] + biases[j, CONTEXT] - logs[pair]
            weighted = weights[pair] * error
            loss += weighted * error
            step = weighted * rate
            for d in range(width):
                our_gradient = step * theirs[d]
                their_gradient = step * ours[d]
                ours[d] -= our_gradient / np.sqrt(our_squares[d])
                theirs[d] -= their_gradient / np.sqrt(their_squares[d])
                our_squares[d] += our_gradient * our_gradient
                their_squares[d] += their_gradient * their_gradient
            biases[i, WEIGHT] -= step / np.sqrt(biases[i, WEIGHT_SQUARES])
            biases[j, CONTEXT] -= step / np.sqrt(biases[j, CONTEXT_SQUARES])
            biases[i, WEIGHT_SQUARES] += step * step
            biases[j, CONTEXT_SQUARES] += step * step
    return loss
