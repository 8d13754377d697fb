"""From text to a run folder and back: the contracts that everything later stands on."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import rung
from rung.errors import DataError, NewerFormatError, PlanError, RunFolderError, UsageError
from rung.runfolder import file_sha256, verify

TINY: dict[str, Any] = {
    "tokenizer.vocab_size": 320,
    "net.hidden_size": 32,
    "net.num_hidden_layers": 2,
    "net.num_attention_heads": 2,
    "net.max_position_embeddings": 32,
    "net.dropout": 0.1,
    "training.batch_size": 4,
    "training.validate_every": 6,
    "training.checkpoint_every": 6,
    "training.precision": "fp32",
    "training.threads": 1,
}
STEPS = 24


def made_up_text(paragraphs: int = 300, seed: int = 0) -> str:
    """Sentences of a small made-up language: something to learn, and no two paragraphs alike."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    words = ["".join(draw.choices("abcdefghiklmnoprstu", k=draw.randint(2, 8))) for _ in range(200)]
    return "\n\n".join(" ".join(draw.choices(words, k=60)).capitalize() + "." for _ in range(paragraphs)) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("language-modelling")


@pytest.fixture(autouse=True)
def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(folder / "cache"))


@pytest.fixture(scope="module")
def text(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text(made_up_text(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(folder: Path, text: Path) -> rung.TrainSummary:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_CACHE", str(folder / "cache"))
        return rung.train([text], steps=STEPS, out=folder / "run", overrides=TINY)


def weights(run: Path) -> str:
    return file_sha256(run / "model.safetensors")


def test_the_run_folder_is_whole_and_says_what_it_is(finished: rung.TrainSummary) -> None:
    header = verify(finished.run)
    assert header["state"] == "finished"
    assert {"config.json", "model.safetensors", "tokenizer.json", "results.json"} <= set(header["files"])
    assert header["recipe"]["training"]["steps"] == STEPS
    assert finished.bits_per_byte is not None
    assert finished.bits_per_byte.interval is not None
    assert 0 < finished.bits_per_byte.value < 8  # type: ignore[operator]
    assert [floor.name for floor in finished.floors] == ["gzip -9", "bz2 -9", "xz -9e"]
    json.dumps(finished.to_json(), allow_nan=False)
    card = (finished.run / "README.md").read_text(encoding="utf-8")
    assert f"{finished.bits_per_byte.value:.4f}" in card


def test_transformers_opens_it_and_agrees(finished: rung.TrainSummary) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = rung.load(finished.run)
    theirs = AutoModelForCausalLM.from_pretrained(finished.run)
    tokens = AutoTokenizer.from_pretrained(finished.run)("Some words <|endoftext|> and more.")["input_ids"]
    with torch.inference_mode():
        torch.testing.assert_close(
            model.net(torch.tensor([tokens])), theirs(torch.tensor([tokens])).logits, atol=1e-5, rtol=1e-5
        )


def test_training_learned_something(finished: rung.TrainSummary) -> None:
    lines = [json.loads(line) for line in (finished.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0] - 0.3


def test_an_equal_plan_gives_equal_weights(finished: rung.TrainSummary, folder: Path) -> None:
    again = rung.train(recipe=finished.run, out=folder / "again")
    assert weights(again.run) == weights(finished.run)


def test_interrupted_and_resumed_equals_uninterrupted(finished: rung.TrainSummary, folder: Path) -> None:
    """A run cut off after its second checkpoint, as a kill -9 leaves it, ends with the same bits."""
    cut = folder / "cut"
    shutil.copytree(finished.run, cut)
    for path in sorted((cut / "checkpoints").iterdir()):
        if int(path.name.removeprefix("step-")) > 12:
            shutil.rmtree(path)
    for name in ("model.safetensors", "config.json", "results.json"):
        (cut / name).unlink()
    header = json.loads((cut / "rung.json").read_text(encoding="utf-8"))
    header |= {"state": "training", "files": {}}
    (cut / "rung.json").write_text(json.dumps(header), encoding="utf-8")
    assert rung.load(cut).folder.name == "step-00000012"
    resumed = rung.resume(cut)
    assert resumed.steps == STEPS
    assert weights(cut) == weights(finished.run)


def test_a_finished_run_is_not_resumed_but_extended(finished: rung.TrainSummary, folder: Path) -> None:
    with pytest.raises(RunFolderError, match="finished") as caught:
        rung.resume(finished.run)
    assert "--extend" in (caught.value.hint or "")
    longer = rung.extend(finished.run, steps=20, out=folder / "longer")
    parent = json.loads((longer.run / "rung.json").read_text(encoding="utf-8"))["parent"]
    assert longer.steps == parent["step"] + 20
    assert weights(longer.run) != weights(finished.run)


def test_resume_refuses_changed_text(folder: Path, text: Path) -> None:
    moved = folder / "changing.txt"
    shutil.copy(text, moved)
    run = rung.train([moved], steps=2, out=folder / "changed", overrides=TINY).run
    header = json.loads((run / "rung.json").read_text(encoding="utf-8"))
    (run / "rung.json").write_text(json.dumps(header | {"state": "training"}), encoding="utf-8")
    moved.write_text(made_up_text(seed=1), encoding="utf-8")
    with pytest.raises(RunFolderError, match="text has changed"):
        rung.resume(run)


def test_a_newer_format_and_damage_are_named(finished: rung.TrainSummary, folder: Path) -> None:
    newer = folder / "newer"
    shutil.copytree(finished.run, newer)
    header = json.loads((newer / "rung.json").read_text(encoding="utf-8"))
    (newer / "rung.json").write_text(json.dumps(header | {"format_version": 99}), encoding="utf-8")
    with pytest.raises(NewerFormatError, match="format 99"):
        rung.load(newer)
    damaged = folder / "damaged"
    shutil.copytree(finished.run, damaged)
    stored = bytearray((damaged / "model.safetensors").read_bytes())
    stored[-100] ^= 1
    (damaged / "model.safetensors").write_bytes(stored)
    with pytest.raises(RunFolderError, match="SHA-256") as caught:
        rung.load(damaged)
    assert "model.safetensors" in (caught.value.where or "")
    (damaged / "model.safetensors").write_bytes(stored[:-50])
    with pytest.raises(RunFolderError, match="bytes where"):
        rung.load(damaged)


def test_nothing_is_trained_over(finished: rung.TrainSummary, text: Path) -> None:
    before = weights(finished.run)
    with pytest.raises(UsageError, match="not empty"):
        rung.train([text], steps=STEPS, out=finished.run, overrides=TINY)
    assert weights(finished.run) == before


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("empty.txt", b"", DataError),
        ("one.txt", b"x", DataError),
        ("short.txt", b"Only a few words, less than a context.\n", DataError),
        ("same.txt", b"The same line again.\n\n" * 400, DataError),
    ],
)
def test_hopeless_text_is_refused_with_a_reason(folder: Path, name: str, content: bytes, error: type) -> None:
    path = folder / name
    path.write_bytes(content)
    with pytest.raises(error) as caught:
        rung.train([path], steps=2, out=folder / f"run-{name}", overrides=TINY)
    assert caught.value.hint
    assert not (folder / f"run-{name}").exists()


def test_an_empty_folder_and_contradictions_are_refused(folder: Path, text: Path) -> None:
    (folder / "nothing").mkdir(exist_ok=True)
    with pytest.raises(DataError):
        rung.train([folder / "nothing"], steps=2, out=folder / "never")
    with pytest.raises(UsageError, match="contradict"):
        rung.train([text], steps=2, minutes=1, out=folder / "never")
    with pytest.raises(PlanError, match="GiB"):
        rung.train([text], steps=2, out=folder / "never", overrides=TINY | {"training.micro_batch_size": 10**9})


def test_evaluating_again_gives_the_recorded_figure(finished: rung.TrainSummary, text: Path) -> None:
    assert finished.bits_per_byte is not None
    own = rung.evaluate(finished.run)
    assert own.bits_per_byte.value == pytest.approx(finished.bits_per_byte.value, abs=1e-9)
    assert own.bits_per_byte.data_sha256 == finished.bits_per_byte.data_sha256
    other = rung.evaluate(finished.run, [text])
    assert other.bits_per_byte.n > own.bits_per_byte.n


@pytest.mark.slow  # half a minute by the clock
def test_a_plan_by_minutes_keeps_the_time(folder: Path, text: Path) -> None:
    """The wall time of the whole command, within 10 %; it also ends with a recipe that needs no clock."""
    overrides = {key: value for key, value in TINY.items() if not key.startswith(("training.valid", "training.check"))}
    summary = rung.train([text], minutes=0.5, out=folder / "timed", overrides=overrides)
    assert summary.seconds == pytest.approx(30, rel=0.10)
    recipe = rung.Recipe.load(summary.run)
    assert recipe.training.minutes is None
    assert recipe.training.steps == summary.steps
