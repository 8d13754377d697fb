"""Rungs that stand on others' weights: which there are, and each from plan to prediction on a tiny base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rung.data.labelled import LabelledItems, item_ids
from rung.data.text_encoder import train_byte_pairs
from rung.data.wordpiece import train_wordpieces
from rung.errors import PlanError, RunFolderError, UsageError
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.nets.encoder import Encoder
from rung.nets.encoder_config import EncoderConfig
from rung.nets.encoder_folder import save_encoder
from rung.nets.gpt2 import GPT2LM, GPT2Config
from rung.nets.pretrained import save_net
from rung.progress import SILENT
from rung.tasks.bases import KNOWN_BASES
from rung.tasks.classification import pretrained
from rung.tasks.classification.classifier import load_classifier
from rung.tasks.classification.pretrained import FolderRung, FrozenRung, base_of, names_of
from rung.tasks.classification.rungs import make_rung, make_rungs
from rung.tasks.classification.task import ClassificationTask
from rung.tasks.prompting.prompted import PromptedRung
from rung.tasks.tuning.folder import is_adapted
from rung.tasks.tuning.method import TuningMethod

TELLING = {"animal": ["cat", "dog", "owl"], "dish": ["soup", "cake", "stew"]}


def items(count: int, seed: int) -> LabelledItems:
    draw = np.random.default_rng(seed)
    names = tuple(TELLING)
    labels = np.arange(count) % 2
    words = [str(draw.choice(TELLING[names[label]])) for label in labels]
    texts = [f"we saw the {word} number {number + 1000 * seed}" for number, word in enumerate(words)]
    return LabelledItems(item_ids(texts, [names[label] for label in labels]), texts, labels, names)


@pytest.fixture(scope="module")
def task() -> ClassificationTask:
    return ClassificationTask({"train": items(60, 1), "valid": items(20, 2), "test": items(20, 3)})


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder, texts = tmp_path_factory.mktemp("bases"), items(60, 1).texts
    pieces, pairs = train_wordpieces(texts, vocab_size=120), train_byte_pairs(texts, vocab_size=280)
    for name in ("bert", "gpt"):
        (folder / name).mkdir()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    save_encoder(
        Encoder(EncoderConfig(vocab_size=pieces.vocab_size, max_position_embeddings=32, **sizes)), folder / "bert"
    )
    pieces.save(folder / "bert", model_max_length=32)
    config = DecoderConfig(
        vocab_size=pairs.vocab_size,
        max_position_embeddings=512,
        num_key_value_heads=2,
        head_dim=8,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        **sizes,
    )
    save_net(CausalLM(config), folder / "gpt")
    pairs.save(folder / "gpt", model_max_length=512)
    return {name: str(folder / name) for name in ("bert", "gpt")}


def test_an_encoder_is_frozen_and_tuned_and_a_decoder_prompted_and_tuned(bases: dict[str, str]) -> None:
    assert names_of(bases["bert"]) == ("bert-frozen", "bert")
    assert names_of(bases["gpt"]) == ("gpt-prompted", "gpt-lora")
    both = tuple(bases.values())
    assert base_of("gpt-lora", both) == bases["gpt"]
    assert base_of("gpt-frozen", both) is None
    kinds = {"bert-frozen": FrozenRung, "gpt-prompted": PromptedRung, "gpt-lora": FolderRung}
    made = {name: make_rung(name, both) for name in kinds}
    assert {name: type(rung) for name, rung in made.items()} == kinds
    assert all(rung.is_pretrained_language_model for rung in made.values())
    assert "(gpt)" in made["gpt-prompted"].description
    assert pretrained.base_name("models/encoder") == "base-encoder", "a rung has that name"
    ladder = make_rungs(["majority", "bert-frozen", "linear"], both)
    assert [rung.name for rung in ladder] == ["majority", "linear", "bert-frozen"]


def test_gpt2_is_a_decoder_too_and_what_cannot_be_a_base_is_told_what_can(
    task: ClassificationTask, tmp_path: Path
) -> None:
    folder = tmp_path / "gpt2"
    vocab = train_byte_pairs(task.items["train"].texts, vocab_size=280)
    config = GPT2Config(
        vocab_size=vocab.vocab_size, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=1024, eos_token_id=0,
    )  # fmt: skip
    save_net(GPT2LM(config, generator=torch.Generator().manual_seed(0)), folder)
    vocab.save(folder, model_max_length=1024)
    assert names_of(str(folder)) == ("gpt2-prompted", "gpt2-lora")
    for name in names_of(str(folder)):
        rung = make_rung(name, (str(folder),))
        plan = rung.plan(task, 120.0, seed=0)
        if name == "gpt2-lora":
            plan["training"] |= {"least_steps": 4, "epochs": 1}
        rung.fit(task, plan, items=np.arange(60), seed=0, folder=tmp_path / name, progress=SILENT)
        found = load_classifier(tmp_path / name).predict(task.items["test"].texts)
        assert found.probabilities.shape == (20, 2)
        assert is_adapted(tmp_path / name) == (name == "gpt2-lora")
    for kind in ("t5", "bart", "rung-lm-lstm"):
        (folder / "config.json").write_text(f'{{"model_type": "{kind}"}}')
        with pytest.raises(RunFolderError, match="cannot be used here") as caught:
            names_of(str(folder))
        assert caught.value.hint == "what can be: bert, roberta, distilbert, llama, mistral, qwen2, qwen3, gpt2"


def test_bases_join_the_ladder_of_a_task(bases: dict[str, str], task: ClassificationTask) -> None:
    named = replace(task, bases=(bases["bert"],))
    assert {rung.name for rung in named.rungs(None)} - {rung.name for rung in task.rungs(None)} == {
        "bert-frozen",
        "bert",
    }
    assert [rung.name for rung in named.rungs(["majority", "bert-frozen"])] == ["majority", "bert-frozen"]


def test_unknown_rungs_and_bases_that_are_not_here_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no rung called 'minilm-frosen'"):
        make_rung("minilm-frosen", ())
    monkeypatch.setattr(type(KNOWN_BASES["minilm"]), "installed", None)
    assert pretrained.installed_bases() == ()
    with pytest.raises(RunFolderError, match="the base minilm is not here"):
        make_rung("minilm-frozen", ())


def test_a_frozen_body_is_read_once_for_all_fits(
    bases: dict[str, str], task: ClassificationTask, tmp_path: Path
) -> None:
    rung = FrozenRung("bert-frozen", Path(bases["bert"]), called="bert")
    plan = rung.plan(task, 60.0, seed=0)
    for name, count in (("some", 30), ("all", 60)):
        chosen = np.arange(count)
        report = rung.fit(task, plan, items=chosen, seed=0, folder=tmp_path / name, progress=SILENT)
        assert report.chosen["C"] in (0.01, 0.1, 1.0, 10.0)
    assert len(rung._known) == 2, "training and validation items, once each"
    found = load_classifier(tmp_path / "all")
    texts = task.items["test"].texts
    fresh = FrozenRung("bert-frozen", Path(bases["bert"]), called="bert")
    fresh.fit(task, plan, items=np.arange(60), seed=5, folder=tmp_path / "again", progress=SILENT)
    again = load_classifier(tmp_path / "again").predict(texts).probabilities
    np.testing.assert_array_equal(found.predict(texts).probabilities, again)
    with pytest.raises(PlanError, match="reading 60 texts would take"):
        rung.plan(task, 1e-9, seed=0)


def test_a_base_tuned_by_lora_leaves_an_adapter(
    bases: dict[str, str], task: ClassificationTask, tmp_path: Path
) -> None:
    rung = FolderRung(bases["gpt"], name="gpt-lora", called="gpt", method=TuningMethod(kind="lora"))
    assert "gpt, tuned on the labels by low-rank additions" in rung.description
    plan = rung.plan(task, None, seed=0)
    plan["training"] |= {"least_steps": 4, "epochs": 1}
    rung.fit(task, plan, items=np.arange(60), seed=0, folder=tmp_path / "fit", progress=SILENT)
    assert is_adapted(tmp_path / "fit")
    predictions = load_classifier(tmp_path / "fit").predict(task.items["test"].texts)
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1)
    with pytest.raises(PlanError, match="one pass over 60 texts would take about"):
        rung.plan(task, 1e-9, seed=0)
