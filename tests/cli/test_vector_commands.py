"""rung neighbours, analogy, vectors, audit and eval on word vectors, through the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import rung
from rung.cli.main import app
from rung.data.vector_files import read_vectors, write_vectors
from rung.nets.word_vectors import WordVectors

WORDS = ["king", "queen", "man", "woman", "Paris", "-1"]
VECTORS = np.array([[5, 1], [5, -1], [1, 1], [1, -1], [-1, 0.1], [-1, -0.2]], dtype=np.float32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "vectors.txt"
    write_vectors(path, WORDS, VECTORS, file_format="glove")
    return path


@pytest.fixture
def run(tmp_path: Path, file: Path) -> Path:
    folder = tmp_path / "run"
    assert called("vectors", file, "--out", folder).exit_code == 0
    return folder


def called(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(*arguments: object) -> Any:
    result = called(arguments[0], "--json", *arguments[1:])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("command", ["neighbours", "analogy", "vectors", "audit"])
def test_help_shows_examples(command: str) -> None:
    text = called(command, "--help").stdout
    assert "Examples:" in text
    assert f"rung {command} " in text


def test_neighbours_of_a_run_and_of_a_file(run: Path, file: Path) -> None:
    for source in (run, file):
        found = answer("neighbours", source, "king", "man", "-k", 2)["neighbours"]
        assert [one["word"] for one in found["king"]] == ["queen", "man"]
        assert found["king"][0]["similarity"] == pytest.approx(24 / 26)
        assert len(found["man"]) == 2
    shown = called("neighbours", run, "king", "-k", 1).stdout
    assert re.fullmatch(r"\s+0\.923  queen\n", shown)
    assert len(answer("neighbours", run, "--", "-1")["neighbours"]["-1"]) == len(WORDS) - 1


def test_analogy(run: Path) -> None:
    assert answer("analogy", run, "man", "king", "woman", "-k", 1)["answers"][0]["word"] == "queen"
    assert "man is to king as woman is to" in called("analogy", run, "man", "king", "woman").stdout


def test_an_unknown_word_is_an_error_that_helps(run: Path) -> None:
    for arguments in (("neighbours", run, "quen"), ("analogy", run, "quen", "king", "man")):
        result = called(*arguments)
        assert result.exit_code == 1
        assert "'quen' is not among the 6 words; did you mean 'queen'?" in result.stderr
    assert "did you mean 'Paris'?" in called("neighbours", run, "paris").stderr


def test_no_word_vectors_here(tmp_path: Path) -> None:
    result = called("neighbours", tmp_path / "nowhere", "king")
    assert result.exit_code == 1
    assert "there are no word vectors here" in result.stderr


def test_vectors_go_out_and_come_back(run: Path, tmp_path: Path) -> None:
    for name in ("out.txt", "out.bin", "out.bin.gz"):
        assert answer("vectors", run, "--to", tmp_path / name) == {
            "written": str(tmp_path / name),
            "words": 6,
            "vector_size": 2,
        }
        table = read_vectors(tmp_path / name)
        assert table.words == WORDS
        assert table.file_format == ("word2vec" if name == "out.txt" else "word2vec-binary")
        np.testing.assert_array_equal(table.vectors, VECTORS)
    loaded = rung.load(run)
    assert isinstance(loaded, WordVectors)
    assert loaded.model_type == "rung-glove"
    np.testing.assert_array_equal(loaded.vectors, VECTORS)


def test_wrong_usage_of_vectors(run: Path, file: Path) -> None:
    assert called("vectors", run).exit_code == 2
    assert called("vectors", run, "--to", "a", "--out", "b").exit_code == 2
    assert called("vectors", file, "--out", run).exit_code == 2  # nothing is ever written over


def test_a_damaged_run_is_refused(run: Path) -> None:
    weights = run / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    result = called("neighbours", run, "king")
    assert result.exit_code == 1
    assert "SHA-256 differs" in result.stderr


def test_eval_measures_sets(run: Path, tmp_path: Path) -> None:
    sets = tmp_path / "sets"
    sets.mkdir()
    pairs = "king\tqueen\t9\nman\twoman\t5\nking\tparis\t1\nman\tParis\t2\nking\tzebra\t4\n"
    (sets / "pairs.tsv").write_text(pairs, encoding="utf-8")
    (sets / "questions.txt").write_text(": royal\nman king woman queen\nman king woman zebra\n", encoding="utf-8")
    (sets / "notes.txt").write_text("nothing of the kind\n", encoding="utf-8")
    found = answer("eval", run, sets)
    similarity = found["similarities"][0]
    assert (similarity["covered"], similarity["pairs"]) == (4, 5)
    assert similarity["value"] == pytest.approx(1.0)
    assert found["analogies"][0]["accuracy"]["value"] == 1.0
    assert found["analogies"][0]["accuracy_of_all"]["value"] == 0.5
    shown = called("eval", run, sets).stdout
    assert "4 of 5" in shown
    assert "royal" in shown
    assert called("eval", run).exit_code == 2
    assert "no set of word pairs" in called("eval", run, sets / "notes.txt").stderr


def test_audit_shows_associations_and_what_is_missing(run: Path, tmp_path: Path) -> None:
    lists = {
        "targ1": {"category": "Rulers", "examples": ["king", "queen", "emperor"]},
        "targ2": {"category": "People", "examples": ["man", "woman"]},
        "attr1": {"category": "First", "examples": ["king"]},
        "attr2": {"category": "Second", "examples": ["Paris"]},
    }
    path = tmp_path / "tests.json"
    path.write_text(json.dumps({"own": lists, "other": {**lists, "targ2": lists["attr2"]}}), encoding="utf-8")
    found = answer("audit", run, "--weat", path)["weat"]
    assert found[0]["missing"]["Rulers"] == ["emperor"]
    assert found[0]["effect_size"]["value"] > 0
    assert found[1]["effect_size"]["not_measured"].startswith("too few words")
    shown = called("audit", run, "--weat", path).stdout
    assert "own, Rulers: unknown: emperor" in shown
    assert "other: not measured" in shown
    assert len(answer("audit", run, "--weat", path, "--test", "own")["weat"]) == 1
    assert called("audit", run, "--weat", path, "--test", "oven").exit_code == 2
