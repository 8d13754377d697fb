"""Reading and splitting tagged sentences."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from rung.data.tagged_sentences import TaggedSentences, read_tagged, split_tagged
from rung.errors import DataError

CONLL = "-DOCSTART-\tO\n\nEmpire\tB-location\nState\tI-location\n.\tO\n\nhi\tO\n"


def test_conll(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(CONLL)
    with gzip.open(tmp_path / "b.conll.gz", "wt") as file:
        file.write(CONLL.replace("\t", "  x "))
    for name in ("a.conll", "b.conll.gz"):
        found = read_tagged([tmp_path / name])
        pairs = dict(zip(map(tuple, found.words), map(tuple, found.tags), strict=True))
        assert pairs == {("Empire", "State", "."): ("B-location", "I-location", "O"), ("hi",): ("O",)}
        assert found.tag_names == ("O", "B-location", "I-location")
        assert found.num_words == 4


def test_lists_in_json_lines_are_the_same_sentences(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(CONLL)
    rows = [{"tokens": ["hi"], "ner_tags": ["O"]}]
    rows.append({"tokens": ["Empire", "State", "."], "ner_tags": ["B-location", "I-location", "O"]})
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_tagged([tmp_path / "a.conll"]) == read_tagged([tmp_path / "b.jsonl"])


@pytest.mark.parametrize(
    ("text", "problem", "where"),
    [
        ("hi\tO\nthere\n", "a word and its tag", "line 2"),
        ("hi\tO\n\t\n\tO\n", "a word and its tag", "line 3"),
        ("", "no sentence", "bad.conll"),
    ],
)
def test_bad_conll(tmp_path: Path, text: str, problem: str, where: str) -> None:
    (tmp_path / "bad.conll").write_text(text)
    with pytest.raises(DataError, match=problem) as caught:
        read_tagged([tmp_path / "bad.conll"])
    assert where in str(caught.value)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"words": ["a", "b"], "tags": ["O"]}, "2 words have 1 tags"),
        ({"words": "a b", "tags": ["O", "O"]}, "not a list of strings"),
        ({"words": ["a"], "tags": [1]}, "not a list of strings"),
        ({"text": ["a"], "tags": ["O"]}, "no words column"),
    ],
)
def test_bad_tables(tmp_path: Path, row: dict[str, object], problem: str) -> None:
    (tmp_path / "bad.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=problem):
        read_tagged([tmp_path / "bad.jsonl"])


def test_split_keeps_equal_sentences_together(tmp_path: Path) -> None:
    lines = "".join(f"word{number % 40}\tO\nx\tB-A\n\n" for number in range(120))
    (tmp_path / "a.conll").write_text(lines)
    split = split_tagged(read_tagged([tmp_path / "a.conll"]), seed=1)
    parts = [{tuple(words) for words in part.words} for part in (split.train, split.valid, split.test)]
    assert sum(map(len, parts)) == 40
    assert sum(map(len, (split.train, split.valid, split.test))) == 120
    own = TaggedSentences(["t"], [["WORD3", "x"]], [["O", "B-A"]])
    split = split_tagged(read_tagged([tmp_path / "a.conll"]), test=own, seed=1)
    assert split.test is own
    assert ["word3", "x"] not in [*split.train.words, *split.valid.words]
    assert any("they are" in remark for remark in split.remarks)


def test_too_few(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("hi\tO\n")
    with pytest.raises(DataError, match="too few"):
        split_tagged(read_tagged([tmp_path / "a.conll"]), seed=0)


def test_of_the_field(rung_data: Path) -> None:
    """Counts of the set's own README."""
    for part, sentences, words in (("train", 3394, 62730), ("dev", 1009, 15733), ("test", 1287, 23394)):
        found = read_tagged([rung_data / "wnut17" / f"{part}.conll"])
        assert (len(found), found.num_words) == (sentences, words)
