"""Problems with checkable answers: layouts, and what counts as right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.data.checkable import Problem, plain_number, read_problems, split_problems
from rung.errors import DataError


@pytest.mark.parametrize(
    ("answer", "text", "right"),
    [
        ("42", "It is 42.", True),
        ("42", "First 42, then 43", False),
        ("42", "so #### 42", True),
        ("42", "#### 41 is wrong, 42", True),
        ("1200", "1,200 dollars", True),
        ("12.5", "12.50", True),
        ("-3", "it is -3", True),
        ("3", "it is -3", False),
        ("42", "no number", False),
        ("42", "9" * 400, False),
        ("12345678901234567890", "12,345,678,901,234,567,891", False),
        ("0.1", "0.10000000000000000001", False),
        ("0", "-0.0", True),
        ("paris", "Paris.", True),
        ("paris", "It is Paris", False),
    ],
)
def test_what_is_right(answer: str, text: str, right: bool) -> None:
    assert Problem("?", answer).solved_by(text) is right


@given(st.integers(-(10**9), 10**9))
def test_every_spelling_of_a_number_is_the_same(number: int) -> None:
    spellings = [str(number), f"{number:,}", f"{number}.0", f"{number:,}.00"]
    assert {plain_number(one) for one in spellings} == {str(number)}
    assert all(Problem("?", str(number)).solved_by(f"I say {one}") for one in spellings)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "2 + 2?", "answer": 4},
        {"question": "2 + 2?", "answer": "two and two\n#### 4"},
        {"sQuestion": " 2 + 2? ", "lSolutions": [4.0]},
        {"prompt": "2 + 2?", "answer": "$4.00"},
    ],
)
def test_layouts(tmp_path: Path, row: dict[str, Any]) -> None:
    for name, text in (("a.jsonl", json.dumps(row) + "\n"), ("a.json", json.dumps([row]))):
        (tmp_path / name).write_text(text)
        assert read_problems([tmp_path / name]).items == [Problem("2 + 2?", "4")]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"text": "?"}, "layout is not known"),
        ({"prompt": " ", "answer": 1}, "prompt is empty"),
        ({"prompt": "a", "answer": "####"}, "answer is empty"),
        ({"prompt": "a", "answer": [1, 2]}, "'answer' is a list"),
        ({"prompt": "a", "answer": 1e999}, "nobody can answer"),
    ],
)
def test_bad_rows(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=problem) as caught:
        read_problems([tmp_path / "a.jsonl"])
    assert "row 1" in str(caught.value)


def test_a_few_bad_rows_are_left_out_and_named(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {number}", "answer": number} for number in range(60)] + [{"prompt": "", "answer": 1}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{no json\n")
    found = read_problems([path])
    assert len(found) == 60
    assert [remark.partition(" (")[0] for remark in found.remarks] == [
        "1 problems left out: the prompt is empty",
        "1 problems left out: broken JSON",
    ]
    assert "row 61" in found.remarks[0]
    assert split_problems(found, share=0.2, seed=1)[0].remarks == found.remarks
    path.write_text(path.read_text() + '{"prompt": "", "answer": 1}\n' * 3)
    with pytest.raises(DataError, match=r"prompt is empty; 5 of 65 rows cannot be used"):
        read_problems([path])


def test_a_prompt_is_in_one_part(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {number % 30}", "answer": number} for number in range(90)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rest, cut = split_problems(read_problems([tmp_path / "a.jsonl"]), share=0.2, seed=1)
    assert len(rest) + len(cut) == 90
    assert not {one.prompt for one in rest.items} & {one.prompt for one in cut.items}
    with pytest.raises(DataError, match="too few"):
        split_problems(rest.take(np.arange(1)), share=0.2, seed=1)


def test_of_the_field(rung_data: Path) -> None:
    folder = rung_data / "math-word-problems"
    counts = {name: len(read_problems([folder / f"{name}.json"])) for name in ("SVAMP", "AddSub", "MultiArith")}
    assert counts["MultiArith"] > 570  # 600 rows, some of them twice
    assert counts["SVAMP"] > 990
    assert counts["AddSub"] > 390
    gsm8k = read_problems([rung_data / "gsm8k" / "test.jsonl"])
    assert len(gsm8k) == 1319
    assert all(one.is_number for one in gsm8k.items)
