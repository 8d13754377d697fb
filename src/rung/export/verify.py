"""Whether an exported model says what the run says: tokens and scores of fixed and random strings, compared."""

from __future__ import annotations

import io
import random
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from pathlib import Path

import numpy as np

from rung.errors import EvaluationError
from rung.export.readers import (
    LlamaDecoder,
    LlamaEncoder,
    Reader,
    RungReader,
    Scores,
    SentenceTransformersReader,
    Tokens,
    TransformersReader,
    installed,
)
from rung.export.report import TOLERANCE, Comparison
from rung.export.source import SENTENCE_MODULES, Source
from rung.nets.weights import GGUF_WEIGHTS

TOKENISED = 1000
SCORED = 24
LONGEST = 48  # tokens of a string that is scored
SEED = 5
# transformers 5.23 opens every folder of model_type qwen2 with its own Qwen2Tokenizer, whatever the folder says.
_COMPOSED = "the others only because it composes characters first (NFC)"

FIXED = (
    "The quick brown fox jumps over the lazy dog.",
    "It was the best of times, it was the worst of times.",
    "I'll say we've 12,345.67 reasons; don't you?",
    "  leading and trailing spaces  ",
    "tabs\tand\nnewlines\r\n\n\nand more",
    "def f(x):\n    return {x: [1, 2, 3]}  # code\n",
    "na\u00efve caf\u00e9, cafe\u0301, \u00c5ngstr\u00f6m, \u00df, \u0130stanbul",
    "\u0394\u03b9\u03bf\u03af\u03ba\u03b7\u03c3\u03b7 \u0438 \u0443\u043f\u0440\u0430\u0432\u0430",
    "\u6771\u4eac\u90fd\u306b\u4f4f\u3093\u3067\u3044\u307e\u3059\u3002 \ud55c\uad6d\uc5b4",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea \u0939\u093f\u0928\u094d\u0926\u0940",
    "\U0001f600\U0001f44d\U0001f3fd \u2764\ufe0f \U0001f1e9\U0001f1ea",
    "https://example.org/a_b?c=d&e=%20f#g 3.14e-10 0xFF",
)
# What random strings are drawn from: one alphabet a stretch, as text changes its script and not at every character.
_RANGES = (
    (0x20, 0x7F), (0x61, 0x7B), (0x30, 0x3A), (0xC0, 0x180), (0x391, 0x3CA), (0x410, 0x450), (0x5D0, 0x5EB),
    (0x905, 0x93A), (0x3041, 0x3097), (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0x1F600, 0x1F650),
)  # fmt: skip
_ALPHABETS = (*("".join(map(chr, range(*ends))) for ends in _RANGES), " \t\n", "   ", "\n\n", ".,;:!?'\"()-")


# Other programs do not say which errors they raise. Whatever it is, the export counts as not read by them.
_READERS_OWN_ERRORS = (AttributeError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError)
_Open = Callable[[], Reader | LlamaEncoder]
_Readers = list[tuple[str, _Open | str]]


def strings(count: int, seed: int = SEED) -> list[str]:
    """`FIXED` strings and random ones, `count` in all, the same for the same seed."""
    draw = random.Random(seed)  # noqa: S311 - texts to compare, no secrets
    found = list(FIXED[:count])
    while len(found) < count:
        alphabets = [draw.choice(_ALPHABETS) for _ in range(draw.randint(1, 8))]
        found.append("".join("".join(draw.choices(letters, k=draw.randint(1, 12))) for letters in alphabets))
    return found


def compare_export(source: Source, folder: Path, to: str, dtype: str) -> tuple[Comparison, ...]:
    """Have every program that can read the export, and is installed, say what it says, and compare with the run.

    Raises EvaluationError when scores are further off than the format explains, or a decoder's tokens differ.
    """
    own, longest = RungReader(source.folder, source.pipeline), min(LONGEST, source.most_tokens or LONGEST)
    readers = _gguf_readers(source, folder) if to == "gguf" else _hugging_face_readers(source, folder)
    found = tuple(_compare(own, name, open_reader, longest) for name, open_reader in readers)
    for comparison in found:
        require_equal(comparison, dtype, tokens_too=source.pipeline == "text-generation")
    return found


def _compare(own: Reader, name: str, open_reader: _Open | str, longest: int) -> Comparison:
    if isinstance(open_reader, str):
        return Comparison(name, remark=open_reader)
    try:
        other = open_reader()
    except _READERS_OWN_ERRORS as error:
        return Comparison(name, remark=f"it does not open the export: {_short(error)}")
    try:
        same_tokens, tokenised, remark = compare_tokens(
            _tokens(own), _tokens(other), getattr(other, "token_remark", "")
        )
        get_pairs = _vectors_of_both if isinstance(other, LlamaEncoder) else _scores_of_both
        pairs = get_pairs(own, other, longest)  # type: ignore[arg-type]
    except _READERS_OWN_ERRORS as error:
        return Comparison(other.name, remark=f"it opens the export and fails on it: {_short(error)}")
    found = Comparison(other.name, same_tokens=same_tokens, tokenised=tokenised, remark=remark, scored=len(pairs))
    if not pairs:
        return found
    same = np.concatenate([first.argmax(1) == second.argmax(1) for first, second in pairs])
    return replace(
        found,
        largest_difference=largest([np.abs(first - second) for first, second in pairs]),
        largest_score=largest([np.abs(first) for first, _ in pairs]),
        same_choice=float(same.mean()),
    )


def _tokens(reader: Reader | LlamaEncoder) -> Tokens:
    """A reader's tokens of a text and, for an encoder-decoder, those of the text as a target after them."""
    if isinstance(reader, RungReader | TransformersReader):
        return lambda text: [*reader.tokens(text), *reader.target_tokens(text)]
    return reader.tokens


def largest(arrays: Sequence[Scores]) -> float:
    """The largest number, or NaN where there is one: Python's `max` would pass over it."""
    return float(np.max([array.max() for array in arrays]))


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def compare_tokens(own: Tokens, other: Tokens, known_difference: str = "") -> tuple[int, int, str]:
    """How many strings become the same tokens, of how many, and why the others do not where that is known."""
    texts = strings(TOKENISED)
    others = [text for text in texts if own(text) != other(text)]
    composed = all(own(unicodedata.normalize("NFC", text)) == other(text) for text in others)
    why = _COMPOSED if composed else known_difference
    return len(texts) - len(others), len(texts), why if others else ""


def _scores_of_both(own: Reader, other: Reader, longest: int) -> list[tuple[Scores, Scores]]:
    rows = [own.tokens(text)[:longest] for text in strings(SCORED)]
    return [(own.scores(row), other.scores(row)) for row in rows if row]


def _vectors_of_both(own: Reader, other: LlamaEncoder, longest: int) -> list[tuple[Scores, Scores]]:
    """Vectors at length 1 of texts that both cut into the same tokens, for the other takes no tokens."""
    texts = [text for text in strings(TOKENISED) if len(own.tokens(text)) <= longest]
    same = [text for text in texts if own.tokens(text) == other.tokens(text)][:SCORED]
    return [(_unit(own.scores(own.tokens(text))), _unit(other.vectors(text))) for text in same]


def _unit(vectors: Scores) -> Scores:
    unit: Scores = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _hugging_face_readers(source: Source, folder: Path) -> _Readers:
    readers: _Readers = [("Rung", lambda: RungReader(folder, source.pipeline))]
    if source.has_steps:
        found = installed("sentence_transformers")
        readers.append(
            ("sentence-transformers", (lambda: SentenceTransformersReader(folder)) if found else "not installed")
        )
        return readers
    found = installed("transformers")
    opened = lambda: TransformersReader(folder, source.pipeline, source.architecture)  # noqa: E731
    return [*readers, ("transformers", opened if found else "not installed")]


def _gguf_readers(source: Source, folder: Path) -> _Readers:
    file = folder / GGUF_WEIGHTS
    readers: _Readers = [("Rung", lambda: _RungOnGguf(file, source))]
    decodes, context = source.pipeline == "text-generation", 2 * LONGEST
    if decodes:
        opened = lambda: _transformers_on_gguf(file, source.pipeline)  # noqa: E731
        readers.append(("transformers", opened if installed("transformers") else "not installed"))
    llama = lambda: LlamaDecoder(file, context) if decodes else LlamaEncoder(file, context)  # noqa: E731
    return [*readers, ("llama.cpp", llama if installed("llama_cpp") else "llama-cpp-python is not installed")]


def _transformers_on_gguf(file: Path, pipeline: str) -> TransformersReader:
    with _unpacked(file) as unpacked, redirect_stderr(io.StringIO()):  # it draws a bar, whatever it is told
        return TransformersReader(
            file.parent, pipeline, "AutoModelForCausalLM", gguf_file=file.name, config_of=unpacked
        )


class _RungOnGguf(RungReader):
    """Rung, on a GGUF file: what it reads out of it, tokenizer and configuration too.

    How a sentence encoder makes one vector of many is in the file as a number only; the folder's own steps are taken.
    """

    def __init__(self, file: Path, source: Source) -> None:
        with _unpacked(file) as folder:
            for path in source.folder.glob("[0-9]_*/config.json"):
                (folder / path.parent.name).mkdir()
                shutil.copyfile(path, folder / path.parent.name / path.name)
            for name in (SENTENCE_MODULES, "sentence_bert_config.json"):
                if (source.folder / name).is_file():
                    shutil.copyfile(source.folder / name, folder / name)
            super().__init__(folder, source.pipeline)


@contextmanager
def _unpacked(file: Path) -> Iterator[Path]:
    from rung.tasks.bases import write_gguf_folder

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "unpacked"
        write_gguf_folder(file.resolve(), folder, copy=False)
        yield folder


def require_equal(comparison: Comparison, dtype: str, *, tokens_too: bool) -> None:
    """Raise EvaluationError when an export is not the same model: its scores differ, or its tokens where they count."""
    hint = "this is a defect of Rung: please report it with the configuration of the model"
    if comparison.largest_difference is None:
        return
    if not comparison.relative_difference <= TOLERANCE[dtype]:
        raise EvaluationError(
            f"the exported model gives other scores than the run: {comparison}", where=comparison.reader, hint=hint
        )
    if tokens_too and not comparison.remark and (comparison.same_tokens or 0) < comparison.tokenised:
        raise EvaluationError(
            f"the exported model makes other tokens of texts: {comparison}", where=comparison.reader, hint=hint
        )
