"""N-gram models in files: written, mapped, damaged; and as ARPA against KenLM."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rung.data.tokenizer import train_tokenizer
from rung.errors import RunFolderError, UsageError
from rung.nets.ngram import NgramModel, load_ngram, save_ngram
from rung.nets.ngram_arpa import export_arpa
from rung.training.ngram.kneser_ney import estimate

TEXTS = [f"the {a} {b} the {a}. A {b}!" for a in ("cat", "dog", "é") for b in ("saw", "met", "ate", "saw")]
TOKENIZER = train_tokenizer(TEXTS, kind="word", vocab_size=400)


def counted(order: int) -> NgramModel:
    tokens = [0, *(token for text in TEXTS for token in [*TOKENIZER.encode(text), 0])]
    stream = np.array(tokens, dtype=np.uint16)
    return estimate(stream, order=order, vocab_size=TOKENIZER.vocab_size, eos_token_id=0).model


def scores(model: NgramModel, text: str) -> list[float]:
    tokens = np.array([0, *TOKENIZER.encode(text), 0])
    return model.logprobs(tokens[None, :-1], tokens[None, 1:]).tolist()


@pytest.mark.parametrize("order", [1, 2, 5, 9])
def test_a_saved_model_is_mapped_and_says_the_same(order: int, tmp_path: Path) -> None:
    model = counted(order)
    save_ngram(model, tmp_path)
    loaded = load_ngram(tmp_path)
    assert loaded.config == model.config
    assert isinstance(loaded.levels[0].logprobs, np.memmap)
    assert scores(loaded, "the cat met a dog.") == scores(model, "the cat met a dog.")
    np.testing.assert_array_equal(loaded.next_logprobs(loaded.begin(2)), model.next_logprobs(model.begin(2)))


def spoil(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    from safetensors.numpy import load_file, save_file

    arrays = load_file(folder / "model.safetensors")
    change(arrays)
    save_file(arrays, folder / "model.safetensors")


def set_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda f: (f / "config.json").write_text("["), "cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), "cannot be read"),
        (lambda f: set_config(f, model_type="qwen3"), "no n-gram model"),
        (lambda f: set_config(f, order=7), "contradict"),
        (lambda f: set_config(f, vocab_size="many"), "contradict"),
        (lambda f: set_config(f, unheard_of=1), "cannot be read"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}"), "cannot read"),
        (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]), "cannot read"),
        (lambda f: spoil(f, lambda a: a.pop("tokens.2")), "lacks"),
        (lambda f: spoil(f, lambda a: a.update({"tokens.2": a["tokens.2"].astype(np.int64)})), "no array"),
        (lambda f: spoil(f, lambda a: a.update({"tokens.2": a["tokens.2"][None]})), "no array"),
        (lambda f: spoil(f, lambda a: a["tokens.2"].fill(65_535)), "2-grams .* damaged"),
        (lambda f: spoil(f, lambda a: a["first_child.1"].__setitem__(5, 60_000)), "1-grams .* damaged"),
        (lambda f: spoil(f, lambda a: a["logprobs.3"].__setitem__(0, np.nan)), "3-grams .* damaged"),
        (lambda f: spoil(f, lambda a: a.update({"backoffs.2": a["backoffs.2"][:-1]})), "2-grams .* damaged"),
    ],
)
def test_damage_is_named(damage: Callable[[Path], object], problem: str, tmp_path: Path) -> None:
    save_ngram(counted(3), tmp_path)
    damage(tmp_path)
    with pytest.raises(RunFolderError, match=problem):
        load_ngram(tmp_path)


@pytest.mark.parametrize("order", [2, 3, 5])
def test_kenlm_reads_the_arpa_file_and_gives_the_same_probabilities(order: int, tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm", reason="KenLM is not installed: pip install kenlm compiles it")
    model, spelled = counted(order), TOKENIZER.spellings
    path = tmp_path / "model.arpa"
    export_arpa(model, spelled, path)
    theirs = kenlm.Model(str(path))
    for text in [*TEXTS[:3], "the the cat", "", "ate dog 漢 saw"]:
        words = [spelled[token] for token in TOKENIZER.encode(text)]
        expected = [score * math.log(10) for score, _, _ in theirs.full_scores(" ".join(words))]
        np.testing.assert_allclose(scores(model, text), expected, atol=2e-5)


def test_spellings_that_an_arpa_file_cannot_hold_are_refused(tmp_path: Path) -> None:
    model = counted(2)
    good = TOKENIZER.spellings
    cases = {"spellings for": good[:-1], "cannot be written": [*good[:-1], "a b"], "alike": [*good[:-1], good[-2]]}
    for problem, spelled in cases.items():
        with pytest.raises(UsageError, match=problem):
            export_arpa(model, spelled, tmp_path / "model.arpa")
    assert not any(tmp_path.iterdir())
