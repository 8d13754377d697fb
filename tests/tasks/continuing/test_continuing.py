"""Carrying a language model on with other text: exact, resumable, honest about what was lost, refused where unsafe."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import rung
from rung.cli.main import app
from rung.data.tokenizer import Tokenizer
from rung.errors import RunFolderError, UsageError
from rung.nets.language_models import load_language_model
from rung.recipe import Recipe
from rung.records import ItemScores
from rung.runfolder import file_sha256, verify
from rung.tasks.continuing.training import ContinuedSummary
from rung.tasks.language_modelling import carry_on, plan_carry_on

TINY: dict[str, Any] = {
    "tokenizer.vocab_size": 320,
    "net.hidden_size": 32,
    "net.num_hidden_layers": 2,
    "net.num_attention_heads": 2,
    "net.max_position_embeddings": 32,
    "training.batch_size": 8,
    "training.precision": "fp32",
    "training.threads": 1,
    "training.learning_rate": 0.01,
}
REMEMBERING = {key: value for key, value in TINY.items() if not key.startswith("net.")} | {
    "net.family": "lstm",
    "net.hidden_size": 32,
    "net.num_hidden_layers": 1,
    "net.backpropagate_through": 16,
}
EVERY_FIVE = {"training.validate_every": 5, "training.checkpoint_every": 5, "training.precision": "fp32"}
STEPS = 20


def made_up(letters: str, seed: int, paragraphs: int = 120) -> str:
    """Sentences of a made-up language over `letters`."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    words = ["".join(draw.choices(letters, k=draw.randint(2, 8))) for _ in range(80)]
    return "\n\n".join(" ".join(draw.choices(words, k=50)).capitalize() + "." for _ in range(paragraphs)) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("continuing")


@pytest.fixture(autouse=True)
def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(folder / "cache"))


def write(folder: Path, name: str, letters: str, seed: int) -> Path:
    """A folder of eight files."""
    (folder / name).mkdir()
    for number in range(8):
        (folder / name / f"{number}.txt").write_text(made_up(letters, 10 * seed + number), encoding="utf-8")
    return folder / name


@pytest.fixture(scope="module")
def old(folder: Path) -> Path:
    return write(folder, "old", "abcdefghiklm", 1)


@pytest.fixture(scope="module")
def new(folder: Path) -> Path:
    return write(folder, "new", "nopqrstuvwxy", 2)


@pytest.fixture(scope="module")
def parent(folder: Path, old: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_CACHE", str(folder / "cache"))
        return rung.train([old], steps=40, out=folder / "parent", overrides=TINY).run


@pytest.fixture(scope="module")
def carried(folder: Path, parent: Path, new: Path) -> ContinuedSummary:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_CACHE", str(folder / "cache"))
        made = carry_on(
            parent, [new], steps=STEPS, replay=0.25, penalty=2.0, out=folder / "carried", overrides=EVERY_FIVE
        )
    assert isinstance(made, ContinuedSummary)
    return made


def weights(run: Path) -> str:
    return file_sha256(run / "model.safetensors")


def changes(summary: Any) -> dict[str, float]:
    assert isinstance(summary, ContinuedSummary)
    return {change.name: change.change.value or 0.0 for change in summary.changes}


def test_it_names_its_parent_and_tells_what_changed(carried: ContinuedSummary, parent: Path) -> None:
    header = verify(carried.run)
    assert header["state"] == "finished"
    assert header["parent"] == {"run": str(parent), "step": 40, "weights_sha256": weights(parent)}
    assert (header["continues"]["replay"], header["continues"]["penalty"]) == (0.25, 2.0)
    assert header["recipe"]["training"]["weight_decay"] == 0, "the pull replaces it, as in L2-SP"
    found = changes(carried)
    assert found["new text"] < -0.5
    for change in carried.changes:
        assert change.change.interval is not None
        assert change.after.value == pytest.approx((change.before.value or 0) + (change.change.value or 0))
    stored = json.loads((carried.run / "results.json").read_text(encoding="utf-8"))["continued"]
    assert stored == json.loads(json.dumps(carried.to_json()["continued"], allow_nan=False))
    assert stored["distance_from_parent"] > 0
    divergence, null = stored["drift"]["records"][:2]
    assert divergence["interval"]["low"] > null["interval"]["high"]
    card = (carried.run / "README.md").read_text(encoding="utf-8")
    assert "## Carried on" in card
    assert f"{carried.changes[1].after.value:.4f}" in card


def test_a_dry_run_tells_the_plan_and_writes_nothing(
    carried: ContinuedSummary, parent: Path, new: Path, folder: Path
) -> None:
    there = sorted(path for path in folder.rglob("*") if "cache" not in path.parts)
    made = plan_carry_on(parent, [new], steps=STEPS, replay=0.25, penalty=2.0, overrides=EVERY_FIVE)
    assert "25% of it old text" in made.lines()[1]
    assert made.plan.recipe.to_json() == Recipe.load(carried.run).to_json()
    asked = ["train", "--from", str(parent), str(new), "--steps", str(STEPS), "--replay", "0.25", "--dry-run", "--json"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    told = json.loads(shown.stdout)
    assert (told["replay"], told["recipe"]["training"]["steps"]) == (0.25, STEPS)
    assert sorted(path for path in folder.rglob("*") if "cache" not in path.parts) == there


def test_the_tokenizer_and_the_shape_are_the_parents(carried: ContinuedSummary, parent: Path) -> None:
    assert Tokenizer.load(carried.run).sha256 == Tokenizer.load(parent).sha256
    for name in ("config.json", "tokenizer.json"):
        assert (carried.run / name).read_bytes() == (parent / name).read_bytes()


def test_before_is_what_the_parent_measures(carried: ContinuedSummary, parent: Path, new: Path) -> None:
    """On old text: the same documents as the parent's own evaluation, by the same code."""
    before = carried.changes[1].before
    again = rung.evaluate(parent, max_bytes=200_000).bits_per_byte
    assert before.value == pytest.approx(again.value, abs=1e-9)
    del new


def test_steps_move_from_the_parents_weights(parent: Path, new: Path, folder: Path) -> None:
    """A learning rate of nearly nothing leaves the parent's weights where they are."""
    made = carry_on(parent, [new], steps=2, out=folder / "still", overrides={"training.learning_rate": 1e-12})
    ours, theirs = (load_language_model(run).state_dict() for run in (made.run, parent))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-9, rtol=0)
    assert abs(changes(made)["old text"]) < 1e-6


def test_interrupted_and_resumed_is_the_same_bit_for_bit(carried: ContinuedSummary, folder: Path) -> None:
    cut = folder / "cut"
    shutil.copytree(carried.run, cut)
    for path in (cut / "checkpoints").iterdir():
        if int(path.name.removeprefix("step-")) > 5:
            shutil.rmtree(path)
    for name in ("model.safetensors", "config.json", "results.json"):
        (cut / name).unlink()
    header = json.loads((cut / "rung.json").read_text(encoding="utf-8"))
    (cut / "rung.json").write_text(json.dumps(header | {"state": "training", "files": {}}), encoding="utf-8")
    resumed = rung.resume(cut)
    assert weights(cut) == weights(carried.run)
    assert changes(resumed) == changes(carried)


def test_a_pull_keeps_the_weights_near(parent: Path, new: Path, folder: Path, carried: ContinuedSummary) -> None:
    """What replay saves is shown on real text (bench/continual.py): a parent of 40 steps knows too little."""
    plain = carry_on(parent, [new], steps=STEPS, out=folder / "plain")
    pulled = carry_on(parent, [new], steps=STEPS, penalty=50.0, out=folder / "pulled")
    assert isinstance(pulled, ContinuedSummary)
    assert isinstance(plain, ContinuedSummary)
    assert pulled.distance is not None
    assert plain.distance is not None
    assert pulled.distance < plain.distance / 2
    assert abs(changes(pulled)["new text"]) < abs(changes(plain)["new text"]), "and what is near learns less"
    lines = (carried.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    logged = [json.loads(line)["validation"]["distance_from_parent"] for line in lines if '"validation"' in line]
    assert len(logged) == STEPS // 5


def test_a_chain_replays_all_that_was_read(carried: ContinuedSummary, folder: Path) -> None:
    third = write(folder, "third", "aeiounrstl", 3)
    again = carry_on(carried.run, [third], steps=4, replay=0.5, out=folder / "again")
    header = json.loads((again.run / "rung.json").read_text(encoding="utf-8"))
    assert [Path(entry["text"]["files"][0]).name for entry in header["continues"]["old"]] == ["new", "old"]
    assert list(changes(again)) == ["new text", "old text 1", "old text 2"]


def test_networks_that_remember_read_old_lanes_beside_the_new(old: Path, new: Path, folder: Path) -> None:
    base = rung.train([old], steps=12, out=folder / "lstm", overrides=REMEMBERING).run
    made = carry_on(base, [new], steps=10, replay=0.25, out=folder / "lstm-on", overrides=EVERY_FIVE)
    cut = folder / "lstm-cut"
    shutil.copytree(made.run, cut)
    shutil.rmtree(cut / "checkpoints" / "step-00000010")
    (cut / "model.safetensors").unlink()
    header = json.loads((cut / "rung.json").read_text(encoding="utf-8"))
    (cut / "rung.json").write_text(json.dumps(header | {"state": "training", "files": {}}), encoding="utf-8")
    rung.resume(cut)
    assert weights(cut) == weights(made.run)
    assert changes(made)["new text"] < 0


def test_old_text_that_changed_is_refused_with_a_way_out(parent: Path, old: Path, new: Path, folder: Path) -> None:
    before = (old / "0.txt").read_bytes()
    (old / "0.txt").write_text(made_up("abc", 99), encoding="utf-8")
    try:
        with pytest.raises(RunFolderError, match="changed") as caught:
            carry_on(parent, [new], steps=2, replay=0.1, out=folder / "refused")
        assert "--replay 0" in (caught.value.hint or "")
        assert not (folder / "refused").exists()
        made = carry_on(parent, [new], steps=2, out=folder / "without")
    finally:
        (old / "0.txt").write_bytes(before)
    assert list(changes(made)) == ["new text"]
    assert isinstance(made, ContinuedSummary)
    assert "changed" in next(iter(made.not_measured.values()))


def test_a_parent_with_other_weights_is_refused_on_resume(parent: Path, new: Path, folder: Path) -> None:
    copied = folder / "copied"
    shutil.copytree(parent, copied)
    made = carry_on(copied, [new], steps=2, out=folder / "orphan")
    header = json.loads((made.run / "rung.json").read_text(encoding="utf-8"))
    (made.run / "rung.json").write_text(json.dumps(header | {"state": "training"}), encoding="utf-8")
    shutil.rmtree(copied)
    with pytest.raises(RunFolderError, match="parent run cannot be read"):
        rung.resume(made.run)
    shutil.copytree(folder / "carried", copied)
    with pytest.raises(RunFolderError, match="other weights now"):
        rung.resume(made.run)


def test_held_out_documents_that_the_other_text_trains_on_do_not_count(parent: Path, old: Path, folder: Path) -> None:
    """Carried on with its own text under another split: every document was read by one side or the other."""
    made = carry_on(parent, [old], steps=2, seed=7, out=folder / "same-text")
    by_name = {change.name: change for change in made.changes}  # type: ignore[attr-defined]
    for name in ("new text", "old text"):
        assert by_name[name].after.n < by_name[name].before.n + 1
        assert "without-documents-read" in by_name[name].before.signature


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"overrides": {"net.hidden_size": 64}}, "net.hidden_size is the parent's"),
        ({"overrides": {"tokenizer.vocab_size": 512}}, "tokenizer.vocab_size is the parent's"),
        ({"replay": 0.95}, "share of old text"),
        ({"replay": -0.1}, "share of old text"),
        ({"penalty": float("nan")}, "the pull must be"),
        ({"minutes": 1.0}, "contradict"),
        ({"texts": []}, "no new text"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(
    asked: dict[str, Any], problem: str, parent: Path, new: Path, folder: Path
) -> None:
    texts = asked.pop("texts", [new])
    with pytest.raises(UsageError, match=problem):
        carry_on(parent, texts, steps=2, out=folder / "nonsense", **asked)
    assert not (folder / "nonsense").exists()


def test_what_cannot_be_carried_on_is_told(parent: Path, old: Path, new: Path, folder: Path) -> None:
    counted = rung.train([old], out=folder / "counted", overrides={"net.family": "ngram"}, steps=1).run
    with pytest.raises(UsageError, match="n-gram") as caught:
        carry_on(counted, [new], steps=2)
    assert "OLD NEW" in (caught.value.hint or "")
    foreign = folder / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunFolderError, match="not a run of ours") as refused:
        carry_on(foreign, [new], steps=2)
    assert "rung tune" in (refused.value.hint or "")
    unfinished = folder / "unfinished"
    shutil.copytree(parent, unfinished)
    header = json.loads((unfinished / "rung.json").read_text(encoding="utf-8"))
    (unfinished / "rung.json").write_text(json.dumps(header | {"state": "interrupted"}), encoding="utf-8")
    with pytest.raises(RunFolderError, match="not finished"):
        carry_on(unfinished, [new], steps=2)


def test_a_carried_on_run_is_not_extended(carried: ContinuedSummary) -> None:
    with pytest.raises(UsageError, match="its replay and its pull would be lost") as caught:
        rung.extend(carried.run, steps=2)
    assert "--from" in (caught.value.hint or "")


def test_scores_of_documents_are_kept_for_pairing(carried: ContinuedSummary) -> None:
    before, after = (change for change in carried.changes if change.name == "old text"), carried.changes[1].after
    stored = ItemScores.load(carried.run / "before" / "old-text.jsonl")
    assert stored.mean == pytest.approx(next(before).before.value)
    assert len(stored.ids) == after.n
