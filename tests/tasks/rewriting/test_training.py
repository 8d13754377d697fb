"""Pairs in, a folder out: it learns, resumes bit for bit, repeats by its recipe, and refuses what cannot work."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import rung
from rung.errors import DataError, EvaluationError, GenerationError, RecipeError, RunFolderError, UsageError
from rung.tasks.rewriting.evaluating import evaluate
from rung.tasks.rewriting.rewriter import Rewriter, load_rewriter
from rung.tasks.rewriting.training import plan, resume, train
from rung.tasks.rewriting.using import rewrite_lines, rewrite_table
from rung.training.meter import SILENT_DISPLAY, Display, SilentDisplay, StepReport

pytest.importorskip("sacrebleu")

NOUNS = {"dog": "Hund", "man": "Mann", "boy": "Junge", "tree": "Baum", "car": "Wagen"}
VERBS = {"sees": "sieht", "likes": "mag", "hears": "hört"}
SOURCE, TARGET = "the dog sees the man.", "der Mann sieht der Hund."  # a training pair
TINY: dict[str, Any] = {
    "net.hidden_size": 32,
    "net.num_hidden_layers": 1,
    "net.num_attention_heads": 2,
    "net.intermediate_size": 64,
    "net.dropout": 0.0,
    "tokenizer.vocab_size": 320,
    "training.tokens_per_batch": 256,
    "training.learning_rate": 0.01,
    "training.precision": "fp32",
    "training.validate_every": 30,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Sentences of a toy language whose translation turns the order of words around; and held-out ones."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = [
        (f"the {one} {verb} the {other}.", f"der {theirs} {v} der {mine}.")
        for one, mine in NOUNS.items()
        for verb, v in VERBS.items()
        for other, theirs in NOUNS.items()
    ]
    named = {}
    for name, some in (("train", rows), ("valid", rows[::6]), ("test", rows[3::6])):
        held_out = rows[::6] + rows[3::6]
        kept = [row for row in some if name != "train" or row not in held_out]
        path = folder / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps({"en": a, "de": b, "n": 1}) for a, b in kept), encoding="utf-8")
        named[name] = [path]
    return named


def start(
    files: dict[str, list[Path]],
    out: Path,
    *,
    steps: int = 30,
    net: str = "transformer",
    display: Display = SILENT_DISPLAY,
    **settings: Any,
) -> Any:
    overrides = {
        key: value for key, value in {**TINY, **settings}.items() if net == "transformer" or "heads" not in key
    }
    return train(
        files["train"],
        valid=files["valid"],
        test=files["test"],
        source="en",
        target="de",
        net=net,
        steps=steps,
        out=out,
        threads=1,
        overrides=overrides,
        display=display,
    )


@pytest.fixture(scope="module")
def trained(files: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "toy"
    start(files, out, steps=200)
    return out


@pytest.mark.parametrize("net", ["transformer", "lstm"])
def test_a_toy_language_is_learned(files: dict[str, list[Path]], trained: Path, tmp_path: Path, net: str) -> None:
    folder = trained if net == "transformer" else tmp_path / "run"
    if net == "lstm":
        start(files, folder, steps=300, net=net)
    rewriter = rung.load(folder)
    assert isinstance(rewriter, Rewriter)
    seen = evaluate(folder, files["train"])
    assert seen.records[0].value is not None
    assert seen.records[0].value > {"transformer": 95, "lstm": 60}[net]
    if net == "transformer":
        assert rewriter.rewrite([SOURCE, "the boy likes the dog."]) == [TARGET, "der Hund mag der Junge."]
    found = evaluate(folder, files["test"])
    assert [record.name for record in found.records] == ["bleu", "chrf"]
    stored = json.loads((folder / "results.json").read_text(encoding="utf-8"))["records"]
    assert [record["value"] for record in stored] == [record.value for record in found.records]


def test_the_folder_opens_in_transformers(trained: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(trained)
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained)
    text = "the man hears the boy."
    written = model.generate(**tokenizer(text, return_tensors="pt"), num_beams=4, max_length=20)
    (decoded,) = tokenizer.batch_decode(written, skip_special_tokens=True)
    assert decoded == load_rewriter(trained).rewrite(text)[0]


class Impatient(SilentDisplay):
    """Presses Ctrl-C at step 16."""

    def update(self, report: StepReport) -> None:
        if report.step == 16:
            signal.raise_signal(signal.SIGINT)


def test_an_interrupted_run_goes_on_bit_for_bit(files: dict[str, list[Path]], tmp_path: Path) -> None:
    settings = {"net.dropout": 0.2, "training.validate_every": 10}
    start(files, tmp_path / "whole", steps=40, **settings)
    first = start(files, tmp_path / "parts", steps=40, display=Impatient(), **settings)
    assert first.ended == "interrupted"
    assert first.records == ()
    assert resume(tmp_path / "parts").ended == "finished"
    for name in ("step-00000040", "step-00000030"):
        whole, parts = (
            load_file(tmp_path / run / "checkpoints" / name / "model.safetensors") for run in ("whole", "parts")
        )
        assert all(torch.equal(whole[key], parts[key]) for key in whole)
    with pytest.raises(RunFolderError, match="finished"):
        resume(tmp_path / "parts")


def test_the_stored_recipe_repeats_the_run(files: dict[str, list[Path]], tmp_path: Path) -> None:
    start(files, tmp_path / "one", steps=12)
    train(recipe=tmp_path / "one", out=tmp_path / "two")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.usefixtures("ticking_clock")
def test_minutes_make_a_plan_without_gaps(files: dict[str, list[Path]]) -> None:
    made, again = (plan(files["train"], source="en", target="de", minutes=0.3, threads=1) for _ in range(2))
    assert made.seconds_per_step == pytest.approx(0.01)  # two readings of the clock
    assert again.steps == made.steps
    recipe = made.recipe
    assert (recipe.net.hidden_size, recipe.net.num_hidden_layers) == (128, 4)
    assert recipe.training.steps == made.steps > 0
    assert None not in (recipe.training.schedule, recipe.training.precision, recipe.tokenizer.vocab_size)
    assert any("network: transformer" in line for line in made.lines())
    json.dumps(made.to_json(), allow_nan=False)


def test_changed_pairs_stop_a_resumed_run(files: dict[str, list[Path]], tmp_path: Path) -> None:
    mine = {name: [tmp_path / path.name for path in paths] for name, paths in files.items()}
    for name, paths in files.items():
        mine[name][0].write_bytes(paths[0].read_bytes())
    start(mine, tmp_path / "run", steps=2)
    header = tmp_path / "run" / "rung.json"
    header.write_text(header.read_text(encoding="utf-8").replace('"finished"', '"interrupted"'), encoding="utf-8")
    with mine["train"][0].open("a", encoding="utf-8") as file:
        file.write('\n{"en": "new", "de": "neu"}')
    with pytest.raises(RunFolderError, match="pairs have changed"):
        resume(tmp_path / "run")


def test_a_table_keeps_its_rows_and_says_what_was_too_long(trained: Path, tmp_path: Path) -> None:
    table, output = tmp_path / "in.csv", tmp_path / "out.csv"
    table.write_text(f"n,en\n1,{SOURCE}\n2,\n3,{'dog ' * 400}\n", encoding="utf-8")
    rewriter = load_rewriter(trained)
    done = rewrite_table(rewriter, table, output)
    assert dict(done.problems) == {"empty text": 1, "longer than 256 tokens": 1}
    lines = output.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "n,en,prediction,error"
    assert lines[1] == f"1,{SOURCE},{TARGET},"
    assert lines[3].endswith(",longer than 256 tokens")
    with pytest.raises(GenerationError, match="reads from 1 to 256"):
        rewriter.rewrite("dog " * 400)


def test_lines_keep_their_places(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text(f"{SOURCE}\n\n{SOURCE}\n", encoding="utf-8")
    assert list(rewrite_lines(load_rewriter(trained), path)) == [TARGET, "", TARGET]


def test_the_best_ways_come_in_order(trained: Path) -> None:
    (ways,) = load_rewriter(trained).rewrite_many(SOURCE, best=3)
    assert len(ways) == 3
    assert [way.score for way in ways] == sorted((way.score for way in ways), reverse=True)
    assert ways[0].text == TARGET


def test_sources_that_are_too_long_are_counted_and_left_out(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(f"en,de\n{SOURCE},{TARGET}\n{'dog ' * 400},x\n,y\n", encoding="utf-8")
    found = evaluate(trained, [path])
    assert found.records[0].n == 1
    assert "1 sources longer than 256 tokens left out" in found.records[0].signature
    assert len(found.remarks) == 2


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"texts": ()}, UsageError, "no pairs to train on"),
        ({"steps": 3, "minutes": 1.0}, UsageError, "contradict"),
        ({"overrides": {"net.hiden_size": 8}}, RecipeError, "did you mean 'net.hidden_size'"),
        ({"net": "gru"}, RecipeError, "net.family"),
        ({"target": "fr"}, DataError, "no target column 'fr'"),
        (
            {"overrides": {"net.max_position_embeddings": 8, "tokenizer.vocab_size": 258}},
            DataError,
            "longer than 8 tokens",
        ),
    ],
)
def test_wrong_wishes_are_refused(
    files: dict[str, list[Path]], tmp_path: Path, given: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        train(**{"texts": files["train"], "source": "en", "target": "de", "steps": 2, "out": tmp_path / "x", **given})
    assert not (tmp_path / "x").exists()


def test_a_missing_metric_is_told_before_any_training(
    files: dict[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(EvaluationError, match="need the package sacrebleu"):
        start(files, tmp_path / "x", steps=2)
