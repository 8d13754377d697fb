"""Windows score every token exactly once, with as much context as promised."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rung.evaluation.windows import sliding_windows


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 40), st.data())
def test_each_target_once_with_the_promised_context(first: int, count: int, context: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, context))
    scored = []
    for window in sliding_windows(first, first + count, context_length=context, stride=stride):
        assert 0 <= window.start <= window.score_from < window.stop <= first + count
        assert window.stop - window.start <= context
        for target in range(window.score_from, window.stop):
            assert target - window.start >= min(target, context - stride)  # tokens before its own input
            scored.append(target)
    assert scored == list(range(first, first + count))


def test_the_windows_of_a_long_text() -> None:
    assert [tuple(w) for w in sliding_windows(0, 11, context_length=4, stride=2)] == [
        (0, 4, 0), (2, 6, 4), (4, 8, 6), (6, 10, 8), (7, 11, 10),
    ]  # fmt: skip
