"""A whole comparison on small data: what it leaves behind, that nothing is done twice, and that a plan repeats it."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from rung.comparison.budget import seconds_for_fitting, share_of_time
from rung.comparison.climbing import Climb
from rung.comparison.command import compare
from rung.comparison.fits import Fits
from rung.comparison.result import MEASURED_METRICS, Comparison
from rung.comparison.settings import Settings
from rung.errors import DataError, RunFolderError, RungError, UsageError
from rung.progress import SILENT
from rung.records import ItemScores
from rung.tasks.classification.counting import MajorityRung
from rung.tasks.classification.pretrained import FrozenRung
from rung.tasks.classification.reading import DataSources, read_task
from rung.tasks.classification.rungs import make_rung, make_rungs
from rung.tasks.classification.using import evaluate_classifier, predict_table
from rung.tasks.loading import load_predictor

CHEAP = ("majority", "naive-bayes", "linear")
WORDS = {
    "billing": ["invoice", "payment", "refund", "charge", "card", "price", "bill", "euro"],
    "login": ["password", "account", "sign", "user", "locked", "reset", "code", "mail"],
    "shipping": ["parcel", "delivery", "late", "courier", "address", "track", "box", "door"],
}


def table(folder: Path, rows: int = 400, seed: int = 0, teams: int = 2) -> Path:
    """A CSV of short texts, most of whose words tell the label."""
    draw = random.Random(seed)  # noqa: S311
    common = ["the", "a", "my", "is", "please", "help", "with", "since", "yesterday", "today", "again", "why"]
    lines = ["label,text,team"]
    for number in range(rows):
        label = draw.choice(list(WORDS))
        words = [draw.choice(WORDS[label] if draw.random() < 0.3 else common) for _ in range(9)]
        lines.append(f"{label},{' '.join(words)} {number},{chr(ord('A') + draw.randrange(teams))}")
    path = folder / "tickets.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(data: Path, out: Path, **options: Any) -> Comparison:
    """A comparison of the cheap rungs without a clock."""
    return compare([data], out=out, target="label", text=["text"], **{"minutes": None, "rungs": CHEAP, **options})


def without_measured(comparison: Comparison) -> dict[str, Any]:
    """The content of report.json without what carries a time, a memory or an energy."""
    content = comparison.model_dump(mode="json", exclude={"created", "seconds", "pareto", "not_measured", "command"})
    for rung in content["rungs"]:
        rung["metrics"] = [record for record in rung["metrics"] if record["name"] not in MEASURED_METRICS]
    return content


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Comparison]:
    """Data, output folder and result of one comparison with groups."""
    folder = tmp_path_factory.mktemp("comparison")
    data = table(folder)
    return data, folder / "out", run(data, folder / "out", group="team", command="rung compare tickets.csv")


def test_leaves_reports_and_a_folder_for_every_rung(finished: tuple[Path, Path, Comparison]) -> None:
    _, out, comparison = finished
    assert {"report.html", "report.json", "report.md", "rungs", "fits"} <= {path.name for path in out.iterdir()}
    assert Comparison.model_validate_json((out / "report.json").read_text()) == comparison
    assert [rung.name for rung in comparison.rungs] == list(CHEAP)
    for rung in comparison.rungs:
        assert load_predictor(out / rung.folder).labels == ("billing", "login", "shipping")
        assert comparison.verdict.sentence in (out / rung.folder / "README.md").read_text()
        scores = ItemScores.load(out / rung.folder / "scores" / "accuracy.jsonl")
        assert scores.mean == rung.metric("accuracy").value
    values = [rung.metric("accuracy").value or 0.0 for rung in comparison.rungs]
    assert values[0] < 0.5
    assert min(values[1:]) > 0.8
    assert comparison.verdict.reference == "linear"
    assert not comparison.verdict.about_pretrained


def test_every_rung_is_measured_on_the_same_items(finished: tuple[Path, Path, Comparison]) -> None:
    _, _, comparison = finished
    counted = comparison.data.split["test"] - comparison.data.split["leaked"]
    hashes = {rung.metric("accuracy").data_sha256 for rung in comparison.rungs}
    assert len(hashes) == 1
    for rung in comparison.rungs:
        assert rung.metric("accuracy").n == counted
        assert sum(map(sum, rung.details["confusion"])) == counted
        assert rung.metric("energy").value is None
        assert rung.metric("energy").not_measured
        assert rung.details["determinism"]["fresh_process"]["exact_rate"] == 1.0


def test_few_groups_are_compared_and_many_kept_together(
    finished: tuple[Path, Path, Comparison], tmp_path: Path
) -> None:
    _, _, comparison = finished
    assert comparison.data.split["method"] == "stratified"
    assert [row["group"] for row in comparison.result("linear").details["groups"]] == ["A", "B"]
    data = table(tmp_path, teams=25)
    task = read_task(DataSources([data], "label", ["text"], group="team"), seed=0, threads=1)
    assert task.facts["split"]["method"] == "grouped"
    parts = [set(task.items[part].groups or ()) for part in ("train", "valid", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 25


def test_resume_fits_nothing_again_and_gives_the_same_report(
    finished: tuple[Path, Path, Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out, first = finished
    from rung.tasks.classification import counting

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("fitted again")

    for name in ("MajorityRung", "NaiveBayesRung", "LinearRung"):
        monkeypatch.setattr(getattr(counting, name), "fit", refuse)
    again = run(data, out, group="team", resume=True)
    assert without_measured(again) == without_measured(first)


def test_an_equal_plan_gives_an_equal_report_whatever_the_order_of_rows(
    finished: tuple[Path, Path, Comparison], tmp_path: Path
) -> None:
    data, out, first = finished
    head, *rows = data.read_text().splitlines()
    random.Random(3).shuffle(rows)  # noqa: S311
    shuffled = tmp_path / "tickets.csv"
    shuffled.write_text("\n".join([head, *rows]) + "\n")
    again = run(shuffled, tmp_path / "out", group="team", plan=out)
    assert without_measured(again) == without_measured(first)


def test_resume_refuses_other_data_and_other_wishes(finished: tuple[Path, Path, Comparison], tmp_path: Path) -> None:
    data, out, _ = finished
    with pytest.raises(UsageError, match="not empty"):
        run(data, out)
    with pytest.raises(RunFolderError, match="data is not the one"):
        run(table(tmp_path, seed=9), out, group="team", resume=True)
    with pytest.raises(UsageError, match="another margin"):
        run(data, out, group="team", margin=0.05, resume=True)
    with pytest.raises(RunFolderError, match="no comparison to go on with"):
        run(data, tmp_path / "fresh", resume=True)


def test_what_cannot_be_compared_says_so(tmp_path: Path) -> None:
    data = table(tmp_path)
    with pytest.raises(UsageError, match="did you mean 'linear'"):
        run(data, tmp_path / "a", rungs=("liner", "majority"))
    with pytest.raises(UsageError, match="one rung"):
        run(data, tmp_path / "b", rungs=("linear",))
    with pytest.raises(UsageError, match="not among the rungs"):
        run(data, tmp_path / "c", reference="lstm")


def test_leaked_test_items_stop_a_comparison_and_count_nowhere_when_allowed(tmp_path: Path) -> None:
    data = table(tmp_path, rows=300)
    head, *rows = data.read_text().splitlines()
    test = tmp_path / "test.csv"
    (tmp_path / "more").mkdir()
    fresh = table(tmp_path / "more", rows=60, seed=5).read_text().splitlines()[1:]
    test.write_text("\n".join([head, *rows[:20], *fresh]) + "\n")
    with pytest.raises(DataError, match="test items are in training"):
        run(data, tmp_path / "out", test=[test])
    found = run(data, tmp_path / "allowed", test=[test], allow_leaks=True)
    assert found.data.split["leaked"] >= 20
    assert found.result("linear").details["leaked"]["n"] == found.data.split["leaked"]
    assert found.result("linear").metric("accuracy").n == found.data.split["test"] - found.data.split["leaked"]


def test_predict_and_eval_use_the_columns_of_the_comparison(
    finished: tuple[Path, Path, Comparison], tmp_path: Path
) -> None:
    data, out, comparison = finished
    rung = out / comparison.result("linear").folder
    labelled = tmp_path / "labelled.jsonl"
    done = predict_table(rung, data, labelled)
    rows = [json.loads(line) for line in labelled.read_text().splitlines()]
    assert done.rows == len(rows) == 400
    assert [row["text"] for row in rows] == [line.split(",")[1] for line in data.read_text().splitlines()[1:]]
    right = sum(row["prediction"] == row["label"] for row in rows) / len(rows)
    measured = {record.name: record.value for record in evaluate_classifier(rung, [data]).records}
    assert measured["accuracy"] == pytest.approx(right)


def test_a_damaged_rung_is_refused(finished: tuple[Path, Path, Comparison], tmp_path: Path) -> None:
    import shutil

    _, out, comparison = finished
    copy = tmp_path / "linear"
    shutil.copytree(out / comparison.result("linear").folder, copy)
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(RungError, match="SHA-256 differs"):
        load_predictor(copy)


def test_time_is_shared_by_weight_and_what_is_left_goes_up() -> None:
    ladder = make_rungs(["majority", "linear", "cnn"])
    shares = [share_of_time(ladder, position, 32.0) for position in range(3)]
    assert shares[0] < shares[1] < shares[2] == 32.0


class _Slow(MajorityRung):
    """What takes ten seconds to train as one ought to."""

    name, is_random = "slow", True

    def plan(self, task: Any, seconds: float | None, *, seed: int) -> dict[str, Any]:  # noqa: ARG002
        return {"seconds": seconds}

    def is_undertrained(self, plan: dict[str, Any]) -> bool:
        return bool(plan["seconds"] < 10)


@pytest.mark.parametrize(("seconds", "fits"), [(40.0, 3), (20.0, 1), (5.0, 1)])
def test_one_fit_that_is_trained_enough_goes_before_several(tmp_path: Path, seconds: float, fits: int) -> None:
    task = read_task(DataSources([table(tmp_path)], target="label", text_columns=["text"]), seed=0, threads=1)
    made = Fits(task, tmp_path / "out", SILENT)
    (climbed,) = Climb(made, Settings(), time.monotonic() + seconds).up([_Slow()], ())
    assert (len(climbed.fits), climbed.notes) == (fits, ["for want of time: 1 fit(s)"] if fits == 1 else [])
    assert climbed.plan["seconds"] == pytest.approx(seconds / fits, abs=1)
    assert Climb(made, Settings(), None).up([_Slow()], ())[0].fits == climbed.fits, "again, without a clock"


def test_time_is_kept_for_measuring_and_more_of_it_for_open_weights() -> None:
    small, frozen = make_rungs(["majority", "linear"]), FrozenRung("other-frozen", Path("other"), called="other")
    assert seconds_for_fitting(600, small) == pytest.approx(540), "a tenth"
    assert seconds_for_fitting(100, small) == pytest.approx(86)
    assert seconds_for_fitting(100, [*small, frozen]) == pytest.approx(66)
    assert seconds_for_fitting(20, small * 5) == 10, "half at least is for fitting"


def test_rungs_have_names_that_can_be_asked_for() -> None:
    with pytest.raises(UsageError, match="no rung called"):
        make_rung("gpt-5")
    assert [rung.name for rung in make_rungs(["linear", "majority", "linear"])] == ["majority", "linear"]
