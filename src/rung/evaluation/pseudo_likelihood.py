"""Pseudo-log-likelihood of a text under a masked language model (Salazar et al. 2020, arXiv 1910.14659, section 2).

Each token is hidden in turn and its logarithmic probability read off, given all the others on both sides. The sum is
no logarithm of a probability of the text: a token is told apart with the help of tokens that are charged for
elsewhere. So `pseudo_bits_per_byte` is not `bits_per_byte`, and the two must never stand in one comparison; it ranks
texts under one model (which of two sentences is the likelier), or models with one tokenizer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rung.data.shards import TokenShards
from rung.data.text_encoder import TextEncoder
from rung.data.text_windows import AROUND, TextWindows
from rung.errors import EvaluationError
from rung.evaluation.bits_per_byte import item_ids, text_sha256
from rung.evaluation.intervals import interval
from rung.nets.masked_language_model import MaskedLanguageModel
from rung.progress import SILENT, Progress
from rung.records import ItemScores, Record

NAME, UNIT = "pseudo_bits_per_byte", "pseudo-bits per byte"
_TOKENS_AT_ONCE = 1 << 13  # read by one forward pass


@dataclass(frozen=True)
class PseudoLogLikelihood:
    """A text's tokens, each one's logarithmic probability (nats) when it alone is hidden, and their sum."""

    token_ids: list[int]
    tokens: list[str]
    logprobs: list[float]

    @property
    def total(self) -> float:
        """The pseudo-log-likelihood of the text."""
        return math.fsum(self.logprobs)


@contextmanager
def evaluating(net: torch.nn.Module) -> Iterator[torch.device]:
    """Switch dropout and gradients off for the time being; yields the device that `net` is on."""
    was_training = net.training
    net.eval()
    try:
        with torch.inference_mode():
            yield next(net.parameters()).device
    finally:
        net.train(was_training)


def pseudo_log_likelihoods(
    net: MaskedLanguageModel, encoder: TextEncoder, texts: Sequence[str], *, progress: Progress = SILENT
) -> list[PseudoLogLikelihood]:
    """Score each of `texts`, as `[CLS] text [SEP]`.

    A text longer than the context is cut into windows of equal length, each scored by itself. A text without a token
    has the sum 0. Raises EvaluationError when scores are not finite.
    """
    ids, lengths = encoder.encode_ragged(texts)
    logprobs = np.zeros(len(ids))
    if len(ids):
        windows = TextWindows.of_texts(list(texts), encoder=encoder, max_length=net.config.max_length)
        logprobs = _logprobs(net, encoder, windows, progress)
    ends = np.cumsum(lengths)
    return [
        PseudoLogLikelihood(
            ids[end - length : end].tolist(),
            [encoder.token(number) for number in ids[end - length : end].tolist()],
            logprobs[end - length : end].tolist(),
        )
        for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
    ]


def pseudo_bits_per_byte(
    net: MaskedLanguageModel,
    encoder: TextEncoder,
    shards: TokenShards,
    *,
    documents: NDArray[np.int64],
    progress: Progress = SILENT,
) -> tuple[Record, ItemScores]:
    """Measure `documents` of `shards`: the record, and each document's pseudo-bits (values) and bytes (weights).

    The bytes are those of the text as it was read; what the tokenizer does not keep, such as case, is not charged, and
    the signature says how many tokens were unknown to it. The interval is a bootstrap over documents.

    Raises EvaluationError when scores are not finite, DataError when there is no text.
    """
    longest = net.config.max_length
    windows = TextWindows.of_shards(shards, encoder=encoder, max_length=longest, documents=documents)
    logprobs = _logprobs(net, encoder, windows, progress)
    bits = np.zeros(len(documents))
    np.add.at(bits, np.repeat(windows.owners, windows.lengths - AROUND), -logprobs / math.log(2))
    unknown = encoder.token_id("unk_token")
    ids = np.concatenate([shards.document_tokens(number) for number in documents.tolist()])
    weights = shards.document_bytes[documents].astype(np.float64)
    scores = ItemScores(item_ids(shards.document_ids, documents), bits, weights)
    record = Record(
        name=NAME,
        value=scores.mean,
        unit=UNIT,
        n=len(documents),
        interval=interval(scores),
        signature=f"each token hidden in turn (Salazar et al. 2020),context={longest},"
        f"tokenizer={encoder.sha256[:16]},unknown tokens={int((ids == unknown).sum()):,} of {len(ids):,}",
        data_sha256=text_sha256(shards, documents),
    )
    return record, scores


def _logprobs(
    net: MaskedLanguageModel, encoder: TextEncoder, windows: TextWindows, progress: Progress
) -> NDArray[np.float64]:
    """(tokens,) the logarithmic probability of each token of the text, window by window, when it alone is hidden."""
    mask_token_id = encoder.token_id("mask_token")
    if mask_token_id is None:
        raise EvaluationError("the tokenizer has no mask_token", hint="use a tokenizer of BERT's kind")
    inside = windows.lengths - AROUND
    starts = np.cumsum(inside) - inside
    found = np.zeros(int(inside.sum()))
    with (
        evaluating(net) as device,
        progress.task("hiding each token in turn", len(found), "tokens") as advance,
    ):
        for length in np.unique(windows.lengths).tolist():
            rows = np.flatnonzero(windows.lengths == length)
            copies = np.repeat(rows, length - AROUND)
            places = np.tile(np.arange(1, length - 1), len(rows))
            size = max(1, _TOKENS_AT_ONCE // length)
            for begin in range(0, len(copies), size):
                some, hidden = copies[begin : begin + size], places[begin : begin + size]
                ids = torch.from_numpy(windows.padded(some)[0]).to(device)
                here = torch.arange(len(some), device=device), torch.from_numpy(hidden).to(device)
                wanted = ids[here]
                ids[here] = mask_token_id
                where = torch.zeros_like(ids, dtype=torch.bool)
                where[here] = True
                scores = net.scores(net.transformed(ids, where=where)).float()
                logprobs = scores.log_softmax(1).gather(1, wanted[:, None])[:, 0].double().cpu().numpy()
                found[starts[some] + hidden - 1] = logprobs
                advance(len(some))
    if not np.isfinite(found).all():
        raise EvaluationError("the network's scores are not finite", hint="try another checkpoint")
    return found
