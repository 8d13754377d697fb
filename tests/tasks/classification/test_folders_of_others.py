"""Classifiers that transformers wrote, with and without names for their classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from typer.testing import CliRunner

import rung
from rung.cli.main import app
from rung.data.wordpiece import train_wordpieces
from rung.errors import RunFolderError
from rung.nets.classifier_folder import label_names, load_classifier
from rung.tasks.classification.classifier import Classifier

TEXTS = ["a cat sat on the mat", "dogs", "the dogs sat on the cat"]
ENCODER = train_wordpieces(TEXTS * 2, vocab_size=100)
BERT = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}
DISTILBERT = {"dim": 24, "n_layers": 1, "n_heads": 2, "hidden_dim": 40}
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "bert": (transformers.BertConfig, transformers.BertForSequenceClassification, BERT),
    "distilbert": (transformers.DistilBertConfig, transformers.DistilBertForSequenceClassification, DISTILBERT),
    "roberta": (
        transformers.RobertaConfig,
        transformers.RobertaForSequenceClassification,
        {**BERT, "pad_token_id": 0, "type_vocab_size": 1},
    ),
    "llama": (transformers.LlamaConfig, transformers.LlamaForSequenceClassification, {**BERT, "pad_token_id": 0}),
    "gpt2": (
        transformers.GPT2Config,
        transformers.GPT2ForSequenceClassification,
        {"n_embd": 24, "n_layer": 1, "n_head": 2, "pad_token_id": 0},
    ),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def written(folder: Path, family: str = "bert", *, without: tuple[str, ...] = (), **changes: Any) -> Any:
    """A random classifier of transformers in `folder`, its configuration without some keys; returns the network."""
    config, architecture, shape = FAMILIES[family]
    torch.manual_seed(0)
    given = {name: value for name, value in changes.items() if name != "stored"}
    net = architecture(config(vocab_size=ENCODER.vocab_size, max_position_embeddings=32, **shape, **given)).eval()
    for parameter in net.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    net.save_pretrained(folder)
    path = folder / "config.json"
    stored = json.loads(path.read_text(encoding="utf-8")) | changes.get("stored", {})
    path.write_text(json.dumps({key: value for key, value in stored.items() if key not in without}), encoding="utf-8")
    ENCODER.save(folder, model_max_length=32)
    return net


def probabilities(net: Any) -> list[list[float]]:
    rows = []
    for text in TEXTS:
        with torch.no_grad():
            rows += net(torch.tensor([ENCODER.encode([text]).ids.tolist()])).logits.softmax(1).tolist()
    return rows


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("says", [{}, {"num_labels": True}], ids=["nothing", "num_labels"])
def test_classes_without_names_have_those_of_transformers(
    family: str, classes: int, says: dict[str, bool], tmp_path: Path
) -> None:
    stored = {"num_labels": classes} if says else {}
    net = written(tmp_path, family, num_labels=classes, without=("id2label", "label2id"), stored=stored)
    found = rung.load(tmp_path)
    assert isinstance(found, Classifier)
    assert found.labels == tuple(net.config.id2label[number] for number in range(classes))
    assert found.labels[1] == "LABEL_1"
    np.testing.assert_allclose(found.predict(TEXTS).probabilities, probabilities(net), rtol=1e-4, atol=1e-6)


def test_names_that_are_there_are_taken(tmp_path: Path) -> None:
    names = {0: "no", 1: "yes"}
    net = written(tmp_path, id2label=names, label2id={name: number for number, name in names.items()})
    found = rung.load(tmp_path)
    assert isinstance(found, Classifier)
    expected = [names[int(np.argmax(row))] for row in probabilities(net)]
    assert [one.label for one in found.classify(TEXTS)] == expected


def test_the_command_line_labels_with_them(tmp_path: Path) -> None:
    written(tmp_path)
    assert "id2label" not in json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    shown = CliRunner().invoke(app, ["predict", str(tmp_path), TEXTS[0]])
    assert shown.exit_code == 0, shown.output
    assert {line.split()[0] for line in shown.stdout.splitlines()} == {"LABEL_0", "LABEL_1"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stored": {"num_labels": 5}}, "num_labels is 5, and the weights are those of 2"),
        ({"stored": {"id2label": {"0": "a", "2": "b"}}}, "id2label does not name"),
        ({"stored": {"id2label": []}}, "id2label does not name"),
        ({"stored": {"problem_type": "multi_label_classification"}}, "multi_label_classification"),
        ({"num_labels": 1, "without": ("id2label", "label2id")}, "one output"),
        ({"stored": {"architectures": ["BertModel"]}}, "no classifier"),
    ],
)
def test_what_is_no_classifier_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    written(tmp_path, **changes)
    refused = CliRunner().invoke(app, ["predict", str(tmp_path), "a cat"])
    assert refused.exit_code == 1
    assert message in " ".join(refused.output.split())


def test_a_body_without_a_head_names_no_classes(tmp_path: Path) -> None:
    transformers.BertModel(transformers.BertConfig(vocab_size=40, **BERT)).save_pretrained(tmp_path)  # type: ignore[arg-type]
    for load in (label_names, load_classifier):
        with pytest.raises(RunFolderError, match=r"names no classes .*no classifier.weight"):
            load(tmp_path)
