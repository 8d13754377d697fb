"""Labelled items: what every rung of a classification ladder is fitted to and judged on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelledItems:
    """Items in an order that depends on their content only.

    `ids` come from `item_ids`; `labels` (n,) index `label_names`; `groups` and `times` are there if columns were named.
    """

    ids: list[str]
    texts: list[str]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...]
    groups: list[str] | None = None
    times: list[str] | None = None
    rejected: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def sha256(self) -> str:
        """Hash over ids and labels: the identity of this data, whatever the order of its rows was."""
        digest = hashlib.sha256()
        for item, label in sorted(zip(self.ids, self.labels.tolist(), strict=True)):
            digest.update(f"{item}\t{self.label_names[label]}\n".encode())
        return digest.hexdigest()

    def take(self, indices: NDArray[np.int64]) -> LabelledItems:
        """These items, in the order of `indices`, with the same label names."""
        return LabelledItems(
            ids=[self.ids[i] for i in indices],
            texts=[self.texts[i] for i in indices],
            labels=self.labels[indices],
            label_names=self.label_names,
            groups=None if self.groups is None else [self.groups[i] for i in indices],
            times=None if self.times is None else [self.times[i] for i in indices],
        )


def item_ids(texts: Sequence[str], labels: Sequence[str]) -> list[str]:
    """One id per item from its text and label; the k-th repetition of both gets `-k`. Order of rows does not matter."""
    seen: Counter[str] = Counter()
    ids = []
    for text, label in zip(texts, labels, strict=True):
        item = hashlib.sha256(f"{label}\x00{text}".encode("utf-8", "surrogatepass")).hexdigest()[:20]
        ids.append(item if not seen[item] else f"{item}-{seen[item]}")
        seen[item] += 1
    return ids
