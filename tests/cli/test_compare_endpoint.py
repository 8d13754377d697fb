"""`rung compare --llm`: a model behind an endpoint as a rung, what it may cost, and what it may answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from classifier_commands import SPAM, compare, refused, rows, without_measured, write
from scripted_server import ScriptedServer, completion, error, prompt_of, reply, serving

from rung.comparison.result import Comparison

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.delenv("RUNG_LLM_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving() as server:
        server.answer = knows
        yield server


def knows(body: dict[str, Any], _number: int = 0) -> Any:
    """Tells a message from its words, as a good model would."""
    question = prompt_of(body)[-200:]
    return completion("spam" if sum(question.count(word) for word in SPAM) > 3 else "ham")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path / "small.csv", rows(60))


def test_a_prompted_model_is_compared_and_paid_once(small: Path, tmp_path: Path, server: ScriptedServer) -> None:
    model = ["--llm", f"{server.url}#tiny", "--price", "1/2", "--spend-at-most", 1]
    done = compare(small, tmp_path / "out", *model)
    assert done.exit_code == 0, done.output
    found = Comparison.model_validate_json((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert found.verdict.reference == "prompted"
    assert found.verdict.about_pretrained
    assert found.result("prompted").metric("cost_per_1000").value
    asked = len(server.bodies)
    assert asked
    again = compare(small, tmp_path / "out", *model, "--resume")
    assert again.exit_code == 0, again.output
    assert len(server.bodies) == asked
    assert without_measured(tmp_path / "out" / "report.json")["verdict"] == found.verdict.model_dump(mode="json")


def test_answers_that_name_no_label_are_errors_that_are_shown(
    small: Path, tmp_path: Path, server: ScriptedServer
) -> None:
    server.answer = lambda _body, _number: completion("banana")
    done = compare(small, tmp_path / "out", "--llm", f"{server.url}#tiny")
    assert done.exit_code == 0, done.output
    found = Comparison.model_validate_json((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert found.result("prompted").metric("accuracy").value == 0
    assert any("name no label and count as wrong" in reason for reason in found.verdict.reasons)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda _body, _number: error(401, "bad key"), ("the endpoint refuses: HTTP 401: bad key", "RUNG_LLM_KEY")),
        (lambda _body, _number: error(404, "no such model"), ("there is no such endpoint or model", "#NAME")),
        (lambda _body, _number: error(429, "slow down", Retry_After="86400"), ("asks to wait", "--resume")),
    ],
    ids=["refused", "no model", "rate limit of a day"],
)
def test_an_endpoint_that_does_not_answer_ends_the_comparison_with_its_words(
    small: Path, tmp_path: Path, server: ScriptedServer, answer: Callable[..., Any], told: tuple[str, ...]
) -> None:
    server.answer = answer
    out = tmp_path / "out"
    refused(compare(small, out, "--llm", f"{server.url}#tiny"), 1, *told)
    server.answer = knows
    assert compare(small, out, "--llm", f"{server.url}#tiny", "--resume").exit_code == 0


def test_spending_stops_before_the_cap(small: Path, tmp_path: Path, server: ScriptedServer) -> None:
    done = compare(small, tmp_path / "out", "--llm", f"{server.url}#tiny", "--price", "1000/1000", "--spend-at-most", 1)
    assert done.exit_code == 0, done.output
    assert "prompted is left out" in done.stderr
    assert server.bodies == []


@pytest.mark.parametrize(
    "strange",
    [reply(200, b"<html>hello</html>"), reply(200, {"choices": []}), reply(200, {"choices": "three"})],
    ids=["no JSON", "no choices", "choices of another kind"],
)
def test_one_strange_reply_is_asked_again(small: Path, tmp_path: Path, server: ScriptedServer, strange: Any) -> None:
    server.answer = lambda body, number: strange if number == 1 else knows(body)
    done = compare(small, tmp_path / "out", "--llm", f"{server.url}#tiny")
    assert done.exit_code == 0, done.output
