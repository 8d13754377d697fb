"""Raw text for pretraining: read, cleaned, rid of what is held out, and cut into windows with gaps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rung.data.cache import cache_folder
from rung.data.corpus import CorpusOptions, prepare_corpus
from rung.data.held_out_texts import FEWEST_WORDS, without_held_out
from rung.data.pair_tokenizer import PairTokenizer
from rung.data.pairs import PairSplit
from rung.data.span_batches import GappedWindows
from rung.data.span_corruption import SpanCorruption
from rung.errors import DataError
from rung.progress import Progress
from rung.tasks.rewriting.recipe import RewritingRecipe

_WINDOW = 128  # tokens: about the length of the longest pairs, so that a step takes about as long on text as on them
_WATCHED = 256  # windows of held-out text by which pretraining is watched
NUM_SENTINELS = SpanCorruption(()).spans(_WINDOW)[1] + 1
"""What a whole window needs: one for each gap and one to end the last."""


@dataclass(frozen=True)
class RawText:
    """Documents to pretrain on, and others to watch it by. All of it is in memory, as the pairs are.

    `sha256` names the text as it was before held-out texts were cut from it; `remarks` say how much that was.
    """

    files: tuple[str, ...]
    train: list[str]
    valid: list[str]
    sha256: str
    remarks: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes to train on."""
        return sum(len(text.encode()) for text in self.train)

    def sample(self, most_bytes: int) -> list[str]:
        """Evenly spread documents of at most about `most_bytes`."""
        share = min(1.0, most_bytes / max(self.num_bytes, 1))
        count = max(1, round(share * len(self.train)))
        return [self.train[place] for place in np.linspace(0, len(self.train) - 1, count).astype(int).tolist()]


@dataclass(frozen=True)
class GappedText:
    """Windows to pretrain on and to watch by, and the text they are of."""

    text: RawText
    train: GappedWindows
    valid: GappedWindows

    @property
    def num_tokens(self) -> int:
        """Tokens of one reading."""
        return len(self.train.ids)

    def describe(self) -> dict[str, Any]:
        """What `rung.json` says about it."""
        return {
            "files": list(self.text.files),
            "sha256": self.text.sha256,
            "documents": len(self.text.train),
            "bytes": self.text.num_bytes,
            "tokens": self.num_tokens,
            "remarks": list(self.text.remarks),
        }


def read_raw_text(recipe: RewritingRecipe, split: PairSplit, progress: Progress) -> RawText | None:
    """The recipe's raw text, cleaned and deduplicated as for language models; None where it names none.

    Lines that hold a source or target of validation or test pairs are left out. Raises DataError when nothing is left.
    """
    files = recipe.pairs.pretrain
    if not files:
        return None
    corpus = prepare_corpus(
        [Path(name) for name in files],
        cache_dir=cache_folder(),
        options=CorpusOptions(seed=recipe.seed),
        progress=progress,
    )
    held_out = [text for part in (split.valid, split.test) for side in (part.sources, part.targets) for text in side]
    with progress.task("looking for held-out texts", None, ""):
        kept = without_held_out(corpus.texts("train"), held_out)
    if not kept.documents:
        raise DataError(
            "every line of the text to pretrain on holds a validation or test text",
            where=", ".join(files),
            hint="give text that the pairs are not taken from",
        )
    remarks: tuple[str, ...] = ()
    if kept.lines_dropped:
        told = (
            f"{kept.lines_dropped:,} lines of {kept.documents_cut:,} documents left out of pretraining: "
            f"they hold validation or test texts (of {FEWEST_WORDS} words or more)"
        )
        remarks = (told,)
    return RawText(files, kept.documents, list(corpus.texts("valid")), corpus.sha256, remarks)


def cut_windows(text: RawText, tokenizer: PairTokenizer, *, longest: int, seed: int) -> GappedText:
    """The text in windows whose sources and targets have at most `longest` tokens.

    Raises DataError when that is less than two tokens.
    """
    corruption = SpanCorruption(tokenizer.sentinels, seed=seed)
    most = min(_WINDOW, longest - 1)  # in the worst case one span of one token: its source is one token longer
    train, valid = (
        GappedWindows.cut(
            *tokenizer.encode_ragged(documents), corruption, most=most, end_token_id=tokenizer.eos_token_id
        )
        for documents in (text.train, text.valid)
    )
    return GappedText(text, train, valid)


def watched_windows(text: GappedText) -> np.ndarray:
    """Evenly spread windows of the held-out text."""
    count = min(_WATCHED, len(text.valid))
    return np.linspace(0, len(text.valid) - 1, count).astype(np.int64)
