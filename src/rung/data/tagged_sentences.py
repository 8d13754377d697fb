"""Sentences with a tag for each word: CoNLL's lines, or JSON Lines with lists of words and tags."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rung.data.labelled import item_ids
from rung.data.pairs import read_lines
from rung.data.read import COMPRESSIONS, KINDS
from rung.data.similar_items import ComparableTexts, keyed_chances
from rung.data.tables import find_tables, open_table, require_column
from rung.errors import DataError
from rung.progress import SILENT, Progress

_DOCUMENT_MARK = "-DOCSTART-"  # CoNLL-2003 puts it on a line of its own between documents
_FORMAT = "each line holds a word, a tab and its tag; an empty line ends a sentence"


@dataclass(frozen=True)
class TaggedSentences:
    """Sentences in the order of their ids, which come from content; `words[i]` and `tags[i]` are equally long."""

    ids: list[str]
    words: list[list[str]]
    tags: list[list[str]]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def sha256(self) -> str:
        """Hash over the ids: the identity of these sentences."""
        return hashlib.sha256("\n".join(sorted(self.ids)).encode()).hexdigest()

    @cached_property
    def tag_names(self) -> tuple[str, ...]:
        """All tags that occur: `O` first, then by alphabet."""
        return tuple(sorted({*itertools.chain.from_iterable(self.tags)}, key=lambda tag: (tag != "O", tag)))

    @cached_property
    def num_words(self) -> int:
        """Words of all sentences."""
        return sum(map(len, self.words))

    def take(self, indices: NDArray[np.int64]) -> TaggedSentences:
        """These sentences, in the order of `indices`."""
        chosen = indices.tolist()
        return TaggedSentences(
            [self.ids[i] for i in chosen], [self.words[i] for i in chosen], [self.tags[i] for i in chosen]
        )


@dataclass(frozen=True)
class TaggedSplit:
    """Sentences to train, to choose and to judge by, and what was left out of them."""

    train: TaggedSentences
    valid: TaggedSentences
    test: TaggedSentences
    remarks: tuple[str, ...]


def read_tagged(
    paths: Sequence[Path | str],
    *,
    words: str | None = None,
    tags: str | None = None,
    progress: Progress = SILENT,
) -> TaggedSentences:
    """Read sentences from CoNLL files (any name; plain or compressed) or tables whose cells are lists of strings.

    In CoNLL files the first column is the word and the last its tag; columns are parted by tabs, or by white space in
    files without a tab. `words` and `tags` name the columns of tables; without them "words" or "tokens" and "tags" or
    "ner_tags".

    Raises DataError: a file is missing or of another form (with its line or row), words and tags differ in number,
    nothing is there.
    """
    found: list[tuple[list[str], list[str]]] = []
    for path in map(Path, paths):
        is_table = _kind(path) in ("jsonl", "parquet")
        found += _read_table(path, words, tags, progress) if is_table else _read_conll(path, progress)
    if not found:
        raise DataError("there is no sentence", where=", ".join(map(str, paths)), hint=_FORMAT)
    texts, labels = (["\n".join(part) for part in column] for column in zip(*found, strict=True))
    ids = item_ids(texts, labels)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return TaggedSentences([ids[i] for i in order], [found[i][0] for i in order], [found[i][1] for i in order])


def split_tagged(
    sentences: TaggedSentences,
    *,
    valid: TaggedSentences | None = None,
    test: TaggedSentences | None = None,
    seed: int,
    share: float = 0.1,
) -> TaggedSplit:
    """Cut off what `valid` and `test` do not bring: `share` of the sentences each, by a keyed hash.

    Equal sentences (the same words, whatever case and punctuation) are never in two parts: what is held out stays,
    the copy in training goes, and of validation what is in test. A test set of the user's own is never changed.

    Raises DataError when a part would be empty.
    """
    remarks: list[str] = []
    train = sentences
    test, train = (test, train) if test is not None else _cut_off(train, share, seed)
    valid, train = (valid, train) if valid is not None else _cut_off(train, share, seed)
    valid = _without(valid, [test], "validation sentences left out: they are in test", remarks)
    train = _without(train, [valid, test], "training sentences left out: they are held out", remarks)
    if not (len(train) and len(valid) and len(test)):
        raise DataError(
            f"{len(sentences):,} sentences are too few to train on, to validate and to test",
            hint="give more sentences, or others to hold out: --valid FILE --test FILE",
        )
    return TaggedSplit(train, valid, test, tuple(remarks))


# Splitting ------------------------------------------------------------------------------------------------------------


def _sequences(sentences: TaggedSentences) -> NDArray[Any]:
    return ComparableTexts.of([" ".join(words) for words in sentences.words]).sequence


def _cut_off(sentences: TaggedSentences, share: float, seed: int) -> tuple[TaggedSentences, TaggedSentences]:
    """About `share` of the sentences, and the others: equal sentences together."""
    chances = keyed_chances([str(number) for number in _sequences(sentences).tolist()], seed)
    wanted = max(1, round(share * len(sentences)))
    chosen = chances <= np.sort(chances)[:wanted].max(initial=0)
    return sentences.take(np.flatnonzero(chosen)), sentences.take(np.flatnonzero(~chosen))


def _without(
    sentences: TaggedSentences, held_out: Sequence[TaggedSentences], told: str, remarks: list[str]
) -> TaggedSentences:
    known = np.concatenate([_sequences(part) for part in held_out])
    leaked = np.isin(_sequences(sentences), known)
    if leaked.any():
        remarks.append(f"{int(leaked.sum()):,} {told}")
    return sentences.take(np.flatnonzero(~leaked))


# Reading --------------------------------------------------------------------------------------------------------------


def _kind(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in COMPRESSIONS]
    return KINDS.get(suffixes[-1]) if suffixes else None


def _read_conll(path: Path, progress: Progress) -> Iterator[tuple[list[str], list[str]]]:
    lines = read_lines(path, progress)
    separator = "\t" if any(line and "\t" in line for line in lines) else None
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        if line is None:
            raise DataError("this line is not valid UTF-8", where=where)
        if line.strip() and not line.startswith(_DOCUMENT_MARK):
            columns = [column.strip() for column in line.split(separator)]
            if len(columns) < 2 or not columns[0] or not columns[-1]:
                raise DataError(f"a word and its tag are expected, not {line[:60]!r}", where=where, hint=_FORMAT)
            words.append(columns[0])
            tags.append(columns[-1])
        elif words:
            yield words, tags
            words, tags = [], []
    if words:
        yield words, tags


def _read_table(
    path: Path, words: str | None, tags: str | None, progress: Progress
) -> Iterator[tuple[list[str], list[str]]]:
    [file] = find_tables([path])
    with (
        progress.task(f"reading {file.name}", file.num_bytes, "B") as advance,
        open_table(file, advance=advance) as table,
    ):
        names = (
            _column(table.columns, words, ("words", "tokens"), file.name, "words"),
            _column(table.columns, tags, ("tags", "ner_tags"), file.name, "tags"),
        )
        places = [table.columns.index(name) for name in names]
        for row in table.rows:
            where = f"{file.name}, row {row.number:,}"
            if row.problem:
                raise DataError(row.problem, where=where)
            cells = [row.values[place] for place in places]
            for name, cell in zip(names, cells, strict=True):
                if not (isinstance(cell, list) and cell and all(isinstance(one, str) and one for one in cell)):
                    raise DataError(f"'{name}' is not a list of strings", where=where, hint="give a list in each cell")
            if len(cells[0]) != len(cells[1]):
                raise DataError(f"{len(cells[0])} words have {len(cells[1])} tags", where=where)
            yield cells[0], cells[1]


def _column(columns: Sequence[str], named: str | None, usual: Sequence[str], where: str, purpose: str) -> str:
    if named is None:
        named = next((name for name in usual if name in columns), usual[0])
    require_column(named, list(columns), where, purpose)
    return named
