"""Word vectors and analogies: how often 3CosAdd answers "a is to b as c is to ..." with the expected word."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rung.data.word_sets import AnalogySet
from rung.evaluation.proportions import wilson
from rung.nets.word_vectors import WordVectors
from rung.records import Record

_POLICY = "3CosAdd over unit vectors, the three words left out; words as written, else in lower case, else capitalised"


@dataclass(frozen=True)
class AnalogyResult:
    """`accuracy` over the questions whose four words are known, `accuracy_of_all` with all others as failures.

    `sections`: accuracy over the known questions of each section.
    """

    accuracy: Record
    accuracy_of_all: Record
    sections: tuple[Record, ...]


def analogies(vectors: WordVectors, test: AnalogySet, *, among: int | None = None) -> AnalogyResult:
    """Accuracy of 3CosAdd (Mikolov et al. 2013; Levy and Goldberg 2014), with Wilson's interval.

    `among`: only the first so many words are known, as questions and as answers; the commonest come first.
    """
    limit = len(vectors) if among is None else min(among, len(vectors))
    rows = {word: _row(vectors, word, limit) for question in test.questions for word in question}
    asked = np.array([[rows[word] for word in question] for question in test.questions], np.int64).reshape(-1, 4)
    known = (asked >= 0).all(axis=1)
    right = np.zeros(len(asked), np.bool_)
    if known.any():
        right[known] = vectors.analogies(asked[known, :3], among=limit)[:, 0] == asked[known, 3]
    signature = f"{_POLICY}; among the first {limit} words; {known.sum()} of {len(asked)} questions known"
    numbers = {section: number for number, section in enumerate(dict.fromkeys(test.sections))}
    sections = np.array([numbers[section] for section in test.sections], np.int64)

    def measured(name: str, chosen: NDArray[np.int64], how: str = signature) -> Record:
        return _accuracy(name, right[chosen], signature=how, data_sha256=test.sha256)

    return AnalogyResult(
        accuracy=measured(f"analogies {test.name}", np.flatnonzero(known)),
        accuracy_of_all=measured(
            f"analogies {test.name}, all",
            np.arange(len(asked)),
            f"{signature}; a question with an unknown word counts as wrong",
        ),
        sections=tuple(
            measured(f"analogies {test.name}, {section}", np.flatnonzero(known & (sections == number)))
            for section, number in numbers.items()
        ),
    )


def _row(vectors: WordVectors, word: str, limit: int) -> int:
    spelled = vectors.spelled(word)
    row = -1 if spelled is None else vectors.index[spelled]
    return row if row < limit else -1


def _accuracy(name: str, right: NDArray[np.bool_], *, signature: str, data_sha256: str) -> Record:
    successes, trials = int(np.sum(right)), len(right)
    return Record(
        name=name,
        value=successes / trials if trials else None,
        unit="share of questions",
        n=trials,
        interval=wilson(successes, trials) if trials else None,
        signature=signature,
        data_sha256=data_sha256,
        not_measured=None if trials else "no question is known",
    )
