"""The whole way through the command line on a tiny text: train, measure, write, go on, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rung.cli.main import app

WORDS = "the fog crept over the river and the old house while nobody in the court could say what the cause was about"
TINY = {
    "net.hidden_size": 32,
    "net.num_hidden_layers": 1,
    "net.num_attention_heads": 2,
    "net.num_key_value_heads": 1,
    "net.max_position_embeddings": 32,
    "tokenizer.vocab_size": 300,
    "training.batch_size": 8,
    "training.compile": "false",
    "training.threads": 1,
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def result_of(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.output
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of some paragraphs, each different, so that none is a duplicate."""
    words = WORDS.split()
    lines = [" ".join(words[(n * k + n // 7) % len(words)] for k in range(1, 40)) + f" {n}." for n in range(300)]
    folder = tmp_path_factory.mktemp("texts")
    (folder / "story.txt").write_text("\n\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "story"
    settings = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_CACHE", str(tmp_path_factory.mktemp("cache")))
        summary = result_of(run("train", text, "--steps", 12, "--out", out, "--seed", 3, *settings, "--json"))
    assert summary["run"] == str(out)
    assert summary["ended"] == "finished"
    assert summary["steps"] == 12
    assert {floor["name"].split()[0] for floor in summary["floors"]} >= {"gzip", "xz"}
    return out


def test_a_plan_is_made_without_training(text: Path) -> None:
    planned = result_of(run("plan", text, "--steps", 12, "--set", "net.hidden_size=32", "--json"))
    assert planned["recipe"]["net"]["hidden_size"] == 32
    assert run("train", text, "--steps", 12, "--dry-run").stdout.startswith("network: ")


def test_the_text_can_be_checked_first(text: Path) -> None:
    report = result_of(run("data", "check", text, "--json"))
    rejected = sum(report["rejected"].values())
    assert report["documents_in"] == report["train_documents"] + report["valid_documents"] + rejected
    assert "1 file read" in run("data", "check", text).stdout


def test_the_trained_model_is_measured_again(trained: Path, text: Path) -> None:
    measured = result_of(run("eval", trained, text / "story.txt", "--json"))["bits_per_byte"]
    assert 0 < measured["value"] < 8
    assert "this model" in run("eval", trained, text).stdout


def test_equal_seeds_write_equal_text(trained: Path) -> None:
    one, other, third = (run("generate", trained, "the fog", "--max-tokens", 12, "--seed", seed) for seed in (1, 1, 2))
    assert one.stdout.startswith("the fog")
    assert one.stdout == other.stdout != third.stdout
    two = result_of(run("generate", trained, "the fog", "--max-tokens", 12, "--seed", 1, "--n", 2, "--json"))
    assert [f"the fog{text['text']}\n" for text in two["texts"]] == [one.stdout, third.stdout]


def test_each_token_has_its_log_probability(trained: Path) -> None:
    written = result_of(run("generate", trained, "the", "--max-tokens", 5, "--logprobs", "--json"))["texts"][0]
    assert len(written["tokens"]) == len(written["token_ids"]) == len(written["logprobs"]) <= 5
    assert all(logprob < 0 for logprob in written["logprobs"])
    shown = run("generate", trained, "the", "--max-tokens", 5, "--logprobs").stdout
    assert shown.count("%") == len(written["tokens"])


def test_a_text_that_fills_the_context_says_so(trained: Path) -> None:
    done = run("generate", trained, "the fog", "--max-tokens", 500)
    assert "context of 32 is full" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["generate", "RUN", "the", "--temperature", 0, "--top-p", 0.5], 2, "would do nothing"),
        (["generate", "RUN", "the", "--top-p", 2], 2, "top_p"),
        (["generate", "RUN", "word " * 200], 1, "shorten the prompt"),
        (["generate", "nowhere", "the"], 1, "there is no model 'nowhere'"),
        (["train", "--resume", "RUN"], 1, "--extend"),
        (["train", "TEXT", "--steps", 5, "--out", "RUN"], 2, "not empty"),
        (["train", "TEXT", "--steps", 5, "--set", "net.hiden_size=3"], 2, "did you mean 'net.hidden_size'"),
        (["train", "TEXT", "--minutes", 0], 2, "training.minutes"),
        (["train", "nowhere.txt", "--steps", 5], 1, "nothing at this path"),
        (["eval", "RUN", "nowhere.txt"], 1, "nothing at this path"),
    ],
)
def test_what_cannot_be_done_is_told(trained: Path, text: Path, arguments: list[object], code: int, told: str) -> None:
    meant = {"RUN": trained, "TEXT": text}
    done = run(*(meant.get(str(argument), argument) for argument in arguments))
    assert done.exit_code == code, done.output
    assert told in done.stderr
    assert "Traceback" not in done.output
