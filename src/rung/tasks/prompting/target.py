"""What is prompted: an endpoint's URL, or a folder."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from rung.errors import UsageError


@dataclass(frozen=True)
class Target:
    """An endpoint: `url` without a slash at its end, and the model, where one is named."""

    url: str
    model: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether requests stay on this machine (a loopback address)."""
        host = urlsplit(self.url).hostname or ""
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def parse_target(text: str, model: str | None = None) -> Target | Path:
    """Read `http(s)://HOST/v1`, `http(s)://HOST/v1#MODEL`, or the path of a folder.

    Raises UsageError for another kind of URL, one that carries a secret (it would be written into the run folder), two
    models, or a model beside a folder.
    """
    if "://" not in text:
        if model is not None:
            raise UsageError("a folder holds one model; none can be named beside it", where=f"model={model}")
        return Path(text)
    address, _, named = text.partition("#")
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(
            f"this is no URL of an endpoint: {address}",
            where="--llm",
            hint="for example http://127.0.0.1:8000/v1, or https://api.openai.com/v1#MODEL",
        )
    if parts.username or parts.password or parts.query:
        raise UsageError(
            "the URL must not carry a name, a password or a query: it is written into the run folder",
            where="--llm",
            hint="put the key into the environment variable RUNG_LLM_KEY",
        )
    if named and model and named != model:
        raise UsageError(f"two models are named: {named} and {model}", where="--llm")
    return Target(address.rstrip("/"), named or model or None)
