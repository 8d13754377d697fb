"""`rung tune --task text`: a language model carried on with raw text, in every way of tuning; resumed; handed on."""

from __future__ import annotations

import json
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import rung
from rung.errors import PlanError, RecipeError, RunFolderError, UsageError
from rung.nets.lora import LoraConfig
from rung.runfolder import read_header, verify
from rung.tasks.text.tuning_summary import AFTER, BEFORE, GAIN
from rung.tasks.tuning.folder import TUNED
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.summary import Tuned
from rung.tasks.tuning.tune import plan, resume, tune
from rung.training.meter import SilentDisplay, StepReport

LORA = TuningMethod("lora", LoraConfig(r=4, lora_alpha=16.0))
SETTINGS: dict[str, Any] = {
    "training.batch_size": 4,
    "training.micro_batch_size": 2,
    "training.context_length": 24,
    "training.precision": "fp32",
    "training.threads": 1,
    "training.validate_every": 5,
    "text.valid_fraction": 0.2,
}
BASE: dict[str, Any] = {
    "tokenizer.vocab_size": 320,
    "net.hidden_size": 32,
    "net.num_hidden_layers": 2,
    "net.num_attention_heads": 2,
    "net.max_position_embeddings": 32,
    "training.batch_size": 4,
    "training.precision": "fp32",
    "training.threads": 1,
}


def documents(words: int, count: int, seed: int) -> str:
    """A made-up language, a document a line; no two alike."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    lexicon = ["".join(draw.choices("abcdefghiklmnoprstu", k=draw.randint(2, 8))) for _ in range(words)]
    texts = (" ".join(draw.choices(lexicon, k=40)).capitalize() + "." for _ in range(count))
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("text-tuning")


@pytest.fixture(autouse=True)
def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(folder / "cache"))


@pytest.fixture(scope="module")
def texts(folder: Path) -> tuple[Path, Path]:
    """What the base has read, and another language to carry it on with."""
    first, second = folder / "first.jsonl", folder / "second.jsonl"
    first.write_text(documents(200, 60, 0), encoding="utf-8")
    second.write_text(documents(30, 60, 1), encoding="utf-8")
    return first, second


@pytest.fixture(scope="module")
def base(folder: Path, texts: tuple[Path, Path]) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_CACHE", str(folder / "cache"))
        rung.train([texts[0]], steps=20, out=folder / "base", overrides=BASE)
    return folder / "base"


def start(base: Path, text: Path, out: Path, method: TuningMethod, **more: Any) -> Tuned:
    settings = {**SETTINGS, "training.learning_rate": 0.01 if method.kind == "lora" else 0.003}
    return tune(base, [text], task="text", method=method, out=out, **{"steps": 20, "overrides": settings, **more})


@pytest.mark.parametrize("method", [TuningMethod(layer_decay=0.8), LORA], ids=["full", "lora"])
def test_fewer_bits_are_needed_afterwards(
    base: Path, texts: tuple[Path, Path], tmp_path: Path, method: TuningMethod
) -> None:
    done = start(base, texts[1], tmp_path / "run", method)
    assert done.ended == "finished"
    after, before, gain = (done.record(name) for name in (AFTER, BEFORE, GAIN))
    assert gain.interval is not None
    assert gain.interval.low > 0
    assert gain.value == pytest.approx(before.value - after.value)  # type: ignore[operator]
    header = verify(tmp_path / "run")
    assert (header["task"], header["tuned_for"], header["state"]) == ("text", "text", "finished")
    assert header["parent"]["weights_sha256"] == read_header(base)["files"]["model.safetensors"]["sha256"]
    assert "bits_per_byte_gained" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    json.dumps(done.to_json(), allow_nan=False)
    assert any("bits_per_byte" in line for line in done.lines())
    model = rung.load(tmp_path / "run")
    assert model.generate("Ab", max_tokens=4, temperature=0.0)[0].token_ids
    measured = rung.evaluate(tmp_path / "run").bits_per_byte  # with windows of another length
    assert measured.value == pytest.approx(after.value, rel=0.05)
    assert measured.data_sha256 == after.data_sha256


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers in a way that will change
def test_an_adapter_is_small_and_opens_in_peft(base: Path, texts: tuple[Path, Path], tmp_path: Path) -> None:
    from rung.nets.language_models import load_language_model

    done = start(base, texts[1], tmp_path / "run", LORA, steps=6)
    for place in (tmp_path / "run", tmp_path / "run" / "checkpoints" / "step-00000006"):
        assert not (place / "model.safetensors").exists()
        assert sum(tensor.numel() for tensor in load_file(place / "adapter_model.safetensors").values()) == done.trained
    state = load_file(tmp_path / "run" / "checkpoints" / "step-00000006" / "trainer" / "optimizer.safetensors")
    assert {name.split(".")[-2] for name in state} <= {"lora_A", "lora_B"}
    import peft
    import transformers

    ids = torch.arange(5, 20)[None]
    with torch.inference_mode():
        theirs = transformers.AutoModelForCausalLM.from_pretrained(base)
        tuned = peft.PeftModel.from_pretrained(theirs, tmp_path / "run").eval()
        logits = tuned(input_ids=ids).logits
        torch.testing.assert_close(rung.load(tmp_path / "run").net(ids), logits, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(load_language_model(base)(ids), logits, atol=1e-2)


class Impatient(SilentDisplay):
    """Presses Ctrl-C at step 7."""

    def update(self, report: StepReport) -> None:
        if report.step == 7:
            signal.raise_signal(signal.SIGINT)


METHODS = {
    "full": TuningMethod(),
    "gradual": TuningMethod(gradual=True, layer_decay=0.5),
    "lora": LORA,
    "dora on int8 with dropout": TuningMethod(
        "lora", LoraConfig(r=2, use_dora=True, lora_dropout=0.1), base_precision="int8"
    ),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_an_interrupted_run_goes_on_bit_for_bit(base: Path, tmp_path: Path, method: TuningMethod) -> None:
    short = tmp_path / "short.jsonl"
    short.write_text(documents(30, 12, 2), encoding="utf-8")
    start(base, short, tmp_path / "whole", method, steps=None, epochs=2)
    stopped = start(base, short, tmp_path / "parts", method, steps=None, epochs=2, display=Impatient())
    assert (stopped.ended, stopped.records) == ("interrupted", ())
    assert resume(tmp_path / "parts").ended == "finished"
    name = "adapter_model.safetensors" if method.kind == "lora" else "model.safetensors"
    whole, parts = (load_file(tmp_path / run / name) for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    with pytest.raises(RunFolderError, match="finished"):
        resume(tmp_path / "parts")


def copied(base: Path, place: Path) -> Path:
    """A plain model folder with the base's files, free to be changed."""
    place.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy2(base / name, place / name)
    return place


def test_a_base_that_changed_or_is_gone_is_refused(base: Path, texts: tuple[Path, Path], tmp_path: Path) -> None:
    copy = copied(base, tmp_path / "copy")
    start(copy, texts[1], tmp_path / "run", LORA, steps=2)
    weights = load_file(copy / "model.safetensors")
    rung.load(tmp_path / "run")
    save_file({name: 1.01 * tensor for name, tensor in weights.items()}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(RunFolderError, match="other weights"):
        rung.load(tmp_path / "run")
    shutil.rmtree(copy)
    with pytest.raises(RunFolderError, match=r"not at .* any more"):
        rung.load(tmp_path / "run")
    (tmp_path / "run" / "rung.json").unlink()
    (tmp_path / "run" / TUNED).write_text("{}", encoding="utf-8")
    with pytest.raises(RunFolderError, match="cannot be read"):
        rung.load(tmp_path / "run")
    (tmp_path / "run" / TUNED).write_text('{"tuned_version": 99}', encoding="utf-8")
    with pytest.raises(RunFolderError, match="format 99"):
        rung.load(tmp_path / "run")
    (tmp_path / "run" / TUNED).unlink()
    with pytest.raises(RunFolderError, match=r"its base .* is not here"):
        rung.load(tmp_path / "run")


def test_a_base_is_found_from_everywhere_and_beside_a_moved_adapter(
    base: Path, texts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, away = tmp_path / "home", tmp_path / "away"
    shutil.copytree(base, home / "base")
    away.mkdir()
    monkeypatch.chdir(home)
    start(Path("base"), texts[1], Path("run"), LORA, steps=2)
    monkeypatch.chdir(away)
    found = rung.load("../home/run")
    assert isinstance(found, rung.LanguageModel)
    named = json.loads((home / "run" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == read_header(home / "run")["recipe"]["base"] == str(home / "base")
    home.rename(tmp_path / "moved")
    moved = rung.load("../moved/run")
    assert isinstance(moved, rung.LanguageModel)
    assert moved.generate("Ab", max_tokens=4, temperature=0.0) == found.generate("Ab", max_tokens=4, temperature=0.0)
    (tmp_path / "moved" / "base").rename(tmp_path / "moved" / "other")
    with pytest.raises(RunFolderError, match=r"not at .*home/base any more") as caught:
        rung.load("../moved/run")
    assert f"put it (a link will do) at {tmp_path / 'moved' / 'base'}" in str(caught.value)


def test_a_run_whose_base_is_gone_says_where_to_put_it(base: Path, texts: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "base")
    start(tmp_path / "base", texts[1], tmp_path / "run", LORA, steps=2)
    header = json.loads((tmp_path / "run" / "rung.json").read_text())
    (tmp_path / "run" / "rung.json").write_text(json.dumps(header | {"state": "interrupted"}))
    (tmp_path / "base").rename(tmp_path / "other")
    with pytest.raises(RunFolderError, match=r"base of this run is not at .*base any more") as caught:
        resume(tmp_path / "run")
    assert "a link will do" in str(caught.value)


def test_an_adapter_on_another_base_is_refused(base: Path, texts: tuple[Path, Path], tmp_path: Path) -> None:
    """The right record over weights of another shape: whoever forges the hash still meets the shapes."""
    start(base, texts[1], tmp_path / "run", LORA, steps=2)
    rung.train([texts[0]], steps=1, out=tmp_path / "other", overrides={**BASE, "net.num_hidden_layers": 1})
    (tmp_path / "run" / "rung.json").unlink()
    tuned = json.loads((tmp_path / "run" / TUNED).read_text(encoding="utf-8"))
    tuned["base"]["origin"] = str(tmp_path / "other")
    (tmp_path / "run" / TUNED).write_text(json.dumps(tuned), encoding="utf-8")
    with pytest.raises(RunFolderError, match="other weights"):
        rung.load(tmp_path / "run")
    tuned["base"]["weights_sha256"] = read_header(tmp_path / "other")["files"]["model.safetensors"]["sha256"]
    (tmp_path / "run" / TUNED).write_text(json.dumps(tuned), encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"no place for model\.layers\.1"):
        rung.load(tmp_path / "run")


def test_a_tuned_run_is_a_base_itself(base: Path, texts: tuple[Path, Path], tmp_path: Path) -> None:
    start(base, texts[1], tmp_path / "first", LORA, steps=2)
    start(tmp_path / "first", texts[1], tmp_path / "second", LORA, steps=2)
    done = start(tmp_path / "second", texts[1], tmp_path / "third", TuningMethod(), steps=1)
    assert done.ended == "finished"
    assert (tmp_path / "third" / "model.safetensors").is_file()


def test_a_tokenizer_in_two_files_stays_with_the_model(base: Path, texts: tuple[Path, Path], tmp_path: Path) -> None:
    """As GPT-2's own folder has it: `vocab.json` and `merges.txt`."""
    shutil.copytree(
        base, tmp_path / "base", ignore=shutil.ignore_patterns("checkpoints", "rung.json", "tokenizer.json")
    )
    model = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    lines = (" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"])
    (tmp_path / "base" / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    (tmp_path / "base" / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    start(tmp_path / "base", texts[1], tmp_path / "run", TuningMethod(), steps=1)
    assert verify(tmp_path / "run")
    read = [rung.load(folder).tokenizer.encode("A made-up text.") for folder in (base, tmp_path / "run")]  # type: ignore[union-attr]
    assert read[0] == read[1]


@pytest.mark.parametrize("family", ["lstm", "feedforward"])
def test_other_families_are_carried_on_too(family: str, texts: tuple[Path, Path], tmp_path: Path) -> None:
    net = {"net.family": family, "net.hidden_size": 32, "net.embedding_size": 16, "tokenizer.vocab_size": 300}
    net |= {key: value for key, value in BASE.items() if key.startswith("training.")}
    rung.train([texts[0]], steps=5, out=tmp_path / "base", overrides=net)
    done = start(tmp_path / "base", texts[1], tmp_path / "run", TuningMethod(), steps=10)
    assert done.record(GAIN).value > 0  # type: ignore[operator]


def test_minutes_are_planned_and_the_plan_alone_writes_nothing(
    base: Path, texts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = plan(base, [texts[1]], task="text", method=LORA, minutes=0.5, overrides=SETTINGS)
    assert made.seconds is not None
    assert made.recipe.training.steps
    assert made.epochs <= 4.1
    assert any("parameters are trained (lora)" in line for line in made.lines())
    json.dumps(made.to_json(), allow_nan=False)
    assert not list(tmp_path.iterdir())
    with pytest.raises(PlanError, match="no step"):
        plan(base, [texts[1]], task="text", minutes=0.001, overrides=SETTINGS)


def test_a_test_text_of_ones_own_is_measured(base: Path, texts: tuple[Path, Path], tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text(documents(40, 5, 3), encoding="utf-8")
    done = start(base, texts[1], tmp_path / "run", LORA, steps=2, test=[own])
    assert done.record(AFTER).n == 5
    assert done.record(AFTER).data_sha256 == rung.evaluate(tmp_path / "run", [own]).bits_per_byte.data_sha256


def test_a_base_that_is_no_language_model_is_refused(base: Path, texts: tuple[Path, Path], tmp_path: Path) -> None:
    copy = copied(base, tmp_path / "copy")
    for kind in ("bert", "rung-ngram", "unheard-of"):
        (copy / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
        with pytest.raises(RunFolderError, match=kind):
            start(copy, texts[1], tmp_path / "run", LORA)
    assert not (tmp_path / "run").exists()


def test_wishes_without_sense_are_refused(base: Path, texts: tuple[Path, Path], tmp_path: Path) -> None:
    def refused(error: type[Exception], problem: str, **wishes: Any) -> None:
        with pytest.raises(error, match=problem):
            tune(base, wishes.pop("data", [texts[1]]), task="text", out=tmp_path / "run", **wishes)

    refused(UsageError, "no text", data=[])
    refused(UsageError, "no new head", method=TuningMethod("frozen"))
    refused(RecipeError, "one of training.minutes", steps=3, epochs=2)
    refused(RecipeError, "unknown recipe key", overrides={"training.momentum": 1})
    refused(UsageError, "two epochs", method=TuningMethod(gradual=True), steps=1, overrides=SETTINGS)
    refused(UsageError, "called nowhere", method=TuningMethod("lora", LoraConfig(target_modules=("nowhere",))))
    assert not (tmp_path / "run" / "model.safetensors").exists()
