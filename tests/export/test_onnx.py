"""ONNX files say in onnxruntime what the network says in Rung, whatever the padding, and what transformers says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from rung.cli.main import app
from rung.data.text_encoder import train_words
from rung.data.wordpiece import train_wordpieces
from rung.errors import EvaluationError, RunFolderError, UsageError
from rung.export import onnx as export_onnx
from rung.export import onnx_graph, onnx_verify, verify
from rung.export.exporting import export_model
from rung.export.onnx import open_exported
from rung.export.source import open_source
from rung.nets.classifier import ClassifierConfig, build_classifier
from rung.nets.classifier_folder import save_classifier
from rung.nets.convolution import ConvolutionConfig
from rung.nets.encoder import Encoder
from rung.nets.encoder_config import ACTIVATIONS, EncoderConfig
from rung.nets.encoder_folder import save_encoder
from rung.nets.lora import LoraConfig
from rung.nets.masked_language_model import MaskedLanguageModel, save_masked_language_model
from rung.nets.recurrent import Cell, RecurrentConfig
from rung.nets.sentence_encoder import DenseConfig, SentenceConfig, SentenceNet
from rung.nets.sentence_folder import save_sentence_net
from rung.nets.tagger import Tagger, save_tagger
from rung.nets.word_vectors import WordVectors
from rung.progress import SILENT
from rung.runfolder import write_folder, write_json
from rung.tasks.bases import KNOWN_BASES, base_record
from rung.tasks.classification.classifier import load_classifier
from rung.tasks.classification.sequence_folder import FolderNetworks
from rung.tasks.classification.tuned_folder import save_tuned_classifier
from rung.tasks.tuning.method import TuningMethod

LONGEST = 24
TEXTS = ["the cat sat on the mat, and it was the best of times. " * 9, "na\u00efve caf\u00e9 12345 don't we'll " * 9]
LABELS = {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
ENCODERS = ("bert", "roberta", "distilbert")
Net = TypeVar("Net", bound=torch.nn.Module)


@pytest.fixture(autouse=True)
def few_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "TOKENISED", 60)
    monkeypatch.setattr(onnx_verify, "SCORED", 13)


def shape(model_type: str = "bert", **values: Any) -> EncoderConfig:
    first = 2 if model_type == "roberta" else 0
    given = {"pad_token_id": 1} if model_type == "roberta" else {}
    return EncoderConfig(
        **{
            "vocab_size": 120,
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 40,
            "max_position_embeddings": LONGEST + first,
            "model_type": model_type,
            **given,
            **values,
        }
    )


def widened(net: Net) -> Net:
    """Far enough from the values it starts with that every bias and every gain shows in the scores."""
    for parameter in net.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    return net


def classifier(config: ClassifierConfig) -> Callable[[Path], None]:
    return lambda folder: save_classifier(widened(build_classifier(config, 3)), folder, LABELS)


def recurrent(cell: Cell, layers: int) -> Callable[[Path], None]:
    return classifier(
        RecurrentConfig(vocab_size=120, cell=cell, embedding_size=12, hidden_size=20, num_hidden_layers=layers)
    )


def masked(config: EncoderConfig) -> Callable[[Path], None]:
    return lambda folder: save_masked_language_model(widened(MaskedLanguageModel(Encoder(config))), folder)


def sentence_encoder(config: SentenceConfig, model_type: str = "bert") -> Callable[[Path], None]:
    return lambda folder: save_sentence_net(widened(SentenceNet(Encoder(shape(model_type)), config)), folder)


def dense(width: int, out: int, activation: str, *, bias: bool = True) -> DenseConfig:
    return DenseConfig(width, out, bias, f"torch.nn.modules.{activation}")


MAKERS: dict[str, Callable[[Path], None]] = {
    **{f"{kind} classifier": classifier(shape(kind)) for kind in ENCODERS},
    "mean-pooled classifier": classifier(shape(classifier_pooling="mean", hidden_act="relu")),
    "cnn": classifier(ConvolutionConfig(vocab_size=120, embedding_size=12, num_filters=7, filter_sizes=(1, 2, 3, 5))),
    "rnn": recurrent("rnn", 1),
    "gru": recurrent("gru", 2),
    "lstm": recurrent("lstm", 3),
    "tagger": lambda folder: save_tagger(widened(Tagger(shape("roberta", hidden_act="gelu_new"), 3)), folder, LABELS),
    **{f"masked {kind}": masked(shape(kind, hidden_act=act)) for kind, act in zip(ENCODERS, ACTIVATIONS, strict=True)},
    "body": lambda folder: save_encoder(widened(Encoder(shape())), folder),
    "mean and normalise": sentence_encoder(SentenceConfig(max_length=20, after=("normalize",))),
    "all poolings and dense layers": sentence_encoder(
        SentenceConfig(
            max_length=20,
            pooling=("cls", "max", "mean", "weightedmean", "lasttoken"),
            after=(
                dense(120, 30, "activation.Tanh"),
                dense(30, 16, "activation.GELU", bias=False),
                dense(16, 16, "activation.ReLU"),
                dense(16, 8, "linear.Identity"),
                "normalize",
            ),
        ),
        "roberta",
    ),
}


@pytest.fixture
def model(tmp_path: Path) -> Callable[[str], Path]:
    """A function that makes the folder of a tiny random network of one of `MAKERS`."""

    def make(kind: str) -> Path:
        folder = tmp_path / "tiny"
        folder.mkdir()
        torch.manual_seed(len(kind))
        MAKERS[kind](folder)
        train_wordpieces(TEXTS, vocab_size=110).save(folder, model_max_length=LONGEST)
        return folder

    return make


def session(folder: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])


def batch(lengths: list[int], time: int, seed: int = 3) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    draw = np.random.default_rng(seed)
    mask = np.arange(time) < np.array(lengths)[:, None]
    return draw.integers(0, 120, mask.shape), mask


def run(opened: Any, ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    (output,) = opened.run(None, {"input_ids": ids, "attention_mask": mask.astype(np.int64)})
    return cast("NDArray[np.float32]", output)


@pytest.mark.parametrize("kind", MAKERS)
def test_onnxruntime_gives_the_scores_of_rung(kind: str, model: Callable[[str], Path], tmp_path: Path) -> None:
    folder = model(kind)
    report = export_model(folder, tmp_path / "out", to="onnx")
    (found,) = report.comparisons
    assert report.verified
    assert found.reader.startswith("onnxruntime ")
    assert found.largest_difference is not None
    assert found.largest_difference < 1e-5 * max(1.0, found.largest_score)
    assert found.same_tokens == found.tokenised == 60
    assert found.scored == 13 + 24 + 1

    opened = session(tmp_path / "out")
    with open_source(folder) as source:
        exported = open_exported(source)
    per_token = len(exported.axes) > 1
    for lengths, time in (([5], 5), ([1], 1), ([3, 7, 1, LONGEST], LONGEST), ([2, 9], 13)):
        ids, mask = batch(lengths, time)
        output = run(opened, ids, mask)
        assert output.shape == (*((len(lengths), time) if per_token else (len(lengths),)), exported.width)
        for row, length in enumerate(lengths):  # each alone, without any padding: what is beside it changes nothing
            alone = torch.from_numpy(ids[row : row + 1, :length])
            with torch.inference_mode():
                expected = exported.own(alone, torch.ones_like(alone, dtype=torch.bool))[0].numpy()
            scores = output[row, :length] if per_token else output[row]
            np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
            assert float(np.ptp(expected)) > 0.05


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_folder_of_transformers_gives_its_scores(kind: str, tmp_path: Path) -> None:
    config_class, model_class = {
        "bert": (transformers.BertConfig, transformers.BertForSequenceClassification),
        "roberta": (transformers.RobertaConfig, transformers.RobertaForSequenceClassification),
        "distilbert": (transformers.DistilBertConfig, transformers.DistilBertForSequenceClassification),
    }[kind]
    config = {name: value for name, value in shape(kind).to_hf().items() if name not in ("architectures", "dtype")}
    torch.manual_seed(1)
    theirs = widened(model_class(config_class.from_dict({**config, **LABELS}))).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    train_wordpieces(TEXTS, vocab_size=110).save(tmp_path / "theirs", model_max_length=LONGEST)
    export_model(tmp_path / "theirs", tmp_path / "out", to="onnx", verify=False)
    ids, mask = batch([4, 11, 7], 11)
    with torch.inference_mode():
        expected = theirs(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask).long()).logits
    np.testing.assert_allclose(run(session(tmp_path / "out"), ids, mask), expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module", params=["lstm", "cnn", "bert classifier"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("opened")
    (folder / "tiny").mkdir()
    torch.manual_seed(2)
    MAKERS[request.param](folder / "tiny")
    train_wordpieces(TEXTS, vocab_size=110).save(folder / "tiny", model_max_length=LONGEST)
    export_model(folder / "tiny", folder / "out", to="onnx", verify=False)
    return session(folder / "out")


@given(lengths=st.lists(st.integers(1, 16), min_size=1, max_size=4), padding=st.integers(1, 8), seed=st.integers(0, 99))
@settings(max_examples=25)
def test_padding_changes_nothing(opened: Any, lengths: list[int], padding: int, seed: int) -> None:
    ids, mask = batch(lengths, max(lengths) + padding, seed)
    other = np.where(mask, ids, (ids + 1) % 120)
    scores = run(opened, ids, mask)
    np.testing.assert_allclose(run(opened, other, mask), scores, atol=1e-5)
    np.testing.assert_allclose(run(opened, ids[:, :-padding], mask[:, :-padding]), scores, atol=1e-5)


def test_the_file_is_plain_onnx_with_free_axes(model: Callable[[str], Path], tmp_path: Path) -> None:
    report = export_model(model("gru"), tmp_path / "out", to="onnx", verify=False)
    assert report.files.keys() == {"README.md", "config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json"}
    onnx.checker.check_model(tmp_path / "out" / "model.onnx", full_check=True)
    read = onnx.load(tmp_path / "out" / "model.onnx")
    assert [(opset.domain, opset.version) for opset in read.opset_import] == [("", 17)]
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*read.graph.input, *read.graph.output)
    }
    assert axes == {"input_ids": ["batch", "time"], "attention_mask": ["batch", "time"], "logits": ["batch", 3]}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"] == LABELS["id2label"]
    assert "body.embed_tokens.weight" in {weight.name for weight in read.graph.initializer}


def test_a_wrong_file_is_refused_and_leaves_nothing(
    model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = export_onnx.write_onnx

    def tampering(source: Any, folder: Path, dtype: str | None) -> tuple[str, ...]:
        notes = honest(source, folder, dtype)
        read = onnx.load(folder / "model.onnx")
        weight = next(weight for weight in read.graph.initializer if weight.name == "head.bias")
        moved = onnx.numpy_helper.to_array(weight) + np.array([0, 0, 0.1], np.float32)
        weight.CopyFrom(onnx.numpy_helper.from_array(moved, "head.bias"))
        onnx.save(read, folder / "model.onnx")
        return notes

    monkeypatch.setattr(export_onnx, "write_onnx", tampering)
    with pytest.raises(EvaluationError, match="other scores than the run"):
        export_model(model("cnn"), tmp_path / "out", to="onnx")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".writing-*"))


def test_weights_that_no_file_can_hold_lie_beside_it(
    model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "_LARGEST_FILE", 1000)
    report = export_model(model("bert classifier"), tmp_path / "out", to="onnx")
    assert report.verified
    assert report.files["model.onnx_data"] > 10 * 1000


def test_without_onnxruntime_it_is_not_verified(
    model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_verify, "installed", lambda _: False)
    report = export_model(model("cnn"), tmp_path / "out", to="onnx")
    told = "\n".join(report.lines())
    assert not report.verified
    assert "onnxruntime: not compared (not installed: pip install 'rung[onnx]')" in told
    assert "NOT VERIFIED" in told
    assert "**Not verified:**" in (tmp_path / "out" / "README.md").read_text()


def test_without_onnx_it_says_what_to_install(
    model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(RunFolderError) as caught:
        export_model(model("cnn"), tmp_path / "out", to="onnx")
    assert "pip install 'rung[onnx]'" in str(caught.value)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}, r"type qwen3 .*--to gguf, or --to hf"),
        ({"model_type": "gpt2", "architectures": ["GPT2ForSequenceClassification"]}, r"type gpt2 .*do: *--to hf"),
        ({"model_type": "qwen3", "architectures": ["Qwen3ForSequenceClassification"]}, "type qwen3"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, r"type t5 .*--to hf"),
        ({"model_type": "rung-naive-bayes", **LABELS}, "naive-bayes counts words and n-grams of its own"),
        ({"model_type": "rung-feedforward", **LABELS}, "no tokenizer.json tells other programs how"),
        ({"model_type": "rung-lm-lstm"}, "type rung-lm-lstm is not written as ONNX"),
        ({"model_type": "bert", "architectures": ["BertForQuestionAnswering"]}, "head of BertForQuestionAnswering"),
    ],
)
def test_what_is_not_written_is_told(config: Mapping[str, Any], expected: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_json(tmp_path / "model" / "config.json", dict(config))
    with pytest.raises(UsageError) as caught:
        export_model(tmp_path / "model", tmp_path / "out", to="onnx")
    told = " ".join(str(caught.value).split())
    assert re.search(expected, told), told
    assert not (tmp_path / "out").exists()


def test_word_vectors_are_sent_to_their_own_format(tmp_path: Path) -> None:
    vectors = WordVectors(["a", "b"], torch.randn(2, 3).numpy(), model_type="rung-word2vec", where="test")
    write_folder(tmp_path / "run", vectors.save, {"task": "word-vectors", "state": "finished"})
    with pytest.raises(UsageError, match="--to word2vec"):
        export_model(tmp_path / "run", tmp_path / "out", to="onnx")


def test_other_precisions_are_refused(model: Callable[[str], Path], tmp_path: Path) -> None:
    folder = model("cnn")
    for dtype in ("f16", "bf16", "q8_0"):
        with pytest.raises(UsageError, match=f"written in f32, not in {dtype}"):
            export_model(folder, tmp_path / "out", to="onnx", dtype=dtype)  # type: ignore[arg-type]


def test_a_prompt_that_goes_before_texts_is_noted(tmp_path: Path) -> None:
    config = SentenceConfig(max_length=20, prompts={"query": "query: "}, default_prompt="query")
    (tmp_path / "tiny").mkdir()
    sentence_encoder(config)(tmp_path / "tiny")
    train_wordpieces(TEXTS, vocab_size=110).save(tmp_path / "tiny", model_max_length=LONGEST)
    report = export_model(tmp_path / "tiny", tmp_path / "out", to="onnx", verify=False)
    assert report.notes == ("put 'query: ' before every text",)
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["model_max_length"] == 20


def test_a_text_without_a_token_is_a_padding_token_and_that_is_noted(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    torch.manual_seed(7)
    MAKERS["lstm"](tmp_path / "tiny")
    train_words(TEXTS, max_vocabulary=30).save(tmp_path / "tiny", model_max_length=LONGEST)
    report = export_model(tmp_path / "tiny", tmp_path / "out", to="onnx")
    assert report.notes == ("a text without any token (white space alone) is one padding token, 0, its mask 1",)
    (found,) = report.comparisons
    assert found.same_tokens == found.tokenised
    assert report.notes[0] in (tmp_path / "out" / "README.md").read_text()


def test_an_adapter_is_merged(model: Callable[[str], Path], tmp_path: Path) -> None:
    base, method = model("body"), TuningMethod("lora", lora=LoraConfig(r=2))
    task, family = (
        SimpleNamespace(label_names=("a", "b", "c")),
        FolderNetworks.open(base, pooling="mean", method=method),
    )
    start = family.start(task, {}, np.arange(0), seed=1, progress=SILENT)
    for name, parameter in start.net.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.2)
    (tmp_path / "run").mkdir()
    save_tuned_classifier(start, tmp_path / "run", task.label_names, LONGEST, method=method, base=base_record(base))
    report = export_model(tmp_path / "run", tmp_path / "out", to="onnx")
    assert report.verified
    ids, mask = batch([4, 9], 9)
    with torch.inference_mode():
        adapted = start.net.eval()({"input_ids": torch.from_numpy(ids), "mask": torch.from_numpy(mask)}).numpy()
    np.testing.assert_allclose(run(session(tmp_path / "out"), ids, mask), adapted, rtol=1e-4, atol=1e-5)


def test_the_command_hands_a_classifier_on(model: Callable[[str], Path], tmp_path: Path) -> None:
    made = model("mean-pooled classifier")
    write_folder(
        tmp_path / "run",
        lambda target: [path.rename(target / path.name) for path in made.iterdir()] and None,
        {"rung": "encoder", "task": "classification", "state": "finished"},  # as `rung compare` writes it
    )
    told = CliRunner().invoke(app, ["export", str(tmp_path / "run"), "--to", "onnx", "--json"])
    assert told.exit_code == 0, told.output
    report = json.loads(told.stdout)
    assert (report["to"], report["dtype"], report["verified"]) == ("onnx", "f32", True)
    card = (tmp_path / "run-onnx" / "README.md").read_text()
    for line in ("library_name: onnxruntime", "pipeline_tag: text-classification", "Format onnx, weights in f32."):
        assert line in card
    assert "- onnxruntime" in card
    assert "largest difference" in card
    assert str(tmp_path) not in card
    refused = CliRunner().invoke(app, ["export", str(tmp_path / "run"), "--to", "onnx", "--dtype", "f16"])
    assert refused.exit_code == 2


def test_the_program_in_the_card_gives_the_probabilities_of_rung(model: Callable[[str], Path], tmp_path: Path) -> None:
    made, header = model("bert classifier"), {"rung": "encoder", "task": "classification", "state": "finished"}
    write_folder(
        tmp_path / "run", lambda target: [path.rename(target / path.name) for path in made.iterdir()] and None, header
    )
    export_model(tmp_path / "run", tmp_path / "out", to="onnx", verify=False)
    (program,) = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.DOTALL)
    texts = [
        "A cat that sat on the mat.",
        "Well, it was the best of times: 12345 cats sat on it, and 12345 more did not.",
    ]
    program = re.sub(r"encode_batch\(.*\)", f"encode_batch({texts!r})", program)
    told = subprocess.run(
        [sys.executable, "-c", f"{program}\nprint(json.dumps(output.tolist()))"],
        cwd=tmp_path / "out",
        capture_output=True,
        check=True,
        text=True,
    )
    scores = torch.tensor(json.loads(told.stdout))
    classifier = load_classifier(tmp_path / "run")
    np.testing.assert_allclose(scores.softmax(1), classifier.predict(texts).probabilities, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_minilm_gives_the_vectors_of_sentence_transformers(tmp_path: Path) -> None:
    base = KNOWN_BASES["minilm"]
    if base.installed is None:
        pytest.skip(f"the weights are not installed: {base.install_command}")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    report = export_model("minilm", tmp_path / "out", to="onnx")
    assert report.verified
    opened, reader = session(tmp_path / "out"), onnx_verify.OnnxReader(tmp_path / "out", 0)
    texts = verify.strings(64)
    expected = sentence_transformers.SentenceTransformer(str(base.installed), device="cpu").encode(texts)
    rows = [reader.tokens(text)[:256] for text in texts]
    mask = np.arange(max(map(len, rows))) < np.array([[len(row)] for row in rows])
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = np.concatenate(rows)
    found = run(opened, ids, mask)
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert float(cosines.min()) >= 0.9999
