"""The floors are the sizes that the command-line tools' formats give."""

from __future__ import annotations

import bz2
import gzip
import lzma

import pytest

from rung.errors import EvaluationError
from rung.evaluation.compressors import compressor_floors

TEXTS = ["to be or not to be, that is the question. " * 30, "ein zweiter Text, für alle Fälle. " * 20]


def test_sizes_of_the_joined_text() -> None:
    data = "".join(TEXTS).encode()
    found = {floor.name: floor.value for floor in compressor_floors(TEXTS, data_sha256="d")}
    assert found == {
        "gzip -9": 8 * len(gzip.compress(data, 9)) / len(data),
        "bz2 -9": 8 * len(bz2.compress(data, 9)) / len(data),
        "xz -9e": 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)) / len(data),
    }


def test_nothing_to_compress() -> None:
    with pytest.raises(EvaluationError, match="no text"):
        compressor_floors([])
