"""A client for OpenAI-compatible endpoints: many questions, each answered, or its failure told."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from rung.errors import RungError, UsageError
from rung.tasks.prompting.cache import ResponseCache, content_key
from rung.tasks.prompting.costs import Spending
from rung.tasks.prompting.replies import (
    Answer,
    MalformedReplyError,
    error_message,
    parse_object,
    read_reply,
    retry_after,
)
from rung.tasks.prompting.target import Target
from rung.tasks.prompting.templates import Conversation

if TYPE_CHECKING:
    import httpx

_LARGEST_REPLY = 2**20
_LONGEST_WAIT = 300.0
"""Seconds; a server that asks for more is not waited for."""
_TOP_LOGPROBS = 10  # OpenAI and vLLM allow 20, mlx-lm 11
_REASONING_TOKENS = 1024  # on top of an answer's own, or a reasoning model has none left to answer with
_RETRIED = {408, 409, 425, 429}
_NOT_ACCEPTED = {400, 422}
FORMS = ("logprobs", "plain", "reasoning")
"""How a request is put, in the order in which the first question tries them until the server accepts one.

logprobs: temperature 0 and the log-probabilities of the first tokens. plain: without those (transformers serve refuses
them). reasoning: `max_completion_tokens` and no temperature, as OpenAI's reasoning models insist.
"""


class EndpointError(RungError):
    """The endpoint cannot be used: down, not authorised, not what it should be, or failing again and again."""


@dataclass(frozen=True)
class EndpointOptions:
    """How an endpoint is treated. `timeout` and `first_backoff` are in seconds; a request is tried `attempts` times.

    After `give_up_after` requests in a row that failed for good, nothing more is asked.
    """

    concurrency: int = 4
    requests_per_second: float | None = None
    timeout: float = 60.0
    attempts: int = 6
    first_backoff: float = 0.5
    give_up_after: int = 3
    max_tokens: int = 16

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        for name in ("concurrency", "attempts", "give_up_after", "max_tokens"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}", where=name)
        rate = 1.0 if self.requests_per_second is None else self.requests_per_second
        for name, value in (("timeout", self.timeout), ("requests_per_second", rate)):
            if not value > 0:
                raise UsageError(f"{name} must be above 0, not {value}", where=name)


@dataclass(frozen=True)
class Failed:
    """A question that got no answer, and why."""

    reason: str


class _RetryError(Exception):
    """This attempt failed, another may not. `wait`: seconds the server asked for; `billed`: it may cost something."""

    def __init__(self, reason: str, wait: float = 0.0, *, billed: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.billed = billed


class _RejectedError(Exception):
    """The server does not accept this request (`status` 400 and the like)."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


class Endpoint:
    """Asks one model behind one URL. Answers are cached by content, money is counted by `spending`.

    `clock` and `sleep` are for tests. `form` is known when loaded from a folder; else the first question finds it.
    """

    def __init__(
        self,
        target: Target,
        *,
        cache: ResponseCache,
        spending: Spending,
        options: EndpointOptions | None = None,
        form: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """No request is sent yet. UsageError when httpx is missing."""
        self.target = target
        self.spending = spending
        self.options = options or EndpointOptions()
        self.form = form
        self._cache = cache
        self._clock = clock
        self._stop = threading.Event()
        self._sleep = sleep or self._stop.wait
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._failures_in_a_row = 0
        self._key = _api_key(target)
        self._http = _httpx()
        # A proxy of the environment would carry even loopback requests to another machine.
        self._client = self._http.Client(timeout=self.options.timeout, trust_env=not target.is_local)
        self.close = weakref.finalize(self, self._client.close)

    @cached_property
    def model(self) -> str:
        """The model asked: the one named, or the only one that the server lists. Raises EndpointError."""
        if self.target.model is not None:
            return self.target.model
        try:
            listed = self._send("GET", "models", None).get("data")
            names = [str(model["id"]) for model in listed] if isinstance(listed, list) else []
        except (_RetryError, _RejectedError, MalformedReplyError, KeyError, TypeError) as error:
            raise EndpointError(
                f"the endpoint does not list its models ({error})", where=self.target.url, hint=_NAME_MODEL
            ) from error
        if len(names) != 1:
            shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            raise EndpointError(
                f"the endpoint has {len(names)} models: {shown}", where=self.target.url, hint=_NAME_MODEL
            )
        return names[0]

    def ask(
        self,
        prompts: Sequence[str | Conversation],
        *,
        temperature: float = 0.0,
        sample: int = 0,
        workers: int | None = None,
        fresh: bool = False,
    ) -> list[Answer | Failed]:
        """Answer each prompt: a text, or a chat so far. Equal ones are asked once.

        At most `workers`, and never more than `concurrency`, are asked at a time. `sample` tells repetitions of one
        question apart in the cache; `fresh` asks again whatever the cache holds.

        Raises EndpointError when it is pointless to go on, SpendingCapReached before the cap could be passed.
        """
        answers: dict[str | Conversation, Answer | Failed] = {}
        errors: list[RungError] = []
        waiting = list(dict.fromkeys(prompts))
        self._stop.clear()

        def one(prompt: str | Conversation) -> None:
            try:
                answers[prompt] = self._answer(prompt, temperature, sample, fresh=fresh)
            except RungError as error:
                errors.append(error)  # before the others are stopped: the first one is the reason
                self._stop.set()

        if self.form is None and waiting:  # alone: it finds the form, and a wrong URL costs one request, not four
            one(waiting.pop(0))
        with ThreadPoolExecutor(min(workers or self.options.concurrency, self.options.concurrency)) as pool:
            futures = [pool.submit(one, prompt) for prompt in waiting]
            try:
                for future in as_completed(futures):
                    future.result()
            finally:  # interrupted: wake those who wait for another attempt, and start none
                self._stop.set()
                pool.shutdown(cancel_futures=True)
        if errors:
            raise errors[0]
        return [answers[prompt] for prompt in prompts]

    def _answer(self, prompt: str | Conversation, temperature: float, sample: int, *, fresh: bool) -> Answer | Failed:
        """One answer, from the cache or the server. While the form is unknown, each is tried in its turn."""
        turns = (("user", prompt),) if isinstance(prompt, str) else prompt
        forms = FORMS if self.form is None else (self.form,)
        for form in forms:
            body = self._body(turns, form, temperature)
            key = content_key({"url": self.target.url, "request": body, "sample": sample})
            stored = None if fresh else self._cache.get(key)
            if stored is not None:
                self.form = form
                return replace(Answer.from_json(stored), from_cache=True)
            try:
                answer = self._try(body, key, sum(len(text.encode()) for _, text in turns))
            except _RejectedError as error:
                if error.status in _NOT_ACCEPTED and form != forms[-1]:
                    continue
                return self._failed(str(error))
            except _RetryError as error:
                return self._failed(f"{error} ({self.options.attempts} attempts)")
            self.form = form
            with self._lock:
                self._failures_in_a_row = 0
            self._cache.put(key, answer.to_json())
            return answer
        raise AssertionError("the last form returns")

    def _body(self, turns: Conversation, form: str, temperature: float) -> dict[str, Any]:
        messages = [{"role": role, "content": text} for role, text in turns]
        body: dict[str, Any] = {"model": self.model, "messages": messages, "n": 1}
        if form == "reasoning":
            return body | {"max_completion_tokens": self.options.max_tokens + _REASONING_TOKENS}
        body |= {"max_tokens": self.options.max_tokens, "temperature": temperature}
        return body | ({"logprobs": True, "top_logprobs": _TOP_LOGPROBS} if form == "logprobs" else {})

    def _failed(self, reason: str) -> Failed:
        with self._lock:
            self._failures_in_a_row += 1
            in_a_row = self._failures_in_a_row
        if in_a_row >= self.options.give_up_after:
            raise EndpointError(
                f"{in_a_row} requests in a row failed; the last: {reason}",
                where=self.target.url,
                hint="see that the server runs and what it logs; answers so far are kept, so run again with --resume",
            )
        return Failed(reason)

    def _try(self, body: dict[str, Any], key: str, prompt_bytes: int) -> Answer:
        """Send one request until it is answered. Waits grow twofold from `first_backoff`, shortened by up to a half.

        By how much is a function of the request's key and the attempt, so that equal runs wait equally.
        """
        for attempt in range(self.options.attempts):
            self._wait_for_turn()
            amount = self.spending.reserve(prompt_bytes, body.get("max_completion_tokens", self.options.max_tokens))
            started = self._clock()
            try:
                answer = read_reply(self._send("POST", "chat/completions", body))
            except (_RetryError, MalformedReplyError) as error:
                billed = isinstance(error, MalformedReplyError) or error.billed
                self.spending.settle(amount, None, prompt_bytes) if billed else self.spending.release(amount)
                if attempt + 1 == self.options.attempts:
                    raise _RetryError(str(error)) from error
                share = int(key[4 * attempt : 4 * attempt + 4] or key[:4], 16) / 0xFFFF
                backoff = min(60.0, self.options.first_backoff * 2**attempt) * (1 - share / 2)
                asked = error.wait if isinstance(error, _RetryError) else 0.0
                self._delay(asked if asked else backoff, everyone=asked > 0)
            except BaseException:
                self.spending.release(amount)
                raise
            else:
                self.spending.settle(amount, answer.usage, prompt_bytes)
                return replace(answer, seconds=self._clock() - started)
        raise AssertionError("the last attempt returns or raises")

    def _wait_for_turn(self) -> None:
        """Wait for the rate limit, and for what the server asked everyone to wait."""
        with self._lock:
            now = self._clock()
            start = max(now, self._not_before)
            if self.options.requests_per_second is not None:
                self._not_before = start + 1 / self.options.requests_per_second
        self._pause(start - now)

    def _delay(self, seconds: float, *, everyone: bool) -> None:
        if seconds > _LONGEST_WAIT:
            raise EndpointError(
                f"the endpoint asks to wait {seconds:,.0f} seconds",
                where=self.target.url,
                hint="run again later with --resume, or choose another endpoint",
            )
        if everyone:
            with self._lock:
                self._not_before = max(self._not_before, self._clock() + seconds)
        else:
            self._pause(seconds)

    def _pause(self, seconds: float) -> None:
        if seconds > 0:
            self._sleep(seconds)
        if self._stop.is_set():
            raise EndpointError("asking was stopped", where=self.target.url)

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """One HTTP exchange: the JSON object of a reply with status 200, else the fitting exception."""
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        url = urljoin(self.target.url + "/", path)
        deadline = self._clock() + self.options.timeout
        content = bytearray()
        try:
            with self._client.stream(method, url, json=body, headers=headers) as response:
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > _LARGEST_REPLY:
                        raise MalformedReplyError(f"the reply is longer than {_LARGEST_REPLY:,} bytes")
                    if self._clock() > deadline:
                        raise _RetryError(f"no complete reply within {self.options.timeout:g} s", billed=True)
        except self._http.ConnectError as error:
            raise _RetryError(f"no connection: {error}") from error
        except self._http.TimeoutException as error:
            raise _RetryError(f"no reply within {self.options.timeout:g} s", billed=True) from error
        except (self._http.HTTPError, self._http.InvalidURL) as error:
            raise _RetryError(f"{type(error).__name__}: {error}", billed=True) from error
        return self._checked(response, bytes(content))

    def _checked(self, response: httpx.Response, content: bytes) -> dict[str, Any]:
        status = response.status_code
        if status == 200:
            return parse_object(content)
        message = error_message(content)
        if self._key:
            message = message.replace(self._key, "***")
        told = f"HTTP {status}: {message}"
        if status in _RETRIED or status >= 500:
            raise _RetryError(told, retry_after(response.headers.get("Retry-After")))
        if status in (401, 402, 403):
            raise EndpointError(f"the endpoint refuses: {told}", where=self.target.url, hint=_SET_KEY)
        if status in (404, 405) or status < 400:
            raise EndpointError(
                f"there is no such endpoint or model: {told}",
                where=f"{self.target.url} ({self.target.model or 'model not named'})",
                hint="the URL usually ends in /v1; the model is named after #: --llm http://127.0.0.1:8000/v1#NAME",
            )
        raise _RejectedError(told, status)


_NAME_MODEL = "name one after #: --llm http://127.0.0.1:8000/v1#NAME"
_SET_KEY = "set the environment variable RUNG_LLM_KEY (or, for https, OPENAI_API_KEY) to your key; it is never stored"


def _api_key(target: Target) -> str | None:
    """RUNG_LLM_KEY goes to whichever endpoint is named; OPENAI_API_KEY, set for another purpose, over https only."""
    general = os.environ.get("OPENAI_API_KEY") if target.url.startswith("https://") else None
    return os.environ.get("RUNG_LLM_KEY") or general


def _httpx() -> Any:
    try:
        import httpx
    except ModuleNotFoundError as error:
        raise UsageError(
            "asking an endpoint needs the package httpx, which is not installed",
            where="--llm",
            hint="pip install 'rung[llm]'",
        ) from error
    return httpx
