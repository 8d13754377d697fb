"""What general-purpose compressors make of the same text: the floor that a language model has to beat."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterable
from typing import Protocol

from rung.errors import EvaluationError
from rung.records import Record


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def compressor_floors(texts: Iterable[str | bytes], *, data_sha256: str | None = None) -> list[Record]:
    """Return bits per byte of `gzip -9`, `bz2 -9` and `xz -9e` on `texts` joined, in this order.

    Each compresses this text alone, without the training text as a dictionary: what a model knows from training is what
    it is given credit for. Raises EvaluationError when there is no text.
    """
    compressors: dict[str, _Compressor] = {
        "gzip -9": zlib.compressobj(9, zlib.DEFLATED, wbits=31),
        "bz2 -9": bz2.BZ2Compressor(9),
        "xz -9e": lzma.LZMACompressor(preset=9 | lzma.PRESET_EXTREME),
    }
    sizes = dict.fromkeys(compressors, 0)
    count = num_bytes = 0
    for text in texts:
        data = text.encode() if isinstance(text, str) else text
        count, num_bytes = count + 1, num_bytes + len(data)
        for name, compressor in compressors.items():
            sizes[name] += len(compressor.compress(data))
    if not num_bytes:
        raise EvaluationError("there is no text to compress", hint="give a text of at least one character")
    return [
        Record(
            name=name,
            value=8 * (sizes[name] + len(compressor.flush())) / num_bytes,
            unit="bits per byte",
            n=count,
            signature=f"{name} on the text alone, no dictionary",
            data_sha256=data_sha256,
        )
        for name, compressor in compressors.items()
    ]
