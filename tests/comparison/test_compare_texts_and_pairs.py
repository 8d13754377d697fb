"""Comparisons of language models on raw text and of networks on pairs, end to end and without a clock."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rung.cli.main import app
from rung.comparison.language_models.command import compare_texts
from rung.comparison.language_models.result import LanguageLadder
from rung.comparison.measuring import Costs
from rung.comparison.pairs_command import compare_pairs
from rung.errors import RunFolderError, UsageError
from rung.tasks.language_modelling import load
from rung.tasks.loading import load_predictor

WORDS = ("the", "a", "small", "large", "dog", "cat", "bird", "house", "tree", "sees", "hears", "finds", "over", "near")
RUNGS = ("ngram", "lstm", "decoder")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chance = random.Random(5)  # noqa: S311 - made-up text
    sentences = [" ".join(chance.choice(WORDS) for _ in range(12)).capitalize() + "." for _ in range(6000)]
    path = tmp_path_factory.mktemp("text") / "made up.txt"
    path.write_text("\n\n".join(" ".join(sentences[i : i + 5]) for i in range(0, 6000, 5)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def out(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ladder") / "out"
    compare_texts([text], out=out, rungs=RUNGS, steps=12, threads=1, vocab_size=300)
    return out


def _report(out: Path) -> LanguageLadder:
    return LanguageLadder.model_validate_json((out / "report.json").read_text(encoding="utf-8"))


def test_every_rung_is_measured_on_the_same_text_and_can_be_used(out: Path) -> None:
    ladder = _report(out)
    assert [rung.name for rung in ladder.rungs] == list(RUNGS)
    assert len({rung.metric("bits_per_byte").data_sha256 for rung in ladder.finished}) == 1
    assert {pair.rung for pair in ladder.pairs} | {ladder.verdict.reference} == set(RUNGS)
    for rung in ladder.finished:
        assert [sample.prompt == "" for sample in rung.samples] == [True, False]
        assert load(out / rung.folder).generate("The small", max_tokens=3, seed=1)[0].text
    assert len(ladder.floors) == 3


def test_counting_beats_networks_that_had_twelve_steps(out: Path) -> None:
    ladder = _report(out)
    assert ladder.verdict.enough == ladder.verdict.reference == "ngram"


def test_what_is_done_is_not_done_again(out: Path, text: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("rung.json")}
    again = compare_texts([text], out=out, rungs=RUNGS, steps=12, threads=1, vocab_size=300, resume=True)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("rung.json")} == before
    assert again.verdict == _report(out).verdict


def test_other_wishes_do_not_go_on_with_it(out: Path, text: Path) -> None:
    with pytest.raises(UsageError, match="begun with another steps"):
        compare_texts([text], out=out, rungs=RUNGS, steps=13, threads=1, vocab_size=300, resume=True)
    with pytest.raises(UsageError, match="not empty"):
        compare_texts([text], out=out, rungs=RUNGS, steps=12)
    with pytest.raises(RunFolderError, match="no comparison to go on with"):
        compare_texts([text], out=out.parent / "new", rungs=RUNGS, steps=12, resume=True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--llm", "http://127.0.0.1:1/v1#m"], "--llm cannot be given for raw text"),
        (["--vectors", "v.txt"], "--vectors cannot be given for raw text"),
        (["--rungs", "naive-bayes,lstm"], "there is no rung 'naive-bayes' for raw text"),
        (["--minutes", "1", "--steps", "5"], "minutes or steps"),
        (["--task", "translate", "--parameters", "5000"], "--parameters cannot be given for --task translate"),
        (["--task", "classify", "--tokenizer", "word"], "--tokenizer cannot be given for labelled data"),
        (["--task", "translate", "--rungs", "transfomer"], "did you mean 'transformer'"),
        (["--task", "translate", "--metric", "accuracy"], "no verdict can rest on 'accuracy'"),
    ],
)
def test_wishes_that_mean_nothing_here_are_refused(text: Path, tmp_path: Path, arguments: list[str], told: str) -> None:
    done = CliRunner().invoke(app, ["compare", str(text), "--out", str(tmp_path / "out"), *arguments])
    assert done.exit_code == 2, done.output
    assert told in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences and the same words backwards."""
    chance = random.Random(6)  # noqa: S311 - made-up text
    rows = [[chance.choice(WORDS) for _ in range(chance.randint(2, 6))] for _ in range(400)]
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    lines = [json.dumps({"en": " ".join(row), "back": " ".join(reversed(row)), "other": 1}) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_networks_on_pairs_are_ranked_by_bleu(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    # A network that has learned nothing ends no target, so that timing hundreds of them takes half a minute.
    monkeypatch.setattr("rung.comparison.compare.measure_costs", lambda *_arguments, **_options: Costs([], {}))
    found = compare_pairs(
        [pairs], source="en", target="back", out=out, minutes=None, seeds=1, threads=1, command="rung compare"
    )
    assert [rung.name for rung in found.rungs] == ["lstm-attention", "transformer"]
    assert found.task == "rewriting"
    for rung in found.rungs:
        assert 0 <= (rung.metric("bleu").value or 0.0) <= 1
        assert rung.metric("chrf").value is not None
        assert load_predictor(out / rung.folder).predict(["the small dog"]).answers
    assert found.data.target == "back"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Confusion" not in page
    assert "BLEU" in page
    again = compare_pairs([pairs], source="en", target="back", out=out, minutes=None, seeds=1, threads=1, resume=True)
    assert again.verdict == found.verdict
