"""Files of pairs to encoded training, validation and test pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rung.data.pair_batches import EncodedPairs
from rung.data.pair_tokenizer import PairTokenizer, choose_pair_vocabulary, train_pair_tokenizer
from rung.data.pairs import Pairs, PairSplit, read_pairs, split_pairs
from rung.errors import DataError
from rung.progress import Progress
from rung.tasks.rewriting.pretraining_text import NUM_SENTINELS, GappedText, RawText, cut_windows, read_raw_text
from rung.tasks.rewriting.recipe import PairsSection, RewritingRecipe

_MOST_HELD_OUT = 1000  # pairs of each part that is split off
_LONGEST = 1024  # tokens: beyond, memory for a batch of one pair and the time of beam search grow out of proportion
_POSITIONS = 256  # at the least: positions cost nothing, and later texts may be longer than those of training


@dataclass(frozen=True)
class PreparedPairs:
    """Everything that training needs of the pairs; `train` and `valid` in tokens, too long pairs left out of both.

    `text` is what the network is pretrained on, where the recipe names raw text.
    """

    split: PairSplit
    tokenizer: PairTokenizer
    train: EncodedPairs
    valid: EncodedPairs
    longest: int
    remarks: list[str]
    text: GappedText | None = None

    @property
    def target_tokens(self) -> int:
        """Tokens of one pass over the training targets."""
        return int(self.train.targets.lengths.sum())


def read_split(named: PairsSection, *, seed: int, progress: Progress) -> PairSplit:
    """Read a recipe's pairs and part them. DataError for what cannot be used."""

    def read(files: Sequence[str]) -> Pairs | None:
        if not files:
            return None
        return read_pairs(files, source=named.source, target=named.target, progress=progress)

    everything = read(named.files)
    if everything is None:
        raise DataError("there are no pairs to train on", hint="give a table or two aligned files")
    with progress.task("splitting", None, ""):
        return split_pairs(
            everything,
            valid=read(named.valid),
            test=read(named.test),
            seed=seed,
            share=named.held_out,
            most=_MOST_HELD_OUT,
        )


def prepare_pairs(
    recipe: RewritingRecipe, split: PairSplit, progress: Progress, *, tokenizer: PairTokenizer | None = None
) -> PreparedPairs:
    """Encode the pairs, with `tokenizer` or one trained on both sides of the training pairs.

    Pairs longer than the network will read are left out of training and validation, and counted. Raw text to pretrain
    on, where the recipe names some, is prepared too and takes part in training the tokenizer.
    """
    text = read_raw_text(recipe, split, progress)
    tokenizer = tokenizer or _new_tokenizer(recipe, split.train, text, progress)
    train, valid = (_encoded(part, tokenizer) for part in (split.train, split.valid))
    longest = recipe.net.max_position_embeddings or _longest(train)
    remarks = [*split.remarks, *(text.remarks if text else ())]
    hint = "set net.max_position_embeddings higher"
    train = fitting_pairs(train, longest, "training", remarks, hint=hint)
    valid = fitting_pairs(valid, longest, "validation", remarks, hint=hint)
    gapped = cut_windows(text, tokenizer, longest=longest, seed=recipe.seed) if text else None
    return PreparedPairs(split, tokenizer, train, valid, longest, remarks, gapped)


def fitting_pairs(pairs: EncodedPairs, longest: int, name: str, remarks: list[str], *, hint: str) -> EncodedPairs:
    """Those of the `name` pairs with at most `longest` tokens a side; how many are left out joins `remarks`.

    Raises DataError, with `hint`, when none is left.
    """
    kept = np.flatnonzero(pairs.longer <= longest)
    if left_out := len(pairs) - len(kept):
        remarks.append(f"{left_out:,} {name} pairs left out: longer than {longest:,} tokens")
    if not len(kept):
        raise DataError(f"all {name} pairs are longer than {longest:,} tokens", hint=hint)
    return pairs.take(kept)


def _new_tokenizer(recipe: RewritingRecipe, train: Pairs, text: RawText | None, progress: Progress) -> PairTokenizer:
    """One trained on both sides of the pairs, and on no more raw text than that: the pairs are what it is for."""
    raw = text.sample(train.num_bytes) if text else []
    num_bytes = train.num_bytes + sum(len(one.encode()) for one in raw)
    return train_pair_tokenizer(
        [*train.sources, *train.targets, *raw],
        vocab_size=recipe.tokenizer.vocab_size or choose_pair_vocabulary(num_bytes),
        num_sentinels=NUM_SENTINELS if text else 0,
        progress=progress,
    )


def _encoded(pairs: Pairs, tokenizer: PairTokenizer) -> EncodedPairs:
    return EncodedPairs(tokenizer.encode(pairs.sources), tokenizer.encode(pairs.targets))


def _longest(pairs: EncodedPairs) -> int:
    """Positions of the network: what the longest training text takes and a half more, within bounds."""
    return min(max(-(-3 * int(pairs.longer.max()) // 2 // 8) * 8, _POSITIONS), _LONGEST)
