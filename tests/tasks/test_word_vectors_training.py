from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rung.errors import DataError, PlanError, RecipeError, RunFolderError, UsageError
from rung.nets.word_vectors import WordVectors
from rung.runfolder import read_header, verify
from rung.tasks.word_vectors import load_vectors, resume, train
from rung.tasks.word_vectors import word2vec_run as running
from rung.training import compiled
from rung.training.word2vec import trainer as training

SMALL = {"net.vector_size": 8, "vocabulary.min_count": 1, "training.threads": 1, "text.near_duplicate_threshold": 1.0}
TOPICS = (("bread", "butter", "cheese", "milk", "honey"), ("sail", "anchor", "harbour", "wind", "wave"))


@pytest.fixture
def texts(tmp_path: Path) -> list[Path]:
    """Two hundred short documents, each of one topic."""
    random = np.random.default_rng(0)
    rows = [" ".join(random.choice(TOPICS[number % 2], 14)) for number in range(200)]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")
    return [path]


def test_a_run_folder_holds_vectors_recipe_metrics_and_card(texts: list[Path], tmp_path: Path) -> None:
    summary = train(texts, out=tmp_path / "run", overrides=SMALL, seed=3)
    header = verify(tmp_path / "run")
    assert (header["task"], header["state"]) == ("word-vectors", "finished")
    assert set(header["files"]) == {"config.json", "model.safetensors", "vocabulary.json"}
    assert header["recipe"]["training"]["epochs"] == 5
    assert header["recipe"]["seed"] == 3
    vectors = load_vectors(tmp_path / "run")
    assert set(vectors.words) == {word for topic in TOPICS for word in topic}
    assert vectors.vectors.shape == (10, 8)
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in metrics] == [1, 2, 3, 4, 5]
    told = summary.to_json()
    assert told["losses"] == [pytest.approx(line["loss"], abs=1e-6) for line in metrics]
    assert told["words_per_second"] > 0
    assert told["vocab_size"] == 10
    assert json.loads(json.dumps(told)) == told
    assert "Word vectors" in (tmp_path / "run" / "README.md").read_text()
    assert not (tmp_path / "run" / "trainer").exists()
    assert any("words/s" in line for line in summary.lines())


@pytest.mark.parametrize("net", ["word2vec", "fasttext-vectors", "glove"])
def test_every_family_brings_words_of_a_topic_together(net: str, texts: list[Path], tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "training.epochs": 30,
        "training.learning_rate": 0.1,
        "net.subsample": 0.0,
        "net.buckets": 500,
    }
    train(texts, net=net, out=tmp_path / "run", overrides={**SMALL, **more})
    vectors = load_vectors(tmp_path / "run")
    assert vectors.model_type == f"rung-{net}"
    near = {neighbour.word for neighbour in vectors.neighbours("cheese", 4)}
    assert len(near & set(TOPICS[0])) >= 3
    if net == "fasttext-vectors":
        assert np.isfinite(vectors.vector("cheeses")).all()  # made of its n-grams
        assert vectors.neighbours("cheeses", 1)[0].word == "cheese"


@pytest.mark.parametrize("net", ["word2vec", "fasttext-vectors", "glove"])
def test_a_deterministic_run_is_equal_bit_by_bit(net: str, texts: list[Path], tmp_path: Path) -> None:
    wanted = {
        **SMALL,
        "training.threads": None,
        "training.deterministic": True,
        "net.buckets": 500,
        "training.epochs": 2,
    }
    made = [train(texts, net=net, out=tmp_path / name, overrides=wanted) for name in ("one", "two")]
    assert made[0].losses == made[1].losses
    first, second = (WordVectors.load(tmp_path / name) for name in ("one", "two"))
    np.testing.assert_array_equal(first.vectors, second.vectors)


class _WantedAfter:
    """Stands for Ctrl-C: wanted from the question of this number on."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self, *, announce: bool) -> _WantedAfter:
        assert announce
        return self

    def __enter__(self) -> _WantedAfter:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def wanted(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_an_interrupted_run_goes_on_to_the_same_vectors(
    texts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(texts, out=tmp_path / "whole", overrides=SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(running, "Interrupts", _WantedAfter(9))
        cut = train(texts, out=tmp_path / "cut", overrides=SMALL)
    assert cut.ended == "interrupted"
    assert read_header(tmp_path / "cut")["state"] == "interrupted"
    assert (tmp_path / "cut" / "trainer").is_dir()
    with pytest.raises(UsageError, match="planned with 1 threads"):
        resume(tmp_path / "cut", threads=2)
    assert resume(tmp_path / "cut").ended == "finished"
    whole, resumed = WordVectors.load(tmp_path / "whole"), WordVectors.load(tmp_path / "cut")
    np.testing.assert_array_equal(whole.vectors, resumed.vectors)
    metrics = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "cut")]
    assert [json.loads(line)["loss"] for line in metrics[0]] == [json.loads(line)["loss"] for line in metrics[1]]
    with pytest.raises(RunFolderError, match="this run is finished"):
        resume(tmp_path / "cut")


def test_a_changed_text_is_not_gone_on_with(texts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(running, "Interrupts", _WantedAfter(5))
        train(texts, out=tmp_path / "run", overrides=SMALL)
    texts[0].write_text('{"text": "another text altogether with other words"}\n' * 3, encoding="utf-8")
    with pytest.raises((RunFolderError, DataError)):
        resume(tmp_path / "run")


def test_minutes_choose_the_epochs(texts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_MOST_EPOCHS", 7)
    summary = train(texts, out=tmp_path / "run", overrides=SMALL, minutes=10)
    assert len(summary.losses) == 7
    monkeypatch.setattr(training.Word2VecTrainer, "words_per_second", 0.5)
    with pytest.raises(PlanError, match="one pass over the text takes about"):
        train(texts, out=tmp_path / "slow", overrides=SMALL, minutes=10)
    assert not (tmp_path / "slow").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"net": "word3vec"}, UsageError, "did you mean 'word2vec'"),
        ({"net": "glove", "minutes": 3}, UsageError, "GloVe"),
        ({"overrides": {"net.vector_sise": 3}}, RecipeError, "net.vector_size"),
        ({"overrides": {"net.min_n": 5, "net.max_n": 3}}, RecipeError, "net.min_n is above"),
        ({"overrides": {"training.epochs": 2, "training.minutes": 2}}, RecipeError, "not both"),
        ({"overrides": {"training.deterministic": True}, "threads": 2}, UsageError, "one thread"),
        ({"overrides": {"vocabulary.min_count": 10_000}}, DataError, "only 0 word"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: dict[str, Any], error: type[Exception], message: str, texts: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        train(texts, out=tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_without_text_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no text"):
        train([], out=tmp_path / "run")


def test_without_numba_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins
    import importlib.util

    from rung.errors import RungError

    original = builtins.__import__

    def without_numba(name: str, *rest: Any, **more: Any) -> Any:
        if name == "numba" or name.startswith("numba."):
            raise ImportError(name)
        return original(name, *rest, **more)

    specification = importlib.util.find_spec(compiled.__name__)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setattr(builtins, "__import__", without_numba)
    with pytest.raises(RungError, match="rung\\[fast\\]"):
        specification.loader.exec_module(module)
