"""`rung tune` on the command line: a tiny encoder tuned, asked and measured; options that mean nothing are refused."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from rung.cli import tune as command
from rung.cli.main import app
from rung.cli.trainers import trainer_of
from rung.data.text_encoder import train_byte_pairs
from rung.data.wordpiece import train_wordpieces
from rung.export import verify
from rung.nets.encoder import Encoder
from rung.nets.encoder_config import EncoderConfig
from rung.nets.encoder_folder import save_encoder
from rung.nets.gpt2 import GPT2LM, GPT2Config
from rung.nets.pretrained import save_net
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


@pytest.fixture(scope="module")
def gpt2(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base as OpenAI published its own: tensors without a prefix, a tokenizer in two files that name no token."""
    base = tmp_path_factory.mktemp("gpt2")
    texts = [json.loads(line)["text"] for line in (folder / "topics.jsonl").read_text(encoding="utf-8").splitlines()]
    encoder = train_byte_pairs(texts, vocab_size=290)
    encoder.save(base, model_max_length=32)
    definition = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    (base / "tokenizer.json").unlink()
    numbers = {token: number for number, token in enumerate(encoder.tokens)}
    (base / "vocab.json").write_text(json.dumps(numbers), encoding="utf-8")
    merges = [" ".join(pair) for pair in definition["model"]["merges"]]
    (base / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    (base / "tokenizer_config.json").write_text('{"model_max_length": 32}', encoding="utf-8")
    end = encoder.eos_token_id
    config = GPT2Config(encoder.vocab_size, 16, 32, 1, 2, 32, bos_token_id=end, eos_token_id=end)
    save_net(GPT2LM(config, generator=torch.Generator().manual_seed(0)), base)
    tensors = load_file(base / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(bare, base / "model.safetensors", metadata={"format": "pt"})
    return base


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


def test_gpt2_is_tuned_by_lora_as_it_is_published(
    folder: Path, gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TOKENISED", "SCORED"):
        monkeypatch.setattr(verify, name, 20)
    out, table = tmp_path / "run", folder / "topics.jsonl"
    wishes: list[object] = ["--task", "classify", "--target", "label", "--lora", "--steps", 60, "--threads", 1]
    wishes += ["--set", "training.learning_rate=0.02", "--set", "training.precision=fp32"]
    code, told, problem = run(gpt2, table, *wishes, "--dry-run")
    assert code == 0, problem
    assert "60 steps" in told
    code, told, problem = run(gpt2, table, *wishes, "--out", out, "--json")
    assert code == 0, problem
    scores = {record["name"]: record["value"] for record in json.loads(told.splitlines()[-1])["metrics"]}
    assert scores["accuracy"] > 0.8 > scores["majority_accuracy"]
    assert not (out / "model.safetensors").exists()
    texts = ["the dog sleeps 3", "that was a stew"]
    asked = CliRunner().invoke(app, ["predict", str(out), *texts, "--json"])
    found = json.loads(asked.stdout.splitlines()[-1])["predictions"]
    assert [one["label"] for one in found] == ["animal", "dish"]
    handed = CliRunner().invoke(app, ["export", str(out), "--to", "hf", "--verify", "--out", str(tmp_path / "hf")])
    assert handed.exit_code == 0, handed.output
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "hf").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    with torch.inference_mode():
        expected = theirs(**tokenizer(texts, return_tensors="pt", padding=True)).logits.softmax(1)
    ours = [[one["probabilities"][theirs.config.id2label[number]] for number in range(2)] for one in found]
    torch.testing.assert_close(torch.tensor(ours), expected, atol=1e-4, rtol=0)


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
