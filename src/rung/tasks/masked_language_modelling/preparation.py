"""Text files to windows of word pieces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rung.data.cache import cache_folder
from rung.data.corpus import Corpus, CorpusOptions, prepare_corpus
from rung.data.shards import TokenShards
from rung.data.text_encoder import TextEncoder
from rung.data.text_windows import TextWindows
from rung.data.tokenise import tokenise_corpus
from rung.data.wordpiece import choose_vocab_size, train_wordpieces
from rung.errors import RunFolderError
from rung.progress import Progress
from rung.tasks.masked_language_modelling.recipe import MaskedRecipe
from rung.tasks.run import Run

_TOKENIZER_SAMPLE_BYTES = 10_000_000  # evenly spread; the commonest pieces hardly change beyond this


@dataclass(frozen=True)
class MaskedText:
    """Everything that training needs of the text."""

    corpus: Corpus
    encoder: TextEncoder
    train: TokenShards
    valid: TokenShards

    @cached_property
    def train_tokens(self) -> int:
        """Tokens of the training text."""
        return self.train.num_tokens - len(self.train.streams())  # those that close documents stand for no text

    def windows(self, shards: TokenShards, max_length: int) -> TextWindows:
        """The windows of one part of the text, of at most `max_length` tokens."""
        return TextWindows.of_shards(shards, encoder=self.encoder, max_length=max_length)

    def describe(self) -> dict[str, Any]:
        """What `rung.json` says about the data."""
        described: dict[str, Any] = {"sha256": self.corpus.sha256, "tokenizer_sha256": self.encoder.sha256}
        for name, shards in (("train", self.train), ("valid", self.valid)):
            described |= {
                f"{name}_sha256": shards.sha256,
                f"{name}_bytes": shards.num_bytes,
                f"{name}_tokens": shards.num_tokens,
                f"{name}_documents": shards.num_documents,
            }
        return {**described, "report": self.corpus.report.to_json()}


def prepare(
    recipe: MaskedRecipe, progress: Progress, *, encoder: TextEncoder | None = None, corpus: Corpus | None = None
) -> MaskedText:
    """Prepare the recipe's text, with `encoder` or one trained on it."""
    corpus = corpus or _read(recipe, progress)
    if encoder is None:
        size = recipe.tokenizer.vocab_size or choose_vocab_size(corpus.num_bytes("train"))
        with progress.task("choosing the vocabulary", None, ""):
            sample = corpus.texts("train", max_bytes=_TOKENIZER_SAMPLE_BYTES)
            encoder = train_wordpieces(sample, vocab_size=size)
    shards = tokenise_corpus(corpus, encoder, cache_dir=cache_folder(), progress=progress)
    return MaskedText(corpus, encoder, shards["train"], shards["valid"])


def prepare_again(run: Run, recipe: MaskedRecipe, progress: Progress) -> MaskedText:
    """The run's text, prepared as it was. Raises RunFolderError when it is not the same any more."""
    corpus = _read(recipe, progress)
    if corpus.sha256 != run.header["data"]["sha256"]:
        raise RunFolderError(
            "the text has changed since this run was planned, so going on would not be the same run",
            where=", ".join(recipe.text.files),
            hint="bring the old text back, or train anew: rung train ... --net bert",
        )
    text = prepare(recipe, progress, encoder=TextEncoder.load(run.folder), corpus=corpus)
    if text.encoder.sha256 != run.header["data"]["tokenizer_sha256"]:
        raise RunFolderError("the tokenizer is not the one this run was planned with", where=str(run.folder))
    return text


def _read(recipe: MaskedRecipe, progress: Progress) -> Corpus:
    text = recipe.text
    options = CorpusOptions(
        text_column=text.text_column,
        valid_fraction=text.valid_fraction,
        near_duplicate_threshold=text.near_duplicate_threshold,
        seed=recipe.seed,
    )
    return prepare_corpus(
        [Path(name) for name in text.files],
        cache_dir=cache_folder(),
        valid_paths=[Path(name) for name in text.valid],
        options=options,
        progress=progress,
    )
