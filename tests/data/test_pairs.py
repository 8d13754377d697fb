"""Parallel text: what is read, what is refused, and that no source is in two parts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data.pairs import Pairs, read_lines, read_pairs, split_pairs
from rung.data.similar_items import normalised
from rung.errors import DataError

ROWS = [("a dog runs", "ein Hund läuft"), ("two cats 🐈", "zwei Katzen 🐈"), ("مرحبا", "hallo")]


def texts(pairs: Pairs) -> list[tuple[str, str]]:
    return sorted(zip(pairs.sources, pairs.targets, strict=True))


def write(folder: Path, kind: str) -> list[Path]:
    """ROWS in one of the forms they may come in."""
    sources, targets = (list(side) for side in zip(*ROWS, strict=True))
    if kind == "lines":
        paths = [folder / "train.en", folder / "train.de.gz"]
        paths[0].write_text("\r\n".join(sources) + "\r\n", encoding="utf-8")
        paths[1].write_bytes(gzip.compress("\n".join(targets).encode()))
        return paths
    path = folder / f"pairs.{kind}"
    if kind == "parquet":
        polars.DataFrame({"en": sources, "de": targets, "note": [1, 2, 3]}).write_parquet(path)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps({"de": de, "en": en}) for en, de in ROWS), encoding="utf-8")
    else:
        comma = "\t" if kind == "tsv" else ","
        path.write_text("\n".join(comma.join(("x", *row)) for row in [("en", "de"), *ROWS]), encoding="utf-8")
    return [path]


@pytest.mark.parametrize("kind", ["lines", "csv", "tsv", "jsonl", "parquet"])
def test_the_same_pairs_come_from_every_form(tmp_path: Path, kind: str) -> None:
    pairs = read_pairs(write(tmp_path, kind), source="en", target="de")
    assert texts(pairs) == sorted(ROWS)
    assert (pairs.source_name, pairs.target_name) == ("en", "de")
    assert pairs.rejected == {}


def test_two_files_in_either_order_if_their_names_are_named(tmp_path: Path) -> None:
    files = write(tmp_path, "lines")
    named = read_pairs(files[::-1], source="en", target="de")
    assert texts(named) == sorted(ROWS)
    assert texts(read_pairs(files[::-1])) == sorted((de, en) for en, de in ROWS)
    with pytest.raises(DataError, match="end in 'en' and 'de', not in 'fr'"):
        read_pairs(files, source="fr")


def test_the_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    forward, backward = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    rows = [json.dumps({"s": str(i), "t": str(-i)}) for i in range(50)]
    forward.write_text("\n".join(rows), encoding="utf-8")
    backward.write_text("\n".join(rows[::-1]), encoding="utf-8")
    first, second = (read_pairs([path], source="s", target="t") for path in (forward, backward))
    assert (first.ids, first.sources, first.sha256) == (second.ids, second.sources, second.sha256)


def test_files_of_different_lengths_are_refused_with_both_counts(tmp_path: Path) -> None:
    for name, lines in (("x.en", 3), ("x.de", 2)):
        (tmp_path / name).write_text("line\n" * lines, encoding="utf-8")
    with pytest.raises(DataError, match="not aligned: 3 and 2 lines"):
        read_pairs([tmp_path / "x.en", tmp_path / "x.de"])


def test_empty_sides_are_counted_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "x.en").write_text("a\n\n  \nd\ne\n", encoding="utf-8")
    (tmp_path / "x.de").write_bytes("A\nB\n\n \n\xff\n".encode("latin-1"))
    pairs = read_pairs([tmp_path / "x.en", tmp_path / "x.de"])
    assert texts(pairs)[0] == ("a", "A")
    assert pairs.rejected["the source is empty"] == 1
    assert pairs.rejected["both sides are empty"] == 1
    assert pairs.rejected["the target is empty"] == 1


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        ("en,de\n,x\ny,\n", {}, "no pair has both sides"),
        ("en,de,fr\na,b,c\n", {}, "which column is the source is not known"),
        ("en,de,fr\na,b,c\n", {"source": "en"}, "which column is the target is not known"),
        ("en,de\na,b\n", {"source": "em", "target": "de"}, "no source column 'em'"),
        ("en,de\na,b\n", {"source": "en", "target": "en"}, "the same column"),
        ("", {}, "empty"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, content: str, options: dict[str, str], told: str) -> None:
    path = tmp_path / "p.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        read_pairs([path], **options)


def test_bad_line_files_are_refused(tmp_path: Path) -> None:
    good = tmp_path / "a.en"
    good.write_text("x\n", encoding="utf-8")
    (tmp_path / "b.de").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "c.de.gz").write_bytes(gzip.compress(b"line\n" * 999)[:-20])
    for other, told in (("b.de", "binary"), ("c.de.gz", "cannot be read to its end"), ("d.de", "nothing at this path")):
        with pytest.raises(DataError, match=told):
            read_pairs([good, tmp_path / other])
    with pytest.raises(DataError, match="1 text files are given"):
        read_pairs([good])


def test_nested_values_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"s": ["a"], "t": "b"}\n{"s": 3, "t": "c"}\n', encoding="utf-8")
    pairs = read_pairs([path], source="s", target="t")
    assert texts(pairs) == [("3", "c")]
    assert pairs.rejected == {"a list or an object where a text should be": 1}


def test_lines_keep_their_places(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes("eins\n\nzwei ü".encode())
    assert read_lines(path) == ["eins", "", "zwei ü"]


def made(rows: list[tuple[str, str]]) -> Pairs:
    from rung.data.labelled import item_ids

    sources, targets = [row[0] for row in rows], [row[1] for row in rows]
    ids = item_ids(sources, targets)
    return Pairs(ids, sources, targets)


@given(
    st.lists(st.tuples(st.sampled_from("abcdefghABCD"), st.sampled_from("xyz")), min_size=12, max_size=60),
    st.integers(0, 9),
)
def test_no_source_is_in_two_parts(rows: list[tuple[str, str]], seed: int) -> None:
    pairs = made(rows)
    if len({normalised(source) for source, _ in rows}) < 3:
        return
    split = split_pairs(pairs, seed=seed, share=0.2)
    parts = [{normalised(source) for source in part.sources} for part in (split.train, split.valid, split.test)]
    assert sum(map(len, parts)) == len(set.union(*parts))
    kept = [*split.train.ids, *split.valid.ids, *split.test.ids]
    assert len(kept) == len(set(kept)) == len(set(rows))


def test_held_out_sources_leave_training_and_a_test_set_stays_whole() -> None:
    train = made([(f"s{i}", "t") for i in range(20)] + [("Leak!", "x"), ("valid one", "y"), ("s1", "t")])
    test = made([("leak", "X"), ("leak", "X"), ("new", "n")])
    valid = made([("valid one", "y"), ("new", "other")])
    split = split_pairs(train, valid=valid, test=test, seed=0)
    assert split.test.ids == test.ids
    assert split.valid.sources == ["valid one"]
    assert len(split.train) == 20
    assert split.remarks == [
        "1 pairs left out: the same pair again",
        "1 validation pairs left out: their source is in test",
        "2 training pairs left out: their source is held out",
    ]


def test_too_few_sources_are_refused() -> None:
    with pytest.raises(DataError, match="too few to train on"):
        split_pairs(made([("a", "x"), ("a", "y"), ("b", "z")]), seed=0)


def test_the_split_depends_on_the_seed_and_not_on_other_pairs() -> None:
    rows = [(f"source {i}", f"target {i}") for i in range(2000)]
    first, again, other = (split_pairs(made(rows), seed=seed, most=100) for seed in (0, 0, 1))
    assert first.test.ids == again.test.ids != other.test.ids
    assert len(first.test) == len(first.valid) == 100
