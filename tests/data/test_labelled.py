"""Labelled items: the same from any format and row order; bad labels and bad rows told, none lost."""

from __future__ import annotations

import csv
import random
from collections import Counter
from pathlib import Path

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data.labelled_reading import (
    LEAST_ITEMS,
    RejectedRow,
    canonical_labels,
    natural_order,
    read_labelled,
    sortable_times,
)
from rung.errors import DataError


def write(path: Path, rows: list[list[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def table(path: Path, labels: list[object], header: tuple[str, str] = ("label", "text")) -> Path:
    rows = [[label, f"the text of row {number} is here"] for number, label in enumerate(labels)]
    return write(path, [list(header), *rows])


def test_every_format_gives_the_same_items(tmp_path: Path) -> None:
    frame = polars.DataFrame(
        {"label": [True, False, True] * 10, "text": [f"text number {n}" for n in range(30)], "n": list(range(30))}
    )
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_ndjson(tmp_path / "t.jsonl")
    frame.write_csv(tmp_path / "t.csv")
    frame.write_csv(tmp_path / "t.tsv", separator="\t")
    found = [read_labelled(tmp_path / f"t.{kind}").items for kind in ("parquet", "jsonl", "csv", "tsv")]
    assert {items.sha256 for items in found} == {found[0].sha256}
    assert all(items.ids == found[0].ids for items in found)
    assert found[0].label_names == ("false", "true")


@given(seed=st.integers(0, 2**32))
def test_order_of_rows_makes_no_difference(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    folder = tmp_path_factory.mktemp("order")
    chance = random.Random(seed)  # noqa: S311 - test data
    rows = [[f"c{n % 3}", f"text {n % 20}", f"g{n % 4}", f"2025-01-{1 + n % 28:02d}"] for n in range(60)]
    header = ["label", "text", "who", "when"]
    first = read_labelled(write(folder / "a.csv", [header, *rows]), group="who", time="when").items
    chance.shuffle(rows)
    write(folder / "b.csv", [header, *rows])
    second = read_labelled(folder / "b.csv", group="who", time="when").items
    assert (first.ids, first.texts, first.groups, first.times) == (
        second.ids,
        second.texts,
        second.groups,
        second.times,
    )
    assert np.array_equal(first.labels, second.labels)
    assert len(set(first.ids)) == 60


def test_several_files_are_one_table(tmp_path: Path) -> None:
    table(tmp_path / "a.csv", ["x", "y"] * 10)
    write(tmp_path / "b.csv", [["text", "label", "more"], *[[f"other text {n}", "z", n] for n in range(10)]])
    found = read_labelled(tmp_path)
    assert (len(found.items), found.files, found.items.label_names) == (30, ["a.csv", "b.csv"], ("x", "y", "z"))


def test_rows_that_cannot_be_used_are_listed_each_with_its_reason(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", ["x", "y"] * 15)
    with path.open("a") as file:
        file.write('x\n,no label\nnan,none either\nNULL,nor here\nx,\nx,"  "\ny,a,b\n')
    found = read_labelled(path)
    assert found.rejected == [
        RejectedRow("t.csv", 32, "fewer fields than the header (1, not 2)"),
        RejectedRow("t.csv", 33, "no label"),
        RejectedRow("t.csv", 34, "no label"),
        RejectedRow("t.csv", 35, "no label"),
        RejectedRow("t.csv", 36, "empty text"),
        RejectedRow("t.csv", 37, "empty text"),
        RejectedRow("t.csv", 38, "more fields than the header (3, not 2)"),
    ]
    assert found.items.rejected == dict(Counter(row.reason for row in found.rejected))
    assert len(found.items) == 30


def test_nulls_and_nan_are_no_labels(tmp_path: Path) -> None:
    texts = [f"text {n}" for n in range(44)]
    labels = [*[1.0, 2.0] * 20, None, float("nan"), 1.0, None]
    polars.DataFrame({"label": labels, "text": texts}, strict=False).write_parquet(tmp_path / "t.parquet")
    found = read_labelled(tmp_path / "t.parquet", keep_unlabelled=True)
    assert found.items.label_names == ("1", "2")
    assert found.items.rejected == {"no label": 3}
    assert found.unlabelled == ["text 40", "text 41", "text 43"]


def test_none_is_a_class_like_any_other(tmp_path: Path) -> None:
    found = read_labelled(table(tmp_path / "t.csv", ["none", "favour", "NA"] * 10))
    assert set(found.items.label_names) == {"none", "favour", "NA"}


def test_long_texts_are_kept_whole(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", ["x", "y"] * 15)
    long = "word " * 20_000
    with path.open("a") as file:
        file.write(f"x,{long}\n")
    assert long in read_labelled(path).items.texts


def test_several_text_columns_are_joined(tmp_path: Path) -> None:
    rows = [[f"title {n}", f"body {n}" if n else "", "xy"[n % 2]] for n in range(30)]
    path = write(tmp_path / "t.csv", [["subject", "body", "label"], *rows])
    found = read_labelled(path, text_columns=["subject", "body"])
    assert "title 7\nbody 7" in found.items.texts
    assert "title 0" in found.items.texts


def test_a_missing_column_names_those_there_are(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", ["x", "y"] * 15)
    with pytest.raises(DataError, match="no target column 'lable'; did you mean 'label'") as caught:
        read_labelled(path, target="lable")
    assert "'label', 'text'" in str(caught.value)
    with pytest.raises(DataError, match="no group column 'who'"):
        read_labelled(path, group="who")


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (["x"] * 30, "same label, 'x'"),
        ([f"k{n}" for n in range(30)], "different value in each of its 30 rows: it is an id"),
        ([f"{n / 7:.3f}" for n in range(100)] * 2, "regression"),
        ([str(n % 80) for n in range(200)], "regression"),
        ([f"k{n}" for n in range(29)] + ["k0"], "too few rows a class"),
        (["x", "y"] * 5, f"10 labelled rows are too few to train and test on: at least {LEAST_ITEMS}"),
        ([""] * 30, "no row has both a text and a label"),
    ],
)
def test_targets_nothing_can_be_learned_from(tmp_path: Path, labels: list[str], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_labelled(table(tmp_path / "t.csv", labels), target="label", text_columns=["text"])


def test_rare_classes_are_announced(tmp_path: Path) -> None:
    found = read_labelled(table(tmp_path / "t.csv", ["x", "y"] * 15 + ["once", "twice", "twice"]))
    assert any("class 'once' has one example: it is trained on but never tested" in line for line in found.warnings)
    assert any("'twice' has 2 examples" in line for line in found.warnings)
    assert any("33 labelled rows are few" in line for line in found.warnings)


def test_labels_of_an_existing_model_keep_their_numbers_and_new_ones_follow(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", ["b", "a", "new"])
    found = read_labelled(path, target="label", text_columns=["text"], label_names=["b", "a"])
    assert found.items.label_names == ("b", "a", "new")
    assert found.unseen_labels == {"new": 1}
    assert sorted(found.items.labels.tolist()) == [0, 1, 2]


def test_labels_sort_naturally() -> None:
    assert natural_order(["10", "2", "1", "b10", "B2", "a", "2"]) == ["1", "2", "10", "a", "B2", "b10"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["1.0", "2.0", "1"], ["1", "2", "1"]),
        (["True", "FALSE"], ["true", "false"]),
        (["1.5", "2.0"], ["1.5", "2.0"]),
        (["True", "maybe"], ["True", "maybe"]),
        (["007", "7"], ["007", "7"]),
    ],
)
def test_labels_do_not_depend_on_the_format(labels: list[str], expected: list[str]) -> None:
    assert canonical_labels(labels) == expected


@given(st.lists(st.floats(-1e9, 1e9) | st.integers(0, 2**31).map(float), min_size=1))
def test_numeric_times_sort_as_numbers(values: list[float]) -> None:
    rounded = [round(value, 6) for value in values]
    found = sortable_times([repr(value) for value in rounded])
    order = sorted(range(len(values)), key=lambda at: (rounded[at], at))
    assert sorted(range(len(values)), key=lambda at: (found[at], rounded[at], at)) == order


def test_iso_times_sort_across_time_zones_and_others_are_refused() -> None:
    times = ["2025-03-01T12:00:00+02:00", "2025-03-01T11:00:00Z", "2025-03-01"]
    found = sortable_times(times)
    assert sorted(range(3), key=found.__getitem__) == [2, 0, 1]
    with pytest.raises(DataError, match="neither a number nor in ISO form"):
        sortable_times(["03/04/2025"], "when")


def test_public_sets_read_as_described(rung_data: Path) -> None:
    mr = read_labelled(rung_data / "mr" / "all.jsonl")
    assert (len(mr.items), mr.target, mr.text_columns, mr.items.label_names) == (10_662, "label", ("text",), ("0", "1"))
    assert len(mr.guessed) == 2
    assert not mr.rejected
    sms = read_labelled(rung_data / "sms-spam" / "SMSSpamCollection.tsv", target="1", text_columns=["2"]).items
    assert dict(zip(sms.label_names, np.bincount(sms.labels).tolist(), strict=True)) == {"ham": 4827, "spam": 747}
