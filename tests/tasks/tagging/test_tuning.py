"""An encoder tuned to find names in made-up sentences: every method, resumed bit for bit, used and refused."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from typer.testing import CliRunner

import rung
from rung.cli.main import app
from rung.data.tagged_sentences import read_tagged
from rung.data.wordpiece import train_wordpieces
from rung.errors import DataError, EvaluationError, RunFolderError, UsageError
from rung.nets.lora import LoraConfig
from rung.tasks.tagging.tagger import Tagger, load
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.summary import Tuned
from rung.tasks.tuning.tune import plan, resume, tune
from rung.training.meter import SilentDisplay, StepReport

FIRST, LAST = ("ada", "alan", "grace", "kurt", "emmy"), ("turing", "hopper", "noether", "byron")
FILLING = ("the", "saw", "old", "house", "and", "went", "to", "a", "lake", "with", "new", "boat")
LORA = TuningMethod(kind="lora", lora=LoraConfig(r=4))
FAST = {"training.learning_rate": 5e-3, "training.threads": 1, "training.precision": "fp32"}


def made_up(count: int) -> list[tuple[list[str], list[str]]]:
    """Sentences in which a title is followed by a first name, half of the time with a last one."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(count):
        words = draw.choice(FILLING, draw.integers(3, 9)).tolist()
        tags = ["O"] * len(words)
        place = int(draw.integers(len(words)))
        name = [str(draw.choice(names)) for names in (FIRST, LAST)[: draw.integers(1, 3)]]
        words[place:place] = ["mr", *name]
        tags[place:place] = ["O", "B-PER", *["I-PER"] * (len(name) - 1)]
        found.append((words, tags))
    return found


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "names.conll"
    lines = ["".join(f"{w}\t{t}\n" for w, t in zip(*pair, strict=True)) for pair in made_up(300)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT as transformers saves it."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    pieces = train_wordpieces([" ".join((*FIRST, *LAST, *FILLING, "mr"))] * 3, vocab_size=200)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=pieces.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    pieces.save(folder, model_max_length=32)
    return folder


def start(base: Path, sentences: Path, out: Path, **arguments: Any) -> Tuned:
    arguments["overrides"] = FAST | arguments.get("overrides", {})
    return tune(base, [sentences], task="tag", out=out, **arguments)


@pytest.fixture(scope="module")
def learned(base: Path, sentences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that knows something, which low-rank additions need: a tagger, whose head is left behind."""
    return start(base, sentences, tmp_path_factory.mktemp("learned") / "run", steps=80).run


@pytest.mark.parametrize("method", [TuningMethod(layer_decay=0.9), LORA], ids=["full", "lora"])
def test_a_tuned_base_finds_the_names(
    method: TuningMethod, base: Path, learned: Path, sentences: Path, tmp_path: Path
) -> None:
    begun = learned if method.kind == "lora" else base
    summary = start(begun, sentences, tmp_path / "run", method=method, steps=80)
    found = summary.record("entity_f1")
    assert found.value is not None
    assert found.value > 0.9
    assert summary.trained < summary.parameters if method.kind == "lora" else summary.trained == summary.parameters
    tagger = rung.load(tmp_path / "run")
    assert isinstance(tagger, Tagger)
    text = "the old boat and mr alan hopper went to a lake"
    [tagged] = tagger.tag(text)
    assert [(one["type"], one["text"]) for one in tagged.entities] == [("PER", "alan hopper")]
    assert all(text[one["start"] : one["stop"]] == one["text"] for one in tagged.entities)
    again, _ = tagger.evaluate(read_tagged([sentences]))
    assert (again[0].value or 0) > 0.9
    card = (tmp_path / "run" / "README.md").read_text()
    assert "token-classification" in card
    assert f"library_name: {'peft' if method.kind == 'lora' else 'transformers'}\n" in card
    assert ("it needs its base" in card) == (method.kind == "lora")
    assert f"{found.value:.4f}" in card


def test_transformers_opens_the_folder(base: Path, sentences: Path, tmp_path: Path) -> None:
    start(base, sentences, tmp_path / "run", steps=40)
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "run").eval()
    fast = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    words = ["the", "boat", "mr", "emmy", "went"]
    batch = fast(words, is_split_into_words=True, return_tensors="pt")
    best = theirs(**batch).logits.argmax(2)[0, 1:-1]
    assert [theirs.config.id2label[int(one)] for one in best] == load(tmp_path / "run").predict([words])[0]


class Impatient(SilentDisplay):
    """Presses Ctrl-C at step 7."""

    def update(self, report: StepReport) -> None:
        if report.step == 7:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("method", [TuningMethod(gradual=True), LORA], ids=["gradual", "lora"])
def test_an_interrupted_run_goes_on_bit_for_bit(
    method: TuningMethod, base: Path, sentences: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"method": method, "steps": 50}
    start(base, sentences, tmp_path / "whole", **settings)
    stopped = start(base, sentences, tmp_path / "parts", display=Impatient(), **settings)
    assert (stopped.ended, stopped.records) == ("interrupted", ())
    assert stopped.steps < 50
    assert resume(tmp_path / "parts").ended == "finished"
    name = "adapter_model.safetensors" if method.kind == "lora" else "model.safetensors"
    whole, parts = (load_file(tmp_path / run / "checkpoints" / "step-00000050" / name) for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    with pytest.raises(RunFolderError, match="finished"):
        resume(tmp_path / "parts")


def test_other_sentences_than_planned(base: Path, sentences: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.conll"
    own.write_text(sentences.read_text())
    start(base, own, tmp_path / "run", display=Impatient(), steps=20)
    own.write_text(sentences.read_text().replace("boat", "ship"))
    with pytest.raises(RunFolderError, match="the data changed"):
        resume(tmp_path / "run")


def test_the_command_line(base: Path, sentences: Path, tmp_path: Path) -> None:
    run, options = tmp_path / "run", ["--set", "training.learning_rate=0.005", "--threads", "1", "--json"]
    done = CliRunner().invoke(
        app, ["tune", str(base), str(sentences), "--task", "tag", "--steps", "80", "--out", str(run), *options]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["ended"] == "finished"
    done = CliRunner().invoke(app, ["predict", str(run), "we saw mr kurt", "a lake"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == ["we saw mr kurt", "  PER  kurt", "a lake", "  no entity"]
    done = CliRunner().invoke(app, ["eval", str(run), str(sentences), "--json"])
    assert json.loads(done.stdout.splitlines()[-1])["metrics"][0]["name"] == "entity_f1"
    done = CliRunner().invoke(app, ["predict", str(run), "--input", "x.csv"])
    assert done.exit_code == 2
    assert "--input means nothing when words are tagged" in done.output


def test_refusals(base: Path, sentences: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no sentences"):
        tune(base, [], task="tag", out=tmp_path / "run")
    with pytest.raises(RunFolderError, match="no model"):
        plan("nowhere", [sentences], task="tag")
    (tmp_path / "a.jsonl").write_text('{"text": ["a"]}\n')
    with pytest.raises(DataError, match="no words column"):
        plan(base, [tmp_path / "a.jsonl"], task="tag")
    start(base, sentences, tmp_path / "run", steps=1)
    (tmp_path / "other.conll").write_text("mr\tO\nada\tB-LOC\n")
    with pytest.raises(EvaluationError, match="does not know: B-LOC"):
        load(tmp_path / "run").evaluate(read_tagged([tmp_path / "other.conll"]))


def test_the_plan_tells_what_would_be_done(base: Path, sentences: Path) -> None:
    made = plan(base, [sentences], task="tag", epochs=2, method=LORA)
    assert made.steps == -(-2 * made.sentences // made.batch_size)
    assert "(lora)" in made.lines()[0]
    assert plan(base, [sentences], task="tag", minutes=0.5, seed=3).steps >= 1
