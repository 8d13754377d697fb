"""A corpus as a memory-mapped stream of word numbers: what word vectors are trained on.

A word is a maximal run of characters other than white space and punctuation, as in `rung.data.ngrams`; the marks
themselves are left out. A *line* is what a window of neighbouring words never leaves: a paragraph (text between blank
lines) or a document. Single line feeds do not end it, because much text is wrapped at a fixed width.

Words are numbered by falling frequency. Those below `min_count` or beyond `max_words` are taken out of the stream, so
that a window reaches over them, as in word2vec.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rung.data.cache import note_use
from rung.data.corpus import Corpus, Split
from rung.data.ngrams import MARKS
from rung.errors import DataError, RunFolderError, UsageError
from rung.progress import SILENT, Progress
from rung.runfolder import verify, write_folder, write_json

LINE_END = -1
"""Stands in the stream after each line."""

VERSION = 1
"""Changes with anything that changes a cached stream for equal text."""

_WORDS_AND_BREAKS = re.compile(rf"[^\s{MARKS}]+|\n[^\S\n]*\n\s*")
_BREAK_NUMBER = 0
_BATCH_BYTES = 1 << 22
_MANIFEST, _STREAM, _COUNTS, _VOCABULARY = "words.json", "stream.bin", "counts.bin", "vocabulary.json"
_STREAM_DTYPE, _COUNT_DTYPE = "<i4", "<i8"

Stream = NDArray[np.int32]


@dataclass(frozen=True)
class VocabularyRules:
    """Which words get a number: in lower case or as written; at least `min_count` times; the `max_words` commonest."""

    lowercase: bool = True
    min_count: int = 5
    max_words: int | None = None

    def __post_init__(self) -> None:
        if self.min_count < 1:
            raise UsageError(f"min_count is {self.min_count}, it must be at least 1")
        if self.max_words is not None and self.max_words < 2:
            raise UsageError(f"max_words is {self.max_words}; vectors need at least 2 words")


@dataclass(frozen=True)
class WordCorpus:
    """Words by falling frequency, and the text as their numbers.

    `counts` (words,) int64 of the text; `stream` (length,) int32: numbers of words, `LINE_END` after each line.
    `raw_words`: words of the text before any cut. `sha256` names all of it.
    """

    words: list[str]
    counts: NDArray[np.int64]
    stream: Stream
    raw_words: int
    lines: int
    sha256: str

    @property
    def kept_words(self) -> int:
        """Words of the stream, line ends left out."""
        return int(self.counts.sum())


def word_corpus(
    corpus: Corpus,
    rules: VocabularyRules = VocabularyRules(),
    *,
    cache_dir: Path,
    split: Split = "train",
    progress: Progress = SILENT,
) -> WordCorpus:
    """Number the words of one split of `corpus`; what `cache_dir` holds already is used again.

    Raises DataError when fewer than two words are common enough or no line holds two words, RunFolderError when the
    disk is full or not writable.
    """
    key = json.dumps([VERSION, corpus.sha256, split, asdict(rules)])
    folder = cache_dir / "shards" / f"words-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    cached = _reuse(folder, progress)
    if cached is not None:
        return cached
    made = _number_words(corpus, split, rules, progress)
    _require_enough(made, rules)
    write_folder(folder, made.write, {"kind": "word-corpus"})
    return _open(folder)


@dataclass(frozen=True)
class _Numbered:
    words: list[str]
    counts: NDArray[np.int64]
    stream: Stream
    raw_words: int
    distinct: int

    def write(self, folder: Path) -> None:
        self.stream.astype(_STREAM_DTYPE, copy=False).tofile(folder / _STREAM)
        self.counts.astype(_COUNT_DTYPE, copy=False).tofile(folder / _COUNTS)
        (folder / _VOCABULARY).write_text(json.dumps(self.words), encoding="utf-8")
        lines = int((self.stream == LINE_END).sum())
        write_json(folder / _MANIFEST, {"raw_words": self.raw_words, "lines": lines})


class _Numbers(dict[str, int]):
    """Numbers words as they come; `map` over its `__getitem__` runs without a line of Python for known words."""

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        return number


def _number_words(corpus: Corpus, split: Split, rules: VocabularyRules, progress: Progress) -> _Numbered:
    """Number by first appearance, then renumber by frequency."""
    numbers = _Numbers()
    numbers["\n\n"] = _BREAK_NUMBER  # no word holds white space
    parts = []
    with progress.task("numbering words", corpus.num_bytes(split), "B") as advance:
        for text, num_bytes in _batches(corpus, split):
            found = _words_and_breaks(text.lower() if rules.lowercase else text)
            parts.append(np.fromiter(map(numbers.__getitem__, found), np.int32, len(found)))
            advance(num_bytes)
    stream = np.concatenate([np.empty(0, np.int32), *parts])
    counts = np.bincount(stream, minlength=len(numbers))
    counts[_BREAK_NUMBER] = 0
    names = list(numbers)
    order = _by_frequency(counts, names)
    kept = order[: rules.max_words] if rules.max_words is not None else order
    kept = kept[counts[kept] >= rules.min_count]
    new = np.full(len(names), len(names), np.int32)  # beyond all numbers: to be taken out
    new[kept] = np.arange(len(kept), dtype=np.int32)
    new[_BREAK_NUMBER] = LINE_END
    renumbered = new[stream]
    renumbered = renumbered[renumbered < len(kept)]
    return _Numbered(
        words=[names[number] for number in kept.tolist()],
        counts=counts[kept].astype(np.int64),
        stream=_without_empty_lines(renumbered),
        raw_words=int(counts.sum()),
        distinct=len(names) - 1,
    )


def _by_frequency(counts: NDArray[np.int64], names: list[str]) -> NDArray[np.int64]:
    """Numbers by falling count, equals in order of their code points: nothing depends on the order of documents."""
    by_name = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
    order: NDArray[np.int64] = by_name[np.argsort(-counts[by_name], kind="stable")]
    return order


def _batches(corpus: Corpus, split: Split) -> Iterator[tuple[str, int]]:
    """The documents joined to texts of some megabytes, a blank line after each, and the bytes of each batch."""
    batch: list[str] = []
    size = 0
    for document in corpus.texts(split):
        batch.append(document)
        size += len(document)
        if size >= _BATCH_BYTES:
            yield "\n\n".join([*batch, ""]), size
            batch, size = [], 0
    if batch:
        yield "\n\n".join([*batch, ""]), size


def _words_and_breaks(text: str) -> list[str]:
    """The words of `text`, and "\\n\\n" wherever a paragraph ends."""
    paragraphs = _WORDS_AND_BREAKS.findall(text)
    return ["\n\n" if word[0] == "\n" else word for word in paragraphs] if "\n" in text else paragraphs


def _without_empty_lines(stream: Stream) -> Stream:
    """Each line end that follows a word; one at the very end."""
    ends = stream == LINE_END
    follows_word = np.empty(len(stream), bool)
    follows_word[:1] = False
    follows_word[1:] = ~ends[:-1]
    lean: Stream = stream[~ends | follows_word]
    return lean if not len(lean) or lean[-1] == LINE_END else np.append(lean, np.int32(LINE_END))


def _require_enough(made: _Numbered, rules: VocabularyRules) -> None:
    if len(made.words) < 2:
        seen = f"{made.raw_words:,} words in all, {made.distinct:,} different ones"
        raise DataError(
            f"only {len(made.words)} word occurs at least {rules.min_count} times ({seen}): vectors of words need "
            "words to tell apart",
            hint="give more text, or a lower --set vocabulary.min_count",
        )
    words = made.stream != LINE_END
    if not (words[1:] & words[:-1]).any():
        raise DataError(
            "no line of the text holds two words of the vocabulary, so no word has neighbours to learn from",
            hint="give running text, or a lower --set vocabulary.min_count",
        )


def _reuse(folder: Path, progress: Progress) -> WordCorpus | None:
    if not folder.exists():
        return None
    try:
        verify(folder)
        found = _open(folder)
    except RunFolderError as error:
        progress.say(f"cached words are numbered again: {error.problem} ({error.where})")
        return None
    note_use(folder)
    return found


def _open(folder: Path) -> WordCorpus:
    manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    listed = json.loads((folder / "rung.json").read_text(encoding="utf-8"))["files"]
    return WordCorpus(
        words=json.loads((folder / _VOCABULARY).read_text(encoding="utf-8")),
        counts=np.fromfile(folder / _COUNTS, dtype=_COUNT_DTYPE).astype(np.int64),
        stream=np.asarray(np.memmap(folder / _STREAM, dtype=_STREAM_DTYPE, mode="r")),
        raw_words=manifest["raw_words"],
        lines=manifest["lines"],
        sha256=hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest(),
    )
