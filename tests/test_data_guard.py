"""A test must not quietly skip itself where the data it needs is there."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent

ASKS_FOR_DATA = """
import pytest

def test_reads(rung_data):
    assert rung_data.is_dir()

def test_skips_itself(rung_data):
    pytest.skip("the set I want is not there")

@pytest.mark.skipif(True, reason="no such set")
def test_is_skipped_by_a_mark(rung_data):
    pass

def test_skips_for_another_reason():
    pytest.skip("no GPU here")
"""


def outcomes(pytester: pytest.Pytester) -> dict[str, int]:
    """Run the tests above under the real conftest, in a checkout of their own, and count how they ended."""
    tests = pytester.mkdir("checkout") / "tests"
    tests.mkdir()
    (tests / "conftest.py").write_text((TESTS / "conftest.py").read_text(encoding="utf-8"), encoding="utf-8")
    (tests / "test_it.py").write_text(ASKS_FOR_DATA, encoding="utf-8")
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", tests).parseoutcomes()


@pytest.mark.parametrize(
    ("environment", "data_there", "expected"),
    [
        ({}, False, {"skipped": 4}),
        ({}, True, {"passed": 1, "skipped": 3}),
        ({"RUNG_REQUIRE_DATA": "1"}, False, {"skipped": 4}),
        # a failure before the test's body, as a mark gives, is called an error
        ({"RUNG_REQUIRE_DATA": "1"}, True, {"passed": 1, "failed": 1, "errors": 1, "skipped": 1}),
        ({"CI": "true"}, True, {"passed": 1, "failed": 1, "errors": 1, "skipped": 1}),
        ({"RUNG_DATA": "/nowhere/at/all"}, True, {"errors": 3, "skipped": 1}),
    ],
)
def test_a_skip_for_want_of_data_fails_where_the_data_is(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    data_there: bool,
    expected: dict[str, int],
) -> None:
    for name in ("CI", "RUNG_REQUIRE_DATA", "RUNG_DATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if data_there:
        (pytester.path / "shared" / "data").mkdir(parents=True)
    assert outcomes(pytester) == expected


def test_the_fixture_is_the_only_way_to_the_shared_data() -> None:
    by_hand = [
        str(path.relative_to(TESTS))
        for path in TESTS.rglob("*.py")
        if path.name not in ("conftest.py", Path(__file__).name)
        and any(way in path.read_text(encoding="utf-8") for way in ("shared/data", '"shared" /', "RUNG_DATA"))
    ]
    assert by_hand == [], "these reach the shared data without the fixture, so their skips could hide its absence"
