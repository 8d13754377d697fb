"""The rung as a whole: planned, chosen on validation, written, loaded, asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scripted_server import ScriptedServer, TinyTask, completion, labelled, oracle, prompt_of

from rung.errors import PlanError, RunFolderError, UsageError
from rung.progress import SILENT
from rung.tasks.prompting import prompted
from rung.tasks.prompting.costs import Price, SpendingCapReached
from rung.tasks.prompting.predicting import load
from rung.tasks.prompting.prompted import LEDGER, PromptedRung
from rung.tasks.task import FitReport

ALL = np.arange(40)


def fitted(rung: PromptedRung, task: TinyTask, folder: Path) -> FitReport:
    """Fit with a smaller sample and fewer draws than planned: 9 prompts x 8 items."""
    plan = rung.plan(task, None, seed=0)
    assert json.loads(json.dumps(plan)) == plan, "a plan is plain JSON"
    plan |= {"validation_items": 8, "draws": 2}
    return rung.fit(task, plan, items=ALL, seed=0, folder=folder, progress=SILENT)


def test_the_whole_way(server: ScriptedServer, task: TinyTask, tmp_path: Path) -> None:
    server.answer = oracle
    rung = PromptedRung(server.url, price=Price(0.5, 2.0))
    report = fitted(rung, task, tmp_path / "run")
    assert report.finished
    assert report.chosen["accuracy"] == 1
    assert report.chosen["data_leaves_machine"] is False
    predictor = load(tmp_path / "run")
    predictions = predictor.predict(task.items["test"].texts)
    np.testing.assert_array_equal(predictions.labels, task.items["test"].labels)
    assert predictor.num_parameters is None
    # 100 prompt and 2 completion tokens an item, at 0.5 and 2 a million
    assert predictor.cost_per_1000.value == pytest.approx(1000 * (100 * 0.5 + 2 * 2.0) / 1e6)
    assert predictor.details()["parse_failures"] == 0


def test_planning_sends_no_text(server: ScriptedServer, task: TinyTask) -> None:
    plan = PromptedRung(server.url, price=Price(1, 1)).plan(task, None, seed=0)
    assert server.bodies == []
    assert plan["target"] == {"url": server.url, "model": "tiny"}
    estimate = plan["estimate"]
    assert estimate["settings"] == 3 + 3 * 5, "three templates without examples, and with five draws of them"
    assert estimate["requests"] == 18 * 30
    assert estimate["cost"] == pytest.approx((estimate["prompt_tokens"] + estimate["completion_tokens"]) / 1e6)


def test_the_plan_knows_how_many_requests_come(server: ScriptedServer, task: TinyTask, tmp_path: Path) -> None:
    server.answer = oracle
    rung = PromptedRung(server.url)
    plan = rung.plan(task, None, seed=0)
    rung.fit(task, plan, items=ALL, seed=0, folder=tmp_path / "run", progress=SILENT)
    assert len(server.bodies) == plan["estimate"]["requests"]


def test_less_time_means_fewer_trials(server: ScriptedServer, task: TinyTask) -> None:
    rung = PromptedRung(server.url)
    roomy, tight = (rung.plan(task, seconds, seed=0) for seconds in (1000, 40))
    assert tight["estimate"]["requests"] < roomy["estimate"]["requests"]
    with pytest.raises(PlanError, match=r"would take about .* s, and there are 1 s"):
        rung.plan(task, 1, seed=0)


def test_a_plan_above_the_cap_is_refused(server: ScriptedServer, task: TinyTask) -> None:
    with pytest.raises(PlanError, match="would cost about") as raised:
        PromptedRung(server.url, price=Price(1, 1), max_cost=1e-9).plan(task, None, seed=0)
    assert raised.value.hint == "raise --spend-at-most"


def test_examples_come_from_the_given_training_items_only(
    server: ScriptedServer, task: TinyTask, tmp_path: Path
) -> None:
    server.answer = oracle
    rung = PromptedRung(server.url, shots=(4,))
    plan = rung.plan(task, None, seed=0)
    few = np.array([1, 2, 5, 8, 11, 14])
    rung.fit(task, plan, items=few, seed=0, folder=tmp_path / "run", progress=SILENT)
    shown = {text for text in task.items["train"].texts if any(text in prompt_of(body) for body in server.bodies)}
    assert shown <= {task.items["train"].texts[i] for i in few}
    assert not any("test" in prompt_of(body) for body in server.bodies)


def test_the_best_template_on_validation_is_taken(server: ScriptedServer, task: TinyTask, tmp_path: Path) -> None:
    def only_understands_questions(body: dict[str, object], number: int) -> tuple[int, dict[str, str], bytes]:
        return oracle(body, number) if prompt_of(body).endswith("Answer:") else completion("ham")

    server.answer = only_understands_questions
    report = fitted(PromptedRung(server.url), task, tmp_path / "run")
    assert report.chosen["template"] == "question"
    zero_shot = report.chosen["variation"][0]
    assert zero_shot["low"] < zero_shot["high"] == 1
    assert "'question'" in report.note


def test_nonsense_counts_as_errors_and_is_shown(server: ScriptedServer, task: TinyTask, tmp_path: Path) -> None:
    server.answer = oracle
    fitted(PromptedRung(server.url), task, tmp_path / "run")
    server.answer = lambda body, n: completion("Who knows?") if "prize" in prompt_of(body)[-60:] else oracle(body, n)
    predictor = load(tmp_path / "run")
    predictions = predictor.predict(task.items["test"].texts)
    assert predictions.failed is not None
    np.testing.assert_array_equal(predictions.failed, task.items["test"].labels == 1)
    np.testing.assert_array_equal(predictions.labels[predictions.failed], -1)
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1)
    shown = predictor.details()
    assert shown["parse_failures"] == 10
    assert shown["failures"][0] == {"text": "test 1: win a prize", "problem": "names no label: 'Who knows?'"}


def test_a_resumed_run_pays_nothing_twice(server: ScriptedServer, task: TinyTask, tmp_path: Path) -> None:
    server.answer = oracle
    rung = PromptedRung(server.url, price=Price(1, 1))
    fitted(rung, task, tmp_path / "one" / "run")
    asked, paid = len(server.bodies), (tmp_path / "one" / LEDGER).read_text().count("\n")
    assert paid == asked
    fitted(rung, task, tmp_path / "two" / "run")
    assert len(server.bodies) == asked
    assert not (tmp_path / "two" / LEDGER).exists()
    one, two = ((tmp_path / run / "run" / "config.json").read_bytes() for run in ("one", "two"))
    assert one == two, "an equal plan gives an equal fit"


def test_the_cap_holds_from_fit_to_prediction(server: ScriptedServer, task: TinyTask, tmp_path: Path) -> None:
    server.answer = oracle
    rung = PromptedRung(server.url, price=Price(1, 1), max_cost=0.2)
    fitted(rung, task, tmp_path / "run")
    ledger = tmp_path / LEDGER
    spent = sum(json.loads(line)["cost"] for line in ledger.read_text().splitlines())
    ledger.write_text(ledger.read_text() + json.dumps({"cost": 0.2 - spent - 0.0005, "usage": None}) + "\n")
    with pytest.raises(SpendingCapReached):
        load(tmp_path / "run").predict([f"test {n}: prize" for n in range(50)])


def test_the_folder_holds_no_key(
    server: ScriptedServer, task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNG_LLM_KEY", "sk-very-secret")
    server.answer = oracle
    fitted(PromptedRung(server.url), task, tmp_path / "run")
    assert server.headers[0]["Authorization"] == "Bearer sk-very-secret"
    assert all(b"sk-very-secret" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_damaged_folder_is_refused(server: ScriptedServer, task: TinyTask, tmp_path: Path) -> None:
    server.answer = oracle
    fitted(PromptedRung(server.url), task, tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace("ham", "eggs"))
    with pytest.raises(RunFolderError):
        load(tmp_path / "run")


def test_answers_that_vary(server: ScriptedServer, task: TinyTask, tmp_path: Path) -> None:
    server.answer = oracle
    fitted(PromptedRung(server.url), task, tmp_path / "run")
    server.answer = lambda body, n: oracle(body, n) if "lunch" in prompt_of(body)[-60:] else completion(str(n))
    predictor = load(tmp_path / "run")
    found = predictor.answer_variation(task.items["test"].texts[:6], samples=3, temperature=0.5)
    assert found == {"items": 6, "samples": 3, "temperature": 0.5, "varying_share": 0.0, "unparsed_share": 0.5}
    server.answer = lambda _body, n: completion(("ham", "spam")[n % 2])
    assert predictor.answer_variation(task.items["test"].texts[6:10], samples=3)["varying_share"] == 1
    assert server.bodies[-1]["temperature"] == 0.7


@pytest.mark.parametrize(
    "arguments",
    [
        {"target": "http://"},
        {"target": "runs/gpt", "model": "x"},
        {"target": "http://127.0.0.1/v1", "max_cost": 1.0},
        {"target": "http://127.0.0.1/v1", "price": Price(1, 1), "max_cost": -1.0},
        {"target": "http://127.0.0.1/v1#one", "model": "two"},
    ],
)
def test_settings_that_make_no_sense(arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        PromptedRung(**arguments)  # type: ignore[arg-type]


def test_an_answer_has_room_for_the_longest_label(server: ScriptedServer, task: TinyTask) -> None:
    assert PromptedRung(server.url).plan(task, None, seed=0)["options"]["max_tokens"] == 16
    task.label_names = ("ham", "an advertisement " * 10)
    assert PromptedRung(server.url).plan(task, None, seed=0)["options"]["max_tokens"] == 85


def test_details_are_plain_json_for_the_report(server: ScriptedServer, task: TinyTask, tmp_path: Path) -> None:
    server.answer = oracle
    fitted(PromptedRung(server.url, price=Price(1, 1)), task, tmp_path / "run")
    predictor = load(tmp_path / "run")
    predictor.predict(task.items["test"].texts)
    details = predictor.details()
    assert json.loads(json.dumps(details, allow_nan=False)) == details
    assert len(details["templates"]) == 9
    assert details["validation_items"] == 8
    assert details["cost_per_1000"] == pytest.approx(0.102)
    assert (details["asked"], details["parse_failures"], details["without_probabilities"]) == (20, 0, 20)
    assert details["request_seconds"]["p50"] > 0


def test_long_training_texts_are_not_shown(server: ScriptedServer, task: TinyTask, tmp_path: Path) -> None:
    server.answer = oracle
    texts = [f"train {n}: " + "prize " * 300 for n in range(40)]
    task.items["train"] = labelled(texts, [n % 2 for n in range(40)], task.label_names)
    assert "examples were not tried" in fitted(PromptedRung(server.url), task, tmp_path / "run").note


class TimedModel:
    """Stands for a decoder in a folder whose texts take a second each."""

    folder, sha256 = Path("somewhere"), "abc"


@pytest.mark.parametrize(
    ("seconds", "asked", "requests"), [(10_000, None, 18 * 30), (410, 169, 240), (160, 69, 90)], ids=str
)
def test_a_slow_local_model_is_asked_about_a_sample_of_the_test_items(
    seconds: float, asked: int | None, requests: int, task: TinyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task.items["test"] = labelled([f"text {n}" for n in range(200)], [n % 2 for n in range(200)], task.label_names)
    monkeypatch.setattr(prompted, "open_local", lambda *_, **__: TimedModel())
    monkeypatch.setattr(prompted, "_way_of_asking", lambda _: {"chat": False, "bf16": False})
    monkeypatch.setattr(prompted, "seconds_per_text", lambda *_, **__: {0: 0.5, 4: 1.0})
    plan = PromptedRung("somewhere").plan(task, seconds, seed=0)
    assert plan["estimate"]["requests"] == requests
    assert plan.get("test_items") == pytest.approx(asked, abs=1) if asked else "test_items" not in plan
    if asked:
        assert f"about {plan['test_items']} of the 200 test items" in prompted._of_sample(plan, 200)
    with pytest.raises(PlanError, match=r"and there are (59|60) s"):
        PromptedRung("somewhere").plan(task, 60, seed=0)
