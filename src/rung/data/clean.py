"""What is dropped, and why: few rules, each with a reason that is counted.

The text that stays is not changed beyond its newlines and its byte order mark: bits per byte are measured on it.
The rules catch what no reader would call text; judging quality is left to the user.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rung.data.near_duplicates import Fingerprints

KEPT = 0
REASONS = ("", "empty", "NUL bytes", "control characters", "extreme repetition")
"""Reasons by code. NUL bytes: any. Control characters: more than 1 byte in 50 of C0 other than tab, newline and form
feed. Extreme repetition: at least 200 words, yet so few different word 5-grams that fewer than 10 bins were filled (a
text with a period of under ten words; verse with a refrain fills over a hundred)."""

_CONTROL_SHARE = 0.02
_REPEATED_WORDS = 200
_FEW_BINS = 10
_CHUNK = 1 << 18  # work arrays stay in the second-level cache


def judge(
    text: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], prints: Fingerprints, *, only_unreadable: bool
) -> npt.NDArray[np.uint8]:
    """Return a code of REASONS for each document text[offsets[i]:offsets[i + 1]].

    `only_unreadable` is for text that was given as validation: all of it is measured, repetitive or not.
    """
    sizes = np.diff(offsets)
    codes = np.zeros(len(sizes), np.uint8)
    controls = _controls(text)
    if controls.size:
        owner = np.searchsorted(offsets, controls, side="right") - 1
        share = np.bincount(owner, minlength=len(sizes)) / np.maximum(sizes, 1)
        codes[share > _CONTROL_SHARE] = REASONS.index("control characters")
        codes[owner[text[controls] == 0]] = REASONS.index("NUL bytes")
    if not only_unreadable:
        repeated = (prints.num_words >= _REPEATED_WORDS) & (prints.num_filled < _FEW_BINS)
        codes[repeated & (codes == KEPT)] = REASONS.index("extreme repetition")
    for index in np.flatnonzero(prints.num_words == 0):  # few: no letter and no digit
        if not text[offsets[index] : offsets[index + 1]].tobytes().strip():
            codes[index] = REASONS.index("empty")
    return codes


def _controls(text: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Positions of control characters other than tab, newline and form feed."""
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(text), _CHUNK):
        chunk = text[start : start + _CHUNK]
        low = np.flatnonzero((chunk < 32) | (chunk == 127))
        values = chunk[low]
        found.append(low[(values != 9) & (values != 10) & (values != 12)] + start)
    return np.concatenate(found)
