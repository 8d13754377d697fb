"""Word vectors as an artefact: one row a word, perhaps rows of character n-grams for words never seen.

Nothing but numpy is imported, so that a neighbour is found without starting torch.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from rung.errors import DataError, RunFolderError
from rung.runfolder import readable_write_errors, write_json, write_text

Floats = NDArray[np.float32]
ModelType = Literal["rung-word2vec", "rung-glove", "rung-fasttext-vectors"]
MODEL_TYPES: tuple[ModelType, ...] = get_args(ModelType)
CONFIG, WEIGHTS, VOCABULARY = "config.json", "model.safetensors", "vocabulary.json"

_FNV_OFFSET, _FNV_PRIME, _UINT32 = 2166136261, 16777619, 0xFFFFFFFF
_SUGGESTED_FROM = 50_000
"""Of how many of the first words a close one is looked for: the search takes 10 s over a million."""
_SCORES_AT_ONCE = 1 << 24
"""Similarities (float32) held at a time: 64 MiB."""


class Neighbour(NamedTuple):
    """A word and its cosine similarity to what was asked for."""

    word: str
    similarity: float


def ngram_buckets(word: str, *, min_n: int, max_n: int, buckets: int) -> list[int]:
    """Bucket numbers of the character n-grams of `<word>`, in fastText's order and with its hash.

    Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information", section 3.2. The hash is 32-bit FNV-1a
    over UTF-8 in which bytes above 127 are extended by their sign, as fastText has it since its first version; the
    boundary signs alone are no n-grams.
    """
    characters = [character.encode("utf-8", "surrogatepass") for character in f"<{word}>"]
    found = []
    for start in range(len(characters)):
        state = _FNV_OFFSET
        for end in range(start, min(start + max_n, len(characters))):
            for byte in characters[end]:
                state = ((state ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * _FNV_PRIME) & _UINT32
            length = end - start + 1
            if length >= min_n and not (length == 1 and (start == 0 or end == len(characters) - 1)):
                found.append(state % buckets)
    return found


@dataclass(frozen=True)
class Subwords:
    """Vectors (buckets, d) of hashed character n-grams of `min_n` to `max_n` characters."""

    min_n: int
    max_n: int
    vectors: Floats

    @property
    def buckets(self) -> int:
        """Number of rows that n-grams share."""
        return len(self.vectors)

    def ids(self, word: str) -> list[int]:
        """Rows of the n-grams of `word`; none for a word shorter than `min_n` with its two boundary signs."""
        return ngram_buckets(word, min_n=self.min_n, max_n=self.max_n, buckets=self.buckets)

    def vector(self, word: str) -> Floats | None:
        """The mean of the n-gram vectors of `word`, as fastText gives to unknown words; None when it has no n-gram."""
        ids = self.ids(word)
        if not ids:
            return None
        mean: Floats = self.vectors[ids].mean(axis=0, dtype=np.float32)
        return mean


class WordVectors:
    """`vectors` (words, d) float32 of `words`, the most frequent first; `counts` (words,) of the training text.

    The row of a word is its final vector: with `subwords` the mean of its own and its n-grams' vectors.
    """

    def __init__(
        self,
        words: Sequence[str],
        vectors: NDArray[Any],
        counts: NDArray[np.int64] | None = None,
        subwords: Subwords | None = None,
        *,
        model_type: ModelType = "rung-word2vec",
        where: str | None = None,
    ) -> None:
        """Check and keep what is given; `where` names its origin in errors.

        Raises DataError for no words at all, duplicate words, shapes that do not match, and values that are not finite.
        """
        self.words = list(words)
        self.vectors: Floats = np.ascontiguousarray(vectors, dtype=np.float32)
        self.counts, self.subwords, self.model_type, self.where = counts, subwords, model_type, where
        self._check()

    def _check(self) -> None:
        if not self.words or self.vectors.ndim != 2 or self.vectors.shape[1] < 1:
            raise DataError("there are no word vectors: neither words nor dimensions may be missing", where=self.where)
        if len(self.words) != len(self.vectors):
            raise DataError(f"{len(self.words):,} words and {len(self.vectors):,} vectors", where=self.where)
        if self.counts is not None and self.counts.shape != (len(self.words),):
            raise DataError(f"{len(self.words):,} words and {self.counts.size:,} counts", where=self.where)
        if len(self.index) != len(self.words):
            twice = next(word for row, word in enumerate(self.words) if self.index[word] != row)
            raise DataError(f"the word '{twice}' is there twice", where=self.where, hint="keep one of its vectors")
        if not (finite := np.isfinite(self.vectors).all(axis=1)).all():
            bad = self.words[int(np.argmin(finite))]
            raise DataError(
                f"{np.count_nonzero(~finite):,} vectors hold values that are not finite, the first that of '{bad}'",
                where=self.where,
                hint="remove these words from the file, or train again with a lower learning rate",
            )
        if self.subwords is not None:
            if self.subwords.vectors.shape[1:] != (self.vector_size,):
                raise DataError("vectors of words and of n-grams differ in length", where=self.where)
            if not np.isfinite(self.subwords.vectors).all():
                raise DataError("vectors of n-grams hold values that are not finite", where=self.where)

    def __len__(self) -> int:
        return len(self.words)

    @property
    def vector_size(self) -> int:
        """Dimensions of a vector."""
        return int(self.vectors.shape[1])

    @cached_property
    def index(self) -> dict[str, int]:
        """The row of each word."""
        return {word: row for row, word in reversed(list(enumerate(self.words)))}

    @cached_property
    def unit(self) -> Floats:
        """(words, d) the vectors at length 1; one of zeros stays so, and is similar to nothing."""
        return unit_rows(self.vectors)

    def __contains__(self, word: object) -> bool:
        return word in self.index

    def spelled(self, word: str) -> str | None:
        """The spelling under which `word` is known: as it is, in lower case, or capitalised; None when under none."""
        return next((form for form in (word, word.lower(), word.capitalize()) if form in self.index), None)

    def vector(self, word: str) -> Floats:
        """The vector (d,) of `word`; that of an unknown one from its n-grams, where there are any.

        Raises DataError when it is unknown, with a close word.
        """
        row = self.index.get(word)
        if row is not None:
            own: Floats = self.vectors[row]
            return own
        composed = self.subwords.vector(word) if self.subwords is not None else None
        if composed is None:
            raise self._unknown(word)
        return composed

    def neighbours(self, word: str, k: int = 10) -> list[Neighbour]:
        """The `k` words most similar to `word` by cosine, itself left out. DataError when it is unknown."""
        return self._nearest(self.vector(word), {word}, k)

    def analogy(self, a: str, b: str, c: str, k: int = 10) -> list[Neighbour]:
        """The `k` best answers to "`a` is to `b` as `c` is to ...": 3CosAdd, the three words left out.

        Levy and Goldberg 2014, "Linguistic Regularities in Sparse and Explicit Word Representations", section 3: the
        words nearest to b - a + c by cosine, all at length 1. DataError when a word is unknown.
        """
        first, second, third = unit_rows(np.stack([self.vector(word) for word in (a, b, c)]))
        return self._nearest(second - first + third, {a, b, c}, k)

    def analogies(self, questions: NDArray[np.int64], k: int = 1, *, among: int | None = None) -> NDArray[np.int64]:
        """The rows (questions, k) that 3CosAdd answers to rows of words `questions` (questions, 3): a, b, c.

        `among`: only the first so many words are candidates.
        """
        candidates = self.unit[:among]
        answers = np.empty((len(questions), k), dtype=np.int64)
        step = max(1, _SCORES_AT_ONCE // len(candidates))
        for start in range(0, len(questions), step):
            asked = questions[start : start + step]
            rows = [self.unit[asked[:, place]] for place in range(3)]
            scores: Floats = np.asarray((rows[1] - rows[0] + rows[2]) @ candidates.T, dtype=np.float32)
            for place in range(3):
                inside = np.flatnonzero(asked[:, place] < len(candidates))
                scores[inside, asked[inside, place]] = -np.inf
            answers[start : start + step] = _largest(scores, k)
        return answers

    def _nearest(self, vector: Floats, left_out: set[str], k: int) -> list[Neighbour]:
        scores = self.unit @ unit_rows(vector[None])[0]
        rows = [row for word in left_out if (row := self.index.get(word)) is not None]
        scores[rows] = -np.inf
        best = _largest(scores[None], min(k, len(self.words) - len(rows)))[0]
        return [Neighbour(self.words[row], float(scores[row])) for row in best]

    def _unknown(self, word: str) -> DataError:
        likely = reversed(self.words[:_SUGGESTED_FROM])  # of spellings that differ in case only, the commonest stays
        near = {known.lower(): known for known in likely if abs(len(known) - len(word)) <= 2}
        close = difflib.get_close_matches(word.lower(), near, n=1)
        suggestion = f"; did you mean '{near[close[0]]}'?" if close else ""
        hint = "only words of the training text have vectors"
        if any(character.isspace() for character in word):
            hint = "a vector stands for one word without spaces; some files join words, as in new_york"
        elif not word:
            hint = "give a word"
        return DataError(f"'{word}' is not among the {len(self):,} words{suggestion}", where=self.where, hint=hint)

    def save(self, folder: Path) -> None:
        """Write `config.json`, `model.safetensors` and `vocabulary.json` into the existing `folder`."""
        from safetensors.numpy import save_file

        config: dict[str, Any] = {
            "model_type": self.model_type,
            "vocab_size": len(self),
            "vector_size": self.vector_size,
        }
        tensors: dict[str, NDArray[Any]] = {"vectors": self.vectors}
        if self.counts is not None:
            tensors["counts"] = np.ascontiguousarray(self.counts, dtype=np.int64)
        if self.subwords is not None:
            config |= {"min_n": self.subwords.min_n, "max_n": self.subwords.max_n}
            tensors["ngram_vectors"] = np.ascontiguousarray(self.subwords.vectors, dtype=np.float32)
        write_json(folder / CONFIG, config)
        # Escaped: a word may hold half a surrogate pair, which UTF-8 cannot.
        write_text(folder / VOCABULARY, json.dumps(self.words) + "\n")
        with readable_write_errors(folder / WEIGHTS):
            save_file(tensors, folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> WordVectors:
        """Read what `save` wrote. RunFolderError when a file is missing or damaged, DataError for bad values."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            words = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
            tensors = load_file(folder / WEIGHTS)
        except (OSError, ValueError, SafetensorError) as error:
            raise RunFolderError(f"these word vectors cannot be read: {error}", where=str(folder)) from error
        if not isinstance(config, dict) or config.get("model_type") not in MODEL_TYPES:
            known = ", ".join(MODEL_TYPES)
            raise RunFolderError("this folder holds no word vectors", where=str(folder), hint=f"known: {known}")
        return cls(
            words,
            _tensor(tensors, "vectors", folder),
            tensors.get("counts"),
            _subwords(config, tensors, folder),
            model_type=config["model_type"],
            where=str(folder),
        )


def unit_rows(vectors: Floats) -> Floats:
    """`vectors` (rows, d) at length 1; rows of zeros stay as they are."""
    lengths: Floats = np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float32)
    lengths[lengths == 0] = 1
    result: Floats = vectors / lengths
    return result


def _largest(scores: Floats, k: int) -> NDArray[np.int64]:
    """Columns (rows, k) of the largest scores of each row, the largest first; of equals the first column."""
    if k == 1:
        best: NDArray[np.int64] = scores.argmax(axis=1)[:, None]
        return best
    some = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1) if k < scores.shape[1] else None
    if some is None:
        return np.argsort(-scores, axis=1, kind="stable")[:, :k]
    order = np.argsort(-np.take_along_axis(scores, some, axis=1), axis=1, kind="stable")
    result: NDArray[np.int64] = np.take_along_axis(some, order, axis=1)
    return result


def _tensor(tensors: Mapping[str, NDArray[Any]], name: str, folder: Path) -> NDArray[Any]:
    if name not in tensors:
        raise RunFolderError(f"{WEIGHTS} holds no '{name}'", where=str(folder / WEIGHTS))
    return tensors[name]


def _subwords(config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], folder: Path) -> Subwords | None:
    if "min_n" not in config:
        return None
    try:
        min_n, max_n = int(config["min_n"]), int(config["max_n"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{CONFIG} has no usable max_n", where=str(folder / CONFIG)) from error
    return Subwords(min_n, max_n, _tensor(tensors, "ngram_vectors", folder))
