"""Options out of range, or that contradict each other, are refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from rung.errors import UsageError
from rung.generation.options import SamplingOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"temperature": float("inf")}, "temperature must be"),
        ({"top_k": 0}, "top_k must be a whole number of at least 1"),
        ({"top_k": 2.5}, "top_k must be a whole number"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1, not 1.5"),
        ({"min_p": -0.1}, "min_p must be"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
        ({"max_tokens": 0}, "max_tokens must be"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 2**64}, "seed must be"),
        ({"stop": ("a", "")}, "a stop string is empty"),
        ({"stop": "abc"}, "not one string"),
        ({"temperature": 0, "top_p": 0.9}, "temperature 0 .* top_p would do nothing"),
        ({"temperature": 0, "top_k": 3, "min_p": 0.1}, "top_k and min_p would do nothing"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        SamplingOptions(**options)
    assert caught.value.where in options


def test_stop_may_be_a_list() -> None:
    assert SamplingOptions(stop=["a", "b"]).stop == ("a", "b")  # type: ignore[arg-type]
