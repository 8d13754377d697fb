"""Tokens on disk: memory-mapped shards with document borders, byte counts and a hashed manifest.

A split is one *stream* of tokens: documents one after the other, each closed by one end-of-text token unless the next
one continues it (two pieces of one file join seamlessly). The folder holds

    tokens-00000.bin ...    the stream, uint16 or uint32 (vocabularies above 65,536), cut into shards of equal length
    starts.bin              int64: where each document starts in the stream, and at last the length of the stream
    document_bytes.bin      int64: bytes of source text of each document
    document_ids.bin        32 bytes each: SHA-256 of each document's text
    continues.bin           uint8: 1 where the document continues the one before it
    shards.json             what this is: tokenizer, dtype, counts
    rung.json               size and SHA-256 of every file (see `rung.runfolder`)

All numbers are little-endian. The folder appears complete or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rung import runfolder
from rung.errors import RunFolderError

SHARD_TOKENS = 1 << 27
"""256 MiB of uint16: large enough to be few, small enough to copy and hash one at a time."""

_MANIFEST = "shards.json"
_DAMAGED = "delete this folder: it is made again from the text"
_COLUMNS = {"starts": "<i8", "document_bytes": "<i8", "document_ids": "V32", "continues": "u1"}


@dataclass(frozen=True)
class EncodedDocuments:
    """Some consecutive documents of a split, in stream order, without end-of-text tokens."""

    tokens: np.ndarray
    """(tokens,) any unsigned integer type: all documents one after the other"""
    lengths: np.ndarray
    """(documents,) tokens of each"""
    nbytes: np.ndarray
    """(documents,) bytes of source text of each"""
    sha256: np.ndarray
    """(documents, 32) uint8"""
    continues: np.ndarray
    """(documents,) bool: directly follows the document before it"""


@dataclass(frozen=True)
class _Manifest:
    tokenizer_sha256: str
    eos_token_id: int
    dtype: str
    shard_tokens: int
    num_tokens: int
    num_documents: int
    num_bytes: int


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds every id of a vocabulary."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def write_shards(
    folder: Path,
    batches: Iterable[EncodedDocuments],
    *,
    tokenizer_sha256: str,
    eos_token_id: int,
    vocab_size: int,
    shard_tokens: int = SHARD_TOKENS,
) -> TokenShards:
    """Write a split as the folder `folder`, holding one batch in memory at a time, and open it.

    Raises RunFolderError when the disk is full or not writable; then nothing is left behind.
    """

    def fill(temporary: Path) -> None:
        with _Writer(temporary, eos_token_id, token_dtype(vocab_size), shard_tokens) as writer:
            for batch in batches:
                writer.add(batch)
            manifest = writer.finish(tokenizer_sha256)
        runfolder.write_json(temporary / _MANIFEST, asdict(manifest))

    runfolder.write_folder(folder, fill, {"kind": "token-shards"})
    return TokenShards.open(folder)


class _Writer:
    """Appends to the files of one folder. A document's closing token is written once it is known what follows it."""

    def __init__(self, folder: Path, eos_token_id: int, dtype: np.dtype[Any], shard_tokens: int) -> None:
        self._folder, self._eos, self._dtype, self._shard_tokens = folder, eos_token_id, dtype, shard_tokens
        self._files = ExitStack()
        self._columns = {name: self._open(f"{name}.bin") for name in _COLUMNS}
        self._shard: BinaryIO | None = None
        self._tokens = self._documents = self._bytes = 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def add(self, batch: EncodedDocuments) -> None:
        if not len(batch.lengths):
            return
        continues = batch.continues.astype(bool)
        if not self._documents:
            continues[0] = False  # nothing stands before the first document
        closed = ~continues  # whether an end-of-text token stands right before each document
        closed[0] &= self._documents > 0
        stream, starts = _joined(batch.tokens.astype(self._dtype), batch.lengths, closed, self._eos)
        self._append("starts", starts + self._tokens)
        self._append("document_bytes", batch.nbytes)
        self._append("document_ids", np.ascontiguousarray(batch.sha256).view("V32"))
        self._append("continues", continues)
        self._write_tokens(stream)
        self._documents += len(batch.lengths)
        self._bytes += int(batch.nbytes.sum())

    def finish(self, tokenizer_sha256: str) -> _Manifest:
        if self._documents:
            self._write_tokens(np.array([self._eos], dtype=self._dtype))
        self._append("starts", np.array([self._tokens]))
        return _Manifest(
            tokenizer_sha256=tokenizer_sha256,
            eos_token_id=self._eos,
            dtype=self._dtype.name,
            shard_tokens=self._shard_tokens,
            num_tokens=self._tokens,
            num_documents=self._documents,
            num_bytes=self._bytes,
        )

    def _append(self, column: str, values: np.ndarray) -> None:
        self._columns[column].write(values.astype(_COLUMNS[column], copy=False).tobytes())

    def _write_tokens(self, tokens: np.ndarray) -> None:
        while len(tokens):
            room = self._shard_tokens - self._tokens % self._shard_tokens
            if room == self._shard_tokens:
                if self._shard is not None:
                    self._shard.close()
                self._shard = self._open(_shard_name(self._tokens // self._shard_tokens))
            assert self._shard is not None  # noqa: S101  - opened at the first token
            part, tokens = tokens[:room], tokens[room:]
            self._shard.write(part.tobytes())
            self._tokens += len(part)

    def _open(self, name: str) -> BinaryIO:
        return self._files.enter_context((self._folder / name).open("wb"))


def _joined(tokens: np.ndarray, lengths: np.ndarray, closed: np.ndarray, eos: int) -> tuple[np.ndarray, np.ndarray]:
    """Put `eos` before each document where `closed`; return the stream and where each document starts in it."""
    ends = np.cumsum(lengths, dtype=np.int64)
    stream = np.insert(tokens, (ends - lengths)[closed], eos)
    return stream, ends - lengths + np.cumsum(closed)


class TokenShards:
    """One split of tokenised text, read through memory maps."""

    def __init__(self, folder: Path, manifest: _Manifest, sha256: str) -> None:
        """Use `TokenShards.open`."""
        self.folder = folder
        self.sha256 = sha256
        """Of the names, sizes and hashes of all files: equal for equal text, tokenizer and format."""
        self.tokenizer_sha256 = manifest.tokenizer_sha256
        self.eos_token_id = manifest.eos_token_id
        self.num_tokens = manifest.num_tokens
        """Length of the stream, end-of-text tokens included."""
        self.num_documents = manifest.num_documents
        self.num_bytes = manifest.num_bytes
        """Bytes of source text, end-of-text tokens excluded: they stand for no text."""
        self.dtype = np.dtype(manifest.dtype).newbyteorder("<")
        self._shard_tokens = manifest.shard_tokens
        shards = -(-manifest.num_tokens // manifest.shard_tokens)
        self._shards = [_map(folder / _shard_name(number), self.dtype) for number in range(shards)]
        self.document_starts, self.document_bytes, self._document_ids, continues = (
            _map(folder / f"{name}.bin", np.dtype(kind)) for name, kind in _COLUMNS.items()
        )
        self.continues = continues.view(np.bool_)
        """(documents,) whether each document continues the one before it."""

    @classmethod
    def open(cls, folder: Path, *, verify: bool = False) -> TokenShards:
        """Open a folder that `write_shards` wrote. Sizes are always checked, hashes when `verify`.

        Raises RunFolderError naming the file that is missing, truncated or changed; NewerFormatError for a newer
        format.
        """
        header = runfolder.verify(folder) if verify else runfolder.read_header(folder)
        if header.get("kind") != "token-shards":
            raise RunFolderError("this folder holds no token shards", where=str(folder))
        files: dict[str, dict[str, Any]] = header["files"]
        for name, expected in files.items():
            _check_size(folder / name, expected["bytes"])
        try:
            manifest = _Manifest(**json.loads((folder / _MANIFEST).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise RunFolderError(
                f"{_MANIFEST} cannot be read ({error})", where=str(folder / _MANIFEST), hint=_DAMAGED
            ) from error
        _check_counts(folder, manifest, files)
        listing = json.dumps(files, sort_keys=True)
        return cls(folder, manifest, hashlib.sha256(listing.encode()).hexdigest())

    @property
    def bytes_per_token(self) -> float:
        """Bytes of source text for each token of the stream."""
        return self.num_bytes / self.num_tokens if self.num_tokens else 0.0

    @property
    def document_ids(self) -> list[str]:
        """SHA-256 of each document's text, in hexadecimal."""
        joined = self._document_ids.tobytes().hex()
        return [joined[place : place + 64] for place in range(0, len(joined), 64)]

    def read(self, start: int, length: int) -> np.ndarray:
        """Tokens [start, start + length) of the stream, across shard borders; a view where one shard holds them all.

        The range must lie inside [0, num_tokens].
        """
        shard, offset = divmod(start, self._shard_tokens)
        if offset + length <= self._shard_tokens and length:
            return self._shards[shard][offset : offset + length]
        parts = []
        while length:
            shard, offset = divmod(start, self._shard_tokens)
            part = self._shards[shard][offset : offset + length]
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return np.concatenate(parts) if parts else np.empty(0, self.dtype)

    def document_tokens(self, index: int) -> np.ndarray:
        """Tokens of one document, without the end-of-text token that closes it."""
        start, stop = int(self.document_starts[index]), int(self.document_starts[index + 1])
        last = index + 1 == self.num_documents
        return self.read(start, stop - start - (last or not self.continues[index + 1]))

    def streams(self) -> list[tuple[int, int]]:
        """Maximal runs of documents that continue one another, as (first document, one past the last)."""
        borders = [*np.flatnonzero(~self.continues).tolist(), self.num_documents]
        return list(pairwise(borders))


def _shard_name(number: int) -> str:
    return f"tokens-{number:05d}.bin"


def _map(path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    if not path.stat().st_size:  # an empty file cannot be mapped
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))


def _check_size(path: Path, expected: int) -> None:
    if not path.is_file():
        raise RunFolderError("a file of the tokenised text is missing", where=str(path), hint=_DAMAGED)
    if path.stat().st_size != expected:
        raise RunFolderError(
            f"a file has {path.stat().st_size:,} bytes where {expected:,} were written", where=str(path), hint=_DAMAGED
        )


def _check_counts(folder: Path, manifest: _Manifest, files: dict[str, dict[str, Any]]) -> None:
    """Check that the manifest and the file sizes tell of the same number of tokens and documents."""
    documents, itemsize = manifest.num_documents, np.dtype(manifest.dtype).itemsize
    expected = {f"{name}.bin": documents * np.dtype(kind).itemsize for name, kind in _COLUMNS.items()}
    expected["starts.bin"] += 8
    for number, first in enumerate(range(0, manifest.num_tokens, manifest.shard_tokens)):
        tokens = min(manifest.shard_tokens, manifest.num_tokens - first)
        expected[_shard_name(number)] = tokens * itemsize
    for name, size in expected.items():
        if files.get(name, {}).get("bytes") != size:
            raise RunFolderError(f"{_MANIFEST} and rung.json disagree about {name}", where=str(folder), hint=_DAMAGED)
