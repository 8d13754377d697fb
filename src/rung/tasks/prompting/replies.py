"""What an OpenAI-compatible server sends back: checked, and reduced to what a classifier needs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from rung.tasks.prompting.costs import Usage

_SHOWN = 200


class MalformedReplyError(Exception):
    """A reply with status 200 that is no chat completion with one answer."""


@dataclass(frozen=True)
class Answer:
    """One answer. `alternatives`: first tokens and their natural log-probabilities, where the server gives them.

    `seconds`: from sending to the last byte, of the attempt that succeeded, also when it comes from the cache now.
    """

    text: str
    finish_reason: str | None
    usage: Usage | None
    alternatives: Mapping[str, float] | None
    seconds: float = 0.0
    from_cache: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values for the cache."""
        value = asdict(self)
        del value["from_cache"]
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Answer:
        """Read what `to_json` wrote."""
        usage = value["usage"]
        return cls(**value | {"usage": None if usage is None else Usage(**usage)})


def parse_object(content: bytes) -> dict[str, Any]:
    """The JSON object in `content`. Raises MalformedReplyError, with its beginning."""
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise MalformedReplyError(f"the reply is no JSON object: {_shown(content)}")
    return value


def read_reply(reply: dict[str, Any]) -> Answer:
    """The one answer in a chat completion. Raises MalformedReplyError for anything else.

    A message without content (a refusal, a filter) is an empty answer.
    """
    choices = reply.get("choices")
    if not isinstance(choices, list):
        raise MalformedReplyError(f"the reply has no choices: {_shown(json.dumps(reply).encode())}")
    if len(choices) != 1:
        raise MalformedReplyError(f"one answer was asked for, {len(choices)} came")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    text = message.get("content") if isinstance(message, dict) else 0
    if text is not None and not isinstance(text, str):
        raise MalformedReplyError(f"the answer is no text: {_shown(json.dumps(choice).encode())}")
    reason = choice.get("finish_reason")
    return Answer(
        text=text or "",
        finish_reason=reason if isinstance(reason, str) else None,
        usage=_usage(reply.get("usage")),
        alternatives=_alternatives(choice.get("logprobs")),
    )


def error_message(content: bytes) -> str:
    """What a server says of an error, in one line of at most 200 characters: `error.message`, or its start."""
    try:
        value = json.loads(content)
    except ValueError:
        return _shown(content)
    for name in ("error", "message", "detail"):
        if isinstance(value, dict) and value.get(name):
            value = value[name]
    return _shown((value if isinstance(value, str) else json.dumps(value)).encode())


def retry_after(header: str | None) -> float:
    """Seconds that a `Retry-After` header asks for (RFC 9110, 10.2.3: seconds or a date); 0 where it asks nothing."""
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            when = parsedate_to_datetime(header)
        except ValueError:
            return 0.0
        seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - datetime.now(UTC).timestamp()
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _usage(value: Any) -> Usage | None:
    prompt, completion = (
        (value.get("prompt_tokens"), value.get("completion_tokens")) if isinstance(value, dict) else (None, None)
    )
    if type(prompt) is int and type(completion) is int and min(prompt, completion) >= 0:
        return Usage(prompt, completion)
    return None


def _alternatives(value: Any) -> dict[str, float] | None:
    """The first token's alternatives: `logprobs.content[0].top_logprobs`, or None where that is not there."""
    try:
        top = value["content"][0]["top_logprobs"]
        found = {str(entry["token"]): float(entry["logprob"]) for entry in top}
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return {token: logprob for token, logprob in found.items() if math.isfinite(logprob)} or None


def _shown(content: bytes) -> str:
    text = " ".join(content[: 4 * _SHOWN].decode("utf-8", "replace").split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " ..."
