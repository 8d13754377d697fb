"""A scripted OpenAI-compatible server on this machine, a clock that nobody waits for, and a small task."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from rung.data.labelled import LabelledItems, item_ids
from rung.tasks.prompting.cache import ResponseCache
from rung.tasks.prompting.costs import Spending
from rung.tasks.prompting.endpoint import Endpoint, EndpointOptions
from rung.tasks.prompting.target import Target

Reply = tuple[int, dict[str, str], bytes]


def completion(text: str | None, *, prompt_tokens: int = 100, completion_tokens: int = 2, **more: Any) -> Reply:
    """A chat completion with one answer, as OpenAI documents it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **more}
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return reply(200, {"object": "chat.completion", "choices": [choice], "usage": usage})


def reply(status: int, body: Any, **headers: str) -> Reply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, content


def error(status: int, message: str, **headers: str) -> Reply:
    return reply(status, {"error": {"message": message, "type": "x"}}, **headers)


def prompt_of(body: dict[str, Any]) -> str:
    return "\n\n".join(message["content"] for message in body["messages"])


@dataclass
class ScriptedServer:
    """Answers with `answer(body, number)`; every chat request is kept in `bodies`, its headers in `headers`."""

    url: str = ""
    answer: Callable[[dict[str, Any], int], Reply] = lambda _body, _number: completion("spam")
    models: list[str] = field(default_factory=lambda: ["tiny"])
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)  # set at the end: for answers that hang

    def script(self, *replies: Reply) -> None:
        """Give these replies in turn, the last one for ever."""
        self.answer = lambda _body, number: replies[min(number, len(replies) - 1)]


@contextmanager
def serving() -> Iterator[ScriptedServer]:
    """A server on a port of its own, for as long as the context lasts."""
    script = ScriptedServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(reply(200, {"object": "list", "data": [{"id": name} for name in script.models]}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with script.lock:
                number = len(script.bodies)
                script.bodies.append(body)
                script.headers.append(dict(self.headers))
            self._send(script.answer(body, number))

        def _send(self, answer: Reply) -> None:
            status, headers, content = answer
            try:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client went away, as a test of time-outs wants

        def log_message(self, *_: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script.url = f"http://127.0.0.1:{listening.server_port}/v1"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield script
    script.released.set()
    listening.shutdown()
    listening.server_close()
    thread.join()


@dataclass
class FakeClock:
    """Time that passes only when somebody sleeps."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self.lock:
            self.slept.append(seconds)
            self.now += seconds


@dataclass
class Endpoints:
    """Makes clients of the scripted server that share one cache and one clock; `notices` keeps what they told."""

    server: ScriptedServer
    clock: FakeClock
    cache: Path
    made: list[Endpoint] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def __call__(
        self, *, spending: Spending | None = None, url: str | None = None, form: str | None = "plain", **options: Any
    ) -> Endpoint:
        endpoint = Endpoint(
            Target(url or self.server.url, "tiny"),
            cache=ResponseCache(self.cache, self.notices.append),
            spending=spending or Spending(None, None),
            options=EndpointOptions(**options),
            form=form,
            clock=self.clock,
            sleep=self.clock.sleep,
        )
        self.made.append(endpoint)
        return endpoint


@dataclass
class TinyTask:
    """What a prompted rung needs of a classification task."""

    items: dict[str, LabelledItems]
    label_names: tuple[str, ...]
    unlabelled: list[str] = field(default_factory=list)
    threads: int = 1


def labelled(texts: list[str], labels: list[int], names: tuple[str, ...]) -> LabelledItems:
    ids = item_ids(texts, [names[label] for label in labels])
    return LabelledItems(ids, texts, np.array(labels), names)


def oracle(body: dict[str, Any], _number: int = 0) -> Reply:
    """Knows the truth about the last text of a prompt."""
    question = prompt_of(body).rsplit("valid", 1)[-1].rsplit("test", 1)[-1]
    return completion("spam" if "prize" in question.split("\n")[0] else "ham")
