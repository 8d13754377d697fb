"""Bits per byte of source text: the one number by which language models of any tokenizer can be compared.

It is the total negative log-likelihood over ln 2 and over the UTF-8 bytes of the text. The bytes are those of the
documents as they were read, never those of a token table.

What is charged: every token of every document. What is not: the end-of-text token that closes a document, for it
stands for no byte. It is given instead, as the context in which the first token of the next text is predicted, as in
training. Documents that are consecutive pieces of one source are read on across their border.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rung.data.shards import TokenShards
from rung.errors import EvaluationError
from rung.evaluation.intervals import interval
from rung.evaluation.scoring import IGNORED, TokenScorer, token_scorer
from rung.evaluation.windows import Window, sliding_windows
from rung.progress import SILENT, Progress
from rung.records import ItemScores, Record

NAME, UNIT = "bits_per_byte", "bits per byte"
_TOKENS_AT_ONCE = 2**16
"""Of the windows that are read together: more need much memory and are no faster."""


class _Place(NamedTuple):
    """A window of the stream whose first token stands at `origin` of the shards; place 0 is the token before it."""

    origin: int
    window: Window


def bits_per_byte(
    net: Any,
    shards: TokenShards,
    *,
    context_length: int | None = None,
    stride: int | None = None,
    batch_size: int = 16,
    max_bytes: int | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> tuple[Record, ItemScores]:
    """Measure `net` on the documents of `shards`: the record, and each document's bits (values) and bytes (weights).

    `net` is a language model of any kind; see `rung.evaluation.scoring.token_scorer`. Windows of `context_length`
    tokens slide by `stride`, so each token is predicted from more than `context_length - stride` tokens where its text
    has them. By default a decoder uses the context it has, up to 2,048 tokens, and half of it as the stride; a network
    with a state reads windows of its own, much longer ones. At most `batch_size` windows are read together. With
    `max_bytes`, an evenly spread sample of the documents is measured: the same that `Corpus.texts` gives for this
    number. Computed in the dtype that `net` computes in. The interval is a bootstrap over documents.

    Raises EvaluationError when there is nothing to measure, or the network's scores are not finite.
    """
    scorer = token_scorer(net)
    if context_length is None:
        context_length, stride = scorer.context_length, stride or scorer.stride
    stride = stride or max(1, context_length // 2)
    if not 1 <= stride <= context_length <= scorer.max_length:
        raise EvaluationError(
            f"stride {stride} and context {context_length} do not fit a network of {scorer.max_length} positions",
            hint="choose 1 <= stride <= context <= positions",
        )
    if not shards.num_bytes:
        raise EvaluationError("there is no text to measure on", where=str(shards.folder), hint="give more text")
    batch_size = max(1, min(batch_size, _TOKENS_AT_ONCE // context_length))
    documents = sampled_documents(shards.document_bytes, max_bytes)
    places = list(_places(shards, documents, context_length, stride))
    nats = np.zeros(shards.num_documents)
    with scorer.measuring(), progress.task("measuring bits per byte", len(places), "windows") as advance:
        for start in range(0, len(places), batch_size):
            batch = places[start : start + batch_size]
            _add_nats(scorer, shards, batch, nats)
            advance(len(batch))
    if not np.isfinite(nats).all():
        raise EvaluationError("the network's scores are not finite", hint="try another checkpoint")
    scores = ItemScores(
        item_ids(shards.document_ids, documents),
        nats[documents] / math.log(2),
        shards.document_bytes[documents].astype(np.float64),
    )
    record = Record(
        name=NAME,
        value=scores.mean,
        unit=UNIT,
        n=len(documents),
        interval=interval(scores, seed=seed),
        signature=f"context={context_length},stride={stride},tokenizer={shards.tokenizer_sha256[:16]},"
        f"dtype={scorer.precision},end-of-text=given",
        data_sha256=text_sha256(shards, documents),
    )
    return record, scores


def text_sha256(shards: TokenShards, documents: Sequence[int] | NDArray[np.int64]) -> str:
    """Hash of the texts of `documents` in order: equal for equal text, whatever the tokenizer."""
    ids = shards.document_ids
    return hashlib.sha256("\n".join(ids[number] for number in documents).encode()).hexdigest()


def sampled_documents(document_bytes: NDArray[np.uint32], max_bytes: int | None) -> NDArray[np.int64]:
    """Numbers of the documents to measure, spread evenly over the text; the rule of `Corpus.texts`."""
    ends = np.cumsum(document_bytes, dtype=np.int64)
    if max_bytes is None or max_bytes >= ends[-1]:
        return np.arange(len(ends))
    wanted = max(1, round(len(ends) * max_bytes / int(ends[-1])))
    return np.unique(np.searchsorted(ends, (np.arange(wanted) + 0.5) * ends[-1] / wanted, side="right"))


def _places(shards: TokenShards, documents: NDArray[np.int64], context_length: int, stride: int) -> Iterator[_Place]:
    """Yield the windows that score all tokens of `documents` (ascending), end-of-text tokens excepted."""
    chosen = np.zeros(shards.num_documents + 1, dtype=bool)
    chosen[documents] = True
    starts = shards.document_starts
    for begin, end in shards.streams():
        origin, closing = int(starts[begin]), int(starts[end]) - 1
        borders = np.flatnonzero(np.diff(chosen[begin:end].astype(np.int8), prepend=0, append=0)) + begin
        for first, last in borders.reshape(-1, 2).tolist():
            stop = closing if last == end else int(starts[last])
            for window in sliding_windows(
                int(starts[first]) - origin, stop - origin, context_length=context_length, stride=stride
            ):
                yield _Place(origin, window)


def _add_nats(scorer: TokenScorer, shards: TokenShards, batch: Sequence[_Place], nats: NDArray[np.float64]) -> None:
    """Score one batch of windows and add each token's loss to its document in `nats` (documents,)."""
    longest = max(window.stop - window.start for _, window in batch)
    inputs = np.full((len(batch), longest), shards.eos_token_id, dtype=np.int64)
    labels = np.full((len(batch), longest), IGNORED, dtype=np.int64)
    scored = []
    for row, (origin, window) in enumerate(batch):
        length = window.stop - window.start
        before = origin + window.start - 1  # of the first input; -1: the end-of-text token that opens the whole text
        tokens = shards.read(max(before, 0), length + min(before, 0) + 1)
        inputs[row, length + 1 - len(tokens) : length] = tokens[:-1]
        labels[row, window.score_from - window.start : length] = tokens[window.score_from - window.stop :]
        scored.append(np.arange(origin + window.score_from, origin + window.stop))
    losses = scorer.token_nll(inputs, labels)
    owners = np.searchsorted(shards.document_starts, np.concatenate(scored), side="right") - 1
    np.add.at(nats, owners, losses)


def item_ids(hashes: Sequence[str], documents: NDArray[np.int64]) -> list[str]:
    """Name each document by its text, so that models with other tokenizers can be paired; repeats are numbered."""
    seen: Counter[str] = Counter()
    ids = []
    for number in documents.tolist():
        text = hashes[number]
        ids.append(f"{text}-{seen[text]}" if seen[text] else text)
        seen[text] += 1
    return ids
