"""SentencePiece's Unigram models: the pieces that SentencePiece gives, and files that are refused."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentencepiece_writer import BYTE, NORMAL, SPECIAL, UNUSED, USER_DEFINED, Piece, field, write_model

from rung.data.sentencepiece_model import SPACE, SentencePieceModel
from rung.errors import TokenizerError

MARIAN = Path(__file__).parent / "marian"
WORDS: list[Piece] = [
    (piece, score, NORMAL) for piece, score in ((SPACE, -2.0), ("a", -3.0), ("b", -3.5), ("ab", -4.0))
]
BYTES: list[Piece] = [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]


def read(folder: Path, *arguments: Any) -> SentencePieceModel:
    path = folder / "source.spm"
    path.write_bytes(write_model(*arguments))
    return SentencePieceModel.read(path)


def test_the_best_sum_of_scores_decides_and_unknown_neighbours_are_one(tmp_path: Path) -> None:
    model = read(tmp_path, [*SPECIAL, *WORDS])
    assert model.pieces("abba") == [SPACE, "ab", "b", "a"]
    assert model.pieces("axyb  \u6771") == [SPACE, "a", "xy", "b", SPACE, "\u6771"]
    assert model.pieces("<s>") == [SPACE, "<s>"]  # all unknown: no text makes a control token
    assert model.pieces("") == model.pieces("  ") == []


def test_a_character_without_a_piece_is_spelled_in_bytes(tmp_path: Path) -> None:
    model = read(tmp_path, [*SPECIAL, *BYTES, *WORDS], {35: True})
    assert model.pieces("a\u00e9") == [SPACE, "a", "<0xC3>", "<0xA9>"]


def test_what_a_file_says_of_spaces_holds(tmp_path: Path) -> None:
    model = read(tmp_path, [*SPECIAL, *WORDS], None, {3: False, 4: False})
    assert model.pieces(" a  b ") == [SPACE, "a", SPACE, SPACE, "b", SPACE]


def test_rules_replace_the_longest_match() -> None:
    model = SentencePieceModel.read(MARIAN / "source.spm")
    assert model.normalise("u\u0308 u\u0308\u0301 u \ufb01\u2026\t\u00bd\u200b") == SPACE + SPACE.join(
        ["\u00fc", "\u01d8", "u", "fi...", "1/2"]
    )
    assert model.normalise("\uff21\u0301") == f"{SPACE}A\u0301"  # what no rule is about stays


def random_model(draw: random.Random) -> list[Piece]:
    """Pieces over a few letters whose scores are often equal, so that rounding decides."""
    pieces = {"".join(draw.choices(f"abc{SPACE}", k=draw.randrange(1, 5))) for _ in range(25)}
    scores = [draw.uniform(-12, -1) for _ in range(4)]
    kinds = [NORMAL] * 9 + [UNUSED]
    return [*SPECIAL, *((piece, draw.choice(scores), draw.choice(kinds)) for piece in sorted(pieces)), ("d", -1.5, 1)]


@pytest.mark.parametrize("seed", range(12))
def test_the_same_pieces_as_sentencepiece(seed: int, tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    draw = random.Random(seed)  # noqa: S311
    with_bytes = seed % 3 == 0
    normalizer = {3: draw.random() < 0.7, 4: draw.random() < 0.7}
    pieces = [*random_model(draw), *BYTES * with_bytes]
    ours = read(tmp_path, pieces, {35: with_bytes}, normalizer)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "source.spm"))
    letters = [
        "a",
        "b",
        "c",
        "aaa",
        "abab",
        "d",
        " ",
        "  ",
        SPACE,
        "x",
        "\u6771\u4eac",
        "\U0001f600",
        "\0",
        "<0x41>",
        "\n",
    ]
    for _ in range(400):
        text = "".join(draw.choices(letters, k=draw.randrange(40)))
        assert ours.pieces(text) == theirs.encode(text, out_type=str), text


def test_the_same_pieces_as_sentencepiece_with_the_rules_of_unicode(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    draw = random.Random(5)  # noqa: S311
    prefix = str(tmp_path / "nfkc")
    lines = [" ".join(draw.choices(["one", "two", "three", "na\u00efve", "caf\u00e9s"], k=6)) for _ in range(200)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=prefix, vocab_size=40, hard_vocab_limit=False, minloglevel=2
    )
    ours = SentencePieceModel.read(Path(f"{prefix}.model"))
    theirs = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    ranges = [(1, 0x250), (0x300, 0x370), (0x600, 0x700), (0x1100, 0x1200), (0x2000, 0x3400), (0xAC00, 0xAD00)]
    ranges += [(0xF900, 0x10000), (0x1D400, 0x1D800), (0x1F600, 0x1F650)]
    for _ in range(1500):
        text = "".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(draw.randrange(12)))
        assert ours.pieces(text) == theirs.encode(text, out_type=str), ascii(text)


def cut(place: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:place]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut(-1), "it ends at byte"),
        (cut(40), "it ends at byte"),
        (cut(1), "it ends at byte 1, within a number"),
        (lambda _: b"", "it has no pieces"),
        (lambda _: b"\x80" * 20, "a number of more than ten bytes"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "not a whole SentencePiece model"),
        (lambda data: data + field(1, field(1, "a") + field(2, -1.0)), "the piece 'a' is empty or there twice"),
        (lambda data: data + field(1, field(1, "new") + field(2, float("nan"))), "a score that is not finite"),
        (lambda data: data + field(1, field(1, 7)), "not a whole SentencePiece model"),
        (lambda data: data + field(3, field(2, struct.pack("<I", 99) + b"x")), "not a whole SentencePiece model"),
        (lambda _: write_model([*SPECIAL, *WORDS])[:-4], "does not say how it was trained or how it normalises"),
        (lambda _: write_model([*SPECIAL, *WORDS], {3: 2}), "is a model of kind BPE, and only Unigram"),
        (lambda _: write_model([*SPECIAL, *WORDS], {3: 9}), "is a model of kind 9"),
        (lambda _: write_model([*SPECIAL, *WORDS], {24: True}), "treat_whitespace_as_suffix"),
        (lambda _: write_model([*SPECIAL, *WORDS], None, {5: False}), "escape_whitespaces"),
        (lambda _: write_model([*WORDS, ("x", 0.0, USER_DEFINED)]), "pieces that its user defined"),
        (lambda data: data + field(5, field(2, b"x")), "denormalizer_spec"),
    ],
)
def test_files_that_are_damaged_or_ask_for_more_are_refused(
    damage: Callable[[bytes], bytes], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "target.spm"
    path.write_bytes(damage(write_model([*SPECIAL, *WORDS], {3: 1, 4: 90}, {1: "identity"})))
    with pytest.raises(TokenizerError, match=said) as refused:
        SentencePieceModel.read(path)
    assert "target.spm" in refused.value.problem
    assert refused.value.hint


def test_rules_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    charsmap = struct.pack("<III", 8, 1 << 20, 1 << 20) + b"x\0"
    model = read(tmp_path, [*SPECIAL, *WORDS], None, {2: charsmap})
    with pytest.raises(TokenizerError, match="rules for normalising are damaged"):
        model.pieces("a")
