"""Cutting long texts: nothing is lost, lengths are kept, and an edit moves only the borders near it."""

# ruff: noqa: S311 - test data, no secrets
from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data.pieces import cut_points, lowest_rank_cuts

MINIMUM, MAXIMUM = 64, 192


def cut(text: bytes, minimum: int = MINIMUM, maximum: int = MAXIMUM) -> list[bytes]:
    ends = cut_points(text, minimum, maximum)
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def prose(paragraphs: int, seed: int) -> bytes:
    rng = random.Random(seed)
    words = ["stone", "river", "and", "the", "old", "Königin", "of", "rain", "was"]
    return "\n\n".join(" ".join(rng.choices(words, k=rng.randint(3, 12))) + "." for _ in range(paragraphs)).encode()


@given(st.text(alphabet=st.sampled_from("ab é中😀 \t\n"), max_size=2000))
def test_pieces_join_to_the_text_and_are_whole_code_points_of_allowed_length(text: str) -> None:
    raw = text.encode()
    pieces = cut(raw)
    assert b"".join(pieces) == raw
    for piece in pieces:
        piece.decode("utf-8")
        assert len(piece) <= MAXIMUM
        assert len(piece) >= MINIMUM or len(pieces) == 1


def test_pieces_end_behind_blank_lines_where_there_are_some() -> None:
    pieces = cut(prose(200, seed=1))
    assert all(piece.endswith(b"\n\n") for piece in pieces[:-1])


def test_pieces_end_behind_newlines_where_there_are_no_blank_lines() -> None:
    pieces = cut(prose(200, seed=1).replace(b"\n\n", b"\n"))
    assert all(piece.endswith(b"\n") for piece in pieces[:-1])


@pytest.mark.parametrize("space", [b" ", b""])
def test_a_monster_line_is_cut_at_spaces_or_else_between_code_points(space: bytes) -> None:
    line = space.join(["中文字".encode()] * 3000)
    pieces = cut(line)
    assert len(pieces) > len(line) / MAXIMUM
    assert all(piece.endswith(space) for piece in pieces[:-1])
    assert all(piece.decode("utf-8") for piece in pieces)


def test_carriage_return_and_newline_are_not_parted() -> None:
    text = b"x" * 60 + b"\r\n"
    assert not any(piece.startswith(b"\n") for piece in cut(text * 50))


@pytest.mark.parametrize("edit", [b"", b"One more sentence.\n\n"])
def test_an_edit_changes_only_pieces_near_it(edit: bytes) -> None:
    text = prose(2000, seed=2)
    at = text.index(b"\n\n", len(text) // 3) + 2
    edited = text[:at] + edit + text[at + 5 :]
    before, after = set(cut(text)), set(cut(edited))
    assert len(before - after) <= 8 < 0.05 * len(before)


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), min_size=1, max_size=60),
)
def test_runs_of_items_cover_all_and_keep_to_the_sizes(items: list[tuple[int, int]]) -> None:
    sizes, ranks = [size for size, _ in items], [rank for _, rank in items]
    ends = lowest_rank_cuts(sizes, ranks, 40, 100)
    assert ends[-1] == len(items)
    assert ends == sorted(set(ends))
    for start, end in zip([0, *ends], ends, strict=False):
        assert sum(sizes[start:end]) <= 100
