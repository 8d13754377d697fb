"""SentencePiece models: what a file says of itself, and files that are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentencepiece_writer import BYTE, NORMAL, SPECIAL, Piece, write_model

from rung.data.sentencepiece_model import SPACE, SentencePieceModel
from rung.errors import TokenizerError

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


def test_pieces_that_stand_for_no_text(tmp_path: Path) -> None:
    model = read(tmp_path, [*SPECIAL, *WORDS])
    assert (model.controls, model.byte_fallback) == ({"<unk>", "<s>", "</s>"}, False)
    assert read(tmp_path, [*SPECIAL, *BYTES, *WORDS], {35: True}).byte_fallback


def cut(place: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:place]


WHOLE = write_model([*SPECIAL, *WORDS], {3: 1, 4: 90}, {1: "identity"})
AFTER_A_PIECE = len(write_model([*SPECIAL, *WORDS[:2]])) - 4


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut(-1), "it ends at byte"),
        (cut(40), "it ends at byte"),
        (cut(1), "not a whole SentencePiece model"),
        (cut(AFTER_A_PIECE), f"it ends at byte {AFTER_A_PIECE}"),
        (lambda _: b"", "it ends at byte 0"),
        (lambda _: b"\x8a" * 20, "not a whole SentencePiece model"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "byte 0 begins no field"),
    ],
)
def test_damaged_files_are_refused(damage: Callable[[bytes], bytes], said: str, tmp_path: Path) -> None:
    path = tmp_path / "target.spm"
    path.write_bytes(damage(WHOLE))
    with pytest.raises(TokenizerError, match=said) as refused:
        SentencePieceModel.read(path)
    assert "target.spm" in refused.value.problem
    assert refused.value.hint


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(TokenizerError, match="package sentencepiece") as refused:
        read(tmp_path, [*SPECIAL, *WORDS])
    assert refused.value.hint == "pip install 'rung[translate]'"
