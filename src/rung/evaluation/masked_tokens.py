"""How often a masked language model guesses a hidden token, beside one that only knows how frequent tokens are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from rung.data.masked_batches import HeldOutMasks, Masking
from rung.data.pack import IGNORE_INDEX
from rung.data.shards import TokenShards
from rung.data.text_encoder import TextEncoder
from rung.data.text_windows import TextWindows
from rung.errors import EvaluationError
from rung.evaluation.bits_per_byte import item_ids, text_sha256
from rung.evaluation.intervals import interval
from rung.evaluation.pseudo_likelihood import evaluating
from rung.nets.masked_language_model import MaskedLanguageModel
from rung.progress import SILENT, Progress
from rung.records import ItemScores, Record

ACCURACY, BITS = "masked_accuracy", "masked_bits"
UNIGRAM = "unigram"
_BATCH = 32
_COUNTED_AT_ONCE = 1 << 24  # tokens

Floats = NDArray[np.float64]


class Measured(NamedTuple):
    """The records, and each one's scores by document."""

    records: list[Record]
    scores: dict[str, ItemScores]


def unigram_frequencies(shards: TokenShards, encoder: TextEncoder) -> Floats:
    """(vocab_size,) how likely each token is by its frequency in the text, all counted once more; special ones: 0."""
    counts = np.zeros(encoder.vocab_size, np.int64)
    for start in range(0, shards.num_tokens, _COUNTED_AT_ONCE):
        part = shards.read(start, min(_COUNTED_AT_ONCE, shards.num_tokens - start))
        counts += np.bincount(part, minlength=len(counts))
    counts += 1
    counts[encoder.special_ids()] = 0
    frequencies: Floats = counts / counts.sum()
    return frequencies


def masked_token_records(
    net: MaskedLanguageModel,
    encoder: TextEncoder,
    shards: TokenShards,
    unigram: Floats,
    *,
    documents: NDArray[np.int64],
    whole_words: bool,
    share: float,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Measured:
    """Measure guesses of tokens that are hidden in `documents` of `shards`, always the same ones for equal `seed`.

    `masked_accuracy` is the share guessed right, `masked_bits` the mean surprise in bits per hidden token; each also
    for `unigram` (vocab_size,), probabilities that know nothing of the context. Both depend on the tokenizer: neither
    compares models with different ones. Intervals are bootstraps over documents.

    Raises EvaluationError when nothing is hidden or scores are not finite, DataError when there is no text.
    """
    longest = net.config.max_length
    windows = TextWindows.of_shards(shards, encoder=encoder, max_length=longest, documents=documents)
    masking = Masking(encoder, seed=seed, share=share, whole_words=whole_words, only_masks=True)
    held_out = HeldOutMasks(windows, masking)
    sums = np.zeros((5, len(documents)))  # hidden tokens, and of each model: right guesses and bits
    favourite = int(unigram.argmax())
    with evaluating(net) as device, progress.task("guessing hidden tokens", len(held_out), "windows") as advance:
        for start in range(0, len(held_out), _BATCH):
            numbers = np.arange(start, min(start + _BATCH, len(held_out)))
            batch = held_out.batch(numbers)
            labels = batch["labels"]
            chosen = labels != IGNORE_INDEX
            wanted = labels[chosen]
            mask = batch["mask"].to(device) if "mask" in batch else None
            scores = net.scores(net.transformed(batch["input_ids"].to(device), mask, where=chosen.to(device))).float()
            nats = F.cross_entropy(scores, wanted.to(device), reduction="none").double().cpu().numpy()
            right = (scores.argmax(1).cpu() == wanted).numpy()
            targets = wanted.numpy()
            owners = windows.owners[held_out.rows[numbers]][np.nonzero(chosen.numpy())[0]]
            found = (np.ones(len(targets)), right, nats / math.log(2), targets == favourite, -np.log2(unigram[targets]))
            for row, values in enumerate(found):
                np.add.at(sums[row], owners, values)
            advance(len(numbers))
    if not sums[0].any():
        raise EvaluationError("not one token of this text was hidden", hint="give more text")
    if not np.isfinite(sums).all():
        raise EvaluationError("the network's scores are not finite", hint="try another checkpoint")
    mask_token = encoder.token(masking.mask_token_id)
    what = f"{share:.0%} hidden as {mask_token}, {'whole words' if whole_words else 'single tokens'}, seed={seed}"
    signature = f"{what},context={longest},tokenizer={encoder.sha256[:16]}"
    ids, data = item_ids(shards.document_ids, documents), text_sha256(shards, documents)
    rows = zip((ACCURACY, BITS, f"{UNIGRAM}_{ACCURACY}", f"{UNIGRAM}_{BITS}"), sums[1:], strict=True)
    return _measured(rows, sums[0], ids=ids, signature=signature, data_sha256=data)


def _measured(
    rows: Iterable[tuple[str, Floats]], hidden: Floats, *, ids: list[str], signature: str, data_sha256: str
) -> Measured:
    records, scores = [], {}
    for name, values in rows:
        scores[name] = ItemScores(ids, values, hidden)
        records.append(
            Record(
                name=name,
                value=scores[name].mean,
                unit="of the hidden tokens" if name.endswith(ACCURACY) else "bits per hidden token",
                n=len(ids),
                interval=interval(scores[name]),
                signature=signature,
                data_sha256=data_sha256,
            )
        )
    return Measured(records, scores)
