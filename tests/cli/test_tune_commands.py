"""`rung tune` on the command line: a tiny encoder tuned, asked and measured; options that mean nothing are refused."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rung.cli import tune as command
from rung.cli.main import app
from rung.cli.trainers import trainer_of
from rung.data.wordpiece import train_wordpieces
from rung.nets.encoder import Encoder
from rung.nets.encoder_config import EncoderConfig
from rung.nets.encoder_folder import save_encoder
from rung.tasks.tuning.table import TASKS, task_of
from rung.tasks.tuning.tune import tune

WORDS = {"animal": ["cat", "dog", "owl"], "dish": ["soup", "cake", "stew"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and a table."""
    folder = tmp_path_factory.mktemp("tune-commands")
    rows = [
        (f"{first} {word} {second} {number}", label)
        for label, words in WORDS.items()
        for word in words
        for first in ("the", "a", "that")
        for number, second in enumerate(("sleeps", "waits", "is here", "was good"))
    ]
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    (folder / "topics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    encoder = train_wordpieces([text for text, _ in rows], vocab_size=150)
    config = EncoderConfig(
        vocab_size=encoder.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    (folder / "base").mkdir()
    save_encoder(Encoder(config), folder / "base")
    encoder.save(folder / "base", model_max_length=32)
    return folder


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["tune", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_the_whole_way(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    wishes = ["--task", "classify", "--target", "label", "--steps", 60, "--threads", 1, "--out", out, "--json"]
    code, told, problem = run(folder / "base", folder / "topics.jsonl", *wishes, "--set", "training.learning_rate=0.01")
    assert code == 0, problem
    summary = json.loads(told.splitlines()[-1])
    assert (summary["ended"], summary["steps"]) == ("finished", 60)
    assert {"accuracy", "majority_accuracy"} <= {record["name"] for record in summary["metrics"]}
    asked = CliRunner().invoke(app, ["predict", str(out), "the dog sleeps 3", "--json"])
    assert json.loads(asked.stdout.splitlines()[-1])["predictions"][0]["label"] in WORDS
    measured = CliRunner().invoke(app, ["eval", str(out), str(folder / "topics.jsonl")])
    assert "accuracy: " in measured.stdout
    assert task_of(out) == "classify"
    assert trainer_of(out).module == "rung.tasks.tuning.tune", "rung train --resume finds the way too"


def test_a_dry_run_shows_the_plan_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    wishes = ["--task", "classify", "--epochs", 2, "--lora", "--rank", 2, "--out", tmp_path / "run", "--dry-run"]
    code, told, _ = run(folder / "base", folder / "topics.jsonl", "--target", "label", *wishes)
    assert code == 0
    assert "(lora)" in told
    assert not (tmp_path / "run").exists()


def test_an_interrupted_run_ends_with_130_and_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rung.training.gradients import BatchGradient

    real = BatchGradient.compute

    def once(self: BatchGradient, first: int, wish: object) -> object:
        if first == 40:
            signal.raise_signal(signal.SIGINT)
        return real(self, first, wish)  # type: ignore[arg-type]

    monkeypatch.setattr(BatchGradient, "compute", once)
    wishes = ["--task", "classify", "--target", "label", "--steps", 12, "--threads", 1, "--out", tmp_path / "run"]
    code, _, problem = run(folder / "base", folder / "topics.jsonl", *wishes)
    assert code == 130
    assert f"rung tune --resume {tmp_path / 'run'}" in problem
    monkeypatch.undo()
    code, told, _ = run("--resume", tmp_path / "run")
    assert code == 0
    assert "12 steps" in told


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rank", 4], "--rank belong to LoRA"),
        (["--frozen", "--lora"], "--frozen and --lora contradict"),
        (["--frozen", "--layer-decay", 0.9], "means nothing to a frozen body"),
        (["--lora", "--gradual"], "nothing to thaw"),
        (["--layer-decay", 1.5], "layer_decay lies above 0"),
        (["--epochs", 1, "--steps", 2], "contradict each other"),
        (["--source", "label"], "--source means nothing with --task classify"),
        (["--set", "training.rate=1"], "unknown recipe key 'training.rate'"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_options_that_mean_nothing_are_refused(options: list[object], said: str, folder: Path, tmp_path: Path) -> None:
    wishes = ["--task", "classify", "--target", "label", "--out", tmp_path / "run", *options]
    code, _, problem = run(folder / "base", folder / "topics.jsonl", *wishes)
    assert code == 2
    assert said in problem
    assert not (tmp_path / "run").exists()


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    table = folder / "topics.jsonl"
    assert "a base is missing" in run("--task", "classify")[2]
    assert "data is missing" in run("minilm", "--task", "classify")[2]
    assert "--task is missing" in run("minilm", table)[2]
    assert "--target, --steps cannot be given for a run that goes on" in run(
        "--resume", tmp_path, "--target", "a", "--steps", 3
    )[2].replace("\n", " ")
    assert "no rung.json" in run("--resume", tmp_path)[2]
    assert "there is no model 'minilmm'; did you mean 'minilm'?" in run("minilmm", table, "--task", "classify")[2]


def test_python_and_the_command_know_the_same_tasks(folder: Path) -> None:
    assert set(TASKS) == {task.value for task in command.Task}
    with pytest.raises(Exception, match="did you mean 'classify'"):
        tune(folder / "base", [folder / "topics.jsonl"], task="classfy")
