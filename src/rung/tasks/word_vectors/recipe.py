"""The recipe of word vectors: everything that decides them, in one validated object."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rung.recipe import AnyRecipe, Section, TextSection

Family = Literal["word2vec", "fasttext-vectors", "glove"]


class VocabularySection(Section):
    """Which words get a vector."""

    lowercase: bool = True
    min_count: int = Field(default=5, ge=1, description="words that occur less often get no vector")
    max_words: int | None = Field(default=None, ge=2, description="only the commonest words get a vector")


class VectorsSection(Section):
    """How vectors are made of neighbours. `None`: what is usual for the family."""

    family: Family = "word2vec"
    vector_size: int = Field(default=100, ge=1, le=4096)
    window: int | None = Field(default=None, ge=1, le=100, description="words to each side; 5, GloVe 10")
    architecture: Literal["skip-gram", "cbow"] = "skip-gram"
    negatives: int = Field(default=5, ge=0, le=100, description="0: hierarchical softmax")
    shared_negatives: bool = Field(default=True, description="drawn once for a window of skip-gram, not for each pair")
    exponent: float = Field(default=0.75, ge=0, le=2, description="of the counts by which negatives are drawn")
    subsample: float = Field(default=1e-3, ge=0, lt=1, description="frequency from which words are left out; 0: none")
    min_n: int = Field(default=3, ge=1, le=20, description="shortest character n-gram of fasttext-vectors")
    max_n: int = Field(default=6, ge=1, le=20, description="longest one")
    x_max: float | None = Field(
        default=None, gt=0, description="GloVe: pairs of words met so often weigh in full; 10, from 100 M words on 100"
    )
    buckets: int = Field(default=200_000, ge=1, le=10_000_000, description="rows that n-grams share")

    @model_validator(mode="after")
    def _some_ngrams(self) -> Self:
        if self.min_n > self.max_n:
            raise ValueError("net.min_n is above net.max_n")
        return self


class VectorsTrainingSection(Section):
    """The budget and how the threads work."""

    minutes: float | None = Field(default=None, gt=0, description="wall time of the whole command")
    epochs: int | None = Field(default=None, ge=1, description="passes over the text; 5, GloVe 25, or by the minutes")
    learning_rate: float | None = Field(default=None, gt=0, description="0.025; CBOW and GloVe 0.05")
    threads: int | None = Field(default=None, ge=1)
    deterministic: bool = Field(default=False, description="one thread, and equal vectors every time")

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.minutes is not None and self.epochs is not None:
            raise ValueError("give training.minutes or training.epochs, not both")
        return self


class WordVectorsRecipe(AnyRecipe):
    """What word vectors to train."""

    text: TextSection = TextSection()
    vocabulary: VocabularySection = VocabularySection()
    net: VectorsSection = VectorsSection()
    training: VectorsTrainingSection = VectorsTrainingSection()
