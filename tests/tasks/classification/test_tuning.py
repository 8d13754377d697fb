"""Others' encoders and decoders tuned to labels: every method, resumed bit for bit, opened by others, and refusals."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import signal
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rung.data.text_encoder import TextEncoder, train_byte_pairs
from rung.data.wordpiece import train_wordpieces
from rung.errors import DataError, PlanError, RecipeError, RunFolderError, UsageError
from rung.nets.classifier_folder import load_body
from rung.nets.lora import LoraConfig
from rung.progress import SILENT
from rung.tasks.classification.classifier import Classifier, load_classifier
from rung.tasks.classification.frozen import States, solve_head, states_of
from rung.tasks.classification.network_training import LabelledTexts
from rung.tasks.classification.tuning_summary import ClassifierTuned
from rung.tasks.tuning.method import TuningMethod
from rung.tasks.tuning.tune import plan, resume, tune
from rung.training.meter import SilentDisplay, StepReport

LABELS = ("animal", "dish", "place")
_TELLING = {"animal": ["cat", "dog", "owl"], "dish": ["soup", "cake", "stew"], "place": ["city", "lake", "park"]}
_FILLING = ["the", "a", "is", "very", "old", "new", "and", "we", "saw", "liked", "that", "one", "today"]
LORA = TuningMethod(kind="lora", lora=LoraConfig(r=4))
FAST = {"training.learning_rate": 3e-3, "training.threads": 1, "training.precision": "fp32"}


def made_up(count: int) -> list[tuple[str, str]]:
    """Sentences of 3 to 7 words of which one tells the label, no two alike."""
    draw = np.random.default_rng(0)
    rows: dict[str, str] = {}
    while len(rows) < count:
        label = LABELS[len(rows) % 3]
        words = draw.choice(_FILLING, draw.integers(2, 7)).tolist()
        words.insert(int(draw.integers(len(words))), str(draw.choice(_TELLING[label])))
        rows.setdefault(" ".join(words), label)
    return list(rows.items())


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "topics.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(made_up(240))
    return path


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny BERT, a sentence encoder with mean pooling, a tiny Llama and a tiny GPT-2, as transformers saves them."""
    folder, texts = tmp_path_factory.mktemp("bases"), [text for text, _ in made_up(240)]
    torch.manual_seed(0)
    pieces, pairs = train_wordpieces(texts, vocab_size=200), train_byte_pairs(texts, vocab_size=300)
    bert = transformers.BertModel(
        transformers.BertConfig(
            vocab_size=pieces.vocab_size,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            initializer_range=0.1,
        )
    )
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=pairs.vocab_size,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=None,
            initializer_range=0.1,
        )
    )
    gpt2 = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=pairs.vocab_size,
            n_embd=32,
            n_layer=2,
            n_head=2,
            n_positions=64,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=0.1,
        )
    )
    models: dict[str, tuple[Any, TextEncoder]] = {
        "bert": (bert, pieces),
        "sentences": (bert, pieces),
        "llama": (llama, pairs),
        "gpt2": (gpt2, pairs),
    }
    for name, (net, encoder) in models.items():
        net.save_pretrained(folder / name)
        encoder.save(folder / name, model_max_length=64)
    _as_sentence_encoder(folder / "sentences")
    settings = folder / "gpt2" / "tokenizer_config.json"  # as bases have it that were tuned to write text
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "padding_side": "left"}), encoding="utf-8")
    return {name: folder / name for name in models}


def _as_sentence_encoder(folder: Path) -> None:
    steps = [("Transformer", ""), ("Pooling", "1_Pooling")]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(steps)
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")


def start(base: Path, table: Path, out: Path, **arguments: Any) -> ClassifierTuned:
    arguments["overrides"] = FAST | arguments.get("overrides", {})
    tuned = tune(base, [table], task="classify", target="label", text=["text"], out=out, **arguments)
    assert isinstance(tuned, ClassifierTuned)
    return tuned


def accuracy(summary: ClassifierTuned) -> float:
    value = summary.record("accuracy").value
    assert value is not None
    return value


@pytest.mark.parametrize(
    ("base", "method"),
    [
        ("bert", TuningMethod(layer_decay=0.8)),
        ("sentences", TuningMethod()),
        ("sentences", LORA),
        ("llama", TuningMethod()),
        ("llama", LORA),
        ("gpt2", TuningMethod(layer_decay=0.8)),
        ("gpt2", LORA),
    ],
    ids=["bert-decay", "sentences-full", "sentences-lora", "llama-full", "llama-lora", "gpt2-decay", "gpt2-lora"],
)
def test_a_tuned_base_tells_the_classes_apart(
    base: str, method: TuningMethod, bases: dict[str, Path], table: Path, tmp_path: Path
) -> None:
    summary = start(bases[base], table, tmp_path / "run", method=method, steps=200)
    assert summary.ended == "finished"
    assert accuracy(summary) > 0.8 > (summary.record("majority_accuracy").value or 1)
    assert summary.trained < summary.parameters if method.kind == "lora" else summary.trained == summary.parameters
    found = load_classifier(tmp_path / "run")
    assert found.classify("we saw a very old owl today")[0].label == "animal"
    assert found.header["columns"] == {"target": "label", "text": ["text"]}
    assert found.header["parent"]["name"] == base


def test_the_folder_opens_in_transformers_with_equal_scores(
    bases: dict[str, Path], table: Path, tmp_path: Path
) -> None:
    for base in ("bert", "llama", "gpt2"):
        start(bases[base], table, tmp_path / base, steps=3)
        theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / base).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / base)
        texts = ["we saw a cat", "the soup is very old and new today"]
        with torch.inference_mode():
            scores = (
                theirs(**tokenizer(texts, return_tensors="pt", padding=True, truncation=True)).logits.softmax(1).numpy()
            )
        ours = load_classifier(tmp_path / base).predict(texts).probabilities
        np.testing.assert_allclose(ours, scores, atol=1e-5)


def test_a_sentence_encoder_keeps_its_own_pooling(bases: dict[str, Path], table: Path, tmp_path: Path) -> None:
    start(bases["sentences"], table, tmp_path / "mean", steps=3)
    start(bases["sentences"], table, tmp_path / "first", steps=3, overrides={"training.pooling": "cls"})
    mean, first = (
        json.loads((tmp_path / run / "config.json").read_text(encoding="utf-8")) for run in ("mean", "first")
    )
    assert (mean["architectures"], mean["classifier_pooling"]) == (["BertModel"], "mean")
    assert first["architectures"] == ["BertForSequenceClassification"]
    assert "classifier_pooling" not in first


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
def test_others_give_the_scores_of_a_classifier_on_the_mean(
    bases: dict[str, Path], table: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["we saw a cat", "the soup is very old and new today and that one is too " * 9]
    start(bases["sentences"], table, tmp_path / "whole", steps=9)
    scores = SentenceTransformer(str(tmp_path / "whole"), device="cpu").encode(texts, convert_to_tensor=True)
    ours = load_classifier(tmp_path / "whole").predict(texts).probabilities
    assert np.ptp(ours[:, 0]) > 1e-3
    np.testing.assert_allclose(ours, scores.softmax(1).numpy(), atol=1e-5)
    card = (tmp_path / "whole" / "README.md").read_text(encoding="utf-8")
    assert "library_name: sentence-transformers" in card
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(card.split("```python")[1].split("```")[0], {})  # noqa: S102 - the program on our own card
    first = ast.literal_eval(printed.getvalue().splitlines()[0])
    told = load_classifier(tmp_path / "whole").classify("some text")[0].probabilities
    assert first == pytest.approx(told, abs=1e-5)

    run = tmp_path / "adapter"
    start(bases["sentences"], table, run, steps=9, method=LORA)
    with pytest.raises(ValueError, match="PeftModelForSequenceClassification"):
        peft.AutoPeftModelForSequenceClassification.from_pretrained(run)
    body = peft.AutoPeftModelForFeatureExtraction.from_pretrained(run).eval()
    head = load_file(run / "2_Dense" / "model.safetensors")
    inputs = transformers.AutoTokenizer.from_pretrained(run)(texts[0], return_tensors="pt")
    with torch.inference_mode():
        mean = body(**inputs).last_hidden_state.mean(1)
        scores = torch.nn.functional.linear(mean, head["linear.weight"], head["linear.bias"])
    ours = load_classifier(run).predict(texts[:1]).probabilities
    np.testing.assert_allclose(ours, scores.softmax(1).numpy(), atol=1e-5)
    assert "library_name: peft" in (run / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("base", ["sentences", "llama", "gpt2"])
def test_a_frozen_body_gets_the_head_that_scikit_learn_finds(
    base: str, bases: dict[str, Path], table: Path, tmp_path: Path
) -> None:
    summary = start(bases[base], table, tmp_path / "run", method=TuningMethod(kind="frozen"))
    assert (summary.steps, summary.ended) == (0, "finished")
    assert "C = " in summary.note
    before, after = (_body(folder) for folder in (bases[base], tmp_path / "run"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)

    net, encoder = load_body(bases[base], 3, dropout=0.0, pad_token_id=0, pooling="mean"), TextEncoder.load(bases[base])
    rows = made_up(90)
    labels = np.array([LABELS.index(label) for _, label in rows], dtype=np.int64)
    train = states_of(net, LabelledTexts(encoder.encode([text for text, _ in rows]), labels), 0)
    solve_head(net, train, States(train.vectors[:0], labels[:0]), progress=SILENT)
    states = train.vectors
    has_bias = net.head.bias is not None
    oracle = make_pipeline(
        StandardScaler(with_mean=has_bias), LogisticRegression(C=1.0, max_iter=1000, fit_intercept=has_bias)
    )
    expected = oracle.fit(states, labels).predict_proba(states)
    with torch.inference_mode():
        ours = net.head(torch.from_numpy(states)).softmax(1).numpy()
    np.testing.assert_allclose(ours, expected, atol=2e-3)


def _body(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a body without the prefix that it has beside a head."""
    tensors = load_file(folder / "model.safetensors")
    kept = {re.sub(r"^(bert|model|transformer)\.", "", name): tensor for name, tensor in tensors.items()}
    return {
        name: tensor for name, tensor in kept.items() if not name.startswith(("classifier", "score", "pooler", "lm"))
    }


class Impatient(SilentDisplay):
    """Presses Ctrl-C at step 7."""

    def update(self, report: StepReport) -> None:
        if report.step == 7:
            signal.raise_signal(signal.SIGINT)


GRADUAL = TuningMethod(gradual=True, layer_decay=0.5)


@pytest.mark.parametrize(
    ("base", "method"),
    [("bert", TuningMethod()), ("bert", GRADUAL), ("bert", LORA), ("gpt2", GRADUAL), ("gpt2", LORA)],
    ids=["bert-full", "bert-gradual", "bert-lora", "gpt2-gradual", "gpt2-lora"],
)
def test_an_interrupted_run_goes_on_bit_for_bit(
    base: str, method: TuningMethod, bases: dict[str, Path], table: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"method": method, "steps": 45, "overrides": {"training.validations": 3}}
    start(bases[base], table, tmp_path / "whole", **settings)
    stopped = start(bases[base], table, tmp_path / "parts", display=Impatient(), **settings)
    assert (stopped.ended, stopped.steps, stopped.records) == ("interrupted", 8, ())
    assert "interrupted" in stopped.lines()[0]
    assert resume(tmp_path / "parts").ended == "finished"
    name = "adapter_model.safetensors" if method.kind == "lora" else "model.safetensors"
    whole, parts = (load_file(tmp_path / run / "checkpoints" / "step-00000045" / name) for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    with pytest.raises(RunFolderError, match="finished"):
        resume(tmp_path / "parts")


def test_a_run_does_not_go_on_over_another_base_or_other_items(
    bases: dict[str, Path], table: Path, tmp_path: Path
) -> None:
    copy, items = tmp_path / "base", tmp_path / "items.csv"
    copy.mkdir()
    for path in bases["bert"].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    items.write_text(table.read_text(encoding="utf-8"), encoding="utf-8")
    start(copy, items, tmp_path / "run", steps=30, display=Impatient())
    with pytest.raises(UsageError, match="threads"):
        resume(tmp_path / "run", threads=2)
    items.write_text(items.read_text(encoding="utf-8") + "a new cat,animal\n", encoding="utf-8")
    with pytest.raises(RunFolderError, match="data changed"):
        resume(tmp_path / "run")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(RunFolderError, match="base changed"):
        resume(tmp_path / "run")


def test_an_adapter_is_not_put_on_other_weights(bases: dict[str, Path], table: Path, tmp_path: Path) -> None:
    copy = tmp_path / "base"
    copy.mkdir()
    for path in bases["bert"].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    start(copy, table, tmp_path / "run", steps=2, method=LORA)
    assert isinstance(load_classifier(tmp_path / "run"), Classifier)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(RunFolderError, match="other weights"):
        load_classifier(tmp_path / "run")


def test_the_plan_tells_what_would_be_done(bases: dict[str, Path], table: Path) -> None:
    made = plan(bases["bert"], [table], task="classify", target="label", epochs=2, overrides=FAST)
    assert made.seconds is None
    assert any("2.0 times over" in line for line in made.lines())
    assert made.recipe.training.max_length is not None
    solved = plan(bases["bert"], [table], task="classify", target="label", method=TuningMethod(kind="frozen"))
    assert solved.to_json()["steps"] == 0
    timed = plan(bases["bert"], [table], task="classify", target="label", minutes=0.5, overrides=FAST)
    assert timed.seconds is not None
    assert timed.seconds < 30
    with pytest.raises(PlanError, match="no step of training fits"):
        plan(bases["bert"], [table], task="classify", target="label", minutes=0.001, overrides=FAST)


def test_what_cannot_be_done_is_refused_before_training(bases: dict[str, Path], table: Path, tmp_path: Path) -> None:
    base = bases["bert"]
    with pytest.raises(RunFolderError, match="there is no model"):
        start(tmp_path / "nothing", table, tmp_path / "run")
    with pytest.raises(UsageError, match="no linear layer"):
        start(base, table, tmp_path / "a", steps=2, method=TuningMethod("lora", LoraConfig(target_modules=("q_proj",))))
    with pytest.raises(UsageError, match="frozen body"):
        start(base, table, tmp_path / "b", steps=2, method=TuningMethod(kind="frozen"))
    with pytest.raises(UsageError, match="epochs"):
        start(base, table, tmp_path / "c", steps=2, method=TuningMethod(gradual=True))
    with pytest.raises(RecipeError, match="one of"):
        start(base, table, tmp_path / "d", steps=2, epochs=1.0)
    with pytest.raises(RecipeError, match=r"did you mean 'training\.learning_rate'"):
        start(base, table, tmp_path / "e", steps=2, overrides={"training.learning_rat": 1e-3})
    with pytest.raises(DataError):
        tune(base, [table], task="classify", target="text", steps=2, out=tmp_path / "f")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(UsageError, match="not empty"):
        start(base, table, tmp_path / "taken", steps=2)
