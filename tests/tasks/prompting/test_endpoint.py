"""The client against a scripted server: every fault an endpoint can have, and nobody waits for any."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from scripted_server import Endpoints, FakeClock, ScriptedServer, completion, error, prompt_of, reply

from rung.errors import UsageError
from rung.tasks.prompting.costs import Price, Spending, SpendingCapReached
from rung.tasks.prompting.endpoint import EndpointError, Failed
from rung.tasks.prompting.replies import Answer, retry_after
from rung.tasks.prompting.target import Target, parse_target


def text_of(answer: Answer | Failed) -> str:
    assert isinstance(answer, Answer), answer
    return answer.text


def test_answers_come_in_the_order_of_the_questions(endpoints: Endpoints, server: ScriptedServer) -> None:
    server.answer = lambda body, _number: completion("to " + prompt_of(body))
    prompts = [f"question {n}" for n in range(20)]
    assert [text_of(answer) for answer in endpoints().ask(prompts)] == [f"to {prompt}" for prompt in prompts]


def test_the_request_is_what_the_protocol_asks_for(endpoints: Endpoints, server: ScriptedServer) -> None:
    endpoints(max_tokens=7).ask(["hello"])
    assert server.bodies == [
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "hello"}],
            "n": 1,
            "max_tokens": 7,
            "temperature": 0.0,
        }
    ]


def test_equal_questions_are_asked_once_and_never_again(endpoints: Endpoints, server: ScriptedServer) -> None:
    first = endpoints().ask(["a", "b", "a"])
    again = endpoints().ask(["b", "a"])
    assert len(server.bodies) == 2
    assert [answer.from_cache for answer in again if isinstance(answer, Answer)] == [True, True]
    assert text_of(first[0]) == text_of(again[1])


def test_fresh_questions_are_asked_again(endpoints: Endpoints, server: ScriptedServer) -> None:
    endpoints().ask(["a"])
    endpoints().ask(["a"], fresh=True)
    assert len(server.bodies) == 2


def test_another_model_url_or_setting_is_another_question(endpoints: Endpoints, server: ScriptedServer) -> None:
    endpoints().ask(["a"])
    endpoints(max_tokens=3).ask(["a"])
    endpoints().ask(["a"], temperature=0.5)
    endpoints().ask(["a"], temperature=0.5, sample=1)
    assert len(server.bodies) == 4


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b'{"format": 1}', b"\xff\xfe"])
def test_a_damaged_entry_is_told_and_asked_again(endpoints: Endpoints, server: ScriptedServer, damage: bytes) -> None:
    endpoints().ask(["a"])
    (entry,) = endpoints.cache.rglob("*.json")
    entry.write_bytes(damage)
    assert text_of(endpoints().ask(["a"])[0]) == "spam"
    assert len(server.bodies) == 2
    assert len(endpoints.notices) == 1
    assert str(entry) in endpoints.notices[0]


def test_an_entry_changed_by_hand_is_not_believed(endpoints: Endpoints, server: ScriptedServer) -> None:
    endpoints().ask(["a"])
    (entry,) = endpoints.cache.rglob("*.json")
    entry.write_text(entry.read_text(encoding="utf-8").replace("spam", "ham"), encoding="utf-8")
    assert text_of(endpoints().ask(["a"])[0]) == "spam"
    assert len(server.bodies) == 2


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_passing_faults_are_tried_again(
    endpoints: Endpoints, server: ScriptedServer, clock: FakeClock, status: int
) -> None:
    server.script(error(status, "busy"), error(status, "busy"), completion("ham"))
    assert text_of(endpoints(first_backoff=1.0).ask(["a"])[0]) == "ham"
    assert len(server.bodies) == 3
    assert len(clock.slept) == 2
    assert 0.5 <= clock.slept[0] <= 1 <= clock.slept[1] <= 2, "twice as long, shortened by up to a half"


def test_waits_repeat_exactly(endpoints: Endpoints, server: ScriptedServer, clock: FakeClock) -> None:
    server.script(error(500, "x"))
    endpoints(give_up_after=2).ask(["a"])
    endpoints(give_up_after=2).ask(["a"])
    half = len(clock.slept) // 2
    assert half == 5
    assert clock.slept[:half] == clock.slept[half:]


def test_the_server_says_how_long_to_wait(endpoints: Endpoints, server: ScriptedServer, clock: FakeClock) -> None:
    server.script(error(429, "slow down", Retry_After="17"), completion("ham"))
    endpoints().ask(["a"])
    assert clock.slept == [17]


def test_who_asks_to_wait_for_an_hour_is_not_waited_for(endpoints: Endpoints, server: ScriptedServer) -> None:
    server.script(error(429, "slow down", Retry_After="3600"))
    with pytest.raises(EndpointError, match=r"wait 3,600 seconds"):
        endpoints().ask(["a"])


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, 0), ("5", 5), ("0.25", 0.25), ("-3", 0), ("Fri, 31 Dec 1999 23:59:59 GMT", 0), ("soon", 0), ("nan", 0)],
)
def test_retry_after(header: str | None, seconds: float) -> None:
    assert retry_after(header) == seconds


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (reply(200, b"<html><body>It works!</body></html>"), "no JSON object: <html>"),
        (reply(200, b'{"choices": ['), "no JSON object"),
        (reply(200, []), "no JSON object"),
        (reply(200, {"error": {"message": "overloaded"}}), "no choices.*overloaded"),
        (reply(200, {"choices": []}), "0 came"),
        (reply(200, {"choices": [{}, {}, {}]}), "one answer was asked for, 3 came"),
        (reply(200, {"choices": [None]}), "no text"),
        (reply(200, {"choices": [{"message": {"content": ["ham"]}}]}), "no text"),
        (reply(200, {"choices": [{"text": "ham"}]}), "no text"),
        (reply(200, b"x" * 2_000_000), "longer than"),
        (reply(500, b"<h1>oops</h1>"), "HTTP 500: <h1>oops"),
    ],
)
def test_nonsense_is_tried_again_and_then_told(
    endpoints: Endpoints, server: ScriptedServer, bad: tuple[int, dict[str, str], bytes], told: str
) -> None:
    server.script(bad, completion("ham"))
    assert text_of(endpoints().ask(["a"])[0]) == "ham"
    server.script(bad)
    with pytest.raises(EndpointError, match=f"2 requests in a row failed(?s:.)*{told}"):
        endpoints(attempts=2, give_up_after=2, concurrency=1).ask(["b", "c", "d"])


def test_one_bad_item_among_good_ones_is_one_failure(endpoints: Endpoints, server: ScriptedServer) -> None:
    server.answer = lambda body, _number: (
        error(400, "content filter") if "bad" in prompt_of(body) else completion("ham")
    )
    answers = endpoints(concurrency=1).ask(["a", "bad 1", "b", "bad 2", "c", "bad 3"])
    assert [type(answer) for answer in answers] == [Answer, Failed] * 3
    assert answers[1] == Failed("HTTP 400: content filter")


def test_after_failures_in_a_row_nothing_more_is_asked(endpoints: Endpoints, server: ScriptedServer) -> None:
    server.script(error(400, "the prompt is too long"))
    with pytest.raises(EndpointError, match=r"3 requests in a row failed; the last: HTTP 400: the prompt is too long"):
        endpoints(concurrency=1).ask([f"question {n}" for n in range(100)])
    assert len(server.bodies) == 3


def test_an_endpoint_that_is_down(endpoints: Endpoints) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(EndpointError, match="no connection") as raised:
            endpoints(url=url, give_up_after=1).ask(["a"])
    assert raised.value.where == url


def test_an_endpoint_that_does_not_answer_in_time(endpoints: Endpoints, server: ScriptedServer) -> None:
    def hang(_body: object, _number: int) -> tuple[int, dict[str, str], bytes]:
        server.released.wait()
        return completion("too late")

    server.answer = hang
    spending = Spending(Price(1e6, 1e6), None)
    with pytest.raises(EndpointError, match=r"no reply within 0\.05 s"):
        endpoints(timeout=0.05, attempts=2, give_up_after=1, spending=spending).ask(["a"])
    assert spending.requests == 2
    assert spending.spent > 0, "the server may have billed them"


@pytest.mark.parametrize("status", [401, 402, 403])
def test_unauthorised_ends_at_once(endpoints: Endpoints, server: ScriptedServer, status: int) -> None:
    server.script(error(status, "who are you?"))
    with pytest.raises(EndpointError, match="who are you") as raised:
        endpoints().ask([f"question {n}" for n in range(9)])
    assert "RUNG_LLM_KEY" in str(raised.value.hint)
    assert len(server.bodies) <= 4, "those under way at the same time"


@pytest.mark.parametrize("status", [301, 404, 405])
def test_a_wrong_url_or_model_ends_at_once(endpoints: Endpoints, server: ScriptedServer, status: int) -> None:
    server.script(error(status, "no such model", Location="http://127.0.0.1:1/elsewhere"))
    with pytest.raises(EndpointError, match="no such endpoint or model"):
        endpoints().ask(["a"])
    assert len(server.bodies) == 1


def test_the_key_is_sent_and_never_shown_or_stored(
    endpoints: Endpoints, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RUNG_LLM_KEY", "sk-very-secret")
    server.script(completion("ham"), error(401, "Incorrect API key provided: sk-very-secret."))
    endpoint = endpoints()
    endpoint.ask(["a"])
    with pytest.raises(EndpointError, match=r"\*\*\*") as raised:
        endpoint.ask(["b"])
    assert "sk-very-secret" not in str(raised.value)
    assert server.headers[0]["Authorization"] == "Bearer sk-very-secret"
    assert all("sk-very-secret" not in path.read_text() for path in tmp_path.rglob("*.json"))


def test_a_general_key_does_not_travel_unencrypted(
    endpoints: Endpoints, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-openai")
    endpoints().ask(["a"])
    assert "Authorization" not in server.headers[0]


def test_loopback_requests_pass_by_a_proxy(
    endpoints: Endpoints, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert text_of(endpoints().ask(["a"])[0]) == "spam"
    assert len(server.bodies) == 1


def test_no_more_than_asked_for_at_once(endpoints: Endpoints, server: ScriptedServer) -> None:
    running, most = 0, 0
    lock, all_there = threading.Lock(), threading.Barrier(3)

    def answer(_body: object, _number: int) -> tuple[int, dict[str, str], bytes]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        all_there.wait(timeout=60)
        with lock:
            running -= 1
        return completion("ham")

    server.answer = answer
    endpoints(concurrency=3).ask([f"question {n}" for n in range(12)])
    assert most == 3


def test_the_rate_limit_spaces_requests(endpoints: Endpoints, clock: FakeClock) -> None:
    endpoints(requests_per_second=2.0, concurrency=1).ask([f"question {n}" for n in range(5)])
    assert clock.now == pytest.approx(2.0), "four intervals of half a second between five requests"


def test_a_server_that_refuses_logprobs_is_asked_without(endpoints: Endpoints, server: ScriptedServer) -> None:
    server.answer = lambda body, _number: error(422, "logprobs?") if "logprobs" in body else completion("ham")
    endpoint = endpoints(form=None)
    answers = endpoint.ask([f"question {n}" for n in range(6)])
    assert {text_of(answer) for answer in answers} == {"ham"}
    assert endpoint.form == "plain"
    assert sum("logprobs" in body for body in server.bodies) == 1, "it is tried once"


def test_a_reasoning_model_is_asked_as_it_wants(endpoints: Endpoints, server: ScriptedServer) -> None:
    server.answer = lambda body, _number: error(400, "max_tokens?") if "max_tokens" in body else completion("ham")
    endpoint = endpoints(form=None)
    assert text_of(endpoint.ask(["a"])[0]) == "ham"
    assert endpoint.form == "reasoning"
    assert set(server.bodies[-1]) == {"model", "messages", "n", "max_completion_tokens"}


def test_first_token_logprobs_are_read(endpoints: Endpoints, server: ScriptedServer) -> None:
    top = [{"token": "sp", "logprob": -0.1}, {"token": "ham", "logprob": -2.5}]
    server.script(completion("spam", logprobs={"content": [{"token": "sp", "logprob": -0.1, "top_logprobs": top}]}))
    (answer,) = endpoints(form="logprobs").ask(["a"])
    assert isinstance(answer, Answer)
    assert answer.alternatives == {"sp": -0.1, "ham": -2.5}


def test_a_refusal_without_content_is_an_empty_answer(endpoints: Endpoints, server: ScriptedServer) -> None:
    server.script(completion(None))
    assert text_of(endpoints().ask(["a"])[0]) == ""


def test_the_only_model_is_found(server: ScriptedServer, endpoints: Endpoints) -> None:
    endpoint = endpoints()
    endpoint.target = Target(server.url)
    assert endpoint.model == "tiny"


def test_several_models_must_be_chosen_from(server: ScriptedServer, endpoints: Endpoints) -> None:
    server.models = ["one", "two"]
    endpoint = endpoints()
    endpoint.target = Target(server.url)
    with pytest.raises(EndpointError, match="2 models: one, two"):
        _ = endpoint.model


def test_the_cap_stops_before_it_is_passed(endpoints: Endpoints, server: ScriptedServer) -> None:
    # 110 prompt and 2 completion tokens a request, 1 a token: the cap of 1,000 allows 8 at most.
    server.answer = lambda _body, _number: completion("ham", prompt_tokens=110)
    spending = Spending(Price(1e6, 1e6), 1_000)
    with pytest.raises(SpendingCapReached, match="cap of 1000"):
        endpoints(spending=spending, concurrency=1).ask([f"question {n:02}" * 10 for n in range(30)])
    assert spending.spent == 8 * 112
    assert len(server.bodies) == 8
    again = Spending(Price(1e6, 1e6), 1_000)
    endpoints(spending=again, concurrency=1).ask([f"question {n:02}" * 10 for n in range(8)])
    assert again.spent == 0, "answers that were paid for are kept"


@pytest.mark.parametrize("concurrency", [1, 4])
def test_requests_under_way_count_towards_the_cap(
    endpoints: Endpoints, server: ScriptedServer, concurrency: int
) -> None:
    spending = Spending(Price(1e6, 1e6), 700)
    with pytest.raises(SpendingCapReached):
        endpoints(spending=spending, concurrency=concurrency).ask([f"question {n:03}" * 10 for n in range(40)])
    assert spending.spent <= 700
    assert spending.spent == 102 * len(server.bodies)


def test_httpx_missing(monkeypatch: pytest.MonkeyPatch, endpoints: Endpoints) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    with pytest.raises(UsageError) as raised:
        endpoints()
    assert raised.value.hint == "pip install 'rung[llm]'"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://127.0.0.1:8000/v1", Target("http://127.0.0.1:8000/v1")),
        ("https://api.example.org/v1/#org/model", Target("https://api.example.org/v1", "org/model")),
        ("runs/shakespeare", Path("runs/shakespeare")),
    ],
)
def test_targets(text: str, expected: Target | Path) -> None:
    assert parse_target(text) == expected


@pytest.mark.parametrize(
    "text", ["ftp://host/v1", "http://", "https://name:secret@host/v1", "https://host/v1?key=1", "http://host:0/v1"]
)
def test_targets_that_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_target(text)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://127.8.8.8/v1", True),
        ("http://192.168.0.7/v1", False),
        ("https://localhost.example.org/v1", False),
    ],
)
def test_data_stay_on_this_machine_with_loopback_only(url: str, local: bool) -> None:
    assert Target(url).is_local is local
