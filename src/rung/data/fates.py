"""What becomes of every document: it trains, it validates, or it is dropped in favour of one that stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rung.data.near_duplicates import SHORT_WORDS, find_near_duplicates
from rung.data.segments import Segment
from rung.data.split import chance, validation_threshold
from rung.errors import DataError

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

TRAIN, VALID = 0, 1
DROP_REASONS = {
    2: "exact duplicate",
    3: "near-duplicate",
    4: "duplicate of validation text",
    5: "near-duplicate of validation text",
}


class DocumentIndex:
    """Documents of all segments under one number, and the few columns that are needed of all at once."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = segments
        self.starts = np.cumsum([0, *(segment.num_documents for segment in segments)])
        self.count = int(self.starts[-1])

    def column(self, name: str) -> npt.NDArray[Any]:
        return np.concatenate([segment.documents[name] for segment in self.segments])

    def ordinals(self) -> Ints:
        return np.concatenate([segment.documents["ordinal"] + segment.first_ordinal for segment in self.segments])

    def nbytes(self) -> Ints:
        return np.concatenate([segment.document_nbytes for segment in self.segments])

    def is_valid_text(self) -> Flags:
        return np.repeat([segment.is_valid_text for segment in self.segments], np.diff(self.starts))

    def segment_of(self, documents: Ints) -> Ints:
        owners: Ints = np.searchsorted(self.starts, documents, side="right") - 1
        return owners

    def texts(self, documents: Ints) -> list[bytes]:
        owners = self.segment_of(documents)
        places = (documents - self.starts[owners]).tolist()
        return [bytes(self.segments[at].text_bytes(i)) for at, i in zip(owners.tolist(), places, strict=True)]

    def place(self, document: int) -> str:
        owner = int(self.segment_of(np.array([document]))[0])
        return ":".join(self.segments[owner].document_place(document - int(self.starts[owner])))


def decide_fates(
    index: DocumentIndex, *, seed: int, valid_fraction: float, near_duplicate_threshold: float
) -> tuple[npt.NDArray[np.int8], Ints, float]:
    """The fate of each document (TRAIN, VALID or a key of DROP_REASONS) and the document that stays in its place or -1.

    Also the fraction that was held out: `valid_fraction`, or more of a small text; 0 where validation text was given.
    """
    given = index.is_valid_text()
    digests = index.column("sha256")
    u = chance(digests, seed)
    rank = np.empty(index.count, np.int64)
    rank[np.lexsort((u, ~given))] = np.arange(index.count)  # stable: equal texts rank in source order
    dropped_for = _equal_to_earlier(np.ascontiguousarray(digests[:, :16]).view(np.uint64), rank, given)
    exact = dropped_for >= 0
    num_words = index.column("num_words")
    short = np.flatnonzero((num_words > 0) & (num_words < SHORT_WORDS) & ~exact)
    alike = _equal_to_earlier(index.column("word_sequence")[short, None], rank[short], given[short])
    dropped_for[short] = np.where(alike >= 0, short[alike], -1)
    near = find_near_duplicates(
        [segment.signatures for segment in index.segments],
        eligible=~exact & (num_words >= SHORT_WORDS),
        protected=given,
        rank=rank,
        texts=index.texts,
        threshold=near_duplicate_threshold,
    )
    dropped_for = np.where(near >= 0, near, dropped_for)
    kept = dropped_for < 0
    fates = np.where(given, VALID, TRAIN).astype(np.int8)
    used = 0.0
    if not given.any():
        used = _split(u, index.nbytes(), kept, valid_fraction)
        fates[u < used] = VALID
    codes = np.where(exact, 2, 3) + 2 * given[dropped_for]
    return np.where(kept, fates, codes).astype(np.int8), dropped_for, used


def _split(u: npt.NDArray[np.float64], nbytes: Ints, kept: Flags, valid_fraction: float) -> float:
    try:
        return validation_threshold(u[kept], nbytes[kept], valid_fraction)
    except DataError as error:
        if (copies := int((~kept).sum())) > 0:
            problem = f"{error.problem}; {copies:,} more were duplicates"
            raise DataError(problem, where=error.where, hint=error.hint) from error
        raise


def _equal_to_earlier(keys: npt.NDArray[np.uint64], rank: Ints, protected: Flags) -> Ints:
    """For each item the lowest-ranked one of equal key (a row of `keys`); -1 if that is itself or it is protected."""
    order = np.lexsort((rank, *keys.T))
    leaders = np.ones(len(keys), bool)
    leaders[1:] = (keys[order][1:] != keys[order][:-1]).any(axis=1)
    leader_of = np.empty(len(keys), np.int64)
    leader_of[order] = order[leaders][np.cumsum(leaders) - 1]
    return np.where((leader_of == np.arange(len(keys))) | protected, -1, leader_of)
