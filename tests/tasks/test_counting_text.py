"""`rung train --net ngram` from text to a folder that writes, scores and is measured; interruptions and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rung
from rung.data.tokenizer import TokenizerKind
from rung.errors import RecipeError, RunFolderError, UsageError
from rung.nets.ngram import NgramModel
from rung.tasks import language_modelling, text_counting
from rung.tasks.run import TrainSummary


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    lines = [f"{a} {b} the {c}, and the {c} {b} {a} again. It was the {d}th of May.\n\n" for a in ("She", "Tom", "I")
             for b in ("saw", "met", "left") for c in ("cat", "old dog", "river") for d in range(20)]  # fmt: skip
    path.write_text("".join(lines), encoding="utf-8")
    return path


def count(text: Path, out: Path, **overrides: Any) -> TrainSummary:
    return language_modelling.train([text], out=out, overrides={"net.family": "ngram"} | overrides, steps=1)


@pytest.mark.parametrize("kind", ["bpe", "word", "character", "byte"])
def test_a_text_becomes_a_model_with_all_verbs(kind: TokenizerKind, text: Path, tmp_path: Path) -> None:
    summary = count(text, tmp_path / "run", **{"tokenizer.kind": kind})
    assert summary.bits_per_byte is not None
    assert summary.bits_per_byte.value is not None
    assert summary.bits_per_byte.value < 1
    model = rung.load(tmp_path / "run")
    assert isinstance(model.net, NgramModel)
    assert model.net.config.num_parameters == summary.parameters
    assert sum(model.score("She saw the cat").logprobs) > sum(model.score("cat the saw She").logprobs)
    assert model.generate("She", max_tokens=5, seed=3) == model.generate("She", max_tokens=5, seed=3)
    again = language_modelling.evaluate(tmp_path / "run").bits_per_byte
    assert again.value == pytest.approx(summary.bits_per_byte.value, rel=1e-6)


def test_the_folder_tells_what_it_is(text: Path, tmp_path: Path) -> None:
    count(text, tmp_path / "run", **{"net.order": 3})
    header = json.loads((tmp_path / "run" / "rung.json").read_text(encoding="utf-8"))
    assert header["state"] == "finished"
    assert header["recipe"]["net"]["order"] == 3
    assert len(header["plan"]["discounts"]) == 3
    assert header["plan"]["parameters"] > 0
    assert {"model.safetensors", "config.json", "tokenizer.json", "results.json"} <= header["files"].keys()
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "order 3" in card
    assert "transformers" not in card


def test_equal_text_gives_equal_models(text: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        count(text, tmp_path / name)
    one, two = (json.loads((tmp_path / name / "rung.json").read_text(encoding="utf-8")) for name in ("one", "two"))
    assert one["files"]["model.safetensors"] == two["files"]["model.safetensors"]


def test_an_interrupted_run_is_counted_on_resume(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(text_counting, "estimate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            count(text, tmp_path / "run")
    with pytest.raises(RunFolderError, match="no checkpoint"):
        rung.load(tmp_path / "run")
    assert language_modelling.resume(tmp_path / "run").ended == "finished"
    assert rung.load(tmp_path / "run").generate("She", max_tokens=2)
    with pytest.raises(RunFolderError, match="finished"):
        language_modelling.resume(tmp_path / "run")
    with pytest.raises(UsageError, match="counts its text once"):
        language_modelling.extend(tmp_path / "run", minutes=1)


def test_a_plan_says_what_would_be_counted(text: Path) -> None:
    planned = language_modelling.plan([text], overrides={"net.family": "ngram", "net.order": 4}, steps=1)
    assert planned.recipe.net.order == 4
    assert "up to 4 tokens" in planned.lines()[0]


def test_settings_of_networks_mean_nothing_here() -> None:
    for key, value in (("net.hidden_size", 64), ("net.parameters", 10_000), ("net.order", 0), ("net.order", 99)):
        with pytest.raises(RecipeError):
            rung.Recipe().with_overrides({"net.family": "ngram", key: value})
    with pytest.raises(RecipeError, match="order means nothing"):
        rung.Recipe().with_overrides({"net.order": 3})


def test_damage_is_found_before_anything_is_written(text: Path, tmp_path: Path) -> None:
    count(text, tmp_path / "run")
    weights = tmp_path / "run" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RunFolderError, match="SHA-256"):
        rung.load(tmp_path / "run")
