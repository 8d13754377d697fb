"""Makes `scripted_server` importable, and its parts fixtures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from scripted_server import Endpoints, FakeClock, ScriptedServer, TinyTask, labelled, serving

from rung.data.labelled import LabelledItems


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key of the user's is ever used by a test."""
    monkeypatch.delenv("RUNG_LLM_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serving() as server:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def endpoints(server: ScriptedServer, clock: FakeClock, tmp_path: Path) -> Iterator[Endpoints]:
    endpoints = Endpoints(server, clock, tmp_path / "llm")
    yield endpoints
    for endpoint in endpoints.made:
        endpoint.close()


@pytest.fixture
def task() -> TinyTask:
    """Messages about prizes are spam, about lunch are ham."""
    names = ("ham", "spam")

    def part(kind: str, size: int) -> LabelledItems:
        texts = [f"{kind} {n}: {'win a prize' if n % 2 else 'lunch at noon'}" for n in range(size)]
        return labelled(texts, [n % 2 for n in range(size)], names)

    return TinyTask({"train": part("train", 40), "valid": part("valid", 30), "test": part("test", 20)}, names)
