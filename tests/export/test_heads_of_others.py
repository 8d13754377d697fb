"""Every family that `--to hf` hands on, by the command's own comparison: what the head says, not the body alone."""

from __future__ import annotations

import ast
import csv
import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from rung.data.wordpiece import train_wordpieces
from rung.errors import EvaluationError
from rung.export import exporting, verify
from rung.export.exporting import export_model
from rung.export.report import Comparison, ExportReport
from rung.nets.adapters import ADAPTER_CONFIG
from rung.nets.classifier import build_classifier
from rung.nets.classifier_folder import save_classifier
from rung.nets.encoder_config import EncoderConfig
from rung.tasks.loading import is_classifier, is_sentence_encoder, load
from rung.tasks.similarity.encoder import load_sentence_encoder
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.tune import tune

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

TEXTS = [
    "the cat sat on the mat, and it was the best of times",
    "a dog saw the soup in the old city today",
    "12345 don't",
]
LABELS: dict[str, Any] = {
    "id2label": {"0": "animal", "1": "dish", "2": "place"},
    "label2id": {"animal": 0, "dish": 1, "place": 2},
}
LENGTH = 48
_TINY = {"vocab_size": 120, "max_position_embeddings": LENGTH + 2, "pad_token_id": 0}
_BERT: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    **_TINY,
}
_DISTILBERT = {"dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40, **_TINY}
_LLAMA = {**_BERT, "num_key_value_heads": 1}
_LAYERS = {"encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
_PAIRS = {"d_model": 16, **_LAYERS, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, **_TINY, "decoder_start_token_id": 0}
_T5 = {"d_model": 16, "d_kv": 5, "d_ff": 28, "num_layers": 2, "num_heads": 3, "vocab_size": 120}
_ENDS = {"eos_token_id": 3, "forced_eos_token_id": 3}
Make = Callable[[str], Path]

THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "BertForSequenceClassification": ("Bert", _BERT),
    "RobertaForSequenceClassification": ("Roberta", _BERT),
    "DistilBertForSequenceClassification": ("DistilBert", _DISTILBERT),
    "LlamaForSequenceClassification": ("Llama", _LLAMA),
    "Qwen3ForSequenceClassification": ("Qwen3", {**_LLAMA, "head_dim": 8}),
    "GPT2ForSequenceClassification": ("GPT2", {"n_embd": 24, "n_layer": 2, "n_head": 3, **_TINY}),
    "BertForTokenClassification": ("Bert", _BERT),
    "RobertaForTokenClassification": ("Roberta", _BERT),
    "DistilBertForTokenClassification": ("DistilBert", _DISTILBERT),
    "BertForMaskedLM": ("Bert", _BERT),
    "BertForPreTraining": ("Bert", _BERT),
    "RobertaForMaskedLM": ("Roberta", _BERT),
    "DistilBertForMaskedLM": ("DistilBert", _DISTILBERT),
    "RobertaModel": ("Roberta", _BERT),
    "DistilBertModel": ("DistilBert", _DISTILBERT),
    "T5ForConditionalGeneration": ("T5", {**_T5, "decoder_start_token_id": 0}),
    "BartForConditionalGeneration": ("Bart", {**_PAIRS, **_ENDS}),
    "MarianMTModel": ("Marian", {**_PAIRS, **_ENDS}),
}


@pytest.fixture(autouse=True)
def few_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "TOKENISED", 30)
    monkeypatch.setattr(verify, "SCORED", 14)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A function that makes the tiny random folder of a class of transformers, or of our "mean" classifier."""

    def made(name: str) -> Path:
        folder = tmp_path / "run"
        folder.mkdir()
        torch.manual_seed(len(name))
        if name == "mean":
            net: Any = build_classifier(EncoderConfig(**_BERT, classifier_pooling="mean"), 3)
        else:
            family, values = THEIRS[name]
            labels = LABELS if name.endswith("Classification") else {}
            net = getattr(transformers, name)(getattr(transformers, f"{family}Config")(**values, **labels))
        with torch.no_grad():
            for key, parameter in net.named_parameters():
                if "embed_positions" not in key:  # Marian's are sines
                    parameter.add_(0.2 * torch.randn(parameter.shape))
        if name == "mean":
            save_classifier(net, folder, LABELS)
        else:
            net.save_pretrained(folder)
        train_wordpieces(TEXTS, vocab_size=110).save(folder, model_max_length=LENGTH)
        return folder

    return made


def by_others(report: ExportReport) -> Comparison:
    (found,) = (comparison for comparison in report.comparisons if not comparison.reader.startswith("Rung"))
    return found


@pytest.mark.parametrize("name", [*THEIRS, "mean"])
def test_the_other_reader_gives_what_the_head_says(name: str, make: Make, tmp_path: Path) -> None:
    report = export_model(make(name), tmp_path / "out", to="hf")
    found = by_others(report)
    assert report.verified, report.lines()
    assert found.reader.startswith("sentence-transformers" if name == "mean" else "transformers")
    assert found.largest_difference is not None
    assert found.largest_difference < 1e-4
    assert found.same_choice == 1.0
    assert found.largest_score > 0.01


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("mean", "linear.weight"),
        ("BertForSequenceClassification", "classifier.weight"),
        ("RobertaForSequenceClassification", "classifier.dense.weight"),
        ("DistilBertForSequenceClassification", "pre_classifier.weight"),
        ("LlamaForSequenceClassification", "score.weight"),
        ("GPT2ForSequenceClassification", "transformer.h.1.mlp.c_fc.weight"),
        ("BertForTokenClassification", "classifier.bias"),
    ],
)
def test_a_broken_head_is_found(
    name: str, tensor: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, file = exporting._write, "2_Dense/model.safetensors" if name == "mean" else "model.safetensors"

    def broken(source: Any, writing: Path, *arguments: Any) -> ExportReport:
        report = honest(source, writing, *arguments)
        tensors = load_file(writing / file)
        tensors[tensor] = tensors[tensor].flip(0).contiguous()
        save_file(tensors, writing / file, metadata={"format": "pt"})
        return report

    monkeypatch.setattr(exporting, "_write", broken)
    with monkeypatch.context() as context:  # Rung itself finds it
        context.setattr(verify, "installed", lambda _package: False)
        with pytest.raises(EvaluationError, match="other scores"):
            export_model(make(name), tmp_path / "out", to="hf")
    alone = verify._hugging_face_readers  # and so do the others, without Rung
    monkeypatch.setattr(verify, "_hugging_face_readers", lambda *about: alone(*about)[1:])
    with pytest.raises(EvaluationError, match="other scores"):
        export_model(tmp_path / "run", tmp_path / "out", to="hf")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_a_classifier_on_the_mean_in_fewer_bits(dtype: Any, make: Make, tmp_path: Path) -> None:
    report = export_model(make("mean"), tmp_path / "out", to="hf", dtype=dtype)
    assert report.verified, report.lines()
    assert 0 < by_others(report).relative_difference < 0.05


def test_an_exported_classifier_on_the_mean_opens_again(make: Make, tmp_path: Path) -> None:
    folder, out = make("mean"), tmp_path / "out"
    export_model(folder, out, to="hf")
    assert is_classifier(out)
    assert not is_sentence_encoder(out)
    texts = [*TEXTS, "the old cat " * 40]
    ours, again = (load(place).predict(texts).probabilities for place in (folder, out))  # type: ignore[union-attr]
    np.testing.assert_allclose(ours, again, atol=1e-6)
    assert load_sentence_encoder(out).embed(TEXTS).shape == (3, 24)  # its head is left behind

    card = (out / "README.md").read_text(encoding="utf-8")
    assert "library_name: sentence-transformers" in card
    printed = io.StringIO()
    program = (
        card.split("```python")[1].split("```")[0].replace('("out', f'("{out}').replace('"some text"', repr(texts[3]))
    )
    with redirect_stdout(printed):
        exec(program, {})  # noqa: S102 - the program on our own card
    first = ast.literal_eval(printed.getvalue().splitlines()[0])
    assert list(first.values()) == pytest.approx(ours[3].tolist(), abs=1e-5)
    assert list(first) == list(LABELS["label2id"])


def test_adapters_of_classifiers_are_merged(make: Make, tmp_path: Path) -> None:
    base, rows = make("RobertaModel"), tmp_path / "rows.csv"
    with rows.open("w", encoding="utf-8", newline="") as file:
        words = ["cat", "soup", "city"]
        told = [(f"the {words[number % 3]} is {number} and old", words[number % 3]) for number in range(60)]
        csv.writer(file).writerows([("text", "label"), *told])
    for pooling in ("mean", "cls"):
        overrides = {"training.pooling": pooling, "training.threads": 1, "training.precision": "fp32"}
        run, out = tmp_path / pooling, tmp_path / f"{pooling}-hf"
        lora = TuningMethod("lora")
        tune(base, [rows], task="classify", out=run, steps=2, method=lora, overrides=overrides)
        card = (run / "README.md").read_text(encoding="utf-8")
        assert "This folder is an adapter: it needs its base." in card
        assert "library_name: peft" in card
        task_type = json.loads((run / ADAPTER_CONFIG).read_text(encoding="utf-8"))["task_type"]
        assert task_type == {"mean": "FEATURE_EXTRACTION", "cls": "SEQ_CLS"}[pooling]

        report = export_model(run, out, to="hf")
        assert report.verified, report.lines()
        assert by_others(report).reader.startswith("sentence-tr" if pooling == "mean" else "transformers")
        card = (out / "README.md").read_text(encoding="utf-8")
        assert "needs its base" not in card
        assert "merged into its base" in card
        assert "AutoPeftModel" not in card
        assert ("SentenceTransformer(" in card) == (pooling == "mean")


def test_small_scores_are_told_with_their_digits() -> None:
    found = Comparison("transformers", largest_difference=1e-9, largest_score=0.0123, same_choice=1.0, scored=3)
    assert "of scores up to 0.0123" in str(found)
    assert "of scores up to 12.3" in str(replace(found, largest_score=12.34))
