"""Text files to token shards: the corpus, the tokenizer trained on it, and what the plan needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rung.data.cache import cache_folder
from rung.data.corpus import Corpus, CorpusOptions, prepare_corpus
from rung.data.shards import TokenShards
from rung.data.tokenise import tokenise_corpus
from rung.data.tokenizer import Tokenizer, train_tokenizer
from rung.progress import Progress
from rung.recipe import Recipe
from rung.training.plan import TextFacts, choose_vocab_size

_TOKENIZER_SAMPLE_BYTES = 100_000_000  # the merges of a 4k to 32k vocabulary hardly change beyond this
_WORDS_PER_SUBWORD = 4  # 16,384 words for 74 MB of novels: a choice, compared with 32,768 for n-grams only (LOG.md)
_ROWS_MULTIPLE = 64  # of the embedding matrix: whole cache lines and vector registers


@dataclass(frozen=True)
class PreparedText:
    """Everything that training needs of the text."""

    corpus: Corpus
    tokenizer: Tokenizer
    train: TokenShards
    valid: TokenShards

    def facts(self, vocab_size: int) -> TextFacts:
        """What the plan asks, for an embedding matrix of `vocab_size` rows."""
        return TextFacts(
            train_bytes=self.train.num_bytes,
            train_tokens=self.train.num_tokens,
            valid_tokens=self.valid.num_tokens,
            vocab_size=vocab_size,
            eos_token_id=self.tokenizer.eos_token_id,
        )


def read_corpus(recipe: Recipe, progress: Progress) -> Corpus:
    """Read, clean, deduplicate and split the recipe's text; what is prepared already is reused."""
    text = recipe.text
    return prepare_corpus(
        [Path(name) for name in text.files],
        cache_dir=cache_folder(),
        valid_paths=[Path(name) for name in text.valid],
        options=CorpusOptions(
            text_column=text.text_column,
            valid_fraction=text.valid_fraction,
            near_duplicate_threshold=text.near_duplicate_threshold,
            seed=recipe.seed,
        ),
        progress=progress,
    )


def prepare_text(
    recipe: Recipe, progress: Progress, *, tokenizer: Tokenizer | None = None, corpus: Corpus | None = None
) -> PreparedText:
    """Prepare the recipe's text, with `tokenizer` or one trained on it."""
    corpus = corpus or read_corpus(recipe, progress)
    if tokenizer is None:
        tokenizer = train_tokenizer(
            corpus.texts("train", max_bytes=_TOKENIZER_SAMPLE_BYTES),
            kind=recipe.tokenizer.kind,
            vocab_size=recipe.tokenizer.vocab_size or _vocab_size(recipe, corpus.num_bytes("train")),
            progress=progress,
        )
    shards = tokenise_corpus(corpus, tokenizer, cache_dir=cache_folder(), progress=progress)
    return PreparedText(corpus, tokenizer, shards["train"], shards["valid"])


def _vocab_size(recipe: Recipe, train_bytes: int) -> int:
    """The vocabulary when the recipe leaves it open: whole words need more tokens than parts of words."""
    size = choose_vocab_size(train_bytes)
    return _WORDS_PER_SUBWORD * size if recipe.tokenizer.kind == "word" else size


def is_counted(recipe: Recipe) -> bool:
    """Whether the language model is counted rather than trained by gradient steps."""
    return recipe.net.family == "ngram"


def matrix_rows(recipe: Recipe, tokenizer: Tokenizer) -> int:
    """Rows of the embedding matrix: what the recipe says, or the vocabulary rounded up to whole cache lines."""
    wanted = max(recipe.tokenizer.vocab_size or 0, tokenizer.vocab_size)
    return -(-wanted // _ROWS_MULTIPLE) * _ROWS_MULTIPLE
