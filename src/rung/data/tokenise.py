"""A corpus and a tokenizer in, token shards out; only what changed is encoded again.

Every segment of the corpus is encoded once for each tokenizer and kept (`cache_dir/tokens`). The shards of a split copy
the documents of its selection from there (`cache_dir/shards`), so another seed or a few more files cost copying only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rung import runfolder
from rung.data.cache import note_use
from rung.data.corpus import Corpus, Selection, Split
from rung.data.segments import Segment
from rung.data.shards import EncodedDocuments, TokenShards, token_dtype, write_shards
from rung.data.words import Ragged
from rung.errors import RunFolderError
from rung.progress import SILENT, Progress

VERSION = 1
"""Changes with anything that changes cached tokens or shards for equal input."""

SPLITS: tuple[Split, ...] = ("train", "valid")

_BATCH_BYTES = 1 << 22
_COPIED_DOCUMENTS = 4096
"""Documents gathered before they are written; 16 MB of text at the usual 4 KiB each."""


class CorpusTokenizer(Protocol):
    """What is asked of a tokenizer here; `eos_token_id` closes each document."""

    @property
    def sha256(self) -> str:
        """Equal for tokenizers that give equal ids."""
        ...

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        ...

    @property
    def eos_token_id(self) -> int:
        """The token that closes a document."""
        ...

    def encode_ragged(self, texts: Sequence[str]) -> Ragged:
        """Ids of all texts, one after the other, and how many each has."""
        ...


@dataclass(frozen=True)
class _EncodedSegment:
    tokens: npt.NDArray[Any]
    """(tokens,) all documents of the segment one after the other, memory-mapped"""
    starts: npt.NDArray[np.int64]
    """(documents + 1,)"""


def tokenise_corpus(
    corpus: Corpus, tokenizer: CorpusTokenizer, *, cache_dir: Path, progress: Progress = SILENT
) -> dict[Split, TokenShards]:
    """Return the token shards of both splits, made under `cache_dir` or found there.

    A damaged folder in the cache is reported and made again. Raises RunFolderError when the disk is full or not
    writable. Memory stays at some tens of megabytes, whatever the size of the corpus.
    """
    folders = {split: cache_dir / "shards" / _shards_key(corpus, tokenizer, split) for split in SPLITS}
    ready = {split: shards for split, folder in folders.items() if (shards := _reuse(folder, progress)) is not None}
    if len(ready) == len(SPLITS):
        return ready
    encoded = _encode_segments(corpus, tokenizer, cache_dir / "tokens", progress)
    for split in SPLITS:
        if split not in ready:
            batches = _selected_documents(corpus, corpus.selection(split), encoded)
            ready[split] = write_shards(
                folders[split],
                batches,
                tokenizer_sha256=tokenizer.sha256,
                eos_token_id=tokenizer.eos_token_id,
                vocab_size=tokenizer.vocab_size,
            )
    return {split: ready[split] for split in SPLITS}


def _shards_key(corpus: Corpus, tokenizer: CorpusTokenizer, split: Split) -> str:
    selection = corpus.selection(split)
    digest = hashlib.sha256(f"rung shards {VERSION} {tokenizer.sha256} {tokenizer.eos_token_id}".encode())
    digest.update(" ".join(segment.key for segment in corpus.segments).encode())
    for column in (selection.segment_index, selection.document_index, selection.continues):
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()[:32]


def _reuse(folder: Path, progress: Progress) -> TokenShards | None:
    if not folder.exists():
        return None
    try:
        shards = TokenShards.open(folder, verify=True)
    except RunFolderError as error:
        progress.say(f"cached tokens are made again: {error.problem} ({error.where})")
        return None
    note_use(folder)
    return shards


def _encode_segments(
    corpus: Corpus, tokenizer: CorpusTokenizer, cache: Path, progress: Progress
) -> list[_EncodedSegment]:
    total = sum(segment.num_bytes for segment in corpus.segments)
    with progress.task("tokenising", total, "B") as advance:
        encoded = []
        for segment in corpus.segments:
            folder = cache / tokenizer.sha256[:32] / segment.key[:32]
            if _is_whole(folder, progress):
                advance(segment.num_bytes)
            else:
                _encode_segment(segment, tokenizer, folder, advance)
            encoded.append(_open_segment(folder, token_dtype(tokenizer.vocab_size)))
    return encoded


def _is_whole(folder: Path, progress: Progress) -> bool:
    if not folder.exists():
        return False
    try:
        runfolder.verify(folder)
    except RunFolderError as error:
        progress.say(f"cached tokens are made again: {error.problem} ({error.where})")
        return False
    note_use(folder)
    return True


def _encode_segment(
    segment: Segment, tokenizer: CorpusTokenizer, folder: Path, advance: Callable[[float], None]
) -> None:
    dtype = token_dtype(tokenizer.vocab_size)

    def fill(temporary: Path) -> None:
        lengths = []
        with (temporary / "tokens.bin").open("wb") as file:
            for texts, nbytes in _batches(segment):
                tokens, counts = tokenizer.encode_ragged(texts)
                file.write(tokens.astype(dtype).tobytes())
                lengths.append(counts)
                advance(nbytes)
        starts = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
        np.save(temporary / "starts.npy", starts, allow_pickle=False)

    runfolder.write_folder(folder, fill, {"kind": "tokens of a text segment", "tokenizer_sha256": tokenizer.sha256})


def _batches(segment: Segment) -> Iterator[tuple[list[str], int]]:
    """The documents of a segment in order, some megabytes at a time, and how many bytes they are."""
    texts: list[str] = []
    size = 0
    for index, nbytes in enumerate(segment.document_nbytes.tolist()):
        texts.append(str(segment.text_bytes(index), "utf-8"))
        size += nbytes
        if size >= _BATCH_BYTES:
            yield texts, size
            texts, size = [], 0
    if texts:
        yield texts, size


def _open_segment(folder: Path, dtype: np.dtype[Any]) -> _EncodedSegment:
    starts = np.load(folder / "starts.npy", mmap_mode="r", allow_pickle=False)
    path = folder / "tokens.bin"
    tokens = np.asarray(np.memmap(path, dtype=dtype, mode="r")) if path.stat().st_size else np.empty(0, dtype)
    return _EncodedSegment(tokens, starts)


def _selected_documents(
    corpus: Corpus, selection: Selection, encoded: list[_EncodedSegment]
) -> Iterator[EncodedDocuments]:
    """The selected documents in order, a few thousand of one segment at a time."""
    segment_index = selection.segment_index
    borders = np.flatnonzero(np.diff(segment_index)) + 1
    steps = np.arange(0, len(segment_index), _COPIED_DOCUMENTS)
    edges = np.unique(np.concatenate([borders, steps, [len(segment_index)]]))
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        segment = corpus.segments[segment_index[first]]
        documents = selection.document_index[first:last]
        source = encoded[segment_index[first]]
        starts, ends = source.starts[documents], source.starts[documents + 1]
        parts = [source.tokens[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        yield EncodedDocuments(
            tokens=np.concatenate(parts),
            lengths=ends - starts,
            nbytes=segment.document_nbytes[documents],
            sha256=segment.documents["sha256"][documents],
            continues=selection.continues[first:last],
        )
