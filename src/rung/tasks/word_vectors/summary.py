"""What a training of word vectors has to say in the end, to people and to machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung.nets.word_vectors import WordVectors
from rung.tasks.word_vectors.recipe import WordVectorsRecipe

_SHOWN_RANKS = (100, 400, 1600)  # past the grammatical words
_SHOWN_NEIGHBOURS = 5


@dataclass(frozen=True)
class WordVectorsSummary:
    """How a training went.

    `words_per_second`: words of the text before any cut, over all epochs, per second of training; compilation, reading
    and saving left out. `losses`: the mean of each epoch, in the unit that the family's loss has. `neighbours`: of some
    words, the nearest ones.
    """

    run: Path
    ended: str
    recipe: WordVectorsRecipe
    vocab_size: int
    raw_words: int
    kept_words: int
    losses: tuple[float, ...]
    words_per_second: float
    training_seconds: float
    compile_seconds: float
    seconds: float
    neighbours: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The summary for people."""
        net, threads = self.recipe.net, self.recipe.training.threads
        lines = [
            f"{self.vocab_size:,} words of {net.vector_size} dimensions ({net.family}), from {self.raw_words:,} words "
            f"of text, {self.kept_words:,} of them in the vocabulary: {self.ended}.",
            f"{len(self.losses)} epochs at {self.words_per_second:,.0f} words/s on {threads} threads; "
            f"{self.seconds:.1f} s in all, {self.compile_seconds:.1f} s of them to compile.",
            "Loss by epoch: " + "  ".join(f"{loss:.4f}" for loss in self.losses),
        ]
        lines += [f"  {word}: {', '.join(near)}" for word, near in self.neighbours.items()]
        if self.neighbours:
            lines += ["", f"Next: rung neighbours {self.run} {next(iter(self.neighbours))}"]
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        training = self.recipe.training
        return {
            "run": str(self.run),
            "ended": self.ended,
            "net": self.recipe.net.family,
            "vocab_size": self.vocab_size,
            "vector_size": self.recipe.net.vector_size,
            "raw_words": self.raw_words,
            "kept_words": self.kept_words,
            "epochs": len(self.losses),
            "losses": [round(loss, 6) for loss in self.losses],
            "words_per_second": round(self.words_per_second, 1),
            "training_seconds": round(self.training_seconds, 3),
            "compile_seconds": round(self.compile_seconds, 3),
            "seconds": round(self.seconds, 2),
            "threads": training.threads,
            "deterministic": training.deterministic,
            "neighbours": {word: list(near) for word, near in self.neighbours.items()},
        }

    def card(self) -> str:
        """The model card."""
        training = self.recipe.training
        repeatable = "repeatable bit by bit" if training.deterministic else "not repeatable bit by bit"
        return "\n".join(
            [
                "# Word vectors",
                "",
                *self.lines()[:3],
                "",
                f"Trained by Rung (seed {self.recipe.seed}, {training.threads} threads, {repeatable}). Vectors learn "
                "what stands together in their text, its prejudices included.",
                "",
                "Open them with `rung neighbours`, `rung analogy`, `rung eval`, or in Python with `rung.load(folder)`.",
                "",
            ]
        )


def some_neighbours(vectors: WordVectors) -> dict[str, tuple[str, ...]]:
    """The nearest words of some common ones: what a look at new vectors begins with."""
    words = [vectors.words[rank] for rank in _SHOWN_RANKS if rank < len(vectors)] or vectors.words[:1]
    return {word: tuple(near.word for near in vectors.neighbours(word, _SHOWN_NEIGHBOURS)) for word in words}
