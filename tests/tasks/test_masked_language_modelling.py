"""From text to a BERT and back: the run folder, resumption, gaps, likelihoods, and what cannot be done."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import rung
from rung.errors import DataError, GenerationError, PlanError, RecipeError, RunFolderError, UsageError
from rung.progress import SILENT
from rung.runfolder import file_sha256, verify
from rung.tasks.masked_language_modelling import MaskedModel, evaluate, load, plan, resume, train
from rung.tasks.masked_language_modelling.plan import _Draft
from rung.tasks.masked_language_modelling.summary import MaskedSummary

TINY: dict[str, Any] = {
    "tokenizer.vocab_size": 160,
    "net.hidden_size": 64,
    "net.num_hidden_layers": 1,
    "net.num_attention_heads": 1,
    "net.max_position_embeddings": 32,
    "net.dropout": 0.0,
    "training.batch_size": 8,
    "training.micro_batch_size": 4,
    "training.validate_every": 50,
    "training.checkpoint_every": 50,
    "training.optimizer": "muon",
    "training.learning_rate": 1e-2,
    "training.precision": "fp32",
    "training.threads": 1,
}
STEPS = 200
CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Russia": "Moscow"}


def made_up_text(paragraphs: int = 150, seed: int = 0) -> str:
    """Sentences about capitals among made-up ones: something to fill gaps in, and no two paragraphs alike."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    words = ["".join(draw.choices("abcdefghiklmnoprstu", k=draw.randint(2, 8))) for _ in range(20)]

    def sentence() -> str:
        if draw.random() < 0.9:
            country = draw.choice(list(CAPITALS))
            return f"{CAPITALS[country]} is the capital of {country}."
        return " ".join(draw.choices(words, k=6)).capitalize() + "."

    return "\n\n".join(" ".join(sentence() for _ in range(8)) for _ in range(paragraphs)) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("masked")


@pytest.fixture(autouse=True)
def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(folder / "cache"))


@pytest.fixture(scope="module")
def text(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text(made_up_text(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(folder: Path, text: Path) -> MaskedSummary:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_CACHE", str(folder / "cache"))
        return train([text], steps=STEPS, out=folder / "run", overrides=TINY)


@pytest.fixture(scope="module")
def model(finished: MaskedSummary) -> MaskedModel:
    return load(finished.run)


def test_the_run_folder_is_whole_and_says_what_it_is(finished: MaskedSummary) -> None:
    header = verify(finished.run)
    assert header["state"] == "finished"
    assert header["task"] == "masked-language-model"
    assert header["recipe"]["training"]["steps"] == STEPS
    names = ["masked_accuracy", "masked_bits", "unigram_masked_accuracy", "unigram_masked_bits", "pseudo_bits_per_byte"]
    assert [record.name for record in finished.records] == names
    assert all(record.value is not None and np.isfinite(record.value) for record in finished.records)
    stored = json.loads((finished.run / "results.json").read_text(encoding="utf-8"))
    assert [record["name"] for record in stored["records"]] == names
    assert sorted(path.stem for path in (finished.run / "scores").iterdir()) == sorted(names)
    json.dumps(finished.to_json(), allow_nan=False)
    card = (finished.run / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: fill-mask" in card
    assert all(record.name in card for record in finished.records)
    assert any("guessed right" in line for line in finished.lines())


def test_it_learned_more_than_frequencies(finished: MaskedSummary) -> None:
    assert finished.record("masked_bits").value < finished.record("unigram_masked_bits").value - 1  # type: ignore[operator]
    accuracy, blind = finished.record("masked_accuracy"), finished.record("unigram_masked_accuracy")
    assert accuracy.value > blind.value + 0.2  # type: ignore[operator]


def test_transformers_opens_it_and_agrees(finished: MaskedSummary, model: MaskedModel) -> None:
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(finished.run).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(finished.run)
    pipeline = transformers.pipeline("fill-mask", model=theirs, tokenizer=tokenizer)
    text = "Paris is the [MASK] of France. Rome is here."
    (mask,) = model.fill(text, k=4).masks
    for ours, expected in zip(mask, pipeline(text, top_k=4), strict=True):
        assert ours.token.removeprefix("##") == expected["token_str"].removeprefix("##")
        assert ours.probability == pytest.approx(expected["score"], rel=1e-3)


def test_gaps_are_filled(model: MaskedModel) -> None:
    one = model.fill("Paris is the [MASK] of France.", k=3)
    assert [mask[0].token for mask in one.masks] == ["capital"]
    assert one.filled == "Paris is the capital of France."
    assert [len(mask) for mask in one.masks] == [3]
    assert sorted((c.probability for c in one.masks[0]), reverse=True) == [c.probability for c in one.masks[0]]
    two = model.fill("[MASK] is the capital [MASK] France.")
    assert [mask[0].token for mask in two.masks][1] == "of"
    assert two.filled.count("[MASK]") == 0
    assert [len(mask) for mask in two.masks] == [5, 5]


def test_a_piece_is_joined_to_its_word(model: MaskedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    continuing = int(np.flatnonzero(model.encoder.word_joints().goes_on)[0])
    scores = torch.zeros(model.net.config.vocab_size)
    scores[continuing] = 50.0
    monkeypatch.setattr(type(model.net), "scores", lambda self, hidden: scores.expand(len(hidden), -1))  # noqa: ARG005
    piece = model.encoder.token(continuing).removeprefix("##")
    assert model.fill("play [MASK] again", k=1).filled == f"play{piece} again"


def test_gaps_that_cannot_be_filled_are_named(model: MaskedModel) -> None:
    with pytest.raises(GenerationError, match=r"no \[MASK\]"):
        model.fill("Paris is the capital of France")
    with pytest.raises(GenerationError, match=r"reads 32"):
        model.fill("Paris " * 40 + "[MASK]")
    with pytest.raises(GenerationError, match="0 candidates"):
        model.fill("a [MASK]", k=0)
    assert len(model.fill("[MASK]").masks) == 1
    assert len(model.fill("🙂 [MASK] [SEP] مرحبا").masks) == 1  # what spells [SEP] is text


def test_the_true_sentence_is_the_likelier(model: MaskedModel) -> None:
    true, false = model.pseudo_log_likelihood(["Paris is the capital of France.", "Paris is the of capital France."])
    assert true.total > false.total
    assert model.pseudo_log_likelihood("Rome")[0].tokens


def test_evaluation_by_files_and_on_what_was_held_out(finished: MaskedSummary, text: Path) -> None:
    held_out = evaluate(finished.run)
    assert held_out.record.value is not None
    again = rung.load(finished.run)
    assert isinstance(again, MaskedModel)
    own = again.evaluate([text], max_bytes=2000)
    assert own.record.n < held_out.record.n + 100
    assert own.to_json()["pseudo_bits_per_byte"]["unit"] == "pseudo-bits per byte"


def test_a_folder_of_transformers_is_loaded_too(finished: MaskedSummary, model: MaskedModel, tmp_path: Path) -> None:
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(finished.run)
    theirs.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(finished.run).save_pretrained(tmp_path)
    opened = rung.load(tmp_path)
    assert isinstance(opened, MaskedModel)
    text = "Paris is the [MASK] of France."
    assert opened.fill(text).masks[0][0].token == model.fill(text).masks[0][0].token
    with pytest.raises(UsageError, match="held out"):
        evaluate(tmp_path)


def test_an_equal_plan_gives_equal_weights(finished: MaskedSummary, folder: Path) -> None:
    again = train(recipe=finished.run, out=folder / "again")
    assert file_sha256(again.run / "model.safetensors") == file_sha256(finished.run / "model.safetensors")


def test_interrupted_and_resumed_equals_uninterrupted(finished: MaskedSummary, folder: Path) -> None:
    """A run cut off after its second checkpoint, as a kill -9 leaves it, ends with the same bits."""
    cut = folder / "cut"
    shutil.copytree(finished.run, cut)
    for path in sorted((cut / "checkpoints").iterdir()):
        if int(path.name.removeprefix("step-")) > 100:
            shutil.rmtree(path)
    for name in ("model.safetensors", "config.json", "results.json"):
        (cut / name).unlink()
    header = json.loads((cut / "rung.json").read_text(encoding="utf-8"))
    (cut / "rung.json").write_text(json.dumps(header | {"state": "training", "files": {}}), encoding="utf-8")
    assert load(cut).folder.name == "step-00000100"
    resumed = resume(cut)
    assert resumed.steps == STEPS
    assert file_sha256(cut / "model.safetensors") == file_sha256(finished.run / "model.safetensors")
    with pytest.raises(RunFolderError, match="finished"):
        resume(cut)


def test_a_run_over_other_text_is_not_gone_on_with(finished: MaskedSummary, text: Path, folder: Path) -> None:
    cut = folder / "other-text"
    shutil.copytree(finished.run, cut)
    header = json.loads((cut / "rung.json").read_text(encoding="utf-8"))
    header["data"]["sha256"] = "0" * 64
    (cut / "rung.json").write_text(json.dumps(header | {"state": "training", "files": {}}), encoding="utf-8")
    with pytest.raises(RunFolderError, match="text has changed"):
        resume(cut)
    with pytest.raises(UsageError, match="threads"):
        resume(cut, threads=7)
    assert text.exists()


def test_minutes_are_planned_by_timing_and_kept(text: Path) -> None:
    made = plan([text], minutes=0.5, threads=1, overrides={"tokenizer.vocab_size": 300})
    assert made.tokens_per_second is not None
    assert made.tokens_per_second > 0
    assert made.recipe.training.minutes is None
    assert made.recipe.training.steps is not None
    assert any("layers" in line for line in made.lines())
    json.dumps(made.to_json(), allow_nan=False)


def test_minutes_that_are_too_few_are_refused(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Draft, "_timed", lambda self, config, bf16: ("fp32", 10.0))  # noqa: ARG005
    with pytest.raises(PlanError, match="fewer than 20"):
        train([text], minutes=1.0, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_steps_give_a_larger_network(text: Path) -> None:
    small, large = (plan([text], steps=steps, threads=1).config for steps in (10, 20_000))
    assert large.hidden_size * large.num_hidden_layers > small.hidden_size * small.num_hidden_layers


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"minutes": 1.0, "steps": 5}, UsageError, "contradict"),
        ({"overrides": {"net.hidden_sizes": 5}}, RecipeError, "hidden_size"),
        ({"overrides": {"masking.share": 1.5}}, RecipeError, "masking.share"),
        ({"overrides": {"net.hidden_size": 32, "net.num_attention_heads": 5}, "steps": 2}, RunFolderError, "multiple"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str, text: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        train([text], out=tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_without_text_there_is_nothing_to_do(tmp_path: Path, finished: MaskedSummary) -> None:
    with pytest.raises(UsageError, match="no text"):
        train([], steps=1, out=tmp_path / "run")
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n", encoding="utf-8")
    with pytest.raises(DataError):
        train([empty], steps=1, out=tmp_path / "run")
    with pytest.raises(UsageError, match="not empty"):
        train([empty], steps=1, out=finished.run)


def test_a_text_shorter_than_a_window_and_of_few_words_can_be_learned(tmp_path: Path) -> None:
    short = tmp_path / "short.jsonl"
    draw = random.Random(1)  # noqa: S311 - no secret
    rows = [json.dumps({"text": " ".join(draw.choices(["ab", "ba", "aa", "bb"], k=9))}) for _ in range(80)]
    short.write_text("\n".join(rows), encoding="utf-8")
    found = train([short], steps=3, out=tmp_path / "run", overrides={**TINY, "tokenizer.vocab_size": 64})
    assert found.ended == "finished"
    assert load(found.run).fill("ab [MASK]").masks


def test_a_bert_is_tuned_as_a_rung_of_a_comparison(finished: MaskedSummary, tmp_path: Path) -> None:
    from rung.data.labelled import LabelledItems, item_ids
    from rung.tasks.classification.classifier import load_classifier
    from rung.tasks.classification.pretrained import FolderRung
    from rung.tasks.classification.task import ClassificationTask

    def items(count: int) -> LabelledItems:
        labels = [number % 2 for number in range(count)]
        texts = [f"{number} {'Paris of France' if label else 'Rome of Italy'}" for number, label in enumerate(labels)]
        ids = item_ids(texts, [str(label) for label in labels])
        return LabelledItems(ids, texts, np.array(labels), ("italian", "french"))

    task = ClassificationTask({"train": items(80), "valid": items(20), "test": items(20)})
    tuned = FolderRung(finished.run)
    made = tuned.plan(task, None, seed=0)
    made["training"] |= {"epochs": 12, "learning_rate": 2e-3}
    tuned.fit(task, made, items=np.arange(80), seed=0, folder=tmp_path / "fit", progress=SILENT)
    found = load_classifier(tmp_path / "fit").predict(task.items["test"].texts)
    assert (found.labels == task.items["test"].labels).mean() > 0.9
