"""Embedding and tuning end to end at tiny size: resumed bit for bit, opened by sentence-transformers, told honestly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from rung.cli.main import app
from rung.data.wordpiece import train_wordpieces
from rung.errors import DataError, RunFolderError, UsageError
from rung.nets.encoder import Encoder
from rung.nets.encoder_config import EncoderConfig
from rung.nets.lora import LoraConfig
from rung.nets.sentence_encoder import SentenceConfig, SentenceNet
from rung.nets.sentence_folder import save_sentence_net
from rung.tasks.loading import load
from rung.tasks.similarity.encoder import SentenceEncoder, TruncationWarning, load_sentence_encoder
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.tune import resume, tune
from rung.training.meter import SilentDisplay

WORDS = [
    *("dog", "cat", "bird", "fish", "horse", "cow", "sheep", "goat"),
    *("runs", "sleeps", "eats", "sings", "swims", "jumps", "falls", "waits"),
]
LINES = [f"the {WORDS[i % 8]} {WORDS[8 + i // 8]} number {i}" for i in range(64)]
QUICK: dict[str, Any] = {"training.batch_size": 8, "training.precision": "fp32", "training.validations": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random sentence encoder of a few thousand parameters."""
    folder = tmp_path_factory.mktemp("base")
    encoder = train_wordpieces(LINES, vocab_size=120)
    torch.manual_seed(5)
    body = Encoder(
        EncoderConfig(
            vocab_size=encoder.vocab_size,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=24,
        )
    )
    config = SentenceConfig(max_length=12, after=("normalize",), prompts={"query": "the dog "}, similarity="cosine")
    save_sentence_net(SentenceNet(body, config), folder)
    encoder.save(folder, model_max_length=12)
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def scored(path: Path) -> Path:
    """Pairs are alike by how many words they share, whatever the network says."""
    rows = [
        {
            "a": LINES[i],
            "b": f"a {LINES[(i + step) % 64]} again {i}",
            "score": float(len({i // 8, (i + step) // 8}) == 1),
        }
        for i, step in zip(range(64), [0, 1, 9, 17] * 16, strict=True)
    ]
    return write(path, rows)


def test_vectors_do_not_depend_on_batches_or_order(base: Path) -> None:
    model = load_sentence_encoder(base)
    expected = model.embed(LINES)
    assert expected.shape == (64, 16)
    assert expected.dtype == np.float32
    turned = model.embed(LINES[::-1], batch_size=5)
    np.testing.assert_allclose(turned[::-1], expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(
        np.diag(model.similarity(expected, turned)), model.pair_similarity(expected, turned), atol=1e-6
    )
    assert model.embed([]).shape == (0, 16)


def test_texts_that_are_cut_are_told(base: Path) -> None:
    model = load_sentence_encoder(base)
    with pytest.warns(TruncationWarning, match="1 of 2 texts were read up to 12 tokens only"):
        model.embed(["the dog", "the dog runs " * 10])
    assert model.embeddings(["the dog", "the dog runs " * 10]).truncated == 1


def test_prompts_go_before_texts_and_unknown_ones_are_refused(base: Path) -> None:
    model = load_sentence_encoder(base)
    np.testing.assert_allclose(model.embed(["runs"], prompt="query"), model.embed(["the dog runs"]), atol=1e-6)
    with pytest.raises(UsageError, match="no prompt 'quary'; did you mean 'query'"):
        model.embed(["runs"], prompt="quary")


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_tuned_run_is_a_folder_of_sentence_transformers(kind: Any, base: Path, tmp_path: Path) -> None:
    import sentence_transformers

    lora = LoraConfig(r=2, target_modules=("query", "value")) if kind == "lora" else None
    method = TuningMethod(kind=kind, lora=lora)
    out = tmp_path / "run"
    done = tune(
        base,
        [scored(tmp_path / "pairs.jsonl")],
        task="similarity",
        method=method,
        steps=6,
        threads=1,
        out=out,
        overrides=QUICK,
    )
    assert done.ended == "finished"
    assert {"spearman", "pearson", "spearman before tuning", "difference in spearman"} <= {r.name for r in done.records}
    model = load(out)
    assert isinstance(model, SentenceEncoder)
    theirs = sentence_transformers.SentenceTransformer(str(out), device="cpu")
    np.testing.assert_allclose(model.embed(LINES), theirs.encode(LINES), atol=1e-5)
    before = load_sentence_encoder(base).embed(LINES)
    assert np.abs(model.embed(LINES) - before).max() > 1e-4
    card = (out / "README.md").read_text(encoding="utf-8")
    for told in (card, "\n".join(done.lines())):
        assert ("merged into the base: this is a whole model" in told) == (kind == "lora")


class InterruptedDisplay(SilentDisplay):
    """Presses Ctrl-C at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, report: Any) -> None:
        if report.step == self.step:
            import signal

            signal.raise_signal(signal.SIGINT)


def test_an_interrupted_run_goes_on_bit_for_bit(base: Path, tmp_path: Path) -> None:
    pairs = scored(tmp_path / "pairs.jsonl")
    given: dict[str, Any] = {"steps": 6, "threads": 1, "overrides": QUICK}
    tune(base, [pairs], task="similarity", out=tmp_path / "whole", **given)
    stopped = tune(base, [pairs], task="similarity", out=tmp_path / "stopped", display=InterruptedDisplay(3), **given)
    assert stopped.ended == "interrupted"
    assert resume(tmp_path / "stopped").ended == "finished"
    whole, again = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    with pytest.raises(RunFolderError, match="finished"):
        resume(tmp_path / "stopped")


@pytest.mark.parametrize("columns", [("a", "b"), ("a", "b", "c")])
def test_pairs_and_triplets_are_judged_by_finding(columns: tuple[str, ...], base: Path, tmp_path: Path) -> None:
    rows = [{"a": LINES[i], "b": f"{LINES[i]} again", "c": f"fish {LINES[(i + 30) % 64]} more {i}"} for i in range(64)]
    table = write(tmp_path / "rows.jsonl", [{name: row[name] for name in columns} for row in rows])
    done = tune(base, [table], task="similarity", steps=4, threads=1, out=tmp_path / "run", overrides=QUICK)
    assert done.plan["recipe"]["training"]["loss"] == "ranking"
    found = done.record("recall_at_1").value
    assert found is not None
    assert 0 <= found <= 1
    assert done.record("mean_reciprocal_rank").value >= found  # type: ignore[operator]


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"method": TuningMethod(kind="frozen")}, UsageError, "no new head"),
        ({"overrides": {"training.loss": "ranking"}}, UsageError, "ranking does not suit pairs with a score"),
        ({"text": ["a", "nothing"]}, DataError, "no text column 'nothing'"),
        ({"steps": 3, "epochs": 1}, UsageError, "one of"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(
    given: dict[str, Any], error: type[Exception], said: str, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        tune(base, [scored(tmp_path / "pairs.jsonl")], task="similarity", out=tmp_path / "run", threads=1, **given)
    assert not (tmp_path / "run").exists()


def test_embed_writes_what_others_read(base: Path, tmp_path: Path) -> None:
    import polars

    runner = CliRunner()
    (tmp_path / "texts.txt").write_text("\n".join(LINES[:5]), encoding="utf-8")
    expected = load_sentence_encoder(base).embed(LINES[:5])
    for name in ("v.npy", "v.jsonl", "v.parquet"):
        result = runner.invoke(
            app, ["embed", str(base), "--input", str(tmp_path / "texts.txt"), "--out", str(tmp_path / name), "--json"]
        )
        assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.splitlines()[-1])
    assert (told["texts"], told["dimension"], told["truncated"]) == (5, 16, 0)
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy", allow_pickle=False), expected)
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text(encoding="utf-8").splitlines()]
    np.testing.assert_allclose([line["vector"] for line in lines], expected, atol=1e-7)
    frame = polars.read_parquet(tmp_path / "v.parquet")
    assert frame["text"].to_list() == LINES[:5]
    np.testing.assert_array_equal(frame["vector"].to_numpy(), expected)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to embed"),
        (["some text", "--out", "v.csv"], "not written as '.csv'"),
        (["some text", "--text", "a"], "names a column of a table"),
        (["--input", "EMPTY"], "where the vectors go is missing"),
        (["--input", "EMPTY", "--json"], "no text here"),
    ],
)
def test_embed_says_what_is_missing(arguments: list[str], said: str, base: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("one\n\nthree\n", encoding="utf-8")
    given = [str(tmp_path / "empty.txt") if word == "EMPTY" else word for word in arguments]
    result = CliRunner().invoke(app, ["embed", str(base), *given])
    assert result.exit_code in (1, 2)
    assert said in result.output
