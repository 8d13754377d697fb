"""The Word Embedding Association Test (WEAT): which of two groups of words stands nearer to which of two notions.

Caliskan, Bryson and Narayanan 2017, "Semantics derived automatically from language corpora contain human-like biases".
With targets X, Y (flowers, insects) and attributes A, B (pleasant, unpleasant), a word w leans by
s(w) = mean cos(w, a) - mean cos(w, b). The effect size d is the difference of the means of s over X and Y in standard
deviations of s over both (one degree of freedom less). The p-value is one-sided: the share of ways to divide the target
words into two groups of these sizes that give at least the difference found.

What it measures is these vectors on these words. It neither proves harm nor, where d is small, its absence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rung.errors import DataError, UsageError, did_you_mean
from rung.evaluation.proportions import wilson
from rung.nets.word_vectors import WordVectors
from rung.records import Record
from rung.runfolder import file_sha256

Floats = NDArray[np.float64]

DRAWS = 100_000
_EXACT_UP_TO = 200_000
"""Divisions: of two times ten words there are 184,756."""
_DRAWN_AT_ONCE = 10_000
_ROUNDING = 1e-9
_ROLES = ("targ1", "targ2", "attr1", "attr2")
_FEWEST_TARGETS = 2


@dataclass(frozen=True)
class WordList:
    """The words of one side, and what they stand for."""

    category: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class AssociationTest:
    """Two lists of targets and two of attributes."""

    name: str
    targets: tuple[WordList, WordList]
    attributes: tuple[WordList, WordList]
    sha256: str

    @property
    def lists(self) -> tuple[WordList, ...]:
        """All four."""
        return (*self.targets, *self.attributes)


@dataclass(frozen=True)
class Association:
    """Effect size d and p-value of a test, and the words of each category that have no vector."""

    test: AssociationTest
    effect_size: Record
    p_value: Record
    missing: dict[str, list[str]]


def read_tests(path: Path) -> list[AssociationTest]:
    """Read `{"name": {"targ1": {"category": ..., "examples": [...]}, "targ2": ..., "attr1": ..., "attr2": ...}}`.

    This is the form in which bias-bench publishes the lists of Caliskan et al. and May et al. Raises DataError.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"the word lists cannot be read: {error}", where=str(path)) from error
    if not isinstance(stored, dict) or not stored:
        raise DataError("there are no word lists in this file", where=str(path), hint=f"expected: {_FORM}")
    sha256 = file_sha256(path)
    tests = []
    for name, content in stored.items():
        first, second, third, fourth = (_word_list(content, role, f"{path}, {name}") for role in _ROLES)
        tests.append(AssociationTest(name, (first, second), (third, fourth), sha256))
    return tests


def choose(tests: Sequence[AssociationTest], names: Sequence[str]) -> list[AssociationTest]:
    """The tests called `names`, or all of them. UsageError for an unknown name."""
    known = {test.name: test for test in tests}
    for name in names:
        if name not in known:
            raise UsageError(
                f"there is no test '{name}'{did_you_mean(name, known)}", hint=f"there are: {', '.join(known)}"
            )
    return [known[name] for name in names] if names else list(tests)


_FORM = '{"name": {"targ1": {"category": "Flowers", "examples": ["rose"]}, "targ2": ..., "attr1": ..., "attr2": ...}}'


def _word_list(content: object, role: str, where: str) -> WordList:
    found = content.get(role) if isinstance(content, dict) else None
    words = found.get("examples") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(words, list) or not words:
        raise DataError(f"the word list '{role}' is missing", where=where, hint=f"expected: {_FORM}")
    if not all(isinstance(word, str) for word in words):
        raise DataError(f"the word list '{role}' holds something else than words", where=where)
    return WordList(str(found.get("category", role)), tuple(words))


def association(vectors: WordVectors, test: AssociationTest, *, seed: int = 0) -> Association:
    """Measure one test. Words are looked up as written, else in lower case, else capitalised; unknown ones left out.

    With at most 200,000 divisions of the target words the p-value is exact, else it is estimated from 100,000 drawn by
    `seed`, the division found counted in, with Wilson's interval. Not measured where a list has too few known words.
    """
    spelled = {word: vectors.spelled(word) for words in test.lists for word in words.words}
    missing = {one.category: [word for word in one.words if spelled[word] is None] for one in test.lists}
    rows = [[vectors.index[found] for word in one.words if (found := spelled[word]) is not None] for one in test.lists]
    known = "; ".join(f"{one.category} {len(r)} of {len(one.words)}" for one, r in zip(test.lists, rows, strict=True))
    signature = f"WEAT, Caliskan et al. 2017; words as written, else in lower case, else capitalised; known: {known}"
    least = [_FEWEST_TARGETS, _FEWEST_TARGETS, 1, 1]
    few = [one.category for one, r, needed in zip(test.lists, rows, least, strict=True) if len(r) < needed]
    leanings = _leanings(vectors, rows) if not few else None
    spread = float(np.std(np.concatenate(leanings), ddof=1)) if leanings is not None else 0.0
    if leanings is None or spread == 0:
        reason = f"too few words of {', '.join(few)} have a vector" if few else "all target words lean alike"
        nothing = Record(name=f"WEAT {test.name}", value=None, unit="d", n=0, signature=signature, not_measured=reason)
        return Association(test, nothing, nothing.model_copy(update={"unit": "p"}), missing)
    first, second = leanings
    size = Record(
        name=f"WEAT {test.name}",
        value=float(first.mean() - second.mean()) / spread,
        unit="d",
        n=len(first) + len(second),
        signature=signature,
        data_sha256=test.sha256,
    )
    return Association(test, size, _p_value(test, first, second, seed), missing)


def _leanings(vectors: WordVectors, rows: list[list[int]]) -> tuple[Floats, Floats]:
    """s(w) of the words of both targets."""
    x, y, a, b = (vectors.unit[some].astype(np.float64) for some in rows)
    first, second = (words @ a.mean(axis=0) - words @ b.mean(axis=0) for words in (x, y))
    return first, second


def _p_value(test: AssociationTest, first: Floats, second: Floats, seed: int) -> Record:
    """How often a division of all target words is at least as extreme: by the sum over the first group."""
    everything = np.concatenate([first, second])
    divisions = math.comb(len(everything), len(first))
    exact = divisions <= _EXACT_UP_TO
    sums = _all_sums(everything, len(first)) if exact else _drawn_sums(everything, len(first), seed)
    extreme = sum(int((some >= first.sum() - _ROUNDING).sum()) for some in sums)
    if exact:
        value, count, how, spread = extreme / divisions, divisions, f"all {divisions:,} divisions", None
    else:
        value, count = (extreme + 1) / (DRAWS + 1), DRAWS
        how, spread = f"{DRAWS:,} drawn divisions, seed {seed}", wilson(extreme, DRAWS)
    return Record(
        name=f"WEAT {test.name}",
        value=value,
        unit="p",
        n=count,
        interval=spread,
        signature=f"one-sided permutation test, {how}",
        data_sha256=test.sha256,
    )


def _all_sums(values: Floats, size: int) -> Iterator[Floats]:
    chosen = np.array(list(combinations(range(len(values)), size)))
    yield values[chosen].sum(axis=1)


def _drawn_sums(values: Floats, size: int, seed: int) -> Iterator[Floats]:
    random = np.random.default_rng(seed)
    for _ in range(0, DRAWS, _DRAWN_AT_ONCE):
        order = random.random((_DRAWN_AT_ONCE, len(values))).argpartition(size - 1, axis=1)[:, :size]
        yield values[order].sum(axis=1)
