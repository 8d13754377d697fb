"""Pairs and triplets: which columns are meant, what is left out, and parts that share no text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.data.related_batches import RelatedBatches
from rung.data.related_texts import RelatedTexts, read_related, split_related
from rung.data.text_encoder import EncodedTexts
from rung.errors import DataError


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_columns_are_found_by_what_is_left(tmp_path: Path) -> None:
    rows = [{"sentence1": f"a {i}", "sentence2": f"b {i}", "score": i / 2} for i in range(5)]
    found = read_related([table(tmp_path / "scored.jsonl", rows)])
    assert (found.names, found.score_name, found.kind) == (("sentence1", "sentence2"), "score", "pairs with a score")
    triplets = [{"anchor": f"a {i}", "positive": f"b {i}", "negative": f"c {i}"} for i in range(5)]
    assert read_related([table(tmp_path / "triplets.jsonl", triplets)]).kind == "triplets"
    pairs = [{"id": i, "question": f"a {i}", "answer": f"b {i}"} for i in range(5)]
    named = read_related([table(tmp_path / "pairs.jsonl", pairs)], text=["question", "answer"])
    assert (named.kind, named.scores) == ("pairs", None)


@pytest.mark.parametrize(
    ("row", "options", "said"),
    [
        ({"a": "x", "b": "y", "c": "z", "d": "w"}, {}, "which columns hold the texts is not clear"),
        ({"a": "x", "score": 1}, {}, "which columns hold the texts is not clear"),
        ({"a": "x", "b": "y"}, {"text": ["a", "q"]}, "no text column 'q'"),
        ({"a": "x", "b": "y"}, {"score": "q"}, "no score column 'q'"),
        ({"a": "x", "b": "y"}, {"text": ["a", "a"]}, "not clear"),
        ({"a": " ", "b": "y"}, {}, "no row can be used .*empty"),
        ({"a": "x", "b": "y", "score": "high"}, {}, "no row can be used .*no number"),
        ({"a": "x", "b": "y", "score": "nan"}, {}, "no row can be used .*no number"),
    ],
)
def test_what_cannot_be_read_is_said(row: dict[str, Any], options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read_related([table(tmp_path / "rows.jsonl", [row])], **options)


def test_bad_rows_are_counted_and_the_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    rows = [{"a": f"left {i}", "b": f"right {i}", "score": i} for i in range(6)]
    rows += [{"a": "left", "b": None, "score": 1}]
    found = read_related([table(tmp_path / "one.jsonl", rows)])
    turned = read_related([table(tmp_path / "other.jsonl", rows[::-1])])
    assert found.rejected == {"a text is missing or empty": 1}
    assert (found.ids, found.columns, found.sha256) == (turned.ids, turned.columns, turned.sha256)


def related(links: list[tuple[int, int]]) -> RelatedTexts:
    columns = tuple([f"text number {link[side]}" for link in links] for side in (0, 1))
    return RelatedTexts([f"{place:04d}" for place in range(len(links))], columns, None)


@settings(max_examples=40, deadline=None)
@given(
    links=st.lists(st.tuples(st.integers(0, 60), st.integers(61, 120)), min_size=40, max_size=80),
    seed=st.integers(0, 9),
)
def test_no_text_is_in_two_parts(links: list[tuple[int, int]], seed: int) -> None:
    rows = related(links)
    try:
        split = split_related(rows, seed=seed)
    except DataError:  # links that all hang together: see the next test
        return
    parts = [{text for column in part.columns for text in column} for part in (split.train, split.valid, split.test)]
    assert len(set.union(*parts)) == sum(map(len, parts))
    assert len(split.train) + len(split.valid) + len(split.test) == len(rows)
    assert min(len(split.train), len(split.valid), len(split.test)) >= 1


def test_rows_that_all_hang_together_cannot_be_split() -> None:
    with pytest.raises(DataError, match="hang together"):
        split_related(related([(0, place) for place in range(1, 30)]), seed=0)


def test_rows_of_a_given_part_are_left_out_of_training_either_way_round() -> None:
    rows, test = related([(i, i + 100) for i in range(50)]), related([(103, 3), (500, 501)])
    split = split_related(rows, test=test, seed=0)
    assert len(split.test) == 2
    assert "text number 3" not in split.train.columns[0] + split.valid.columns[0]
    assert "1 training rows left out: their texts are those of a test row" in split.remarks


def test_parts_of_another_kind_are_refused() -> None:
    scored = RelatedTexts(["a"], (["x"], ["y"]), np.array([1.0]))
    with pytest.raises(DataError, match="the test rows are pairs with a score, the others pairs"):
        split_related(related([(i, i + 100) for i in range(9)]), test=scored, seed=0)


@pytest.mark.parametrize(("scored", "compared"), [(True, True), (True, False), (False, True)])
def test_every_row_comes_once_an_epoch_with_its_texts_side_by_side(scored: bool, compared: bool) -> None:
    lengths = [np.array([(i * place) % 5 + 1 for i in range(10)]) for place in (1, 3)]
    columns = [EncodedTexts(np.repeat(np.arange(10), size).astype(np.int32), size) for size in lengths]
    texts = np.arange(20, dtype=np.uint64).reshape(10, 2)
    scores = np.arange(10.0) if scored else None
    batches = RelatedBatches(
        columns, scores=scores, texts=texts, pad_token_id=99, batch_size=5, compared=compared, seed=1
    )
    seen = []
    for start in (0, 5):
        batch = batches.batch(np.arange(start, start + 5))
        assert batch["input_ids"].shape == batch["mask"].shape
        for row, is_token in zip(batch["input_ids"].numpy(), batch["mask"].numpy(), strict=True):
            number = {int(token) for token in row[is_token]}
            assert len(number) == 1
            seen += number
            assert [int(one.sum()) for one in is_token] == [size[seen[-1]] for size in lengths]
        told = batch["scores"] if scored else batch["texts"][:, 0] // 2
        assert told.tolist() == seen[-5:]
    assert sorted(seen) == list(range(10))


@pytest.mark.parametrize("part", ["valid", "test"])
def test_held_out_rows_of_one_score_are_refused(part: str) -> None:
    rows = replace(related([(i, 100 + i) for i in range(40)]), scores=np.arange(40.0))
    alike = replace(related([(200 + i, 300 + i) for i in range(10)]), scores=np.full(10, 0.5))
    with pytest.raises(DataError, match=r"the 10 (validation|test) rows have one score, 0\.5"):
        split_related(rows, **{part: alike}, seed=0)
