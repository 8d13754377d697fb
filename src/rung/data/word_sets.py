"""Published test sets of word vectors: pairs of terms with human scores of similarity, and analogies.

Similarity: rows of two terms and a number, with or without a first line of names, in columns separated by tabs, commas
or spaces. Analogies: a table with columns word1, word2, word3 and target, or lines of four words under `: section`.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from rung.errors import DataError
from rung.runfolder import file_sha256

_FIRST, _SECOND = ("word1", "word 1", "term1"), ("word2", "word 2", "term2")
_SCORE = ("similarity", "score", "mean", "human (mean)", "simlex999", "relatedness")
_PART_OF_SPEECH = re.compile(r"-[nvjar]")


@dataclass(frozen=True)
class SimilaritySet:
    """Pairs of terms (one word or several) and how similar people find them; larger is more similar."""

    name: str
    pairs: list[tuple[str, str]]
    scores: list[float]
    sha256: str


@dataclass(frozen=True)
class AnalogySet:
    """Questions "a is to b as c is to d" and the section of each."""

    name: str
    questions: list[tuple[str, str, str, str]]
    sections: list[str]
    sha256: str


def read_word_set(path: Path) -> SimilaritySet | AnalogySet | None:
    """Read a test set; None for a table of another kind. DataError, with the line, when rows are broken."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the test set cannot be read: {error}", where=str(path)) from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip() and line[0] != "#"]
    if not lines:
        return None
    if lines[0][1].startswith(":"):
        return _sectioned_analogies(path, lines)
    rows = _cells(lines)
    names = [cell.lower() for cell in rows[0][1]]
    if {"word1", "word2", "word3", "target"} <= set(names):
        return _analogy_table(path, names, rows[1:])
    return _similarity(path, names, rows)


def _cells(lines: list[tuple[int, str]]) -> list[tuple[int, list[str]]]:
    first = lines[0][1]
    if "\t" in first or "," in first:
        read = csv.reader(io.StringIO("\n".join(line for _, line in lines)), delimiter="\t" if "\t" in first else ",")
        rows = list(read)
    else:
        rows = [line.split() for _, line in lines]
    return [(number, [cell.strip() for cell in row]) for (number, _), row in zip(lines, rows, strict=True)]


def _similarity(path: Path, names: list[str], rows: list[tuple[int, list[str]]]) -> SimilaritySet | None:
    places = [_place(names, known) for known in (_FIRST, _SECOND, _SCORE)]
    if None not in places:
        rows = rows[1:]
    elif len(names) == 3 and _number(names[2]) is not None:
        places = [0, 1, 2]
    else:
        return None
    pairs, scores = [], []
    for number, cells in rows:
        score = _number(cells[place]) if (place := places[2] or 0) < len(cells) else None
        if score is None or len(cells) != len(names):
            raise DataError("a row without two terms and a number", where=f"{path}, line {number}")
        pairs.append((cells[places[0] or 0], cells[places[1] or 0]))
        scores.append(score)
    if not pairs:
        return None
    if all(_PART_OF_SPEECH.fullmatch(term[-2:]) for pair in pairs for term in pair):
        pairs = [(first[:-2], second[:-2]) for first, second in pairs]  # as MEN writes its words: sun-n
    return SimilaritySet(path.stem, pairs, scores, file_sha256(path))


def _analogy_table(path: Path, names: list[str], rows: list[tuple[int, list[str]]]) -> AnalogySet:
    places = [names.index(name) for name in ("word1", "word2", "word3", "target")]
    section = names.index("type") if "type" in names else None
    questions, sections = [], []
    for number, cells in rows:
        if len(cells) != len(names) or not all(cells[place] for place in places):
            raise DataError("a row without four words", where=f"{path}, line {number}")
        a, b, c, d = (cells[place] for place in places)
        questions.append((a, b, c, d))
        sections.append("all" if section is None else cells[section])
    return AnalogySet(path.stem, questions, sections, file_sha256(path))


def _sectioned_analogies(path: Path, lines: list[tuple[int, str]]) -> AnalogySet:
    questions, sections, section = [], [], ""
    for number, line in lines:
        if line.startswith(":"):
            section = line[1:].strip()
            continue
        words = line.split()
        if len(words) != 4:
            raise DataError(f"a line of {len(words)} words where four were expected", where=f"{path}, line {number}")
        questions.append((words[0], words[1], words[2], words[3]))
        sections.append(section)
    return AnalogySet(path.stem, questions, sections, file_sha256(path))


def _place(names: list[str], known: tuple[str, ...]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
