"""How the new text differs from what the network was trained on, told before it is trained on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rung.evaluation.bits_per_byte import sampled_documents
from rung.evaluation.drift import (
    TellingWord,
    UnitCounts,
    count_words,
    drift,
    jensen_shannon,
    telling_words,
    unseen_share,
)
from rung.records import Record
from rung.tasks.text_preparation import PreparedText

LOOKED_AT = 20_000_000
"""Bytes of each text, evenly spread."""
_FEWEST_SOURCES = 20  # below, pieces of a source stand for documents: too few sources could not be divided at random


@dataclass(frozen=True)
class DriftReport:
    """Each figure with its null (the same within the old text), and the words that tell one text from the other."""

    records: tuple[Record, ...]
    tell_new: tuple[TellingWord, ...]
    tell_old: tuple[TellingWord, ...]

    def lines(self) -> list[str]:
        """The report for people."""
        told = [
            f"drift: {found.name} {found.value:.3f} {found.unit}; within the old text {null.value:.3f} "
            f"[{null.interval.low:.3f}, {null.interval.high:.3f}]"
            for found, null in zip(self.records[::2], self.records[1::2], strict=True)
            if null.interval is not None
        ]
        words = ", ".join(word.word for word in self.tell_new)
        return [*told, f"words that tell the new text: {words}"]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "records": [record.model_dump(mode="json") for record in self.records],
            "tell_new": [asdict(word) for word in self.tell_new],
            "tell_old": [asdict(word) for word in self.tell_old],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> DriftReport:
        """Read what `to_json` gave."""
        return cls(
            tuple(Record(**record) for record in value["records"]),
            *(tuple(TellingWord(**word) for word in value[key]) for key in ("tell_new", "tell_old")),
        )


def measure_drift(old: Sequence[PreparedText], new: PreparedText, *, seed: int) -> DriftReport:
    """Compare the training parts of `old` and `new`. Raises EvaluationError when one has too few documents."""
    index: dict[str, int] = {}
    counted = [_Looked(text) for text in [*old, new]]
    in_words = [count_words(looked.texts(), index) for looked in counted]
    rows = new.tokenizer.vocab_size
    tokens = [UnitCounts.of(*looked.tokens(), num_types=rows) for looked in counted]
    spoken = [UnitCounts.of(*found, num_types=len(index)) for found in in_words]
    (old_tokens, new_tokens), (old_words, new_words) = (
        (reduce(UnitCounts.joined, parts[:-1]), parts[-1]) for parts in (tokens, spoken)
    )
    records = (
        *drift(old_tokens, new_tokens, jensen_shannon, name="divergence of tokens", unit="bits", seed=seed),
        *drift(old_words, new_words, jensen_shannon, name="divergence of words", unit="bits", seed=seed),
        *drift(old_words, new_words, unseen_share, name="share of unseen words", unit="share", seed=seed),
    )
    tell_new, tell_old = telling_words(list(index), old_words.totals, new_words.totals)
    return DriftReport(records, tuple(tell_new), tuple(tell_old))


class _Looked:
    """The documents of a text that are looked at, and which unit each belongs to."""

    def __init__(self, text: PreparedText) -> None:
        self._text = text
        self._chosen = sampled_documents(text.train.document_bytes, LOOKED_AT)
        selection = text.corpus.selection("train")
        places = [
            text.corpus.segments[selection.segment_index[number]].document_place(int(selection.document_index[number]))
            for number in self._chosen.tolist()
        ]
        units = {place: unit for unit, place in enumerate(dict.fromkeys(places))}
        if len(units) >= _FEWEST_SOURCES:
            self._units: NDArray[np.int64] = np.array([units[place] for place in places], dtype=np.int64)
        else:
            self._units = np.arange(len(places))

    def texts(self) -> Iterator[tuple[int, str]]:
        unit_of = dict(zip(self._chosen.tolist(), self._units.tolist(), strict=True))
        for number, document in enumerate(self._text.corpus.documents("train")):
            if number in unit_of:
                yield unit_of[number], document.text

    def tokens(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        shards = self._text.train
        ends = shards.document_starts[1:]
        read = [
            shards.read(int(shards.document_starts[number]), int(ends[number] - shards.document_starts[number]))
            for number in self._chosen.tolist()
        ]
        return np.repeat(self._units, [len(one) for one in read]), np.concatenate(read).astype(np.int64)
