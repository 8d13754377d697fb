"""N-gram models as ARPA files, which KenLM, SRILM and most speech recognisers read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rung.errors import UsageError
from rung.nets.ngram import NgramLevel, NgramModel
from rung.runfolder import readable_write_errors

_BEGIN, _END, _UNKNOWN = "<s>", "</s>", "<unk>"
_NEVER = -99.0  # what ARPA files say of a token that nothing predicts
_ROWS = 1 << 16


def export_arpa(model: NgramModel, spellings: Sequence[str], path: Path) -> None:
    """Write `model` to `path`; `spellings` (vocabulary,) names the tokens (`Tokenizer.spellings`).

    The end-of-text token is written as `<s>` where it opens a document and as `</s>` where it closes one. No token is
    unknown to a model of bytes, so `<unk>` is there because readers ask for it.

    Raises UsageError when the spellings do not fit, RunFolderError when the disk is full or not writable.
    """
    names = [_END if token == model.config.eos_token_id else name for token, name in enumerate(spellings)]
    _check(names, model)
    with readable_write_errors(path), path.open("w", encoding="utf-8", newline="\n") as file:
        counts = np.array(model.config.num_ngrams) + np.array([2, *[0] * (model.config.order - 1)])  # <s> and <unk>
        file.write("\\data\\\n")
        file.writelines(f"ngram {order}={count}\n" for order, count in enumerate(counts, start=1))
        tokens: NDArray[np.int64] = np.arange(len(names))[:, None]
        for k, level in enumerate(model.levels):
            file.write(f"\n\\{k + 1}-grams:\n")
            if k:
                parents = np.repeat(np.arange(len(tokens)), np.diff(model.levels[k - 1].first_child))
                tokens = np.hstack([tokens[parents], level.tokens[:, None].astype(np.int64)])
            else:
                backoff = _backoff(level, model.config.eos_token_id)
                file.write(f"{_NEVER}\t{_UNKNOWN}\n{_NEVER}\t{_BEGIN}{backoff}\n")
            file.writelines(_lines(level, tokens, names, model.config.eos_token_id))
        file.write("\n\\end\\\n")


def _lines(level: NgramLevel, tokens: NDArray[np.int64], names: Sequence[str], eos_token_id: int) -> Iterator[str]:
    """The n-grams of a level; tokens are (n-grams, k)."""
    for start in range(0, len(tokens), _ROWS):
        rows = tokens[start : start + _ROWS].tolist()
        for number, row in enumerate(rows, start=start):
            spelled = [names[token] for token in row]
            if len(row) > 1 and row[0] == eos_token_id:
                spelled[0] = _BEGIN
            closes = row[-1] == eos_token_id  # and is no context
            backoff = "" if closes else _backoff(level, number)
            yield f"{level.logprobs[number] / math.log(10):.7g}\t{' '.join(spelled)}{backoff}\n"


def _backoff(level: NgramLevel, number: int) -> str:
    """The last column: nothing at the highest order, or where the weight is 1."""
    weight = float(level.backoffs[number]) / math.log(10) if len(level.backoffs) else 0.0
    return f"\t{weight:.7g}" if weight else ""


def _check(names: Sequence[str], model: NgramModel) -> None:
    if len(names) != model.config.vocab_size:
        raise UsageError(
            f"{len(names):,} spellings for {model.config.vocab_size:,} tokens",
            hint="use the tokenizer that belongs to this model",
        )
    unfit = [name for name in names if not name or any(map(str.isspace, name)) or name in (_BEGIN, _UNKNOWN)]
    if unfit or len(set(names)) < len(names):
        raise UsageError(
            f"token {unfit[0]!r} cannot be written in an ARPA file" if unfit else "two tokens are spelled alike",
            hint="ARPA files separate tokens by spaces",
        )
