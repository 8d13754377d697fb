"""Word vectors that others trained, or `rung train --net word2vec`, as the first embeddings of a network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rung.errors import UsageError
from rung.runfolder import HEADER_NAME, file_sha256
from rung.tasks.word_vectors.using import load_vectors

if TYPE_CHECKING:
    from rung.nets.word_vectors import WordVectors


@dataclass(frozen=True)
class InitialVectors:
    """The vectors in `path`, a run folder or a file. `frozen` ones are not trained, nor are those of other words."""

    path: Path
    frozen: bool = False

    @cached_property
    def vectors(self) -> WordVectors:
        """Loaded once. Raises RunFolderError or DataError."""
        return load_vectors(self.path)

    @property
    def size(self) -> int:
        """Dimensions."""
        return self.vectors.vector_size

    @cached_property
    def plan(self) -> dict[str, Any]:
        """What a plan keeps, so that it is never carried out with other vectors."""
        content = self.path if self.path.is_file() else self.path / HEADER_NAME  # which lists the hashes of all files
        return {"vectors": {"sha256": file_sha256(content), "frozen": self.frozen}}

    def initialise(self, table: NDArray[np.float32], words: Sequence[str], *, as_drawn: bool) -> str:
        """Put the vectors of `words` into the first rows of `table` (rows, d), in place; returns the coverage, told.

        A word is looked up as it is, else capitalised; n-grams compose one that is unknown, where there are any. With
        `as_drawn` all are scaled by one factor to the spread that `table` was drawn with: known and other words then
        vary alike (Kim 2014, section 5), and the network's learning rate suits vectors of any length.
        """
        found = [(row, vector) for row, word in enumerate(words) if (vector := self._vector(word)) is not None]
        if found:
            rows, vectors = np.array([row for row, _ in found]), np.stack([vector for _, vector in found])
            drawn, given = (math.sqrt(float(np.square(values).mean())) for values in (table, vectors))
            table[rows] = vectors * (drawn / given if as_drawn and given > 0 else 1.0)
        kept = "are kept" if self.frozen else "are trained on"
        return f"{len(found):,} of {len(words):,} words start from the vectors in {self.path.name}, which {kept}"

    def _vector(self, word: str) -> NDArray[np.float32] | None:
        vectors = self.vectors
        if (spelled := vectors.spelled(word)) is not None:
            return vectors.vector(spelled)
        return None if vectors.subwords is None else vectors.subwords.vector(word)


def planned(initial: InitialVectors | None) -> dict[str, Any]:
    """What a plan says of initial vectors: nothing without any."""
    return {} if initial is None else initial.plan


def require_planned(plan: Mapping[str, Any], initial: InitialVectors | None) -> None:
    """Raise UsageError when a plan was made for other vectors than those given, or for none."""
    if plan.get("vectors") != planned(initial).get("vectors"):
        raise UsageError(
            "this plan was made with other word vectors",
            where=None if initial is None else str(initial.path),
            hint="give the same --vectors and --freeze-vectors as then, or plan anew in another folder",
        )
