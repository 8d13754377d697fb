"""Which documents are validation: a pure function of each document's text.

`chance` maps a document's SHA-256 to u in [0, 1), keyed by the seed; the document is validation iff u < valid_fraction.
Near-duplicate removal keeps the lowest u of what is alike, so a validation text is never dropped for a training text.

What is guaranteed: whether a text is training or validation depends on nothing but the text, the seed and the fraction.
Adding files can drop an old document (a new one that is alike and has a lower u takes its place) but never moves one
from one side to the other. The one exception is a corpus so small that chance leaves almost no validation text:
there the fraction is raised to take in the lowest u, and a later addition may lower it again.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from rung.data.hashing import mix64
from rung.errors import DataError

_LEAST_SHARE = 0.25  # of valid_fraction, by bytes; below it the fraction is raised


def chance(digests: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.float64]:
    """Map SHA-256 digests (n, 32) to independent uniform numbers in [0, 1), a function of digest and seed alone."""
    key = int.from_bytes(hashlib.sha256(f"rung split {seed}".encode()).digest()[:8], "little")
    first = np.ascontiguousarray(digests[:, :8]).view(np.uint64).ravel()
    return (mix64(first ^ np.uint64(key)) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def validation_threshold(u: npt.NDArray[np.float64], nbytes: npt.NDArray[np.int64], valid_fraction: float) -> float:
    """Return t such that documents with u < t are validation: `valid_fraction`, or more for a very small corpus.

    u: (n,) chances of the kept documents, nbytes: (n,) their sizes. Raises DataError when both sides cannot be filled.
    """
    if len(u) < 2:
        raise DataError(
            f"{len(u)} document{'s' * (len(u) != 1)} ({int(nbytes.sum()):,} bytes) cannot be split into training and "
            "validation text",
            hint="give at least two documents, or one text of 16 KiB or more, or validation text of its own (--valid)",
        )
    chosen = u < valid_fraction
    if 0 < chosen.sum() < len(u) and nbytes[chosen].sum() >= _LEAST_SHARE * valid_fraction * nbytes.sum():
        return valid_fraction
    order = np.argsort(u, kind="stable")
    enough = np.cumsum(nbytes[order]) >= _LEAST_SHARE * valid_fraction * nbytes.sum()
    count = min(int(np.argmax(enough)) + 1, len(u) - 1)
    return float(u[order[count]])
