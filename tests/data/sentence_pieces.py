"""A small tokenizer of SentencePiece's kind as GGUF keeps it: tokens, types and scores."""

from __future__ import annotations

import random
from functools import cache

import tokenizers
from tokenizers import Regex, models, pre_tokenizers, trainers

from rung.data.gguf_tokenizer import BYTE, CONTROL, NORMAL, UNKNOWN

SPACE = "\u2581"
LINE = "the cat sat on a mat; na\u00efve caf\u00e9s then, she 'sat' there: 2 + 12 = 14! a \u6771\u4eac"
WORDS = LINE.split(" ")


@cache
def vocabulary() -> tuple[list[str], list[int], list[float]]:
    """Tokens, types and scores as Llama 2 has them: unknown, begin, end, 256 bytes, then pieces from the best down."""
    draw = random.Random(1)  # noqa: S311
    text = [SPACE + SPACE.join(draw.choices(WORDS, k=12)) for _ in range(300)]
    learner = tokenizers.Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Split(Regex(SPACE), "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=160, show_progress=False, special_tokens=[])
    learner.train_from_iterator(text, trainer)
    pieces = [token for token, _ in sorted(learner.get_vocab().items(), key=lambda entry: entry[1])]
    pieces += ["th", "sa", f"{SPACE}t", f"{SPACE}s", "ma"]  # other ways to longer ones
    pieces.sort(key=lambda piece: len(piece) == 1)  # characters last, as SentencePiece writes them
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(pieces)]
    return tokens, types, [0.0] * 259 + [-float(rank) for rank in range(len(pieces))]


def metadata() -> dict[str, object]:
    """What a GGUF file says of it; the rest goes without saying."""
    tokens, types, scores = vocabulary()
    values = {"model": "llama", "tokens": tokens, "token_type": types, "scores": scores}
    return {f"tokenizer.ggml.{name}": value for name, value in values.items()}
