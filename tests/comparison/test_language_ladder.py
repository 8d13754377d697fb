"""The ladder of language models: how text is cut, when curves cross, which rung is enough, what the report says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from example_ladder import curve, example_ladder, scores

from rung.comparison.language_models.curves import crossing_seconds, crossing_sentences
from rung.comparison.language_models.report import html_page, markdown, summary_lines
from rung.comparison.language_models.result import (
    CurvePoint,
    LanguageLadder,
    json_schema,
)
from rung.comparison.language_models.rungs import LADDER, chosen_rungs
from rung.comparison.language_models.text import cut_text
from rung.comparison.language_models.verdict import judge
from rung.errors import EvaluationError, UsageError
from rung.progress import SILENT


def _documents(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def _write_texts(folder: Path, *, count: int, start: int = 0) -> Path:
    """Documents that share no run of five words."""
    path = folder / f"texts-{start}.jsonl"
    rows = [
        {"text": " ".join(f"w{number}x{place}" for place in range(40)) + "\n"} for number in range(start, start + count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_every_document_is_in_exactly_one_part(tmp_path: Path) -> None:
    source = _write_texts(tmp_path, count=300)
    cut = cut_text([source], valid=[], test=[], folder=tmp_path / "text", seed=0, progress=SILENT)
    train, valid, test = (_documents(path) for path in (cut.train, *cut.valid, *cut.test))
    everything = [row["text"] for row in map(json.loads, source.read_text(encoding="utf-8").splitlines())]
    assert sorted(text.strip() for text in train + valid + test) == sorted(text.strip() for text in everything)
    assert 1 <= len(valid) <= 45
    assert 1 <= len(test) <= 45
    assert cut.facts["parts"]["train"]["documents"] == len(train)


def test_the_same_text_is_cut_the_same_way_again(tmp_path: Path) -> None:
    source = _write_texts(tmp_path, count=100)
    first = cut_text([source], valid=[], test=[], folder=tmp_path / "a", seed=3, progress=SILENT)
    again = cut_text([source], valid=[], test=[], folder=tmp_path / "b", seed=3, progress=SILENT)
    assert first.test[0].read_bytes() == again.test[0].read_bytes()
    assert first.train.read_bytes() == again.train.read_bytes()


def test_given_test_text_is_used_whole_and_its_like_leaves_training(tmp_path: Path) -> None:
    source = _write_texts(tmp_path, count=120)
    test = _write_texts(tmp_path, count=130, start=100)  # 20 of these are in the training text too
    cut = cut_text([source], valid=[], test=[test], folder=tmp_path / "text", seed=0, progress=SILENT)
    assert cut.test == [test]
    kept = set(_documents(cut.train)) | set(_documents(cut.valid[0]))
    assert not {text.strip() for text in kept} & {text.strip() for text in _documents(test)}
    assert len(kept) == 100


def test_a_crossing_is_found_where_straight_lines_meet() -> None:
    lower, higher = curve(3.0, 3.0, 3.0), curve(4.003, 3.003, 2.003)
    assert crossing_seconds(lower, higher) == pytest.approx(20 + 10 * (0.003 + 0.003) / 1.0)


def test_a_curve_that_is_always_ahead_and_one_that_never_is() -> None:
    assert crossing_seconds(curve(3.0, 2.9), curve(2.0, 1.9)) == 0.0
    assert crossing_seconds(curve(2.0, 1.9), curve(3.0, 2.9)) is None


def test_a_counted_model_is_a_level_from_its_own_time_on() -> None:
    counted = [CurvePoint(seconds=1.0, text_bytes=1.0, bits_per_byte=2.0)]
    assert crossing_seconds(counted, curve(3.0, 2.5, 1.5)) == pytest.approx(20 + 10 * (0.503 / 1.0))
    (sentence,) = crossing_sentences([("ngram", counted), ("lstm", curve(3.0, 2.5, 2.4))])
    assert sentence == "lstm has not overtaken ngram by the end, on validation text."


@given(st.lists(st.floats(1, 4), min_size=2, max_size=8), st.lists(st.floats(1, 4), min_size=2, max_size=8))
def test_of_two_curves_at_most_one_overtakes(first: list[float], second: list[float]) -> None:
    one, other = curve(*first), curve(*second)
    assert crossing_seconds(one, other) is None or crossing_seconds(other, one) is None


def test_the_lowest_rung_within_the_margin_is_enough() -> None:
    test = {"ngram": [scores(2.0)], "rnn": [scores(1.70, seed=1)], "lstm": [scores(1.699, seed=2)]}
    pairs, verdict = judge(test, {"ngram": [2.0], "rnn": [1.71], "lstm": [1.70]}, margin=0.05)
    assert verdict.reference == "lstm"
    assert verdict.enough == "rnn"
    assert verdict.sentence.startswith("The rnn is enough: the lstm predicts this text best")
    by_name = {pair.rung: pair for pair in pairs}
    assert by_name["ngram"].inferior
    assert by_name["ngram"].difference.value == pytest.approx(0.3, abs=0.02)
    assert by_name["ngram"].difference.interval is not None
    assert by_name["ngram"].difference.interval.low < 0.3 < by_name["ngram"].difference.interval.high + 0.01


def test_without_a_rung_within_the_margin_the_best_is_needed_and_the_nearest_named() -> None:
    test = {"ngram": [scores(2.0)], "rnn": [scores(1.9, seed=1)], "lstm": [scores(1.7, seed=2)]}
    _, verdict = judge(test, {"ngram": [2.0], "rnn": [1.9], "lstm": [1.7]}, margin=0.02)
    assert verdict.enough == "lstm"
    assert "no lower rung is known to come within 0.02 of it: the nearest, the rnn, is 0.2" in verdict.sentence


def test_the_difference_agrees_with_the_paired_bits_by_hand() -> None:
    first, second = scores(2.0), scores(1.9, seed=4)
    pairs, _ = judge({"a": [first], "b": [second]}, {"a": [2.0], "b": [1.9]}, margin=0.02)
    assert pairs[0].difference.value == pytest.approx((first.values.sum() - second.values.sum()) / first.weights.sum())


def test_scores_of_other_documents_are_refused() -> None:
    with pytest.raises(EvaluationError, match="different items"):
        judge({"a": [scores(2.0)], "b": [scores(1.9, documents=299)]}, {"a": [2.0], "b": [1.9]}, margin=0.02)


def test_a_single_test_document_decides_nothing() -> None:
    with pytest.raises(EvaluationError, match="a single document"):
        judge({"a": [scores(2.0, documents=1)], "b": [scores(1.9, documents=1)]}, {"a": [2.0], "b": [1.9]}, margin=0.02)


def test_rungs_are_climbed_from_the_lowest_whatever_their_order() -> None:
    assert [rung.name for rung in chosen_rungs(["lstm", "ngram"])] == ["ngram", "lstm"]
    assert len(chosen_rungs(None)) == len(LADDER)
    with pytest.raises(UsageError, match="did you mean 'lstm'"):
        chosen_rungs(["lstn", "rnn"])
    with pytest.raises(UsageError, match="one rung"):
        chosen_rungs(["rnn"])


@pytest.fixture
def ladder() -> LanguageLadder:
    return example_ladder()


def test_the_page_shows_every_rung_and_lets_nothing_run(ladder: LanguageLadder) -> None:
    page = html_page(ladder)
    assert "<script" not in page
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page
    for name in ("ngram", "rnn", "lstm", "decoder"):
        assert name in page
    assert "lstm overtakes ngram after" in page
    assert "&lt;b&gt;night&lt;/b&gt;" in page
    assert page.count('role="img"') == 3
    assert "only 3 steps fit" in page
    assert "energy: no counter (ngram, rnn, lstm)" in page


def test_the_same_ladder_gives_the_same_page(ladder: LanguageLadder) -> None:
    assert html_page(ladder) == html_page(ladder)


def test_markdown_and_terminal_tell_the_same_numbers(ladder: LanguageLadder) -> None:
    told, lines = markdown(ladder), summary_lines(ladder)
    assert "<b>" not in told
    for line in lines:
        assert "\x1b" not in line
    value = f"{ladder.result('lstm').metric('bits_per_byte').value:.3f}"
    assert value in told
    assert any(value in line for line in lines)


def test_the_report_is_valid_by_its_own_schema(ladder: LanguageLadder) -> None:
    import jsonschema

    jsonschema.validate(json.loads(ladder.model_dump_json()), json_schema())
    assert LanguageLadder.model_validate_json(ladder.model_dump_json()) == ladder
