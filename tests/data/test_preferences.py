"""Reading and splitting pairs of answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rung.data.conversations import Message
from rung.data.preferences import Preference, read_preferences, split_preferences
from rung.errors import DataError

ONE = Preference((Message("user", "hello?"),), "yes", "no")


def written(folder: Path, *rows: Any, name: str = "pairs.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hello?", "chosen": "yes", "rejected": "no"},
        {"prompt": [{"role": "user", "content": "hello?"}], "chosen": "yes", "rejected": "no"},
        {
            "prompt": "hello?",
            "chosen": [{"role": "assistant", "content": "yes"}],
            "rejected": [{"role": "assistant", "content": "no"}],
        },
        {"instruction": "hello?", "input": "", "output": "y", "chosen": "yes", "rejected": "no"},
        {"chosen": "\n\nHuman: hello?\n\nAssistant: yes", "rejected": "\n\nHuman: hello?\n\nAssistant: no"},
        {
            "chosen": [{"role": "user", "content": "hello?"}, {"role": "assistant", "content": "yes"}],
            "rejected": [{"role": "user", "content": "hello?"}, {"role": "assistant", "content": "no"}],
        },
    ],
)
def test_layouts(tmp_path: Path, row: dict[str, Any]) -> None:
    assert read_preferences([written(tmp_path, row)]).items == [ONE]


def test_an_input_stands_below_its_instruction(tmp_path: Path) -> None:
    row = {"instruction": "Add.", "input": "1 2", "chosen": "3", "rejected": "4"}
    [found] = read_preferences([written(tmp_path, row)]).items
    assert found.prompt == (Message("user", "Add.\n\n1 2"),)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "a", "chosen": "b"}, "needs 'chosen' and 'rejected'"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "the rejected answer is empty"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "both answers are the same"),
        ({"prompt": "a", "chosen": "b", "rejected": 3}, "'rejected' is a number"),
        ({"prompt": [{"role": "assistant", "content": "x"}], "chosen": "b", "rejected": "c"}, "assistant speaks first"),
        ({"chosen": "plain", "rejected": "text"}, "a text without a prompt"),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: x", "rejected": "\n\nHuman: b\n\nAssistant: y"},
            "differ before the last turn",
        ),
        ({"chosen": "\n\nHuman: a\n\nHuman: b", "rejected": "\n\nHuman: a\n\nHuman: c"}, "does not end with an answer"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        read_preferences([written(tmp_path, {"prompt": "q", "chosen": "1", "rejected": "2"}, row)])
    assert "pairs.jsonl:row 2" in str(caught.value)
    good = [{"prompt": f"q{number}", "chosen": "1", "rejected": "2"} for number in range(30)]
    found = read_preferences([written(tmp_path, *good, row, good[0])])
    assert len(found) == 30
    assert len(found.remarks) == 2
    assert "1 repeated pairs left out" in found.remarks
    assert found.remarks[0].endswith("(pairs.jsonl:row 31)")


def test_like_prompts_stay_in_one_part(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"what is {number % 25} times 7, please, dear friend of mine?",
            "chosen": str(number),
            "rejected": "x",
        }
        for number in range(100)
    ]
    split = split_preferences(read_preferences([written(tmp_path, *rows)]), seed=1, valid_share=0.1, test_share=0.2)
    parts = [{one.prompt for one in part.items} for part in (split.train, split.valid, split.test)]
    assert sum(map(len, parts)) == 25
    assert sum(map(len, (split.train, split.valid, split.test))) == 100
    given = read_preferences([written(tmp_path, rows[0], name="test.jsonl")])
    split = split_preferences(
        read_preferences([tmp_path / "pairs.jsonl"]), test=given, seed=1, valid_share=0.1, test_share=0
    )
    assert split.test.items == given.items
    assert rows[0]["prompt"] not in {one.prompt[0].content for one in (*split.train.items, *split.valid.items)}


def test_of_the_field(rung_data: Path) -> None:
    found = read_preferences([rung_data / "hh-rlhf-harmless-test" / "harmless-base.test.jsonl.gz"])
    assert 2_200 < len(found) < 2_312
    assert all(one.prompt[-1].role == "user" for one in found.items)
