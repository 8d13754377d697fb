"""Scores on labelled tables before and after carrying on: those of `rung prompt`, paired, kept, or refused in time."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rung
from rung.data.labelled_reading import read_labelled
from rung.errors import DataError, RungError, UsageError
from rung.evaluation.intervals import difference_interval
from rung.evaluation.summed import SummedScores
from rung.progress import SILENT
from rung.records import ItemScores
from rung.tasks.continuing import starting
from rung.tasks.continuing.task_scores import FEWEST_ASKED, TaskTable, draw_items, score_items
from rung.tasks.continuing.training import ContinuedSummary, ContinuedTraining
from rung.tasks.prompting.local_model import LocalModel
from rung.tasks.prompting.templates import TEMPLATES, Prompt
from rung.tasks.run import TrainSummary
from rung.tasks.text_planning import plan_network

CONTEXT = 320
TINY: dict[str, Any] = {
    "tokenizer.vocab_size": 400,
    "net.hidden_size": 32,
    "net.num_hidden_layers": 1,
    "net.num_attention_heads": 2,
    "net.max_position_embeddings": CONTEXT,
    "training.batch_size": 4,
    "training.threads": 1,
    "training.learning_rate": 0.02,
}
STEPS = 6
ITEMS = 90


def sentences(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)  # noqa: S311 - no secret
    words = ["good", "bad", "film", "the", "a", "plot", "dull", "fine", "actor", "label", "text", "answer", "one"]
    return [" ".join(draw.choices(words, k=draw.randint(4, 9))) for _ in range(count)]


def table(path: Path, texts: list[str], labels: list[str]) -> Path:
    rows = (json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels, strict=True))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def alternating(path: Path, seed: int) -> Path:
    """A table of distinct texts with two labels, one more frequent."""
    texts = [f"{text} {number + 1000 * seed}" for number, text in enumerate(sentences(ITEMS, seed))]
    return table(path, texts, ["bad" if number % 3 else "good" for number in range(ITEMS)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("task-scores")


@pytest.fixture(scope="module", autouse=True)
def cache(folder: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_CACHE", str(folder / "cache"))
        yield


def written(folder: Path, name: str, seed: int) -> Path:
    """A folder of texts."""
    (folder / name).mkdir()
    for number in range(6):
        text = "\n\n".join(" ".join(sentences(12, 100 * seed + 10 * number + part)) for part in range(6))
        (folder / name / f"{number}.txt").write_text(text, encoding="utf-8")
    return folder / name


@pytest.fixture(scope="module")
def new(folder: Path) -> Path:
    return written(folder, "new", 2)


@pytest.fixture(scope="module")
def parent(folder: Path) -> Path:
    old = written(folder, "old", 1)
    return rung.train([old], steps=4, out=folder / "parent", overrides=TINY).run


@pytest.fixture(scope="module")
def asked(folder: Path) -> Path:
    return alternating(folder / "asked.jsonl", 3)


@pytest.fixture(scope="module")
def carried(folder: Path, parent: Path, new: Path, asked: Path) -> ContinuedSummary:
    made = rung.carry_on(parent, [new], steps=STEPS, tasks=[asked], out=folder / "carried", overrides=EVERY_THREE)
    assert isinstance(made, ContinuedSummary)
    return made


EVERY_THREE = {"training.validate_every": 3, "training.checkpoint_every": 3, "training.precision": "fp32"}


def task_scores(summary: TrainSummary) -> list[dict[str, Any]]:
    assert isinstance(summary, ContinuedSummary)
    return [change.to_json() for change in summary.task_scores]


def test_scores_are_those_of_rung_prompt(carried: ContinuedSummary, parent: Path, asked: Path, folder: Path) -> None:
    (found,) = carried.task_scores
    shown = alternating(folder / "shown.jsonl", 4)
    for model, record in ((parent, found.before), (carried.run, found.after)):
        wish = rung.CurveWish((0,), limit=record.n)
        report = rung.prompt_curves(str(model), [shown], test=[asked], wish=wish, out=folder / f"of-{model.name}")
        (point,) = (point for point in report.curves.points if point.scoring == "pmi")
        assert record.value == pytest.approx(point.accuracy, abs=1e-12)
        assert record.data_sha256 == report.curves.items_sha256
        assert record.n == report.curves.items
        assert found.majority == pytest.approx(report.curves.majority)


def test_the_change_is_paired_by_item(carried: ContinuedSummary, parent: Path, asked: Path) -> None:
    (found,) = carried.task_scores
    kept = ItemScores.load(carried.run / "before" / "task-1.jsonl")
    items = read_labelled(asked).items
    items = items.take(np.flatnonzero([item in set(kept.ids) for item in items.ids]))
    (_, before), (_, after) = (score_items(LocalModel(run), items, SILENT) for run in (parent, carried.run))
    assert dict(zip(kept.ids, kept.values, strict=True)) == dict(zip(before.ids, before.values, strict=True))
    assert (before.values != after.values).any(), "or there is nothing to test"
    assert found.change.value == pytest.approx(after.mean - before.mean)
    theirs = difference_interval(SummedScores.of_items(after), SummedScores.of_items(before))
    assert found.change.interval is not None
    assert theirs is not None
    assert found.change.interval.low == pytest.approx(theirs.low)
    assert found.change.interval.high == pytest.approx(theirs.high)


def test_report_card_and_results_tell_them(carried: ContinuedSummary, asked: Path) -> None:
    (told,) = task_scores(carried)
    assert told["name"] == str(asked)
    assert told["before"]["name"] == "accuracy"
    stored = json.loads((carried.run / "results.json").read_text(encoding="utf-8"))["continued"]
    assert stored["task_scores"] == json.loads(json.dumps([told]))
    card = (carried.run / "README.md").read_text(encoding="utf-8")
    assert f"| {asked.parent.name}/{asked.name} | {told['before']['value']:.4f} [" in card


def interrupted(run: Path, copy: Path) -> Path:
    """A copy of a finished run as it was after three steps."""
    shutil.copytree(run, copy)
    for path in (copy / "checkpoints").iterdir():
        if int(path.name.removeprefix("step-")) > 3:
            shutil.rmtree(path)
    (copy / "results.json").unlink()
    header = json.loads((copy / "rung.json").read_text(encoding="utf-8"))
    (copy / "rung.json").write_text(json.dumps(header | {"state": "training", "files": {}}), encoding="utf-8")
    return copy


def test_resumed_it_tells_the_same(carried: ContinuedSummary, folder: Path) -> None:
    assert task_scores(rung.resume(interrupted(carried.run, folder / "cut"))) == task_scores(carried)


def test_a_table_that_changed_since_is_told_and_costs_no_run(
    carried: ContinuedSummary, asked: Path, folder: Path
) -> None:
    cut, content = interrupted(carried.run, folder / "cut-again"), asked.read_bytes()
    asked.write_bytes(content.replace(b"dull", b"gray"))
    try:
        (told,) = task_scores(rung.resume(cut))
    finally:
        asked.write_bytes(content)
    assert told["before"] == task_scores(carried)[0]["before"]
    assert told["after"]["value"] is None
    assert "changed since" in told["change"]["not_measured"]


def test_a_dry_run_tells_how_many_items_are_asked(parent: Path, new: Path, asked: Path) -> None:
    made = starting.plan_carry_on(parent, [new], steps=STEPS, tasks=[asked], target="label")
    told = made.to_json()["tasks"]
    assert made.lines()[-1] == f"task score on {asked}: {told[0]['asked']} of {ITEMS} items"
    assert FEWEST_ASKED <= told[0]["asked"] <= ITEMS


def test_items_that_the_text_contains_are_not_asked_about(parent: Path, new: Path, folder: Path) -> None:
    read = [(path / "0.txt").read_text().splitlines()[0] for path in (new, folder / "old")]
    texts = [*(" ".join(text.split()[:12]).upper() + "!" for text in read), *sentences(60, 8)]
    texts = [f"{text} {number}" for number, text in enumerate(texts)]
    path = table(folder / "read.jsonl", texts, ["good", "bad"] * 31)
    (told,) = starting.plan_carry_on(parent, [new], steps=STEPS, tasks=[path]).tasks
    assert (told.read, told.offered) == (2, 62)
    assert not {texts[0], texts[1]} & set(told.items.texts)
    assert "2 stand in the text and are not asked about" in told.line()
    words = read[0].split()
    known = table(folder / "all.jsonl", [" ".join(words[at : at + 12]) for at in range(10)], ["good", "bad"] * 5)
    with pytest.raises(DataError, match="every item of this table stands in the text"):
        starting.plan_carry_on(parent, [new], steps=STEPS, tasks=[known])


def test_longer_trainings_ask_about_more_items_and_none_that_does_not_fit(parent: Path, folder: Path) -> None:
    texts, labels = sentences(120, 5), ["yes", "no"] * 60
    texts = [text + " x" * (400 if number < 10 else number) for number, text in enumerate(texts)]
    path = table(folder / "long.jsonl", texts, labels)
    items, model = read_labelled(path).items, LocalModel(parent)
    about = TaskTable("long", str(path), "label", ("text",), items.sha256)
    few, more, most = (draw_items(about, items, 0, model, tokens=tokens) for tokens in (0, 40_000, 10**9))
    assert len(few.items) == FEWEST_ASKED < len(more.items) < len(most.items)
    assert set(few.items.ids) < set(more.items.ids) < set(most.items.ids)
    prompts = [Prompt(template, items.label_names) for template in TEMPLATES]
    fitting = [text for text in texts if all(model.fits(prompt, text) for prompt in prompts)]
    assert sorted(most.items.texts) == sorted(fitting)
    assert most.too_long == len(items) - len(fitting) >= 10
    assert f"{most.too_long} more do not fit" in most.line()


def test_measuring_is_taken_off_the_clock(parent: Path, new: Path, asked: Path, folder: Path) -> None:
    seen: dict[str, float] = {}
    now = time.monotonic()

    def planned(recipe: Any, text: Any, deadline: float, session: Any) -> Any:
        seen["planned"] = deadline
        return plan_network(recipe.with_overrides({"training.minutes": None, "training.steps": 4}), text, None, session)

    def train(_self: Any, *, deadline: float) -> None:
        seen["train"] = deadline

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starting, "training_deadline", lambda *_: now + 1000)
        patch.setattr(starting, "plan_network", planned)
        patch.setattr(ContinuedTraining, "measure_before", lambda *_: 7.0)
        patch.setattr(ContinuedTraining, "train", train)
        rung.carry_on(parent, [new], minutes=20, tasks=[asked], out=folder / "clock")
    assert seen["train"] == now + 1000 - 7
    assert seen["planned"] == pytest.approx(now + 940, abs=20)


def one_class(path: Path) -> dict[str, Any]:
    return {"tasks": [table(path, sentences(30, 6), ["good"] * 30)]}


def no_labels(path: Path) -> dict[str, Any]:
    return {"tasks": [table(path, sentences(30, 6), [""] * 30)], "target": "label"}


def too_long(path: Path) -> dict[str, Any]:
    texts = [" x" * CONTEXT + text for text in sentences(30, 6)]
    return {"tasks": [table(path, texts, ["good", "bad"] * 15)]}


def too_many_labels(path: Path) -> dict[str, Any]:
    return {"tasks": [table(path, sentences(90, 6), [f"class {number % 45}" for number in range(90)])]}


def another_column(path: Path) -> dict[str, Any]:
    return {"tasks": [alternating(path, 6)], "target": "mood"}


def twice(path: Path) -> dict[str, Any]:
    return {"tasks": [alternating(path, 6)] * 2}


def gone(path: Path) -> dict[str, Any]:
    return {"tasks": [path]}


def no_table(path: Path) -> dict[str, Any]:
    del path
    return {"target": "label"}


@pytest.mark.parametrize(
    ("wish", "refused"),
    [
        (one_class, (DataError, "the same label, 'good'")),
        (no_labels, (DataError, "no row has both")),
        (too_long, (DataError, "no item fits the context of 320 tokens")),
        (too_many_labels, (DataError, r"no item fits .* \(45 labels\)")),
        (another_column, (DataError, "mood")),
        (twice, (UsageError, "is named twice")),
        (gone, (RungError, "nothing at this path")),
        (no_table, (UsageError, "means nothing without a table")),
    ],
)
def test_what_cannot_be_asked_is_refused_before_training(
    wish: Callable[[Path], dict[str, Any]], refused: tuple[type[RungError], str], parent: Path, new: Path, folder: Path
) -> None:
    given = wish(folder / f"{wish.__name__}.jsonl")
    with pytest.raises(refused[0], match=refused[1]):
        rung.carry_on(parent, [new], steps=STEPS, out=folder / "refused", **given)
    assert not (folder / "refused").exists()


def test_other_networks_are_not_asked(new: Path, asked: Path, folder: Path) -> None:
    shape = {"net.family": "lstm", "net.hidden_size": 16, "net.num_hidden_layers": 1, "training.batch_size": 4}
    base = rung.train([folder / "old"], steps=2, out=folder / "lstm", overrides={"tokenizer.vocab_size": 320} | shape)
    with pytest.raises(UsageError, match=r"only a decoder .* lstm"):
        rung.carry_on(base.run, [new], steps=2, tasks=[asked], out=folder / "refused")
