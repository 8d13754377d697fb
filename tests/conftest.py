"""What all tests share: one thread, a cache for each test, and the shared data or an honest reason for its absence."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything imports torch: tests run side by side, and sums over one thread are the same on every machine.
os.environ["OMP_NUM_THREADS"] = "1"

pytest_plugins = ["pytester"]

REPOSITORY = Path(__file__).resolve().parents[1]
DATA_FIXTURE = "rung_data"

settings.register_profile("rung", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("rung")


def data_folder() -> Path:
    """Where the shared data should be: `RUNG_DATA`, else `shared/data` beside the checkout."""
    return Path(os.environ.get("RUNG_DATA") or REPOSITORY.parent / "shared" / "data")


def data_is_required() -> bool:
    """True when a skip for want of data would hide something: it was asked for, and the data is there.

    A `RUNG_DATA` that leads nowhere is a mistake rather than an absence, so it counts as required too.
    """
    asked = any(os.environ.get(name, "") not in ("", "0") for name in ("CI", "RUNG_REQUIRE_DATA"))
    return "RUNG_DATA" in os.environ or (asked and data_folder().is_dir())


@pytest.fixture(scope="session")
def rung_data() -> Path:
    """The folder of shared data sets. The only way for a test to reach them (tests/test_data_guard.py sees to it)."""
    folder = data_folder()
    if not folder.is_dir():
        pytest.skip(f"the shared data is not here: {folder} (set RUNG_DATA to where it is)")
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a test that asks for the shared data into a failure where the data is required."""
    report = yield
    if report.skipped and DATA_FIXTURE in getattr(item, "fixturenames", ()) and data_is_required():
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped although the shared data is required: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Prepared text goes to an empty cache of the test's own, never to the user's."""
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path_factory.mktemp("cache")))
