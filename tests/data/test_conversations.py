"""Conversations from files: four layouts, and everything that no network can learn from."""

from __future__ import annotations

import gzip
import json
import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.data.conversation_split import asked, split_conversations
from rung.data.conversations import (
    Conversation,
    Conversations,
    Message,
    messages_from,
    read_conversations,
    require_turns,
)
from rung.errors import DataError

TALK = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "Farewell")]
OPENAI = {"messages": [{"role": role, "content": text} for role, text in TALK]}
SHAREGPT = {
    "conversations": [
        {"from": {"user": "human", "assistant": "gpt"}.get(role, role), "value": text} for role, text in TALK
    ]
}
ALPACA = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
COMPLETION = {"prompt": "Add 1 and 2.", "completion": "3", "dataset": "sums"}


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def problem_of(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        read_conversations([path])
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(("row", "layout"), [(OPENAI, "OpenAI messages"), (SHAREGPT, "ShareGPT")])
def test_turns(tmp_path: Path, row: dict[str, Any], layout: str) -> None:
    found = read_conversations([written(tmp_path / "a.jsonl", row)])
    assert found.layout == layout
    (talk,) = found.items
    assert [(message.role, message.content) for message in talk.messages] == TALK
    assert talk.answer == "Farewell"
    assert talk.prompt[-1] == Message("user", "Bye")


def test_pairs(tmp_path: Path) -> None:
    (one,) = read_conversations([written(tmp_path / "a.jsonl", ALPACA)]).items
    assert one.messages == (Message("user", "Add.\n\n1 and 2"), Message("assistant", "3"))
    (two,) = read_conversations([written(tmp_path / "b.jsonl", {**ALPACA, "input": ""})]).items
    assert two.messages[0].content == "Add."
    (three,) = read_conversations([written(tmp_path / "c.jsonl", COMPLETION)]).items
    assert three.messages == (Message("user", "Add 1 and 2."), Message("assistant", "3"))


def test_parts_of_content_and_other_names_of_roles(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Hi "}, {"type": "text", "text": "you"}]
    row = {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": "Yo"},
        ]
    }
    (talk,) = read_conversations([written(tmp_path / "a.jsonl", row)]).items
    assert talk.messages[:2] == (Message("system", "Be brief."), Message("user", "Hi you"))


def test_files_of_all_kinds_give_the_same(tmp_path: Path) -> None:
    rows = [{**COMPLETION, "prompt": f"Add 1 and {n}. Ä"} for n in range(5)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "a.jsonl.xz").write_bytes(lzma.compress(lines))
    (tmp_path / "b.jsonl").write_bytes(b"".join(reversed(lines.splitlines(keepends=True))))
    found = [read_conversations([path]) for path in sorted(tmp_path.iterdir())]
    assert len({one.sha256 for one in found}) == 1
    assert len(found[0]) == 5


def test_repetitions_are_counted(tmp_path: Path) -> None:
    found = read_conversations([written(tmp_path / "a.jsonl", COMPLETION, COMPLETION, {**COMPLETION, "prompt": "x"})])
    assert (len(found), found.repeated) == (2, 1)


def turns(*roles: str, content: Any = "text") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role in roles]}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (turns("user", "user", "assistant"), "two user turns in a row: turn 2 should be the assistant's"),
        (turns("system", "user", "assistant", "assistant"), "two assistant turns in a row: turn 4"),
        (turns("assistant", "user"), "the assistant speaks first: turn 1"),
        (turns("user", "system", "assistant"), "turn 2 is a system message, which can only be the first"),
        (turns("user"), "there is no assistant turn"),
        (turns("system"), "there is no assistant turn"),
        ({"messages": []}, "there is no assistant turn"),
        (turns("user", "robot"), "the role 'robot' is not known"),
        (turns("user", "tool"), "the role 'tool' is not known"),
        ({"messages": [{"role": ["user"], "content": "a"}]}, "is not known"),
        (turns("user", "assistant", content="  \n"), "turn 1 (user) is empty"),
        (turns("user", "assistant", content=None), "'content' is null, not a text"),
        (turns("user", "assistant", content=3), "'content' is a number, not a text"),
        (turns("user", "assistant", content=[{"type": "image_url"}]), "parts of type image_url"),
        ({"messages": "hello"}, "'messages' is a text, not a list of turns"),
        ({"messages": ["hello"]}, "a turn is a text without 'role' and 'content'"),
        ({"messages": [{"role": "user"}]}, "without 'role' and 'content'"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]}, "calls tools"),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": ""}]},
            "turn 2 (assistant) is empty",
        ),
        ({**ALPACA, "output": ""}, "turn 2 (assistant) is empty"),
        ({**ALPACA, "input": 5}, "'input' is a number"),
        ({**COMPLETION, "completion": ["3"]}, "'completion' is a list"),
        ({**COMPLETION, "prompt": "\ud800"}, "lone surrogate"),
        ({"text": "hello"}, "this layout is not known; its keys are 'text'"),
        ({}, "its keys are none"),
        ([1], "JSON line is not an object"),
    ],
)
def test_what_cannot_be_learned_from(tmp_path: Path, row: Any, problem: str) -> None:
    error = problem_of(written(tmp_path / "a.jsonl", OPENAI, row))
    assert problem in error.problem
    assert error.where == "a.jsonl:row 2"


def test_all_bad_rows_are_listed(tmp_path: Path) -> None:
    bad = turns("user")
    error = problem_of(written(tmp_path / "a.jsonl", OPENAI, *[bad] * 12))
    assert "12 of 13 rows cannot be used, also a.jsonl:row 3" in error.problem
    assert "and 4 more" in error.problem


def test_a_few_bad_rows_are_left_out_and_named(tmp_path: Path) -> None:
    good = [{**COMPLETION, "prompt": f"question {number}"} for number in range(57)]
    bad = [turns("user"), {"text": "x"}, turns("user")]
    found = read_conversations([written(tmp_path / "a.jsonl", bad[0], *good, *bad[1:])])
    assert (len(found), found.repeated) == (57, 0)
    assert found.remarks == (
        "2 conversations left out: there is no assistant turn, so nothing to learn from "
        "(a.jsonl:row 1, a.jsonl:row 60)",
        "1 conversations left out: this layout is not known; its keys are 'text' (a.jsonl:row 59)",
    )
    error = problem_of(written(tmp_path / "b.jsonl", *bad, *good[1:]))
    assert "3 of 59 rows cannot be used, also b.jsonl:row 2, b.jsonl:row 3" in error.problem
    given = read_conversations([written(tmp_path / "c.jsonl", *[{**row, "prompt": "other " * 9} for row in good[:1]])])
    held_out = replace(given, remarks=("1 left out there",))
    split = split_conversations(found, test=held_out, seed=1, valid_share=0.1)
    assert split.remarks[:3] == [*found.remarks, "1 left out there"]


def test_layouts_are_not_mixed(tmp_path: Path) -> None:
    error = problem_of(written(tmp_path / "a.jsonl", OPENAI, OPENAI, ALPACA))
    assert "OpenAI messages from a.jsonl:row 1; Alpaca from a.jsonl:row 3" in error.problem


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", b"", "no conversation here"),
        ("a.jsonl", b'{"messages": [', "broken JSON"),
        ("a.json", b'{"messages": []}', "not a JSON array"),
        ("a.json", b"[1", "this is not JSON"),
        ("a.json", b"[1]", "a number where a row should be"),
        ("a.csv", b"a,b", "no file of conversations"),
        ("a.jsonl", b"\x00\x01\x02\xff" * 99, "binary"),
        ("a.jsonl.gz", b"nonsense", "cannot be read to its end"),
    ],
)
def test_files_that_hold_none(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert problem in problem_of(tmp_path / name).problem


def test_a_missing_file(tmp_path: Path) -> None:
    assert "no such file" in problem_of(tmp_path / "none.jsonl").problem


def test_messages_to_be_answered() -> None:
    asking = messages_from([{"role": "user", "content": "Hi"}])
    require_turns(asking, answered=False)
    with pytest.raises(DataError, match="last turn must be the user's"):
        require_turns([*asking, Message("assistant", "Ho")], answered=False)
    with pytest.raises(DataError, match="last turn must be the user's"):
        require_turns([Message("system", "Be.")], answered=False)


# Splits ---------------------------------------------------------------------------------------------------------------

LONG = "please tell me in a few words how a sailing ship of the old navy was steered through a narrow channel by night"


def talks(prompts: list[str], name: str = "a") -> Conversations:
    items = [
        Conversation((Message("user", text), Message("assistant", f"{name} {n}"))) for n, text in enumerate(prompts)
    ]
    return Conversations(sorted(items, key=lambda item: item.id), "prompt/completion", (name,))


@settings(max_examples=5)
@given(st.integers(0, 100))
def test_like_prompts_stay_together(seed: int) -> None:
    kinds = [" ".join(f"{name}{place}" for place in range(30)) for name in "abcdefghij"]
    prompts = [f"{kinds[n % 10]} {'and' * (n % 3)}{n}" for n in range(60)]
    split = split_conversations(talks(prompts), seed=seed, test_share=0.2, valid_share=0.2)
    parts = [{asked(item)[0] for item in split[part].items} for part in ("train", "valid", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 10
    assert sum(len(split[part]) for part in ("train", "valid", "test")) == 60


def test_given_parts_are_kept_apart_from_training() -> None:
    train = talks([*(" ".join(f"w{n}{place}" for place in range(9)) for n in range(20)), LONG + " at last"])
    test = talks([LONG.upper() + ", AT LAST!"], "b")
    valid = talks(["how is bread made from flour and water and salt in an oven of stone by a baker"], "c")
    split = split_conversations(train, valid=valid, test=test, seed=0)
    assert split.test == test
    assert split.valid.sha256 == valid.sha256
    assert LONG + " at last" not in [asked(item) for item in split.train.items]
    assert any("prompts are held out" in remark for remark in split.remarks)


def test_a_file_that_is_given_twice_leaks_nothing() -> None:
    every = talks([" ".join(f"w{n}{place}" for place in range(9)) for n in range(20)])
    held_out = every.take(range(5))
    assert held_out.files == every.files
    split = split_conversations(every, valid=held_out, seed=0)
    assert split.valid == held_out
    asked_before = {asked(item) for item in held_out.items}
    assert not asked_before & {asked(item) for part in (split.train, split.test) for item in part.items}
    with pytest.raises(DataError, match="left for the train part"):
        split_conversations(every, test=every, seed=0)


def test_too_few_conversations() -> None:
    with pytest.raises(DataError):
        split_conversations(talks(["one"]), seed=0)
