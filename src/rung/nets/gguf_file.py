"""The container of a GGUF file (ggml-org/ggml `docs/gguf.md`): its metadata, and where its tensors lie.

Nothing in the file is believed: every length is compared with the bytes that are left before it is used, so a damaged
or hostile file costs an error and no memory. Rung reads the header itself because the `gguf` package keeps several
numpy arrays for each of the 100,000 strings of a tokenizer: 4.6 s for SmolLM2's file where this takes 0.2 s.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rung.errors import RunFolderError

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

F32, F16, BF16 = 0, 1, 30
_WIDTH_OF_FLOATS = {F32: 4, F16: 2, BF16: 2}
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
_MAX_HEADER_BYTES = 64 << 20  # the largest vocabularies in use need about 15 MB; as objects of Python, eight times
_SMALLEST_TENSOR_ENTRY = 8 + 4 + 8 + 4 + 8
_SMALLEST_FIELD = 8 + 4 + 1
_DAMAGED = "the file is truncated or damaged: copy or download it again"


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in the file. `shape` is torch's (slowest dimension first); `kind` is ggml's type number."""

    name: str
    kind: int
    shape: tuple[int, ...]
    offset: int
    row_bytes: int


class GgufFile:
    """An open GGUF file, memory-mapped: `metadata` by key, `tensors` by name, `values` of one tensor in float.

    Use as a context manager. Raises RunFolderError when the file is none, is damaged, or holds a type of tensor that
    nobody here can read; its hint names the `gguf` package where that is what is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise RunFolderError(f"cannot read the GGUF file: {error}", where=str(path)) from error
        try:
            reader = _Header(self._map, str(path))
            self.metadata, self.tensors = reader.metadata, reader.tensors
        except BaseException:
            self._map.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the mapping back."""
        self._map.close()

    @property
    def is_quantised(self) -> bool:
        """Whether some tensor is in a type of few bits, which rounds what it was made of."""
        return any(tensor.kind not in _WIDTH_OF_FLOATS for tensor in self.tensors.values())

    def values(self, name: str) -> np.ndarray:
        """One tensor as a new array of its shape: float16 as stored, everything else as float32."""
        tensor = self.tensors[name]
        rows = prod(tensor.shape[:-1])
        raw = np.frombuffer(self._map, np.uint8, rows * tensor.row_bytes, tensor.offset)
        if tensor.kind in (F32, F16):
            stored = raw.view("<f4" if tensor.kind == F32 else "<f2")
            values = stored.reshape(tensor.shape).copy()
        elif tensor.kind == BF16:
            values = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(tensor.shape)
        else:
            values = self._dequantised(tensor, raw.reshape(rows, tensor.row_bytes))
        return values

    def _dequantised(self, tensor: StoredTensor, raw: np.ndarray) -> np.ndarray:
        package = require_gguf(str(self.path))
        kind = package.GGMLQuantizationType(tensor.kind)
        try:
            values: np.ndarray = package.dequantize(raw, kind).reshape(tensor.shape)
        except NotImplementedError as error:
            raise RunFolderError(
                f"tensor {tensor.name} is {kind.name}, which the gguf package does not turn into numbers",
                where=str(self.path),
                hint="take a file in F32, F16, BF16, Q8_0, Q4_0, Q4_1 or of K-quants",
            ) from error
        return values


def require_gguf(where: str) -> Any:
    """The `gguf` package. RunFolderError tells how to install it when it is missing."""
    try:
        import gguf
    except ImportError as error:
        raise RunFolderError(
            "quantised GGUF tensors, and writing GGUF, need the package gguf",
            where=where,
            hint="pip install 'rung[gguf]'",
        ) from error
    return gguf


class _Header:
    """Reads the header front to back; `_at` is the next byte."""

    def __init__(self, data: mmap.mmap, where: str) -> None:
        self._data = data
        self._where = where
        self._at = 4
        self._end = min(len(data), _MAX_HEADER_BYTES)
        if data[:4] != b"GGUF":
            raise RunFolderError("this is no GGUF file: it does not begin with GGUF", where=where)
        version = self._number("<I")
        if version not in _VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            kind = "a big-endian GGUF file" if swapped in _VERSIONS else f"GGUF version {version}"
            raise RunFolderError(f"{kind} is not supported", where=where, hint="read: versions 2 and 3, little-endian")
        tensors, fields = self._number("<Q"), self._number("<Q")
        self._require(
            fields * _SMALLEST_FIELD + tensors * _SMALLEST_TENSOR_ENTRY, f"{fields:,} fields, {tensors:,} tensors"
        )
        self.metadata = self._read_fields(fields)
        self.tensors = self._read_tensors(tensors)

    def _damaged(self, problem: str) -> RunFolderError:
        return RunFolderError(f"the GGUF file {problem}", where=f"{self._where}, byte {self._at:,}", hint=_DAMAGED)

    def _require(self, size: int, what: str) -> None:
        if size > self._end - self._at:
            raise self._damaged(f"promises more than it holds ({what})")

    def _number(self, code: str) -> Any:
        size = struct.calcsize(code)
        self._require(size, "a number")
        (value,) = struct.unpack_from(code, self._data, self._at)
        self._at += size
        return value

    def _string(self) -> str:
        length = self._number("<Q")
        self._require(length, f"a string of {length:,} bytes")
        raw = self._data[self._at : self._at + length]
        self._at += length
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._damaged(f"has a string that is not UTF-8 ({error.reason})") from error

    def _value(self, kind: int, *, in_array: bool = False) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY and not in_array:
            return self._array()
        raise self._damaged(f"has a metadata value of unknown type {kind}")

    def _array(self) -> list[Any]:
        kind, count = self._number("<I"), self._number("<Q")
        if kind in _SCALARS:
            width = struct.calcsize(_SCALARS[kind])
            self._require(count * width, f"an array of {count:,} numbers")
            values = list(struct.unpack_from(f"<{count}{_SCALARS[kind][1]}", self._data, self._at))
            self._at += count * width
            return values
        self._require(count * 8, f"an array of {count:,} strings")
        return [self._value(kind, in_array=True) for _ in range(count)]

    def _read_fields(self, count: int) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for _ in range(count):
            key = self._string()
            if key in fields:
                raise self._damaged(f"has the metadata key {key!r:.80} twice")
            fields[key] = self._value(self._number("<I"))
        return fields

    def _read_tensors(self, count: int) -> dict[str, StoredTensor]:
        entries = [self._tensor_entry() for _ in range(count)]
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise self._damaged(f"has an alignment that is no power of two: {alignment!r:.40}")
        start = -(-self._at // alignment) * alignment
        tensors: dict[str, StoredTensor] = {}
        for name, kind, shape, offset in entries:
            if name in tensors:
                raise self._damaged(f"has the tensor {name!r:.80} twice")
            row_bytes = self._row_bytes(name, kind, shape[-1])
            if offset % alignment or start + offset + prod(shape[:-1]) * row_bytes > len(self._data):
                raise self._damaged(f"has no room for tensor {name!r:.80} of shape {list(shape)}")
            tensors[name] = StoredTensor(name, kind, shape, start + offset, row_bytes)
        return tensors

    def _tensor_entry(self) -> tuple[str, int, tuple[int, ...], int]:
        name, dimensions = self._string(), self._number("<I")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise self._damaged(f"has a tensor {name!r:.80} of {dimensions:,} dimensions")
        shape = tuple(self._number("<Q") for _ in range(dimensions))[::-1]
        if min(shape) < 1:
            raise self._damaged(f"has a tensor {name!r:.80} of shape {list(shape)}")
        return name, self._number("<I"), shape, self._number("<Q")

    def _row_bytes(self, name: str, kind: int, columns: int) -> int:
        if kind in _WIDTH_OF_FLOATS:
            return columns * _WIDTH_OF_FLOATS[kind]
        package = require_gguf(self._where)
        try:
            quantisation: GGMLQuantizationType = package.GGMLQuantizationType(kind)
            block, size = package.GGML_QUANT_SIZES[quantisation]
        except (ValueError, KeyError) as error:
            raise RunFolderError(
                f"tensor {name!r:.80} has a type of number that the gguf package does not know: {kind}",
                where=self._where,
                hint="read: F32, F16, BF16, Q8_0, Q4_0, Q4_1 and K-quants; a newer gguf package may know more",
            ) from error
        if columns % block:
            raise self._damaged(f"has {quantisation.name} rows of {columns:,} numbers, no multiple of {block}")
        return int(columns // block * size)
