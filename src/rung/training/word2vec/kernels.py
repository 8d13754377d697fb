"""The inner loops of word2vec and fastText, compiled.

All variants share one step: an input vector x meets some output vectors, each with a label (1: the real thing), and
logistic regression moves both. They differ in what x is and in which outputs it meets:

- skip-gram (Mikolov et al. 2013a): x is each word around a centre word; CBOW: x is the mean of the words around it;
- negative sampling (Mikolov et al. 2013b): the outputs are the centre word and random other words; hierarchical
  softmax: the nodes on the centre word's path through a Huffman tree, the labels its code;
- subwords (Bojanowski et al. 2017): a word's vector is the mean of its own row and those of its character n-grams.

What makes it fast (figures in bench/word2vec.py): the outputs of a window are copied into a block that stays in the
first cache, all words around the centre meet the same ones (Ji et al. 2016, "Parallelizing Word2Vec in Shared and
Distributed Memory"), and their gradients are written back once. `GROUP` outputs are scored in one pass over x, so that
its values are loaded once. The number of dimensions is known to the compiler.

Many threads may run on the same matrices without locks; a lost update costs less than a lock would (Hogwild, Niu et
al. 2011). Everything random follows from the `state` given, so that one thread is repeatable bit by bit.
"""

# ruff: noqa: PLR0917  - numba's inlining knows positional arguments best

from __future__ import annotations

import numpy as np

from rung.training.compiled import LANE, aligned_rows, compiled, inlined, prefetch_row
from rung.training.word2vec.arrays import (
    Draws,
    Floats,
    Floats64,
    Ints32,
    Matrices,
    Paths,
    Scratch,
    Shape,
    Subwords,
    Tables,
)

GROUP = 6
"""Outputs scored in one pass over x: the centre word and the usual five negatives."""

MAX_LINE = 1000
"""Words of a line that are looked at together, as in word2vec.c; a longer line is cut."""

LOSS, PAIRS, KEPT = 0, 1, 2
"""Places in a tally: summed loss in nats, how many x met their outputs, words left after subsampling."""

_MULTIPLIER = np.uint64(6364136223846793005)  # Knuth's linear congruential generator; its high bits are used
_INCREMENT = np.uint64(1442695040888963407)
_HALF = np.uint64(32)
_TABLE_SIZE = 1000
_TABLE_END = np.float32(6.0)
_TABLE_SCALE = np.float32(_TABLE_SIZE / 12.0)
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


def make_tables() -> Tables:
    """The tables every kernel looks into."""
    middles = (np.arange(_TABLE_SIZE) + 0.5) / float(_TABLE_SCALE) - float(_TABLE_END)
    sigmoid = 1.0 / (1.0 + np.exp(-middles))
    return Tables(sigmoid.astype(np.float32), -np.log(sigmoid).astype(np.float32))


def make_scratch(width: int, *, most_outputs: int, window: int) -> Scratch:
    """Memory for one thread; `most_outputs`: the most outputs that one x meets."""
    slots = -(-most_outputs // GROUP) * GROUP
    around = 2 * window + 1
    return Scratch(
        line=np.zeros(MAX_LINE, np.int32),
        upcoming=np.zeros(slots, np.int64),
        rows=np.zeros(slots, np.int64),
        labels=np.zeros(slots, np.float32),
        scores=np.zeros(slots, np.float32),
        outputs=aligned_rows(1, slots * width)[0],
        gradients=aligned_rows(1, slots * width)[0],
        x=aligned_rows(1, width)[0],
        error=aligned_rows(1, width)[0],
        hidden=aligned_rows(around, width),
        before=aligned_rows(around, width),
    )


@inlined
def next_state(state: np.uint64) -> np.uint64:
    """The state of the random generator after `state`."""
    return state * _MULTIPLIER + _INCREMENT


@inlined
def draw_below(state: np.uint64, bound: int) -> int:
    """A number in [0, bound) from the high half of `state`."""
    return np.int64(((state >> _HALF) * np.uint64(bound)) >> _HALF)  # type: ignore[return-value]


@inlined
def draw_negative(state: np.uint64, draws: Draws) -> tuple[np.uint64, int]:
    """A word by its chance as a negative: Walker's alias method (1977), two numbers whatever the vocabulary."""
    state = next_state(state)
    word = draw_below(state, len(draws.stay))
    state = next_state(state)
    if (state >> _HALF) > np.uint64(draws.stay[word]):
        word = np.int64(draws.alias[word])  # type: ignore[assignment]
    return state, word


@inlined
def draw_upcoming(
    outputs: Floats, shape: Shape, draws: Draws, scratch: Scratch, state: np.uint64, lanes: tuple[int, ...]
) -> np.uint64:
    """Draw the negatives of the next window: their rows travel to the cache while this one is worked on."""
    for number in range(shape.negatives):
        state, negative = draw_negative(state, draws)
        scratch.upcoming[number] = negative
        prefetch_row(outputs, negative, lanes)
    return state


@inlined
def read_line(
    stream: Ints32, position: int, stop: int, draws: Draws, state: np.uint64, line: Ints32
) -> tuple[int, int, np.uint64]:
    """Read up to the next line end, leaving frequent words out by chance: their number, the new position and state."""
    count = 0
    while position < stop and count < MAX_LINE:
        word = stream[position]
        position += 1
        if word < 0:
            break
        state = next_state(state)
        if (state >> _HALF) <= np.uint64(draws.keep[word]):
            line[count] = word
            count += 1
    return count, position, state


@inlined
def gather_outputs(
    outputs: Floats,
    word: int,
    shape: Shape,
    draws: Draws,
    paths: Paths,
    scratch: Scratch,
    state: np.uint64,
    lanes: tuple[int, ...],
) -> tuple[int, np.uint64]:
    """Copy what x has to meet for the centre `word` into `scratch`, with labels; return how many and the new state."""
    width = len(lanes) * LANE
    used = 0
    if shape.negatives > 0:
        scratch.rows[0] = word
        scratch.labels[0] = _ONE
        used = 1
        for number in range(shape.negatives):
            negative = scratch.upcoming[number]
            if negative != word:
                scratch.rows[used] = negative
                scratch.labels[used] = _ZERO
                used += 1
        state = draw_upcoming(outputs, shape, draws, scratch, state, lanes)
    else:
        for place in range(paths.starts[word], paths.starts[word + 1]):
            scratch.rows[used] = paths.nodes[place]
            scratch.labels[used] = paths.labels[place]
            used += 1
    slots = (used + GROUP - 1) // GROUP * GROUP
    for slot in range(used):
        output, copy = outputs[scratch.rows[slot]], scratch.outputs[slot * width : (slot + 1) * width]
        for d in range(width):
            copy[d] = output[d]
    for place in range(used * width, slots * width):
        scratch.outputs[place] = _ZERO
    for place in range(slots * width):
        scratch.gradients[place] = _ZERO
    return used, state


@inlined
def scatter_outputs(outputs: Floats, used: int, scratch: Scratch, lanes: tuple[int, ...]) -> None:
    """Move the output vectors by what was collected for them."""
    width = len(lanes) * LANE
    for slot in range(used):
        output, step = outputs[scratch.rows[slot]], scratch.gradients[slot * width : (slot + 1) * width]
        for d in range(width):
            output[d] += step[d]


@inlined
def learn(
    x: Floats,
    target: Floats,
    used: int,
    scratch: Scratch,
    tables: Tables,
    rate: np.float32,
    lanes: tuple[int, ...],
) -> float:
    """Let x meet the `used` outputs in `scratch`: their steps go to its gradients, that of x is added to `target`.

    Returns the loss before the step, in nats: the sum over outputs of -log sigmoid(score), or of 1 - sigmoid.
    """
    width = len(lanes) * LANE
    scores = scratch.scores
    for first in range(0, used, GROUP):
        block = scratch.outputs[first * width : (first + GROUP) * width]
        s0 = s1 = s2 = s3 = s4 = s5 = _ZERO
        for d in range(width):
            value = x[d]
            s0 += value * block[d]
            s1 += value * block[width + d]
            s2 += value * block[2 * width + d]
            s3 += value * block[3 * width + d]
            s4 += value * block[4 * width + d]
            s5 += value * block[5 * width + d]
        scores[first] = s0
        scores[first + 1] = s1
        scores[first + 2] = s2
        scores[first + 3] = s3
        scores[first + 4] = s4
        scores[first + 5] = s5
    loss = 0.0
    for slot in range(used):
        score, label = scores[slot], scratch.labels[slot]
        if score >= _TABLE_END:
            sigmoid = _ONE
            loss += (_ONE - label) * score
        elif score <= -_TABLE_END:
            sigmoid = _ZERO
            loss -= label * score
        else:
            place = np.int64((score + _TABLE_END) * _TABLE_SCALE)
            sigmoid = tables.sigmoid[place]
            loss += tables.log_loss[place] + (_ONE - label) * score  # -log(1 - sigmoid) = score - log(sigmoid)
        scores[slot] = (label - sigmoid) * rate
    for slot in range(used, (used + GROUP - 1) // GROUP * GROUP):
        scores[slot] = _ZERO
    for first in range(0, used, GROUP):
        block = scratch.outputs[first * width : (first + GROUP) * width]
        steps = scratch.gradients[first * width : (first + GROUP) * width]
        s0, s1, s2 = scores[first], scores[first + 1], scores[first + 2]
        s3, s4, s5 = scores[first + 3], scores[first + 4], scores[first + 5]
        for d in range(width):
            value = x[d]
            target[d] += (
                s0 * block[d]
                + s1 * block[width + d]
                + s2 * block[2 * width + d]
                + s3 * block[3 * width + d]
                + s4 * block[4 * width + d]
                + s5 * block[5 * width + d]
            )
            steps[d] += s0 * value
            steps[width + d] += s1 * value
            steps[2 * width + d] += s2 * value
            steps[3 * width + d] += s3 * value
            steps[4 * width + d] += s4 * value
            steps[5 * width + d] += s5 * value
    return loss


@inlined
def enter(place: int, inputs: Floats, subwords: Subwords, scratch: Scratch, lanes: tuple[int, ...]) -> None:
    """Bring the vector of the word at `place` of the line, the mean of its rows, into the window."""
    width = len(lanes) * LANE
    slot = place % len(scratch.hidden)
    hidden, before = scratch.hidden[slot], scratch.before[slot]
    first, last = subwords.starts[scratch.line[place]], subwords.starts[scratch.line[place] + 1]
    share = _ONE / np.float32(last - first)
    for d in range(width):
        hidden[d] = _ZERO
    for number in range(first, last):
        row = inputs[subwords.rows[number]]
        for d in range(width):
            hidden[d] += row[d]
    for d in range(width):
        hidden[d] *= share
        before[d] = hidden[d]


@inlined
def leave(place: int, inputs: Floats, subwords: Subwords, scratch: Scratch, lanes: tuple[int, ...]) -> None:
    """Move all rows of the word at `place` by what its vector learned while the window was over it."""
    width = len(lanes) * LANE
    slot = place % len(scratch.hidden)
    hidden, before = scratch.hidden[slot], scratch.before[slot]
    for d in range(width):
        before[d] = hidden[d] - before[d]
    for number in range(subwords.starts[scratch.line[place]], subwords.starts[scratch.line[place] + 1]):
        row = inputs[subwords.rows[number]]
        for d in range(width):
            row[d] += before[d]


@inlined
def look_ahead(place: int, matrices: Matrices, subwords: Subwords, line: Ints32, lanes: tuple[int, ...]) -> None:
    """Have the rows of the word at `place` fetched before they are asked for."""
    prefetch_row(matrices.outputs, np.int64(line[place]), lanes)
    for number in range(subwords.starts[line[place]], subwords.starts[line[place] + 1]):
        prefetch_row(matrices.inputs, np.int64(subwords.rows[number]), lanes)


@inlined
def skip_gram_window(
    centre: int,
    first: int,
    last: int,
    matrices: Matrices,
    shape: Shape,
    draws: Draws,
    paths: Paths,
    tables: Tables,
    scratch: Scratch,
    rate: np.float32,
    state: np.uint64,
    lanes: tuple[int, ...],
) -> tuple[float, int, np.uint64]:
    """Every word from `first` to `last` around `centre` meets its outputs; the loss, how many they were, the state."""
    width = len(lanes) * LANE
    x = scratch.x
    loss, pairs, used = 0.0, 0, 0
    for place in range(first, last):
        if place == centre:
            continue
        if used == 0:
            used, state = gather_outputs(
                matrices.outputs, scratch.line[centre], shape, draws, paths, scratch, state, lanes
            )
        hidden = scratch.hidden[place % len(scratch.hidden)]
        for d in range(width):
            x[d] = hidden[d]
        loss += learn(x, hidden, used, scratch, tables, rate, lanes)
        pairs += 1
        if not shape.shared:
            scatter_outputs(matrices.outputs, used, scratch, lanes)
            used = 0
    scatter_outputs(matrices.outputs, used, scratch, lanes)
    return loss, pairs, state


@inlined
def cbow_window(
    centre: int,
    first: int,
    last: int,
    matrices: Matrices,
    shape: Shape,
    draws: Draws,
    paths: Paths,
    tables: Tables,
    scratch: Scratch,
    rate: np.float32,
    state: np.uint64,
    lanes: tuple[int, ...],
) -> tuple[float, int, np.uint64]:
    """The mean of the words from `first` to `last` around `centre` meets its outputs; the loss, 1, the state."""
    width = len(lanes) * LANE
    x, error = scratch.x, scratch.error
    share = _ONE / np.float32(last - first - 1)
    for d in range(width):
        x[d] = _ZERO
        error[d] = _ZERO
    for place in range(first, last):
        if place != centre:
            hidden = scratch.hidden[place % len(scratch.hidden)]
            for d in range(width):
                x[d] += hidden[d] * share
    used, state = gather_outputs(matrices.outputs, scratch.line[centre], shape, draws, paths, scratch, state, lanes)
    loss = learn(x, error, used, scratch, tables, rate, lanes)
    scatter_outputs(matrices.outputs, used, scratch, lanes)
    for place in range(first, last):  # the whole step to each word, as in word2vec.c, not its share
        if place != centre:
            hidden = scratch.hidden[place % len(scratch.hidden)]
            for d in range(width):
                hidden[d] += error[d]
    return loss, 1, state


@compiled
def train_range(
    stream: Ints32,
    start: int,
    stop: int,
    matrices: Matrices,
    subwords: Subwords,
    shape: Shape,
    draws: Draws,
    paths: Paths,
    tables: Tables,
    scratch: Scratch,
    rate: np.float32,
    seed: np.uint64,
    tally: Floats64,
    lanes: tuple[int, ...],
) -> None:
    """Train on stream[start:stop] at one learning rate; `tally` is added to.

    The words of the window live in a ring of slots: each is read from the matrix when the window reaches it and written
    back when the window has passed, however many rows it has.
    """
    position = start
    state = draw_upcoming(matrices.outputs, shape, draws, scratch, seed, lanes)
    window = shape.window
    loss, pairs, kept = 0.0, 0, 0
    while position < stop:
        count, position, state = read_line(stream, position, stop, draws, state, scratch.line)
        kept += count
        for place in range(min(window, count)):
            enter(place, matrices.inputs, subwords, scratch, lanes)
        for centre in range(count):
            if centre + window < count:
                enter(centre + window, matrices.inputs, subwords, scratch, lanes)
            look_ahead(min(centre + window + 2, count - 1), matrices, subwords, scratch.line, lanes)
            state = next_state(state)
            reach = 1 + draw_below(state, window)
            first, last = max(0, centre - reach), min(count, centre + reach + 1)
            if last - first > 1:
                if shape.is_cbow:
                    more, met, state = cbow_window(
                        centre, first, last, matrices, shape, draws, paths, tables, scratch, rate, state, lanes
                    )
                else:
                    more, met, state = skip_gram_window(
                        centre, first, last, matrices, shape, draws, paths, tables, scratch, rate, state, lanes
                    )
                loss += more
                pairs += met
            if centre >= window:
                leave(centre - window, matrices.inputs, subwords, scratch, lanes)
        for place in range(max(0, count - window), count):
            leave(place, matrices.inputs, subwords, scratch, lanes)
    tally[LOSS] += loss
    tally[PAIRS] += pairs
    tally[KEPT] += kept
