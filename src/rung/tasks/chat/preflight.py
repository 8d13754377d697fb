"""A look at what will be learned, before it is: examples as the network reads them, the learned tokens marked."""

from __future__ import annotations

from itertools import groupby

from rung.data.packing import TokenExamples
from rung.data.tokenizer import Tokenizer
from rung.errors import DataError
from rung.progress import Highlighted

SHOWN = 3
_MOST_CHARACTERS = 1_200


def preflight(examples: TokenExamples, tokenizer: Tokenizer) -> list[Highlighted]:
    """The first examples, decoded, with what is learned standing out.

    Raises DataError when nothing in `examples` is learned: training would end with a loss of 0 and no change
    (huggingface/trl#6668).
    """
    if not examples.num_targets:
        raise DataError(
            "no token of these conversations is learned: all labels are masked",
            hint="look at the chat template's {% generation %} marks, and at the length of the conversations",
        )
    return [_marked(examples, number, tokenizer) for number in range(min(SHOWN, len(examples)))]


def _marked(examples: TokenExamples, number: int, tokenizer: Tokenizer) -> Highlighted:
    example = examples.example(number)
    spelled = tokenizer.spellings
    parts: list[tuple[str, bool]] = [("\n", False)]
    left = _MOST_CHARACTERS
    for is_learned, group in groupby(zip(example.ids, example.assistant, strict=True), key=lambda pair: pair[1]):
        text = _decoded([token for token, _ in group], tokenizer, spelled)
        if len(text) > left:
            parts.append((f"{text[:left]} [{len(text) - left:,} more characters]", is_learned))
            break
        left -= len(text)
        parts.append((text, is_learned))
    return Highlighted.of(parts)


def _decoded(ids: list[int], tokenizer: Tokenizer, spelled: list[str]) -> str:
    """The text of `ids` with special tokens spelled out."""
    texts = []
    for is_special, group in groupby(ids, key=lambda token: not tokenizer.token_bytes(token)):
        run = list(group)
        texts.append("".join(spelled[token] for token in run) if is_special else tokenizer.decode(run))
    return "".join(texts)
