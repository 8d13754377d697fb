"""Modified Kneser-Ney against a plain reference written from the paper, and what must hold for any text."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.errors import DataError, PlanError
from rung.nets.ngram import NgramModel
from rung.recipe import Recipe
from rung.training.ngram.counting import count_ngrams
from rung.training.ngram.kneser_ney import FALLBACK_DISCOUNTS, Estimate, estimate, modified_discounts
from rung.training.ngram.plan import default_order, plan_ngram
from rung.training.plan import Machine, TextFacts

EOS, VOCABULARY = 0, 12
Documents = Sequence[Sequence[int]]
TEXTS = st.lists(st.lists(st.integers(1, VOCABULARY - 2), max_size=12), min_size=1, max_size=8)
"""Documents of a vocabulary whose last token never occurs."""


def stream_of(documents: Documents) -> np.ndarray:
    return np.array([EOS, *(token for document in documents for token in [*document, EOS])], dtype=np.uint16)


def estimated(documents: Documents, order: int) -> Estimate:
    return estimate(stream_of(documents), order=order, vocab_size=VOCABULARY, eos_token_id=EOS)


def generated(seed: int, documents: int = 20) -> list[list[int]]:
    rng = random.Random(seed)  # noqa: S311
    return [[min(9, 1 + int(rng.expovariate(0.5))) for _ in range(rng.randrange(30))] for _ in range(documents)]


def reference(documents: Documents, order: int) -> Callable[[int, tuple[int, ...]], float]:
    """p(token | context), in tuples and dictionaries, from Chen and Goodman (1998), equations 4.37 to 4.40."""
    raw: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 1)]
    for document in documents:
        text = [EOS, *document, EOS]
        for end in range(1, len(text)):
            for k in range(1, min(order, end + 1) + 1):
                raw[k][tuple(text[end - k + 1 : end + 1])] += 1
    counts = [Counter(longer[1:] for longer in raw[k + 1]) for k in range(order)] + [raw[order]]
    for k in range(2, order):
        counts[k].update({gram: count for gram, count in raw[k].items() if gram[0] == EOS})
    discounts = [reference_discounts(list(of_order.values())) for of_order in counts]

    def discount(k: int, count: int) -> float:
        return discounts[k][min(count, 3) - 1] if count else 0.0

    def probability(token: int, context: tuple[int, ...]) -> float:
        k = len(context) + 1
        lower = probability(token, context[1:]) if context else 1 / VOCABULARY
        followers = {gram[-1]: count for gram, count in counts[k].items() if gram[:-1] == context}
        total = sum(followers.values())
        if not total:
            return lower
        count = followers.get(token, 0)
        kept_back = sum(discount(k, other) for other in followers.values())
        return (count - discount(k, count)) / total + kept_back / total * lower

    return probability


def reference_discounts(counts: list[int]) -> tuple[float, ...]:
    n = [counts.count(size) for size in range(5)]
    if not all(n[1:]):
        return FALLBACK_DISCOUNTS
    y = n[1] / (n[1] + 2 * n[2])
    found = tuple(size - (size + 1) * y * n[size + 1] / n[size] for size in (1, 2, 3))
    return found if all(0 < one <= size for size, one in enumerate(found, start=1)) else FALLBACK_DISCOUNTS


def after(model: NgramModel, tokens: Sequence[int]) -> np.ndarray:
    """The probabilities of all tokens after `tokens`, read one by one."""
    state = model.begin(1)
    for token in tokens:
        state = model.advance(state, np.array([token]))
    return np.exp(model.next_logprobs(state)[0])


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_are_those_of_the_paper(order: int) -> None:
    documents = generated(seed=1)
    made = estimated(documents, order)
    assert order < 3 or any(made.estimated)  # not the fall-back alone
    p = reference(documents, order)
    for text in [*documents[:5], [11, 3, 11], [9, 9, 9, 9, 9, 9]]:
        for end in range(len(text)):
            read = [EOS, *text[:end]]
            context = tuple(read[len(read) - min(len(read), order - 1) :])
            expected = [p(token, context) for token in range(VOCABULARY)]
            np.testing.assert_allclose(after(made.model, read), expected, rtol=1e-5)


@given(documents=TEXTS, order=st.integers(1, 6), context=st.lists(st.integers(0, VOCABULARY - 1), max_size=7))
def test_probabilities_sum_to_one_after_any_context(documents: Documents, order: int, context: list[int]) -> None:
    probabilities = after(estimated(documents, order).model, context)
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert (probabilities > 0).all()


@given(documents=TEXTS, order=st.integers(1, 6), texts=TEXTS)
def test_a_window_is_scored_as_one_token_at_a_time(documents: Documents, order: int, texts: Documents) -> None:
    model = estimated(documents, order).model
    longest = max(map(len, texts)) + 1
    inputs, labels = np.zeros((len(texts), longest), np.int64), np.full((len(texts), longest), -100)
    for row, text in enumerate(texts):
        inputs[row, : len(text) + 1] = [EOS, *text]
        labels[row, : len(text) + 1] = [*text, EOS]
    expected = [after(model, [EOS, *text[:end]])[token] for text in texts for end, token in enumerate([*text, EOS])]
    np.testing.assert_allclose(np.exp(model.logprobs(inputs, labels)), expected, rtol=1e-6)


@given(documents=TEXTS, order=st.integers(2, 5))
def test_counts_are_those_of_a_counter_and_nothing_crosses_a_document(documents: Documents, order: int) -> None:
    expected = [Counter[tuple[int, ...]]() for _ in range(order + 1)]
    for document in documents:
        text = [EOS, *document, EOS]
        for k in range(2, order + 1):
            expected[k].update(zip(*(text[place:] for place in range(k)), strict=False))
    grams: list[tuple[int, ...]] = [(token,) for token in range(VOCABULARY)]
    for k, level in enumerate(count_ngrams(stream_of(documents), order=order, eos_token_id=EOS), start=2):
        below, grams = grams, [(*grams[p], t) for p, t in zip(level.parents, level.tokens.tolist(), strict=True)]
        assert dict(zip(grams, level.counts.tolist(), strict=True)) == expected[k]
        assert [below[number] for number in level.suffixes] == [gram[1:] for gram in grams]
        assert grams == sorted(grams)


def test_the_order_of_documents_changes_nothing() -> None:
    documents = generated(seed=3)
    one, other = estimated(documents, 4).model, estimated(documents[::-1], 4).model
    for mine, theirs in zip(one.levels, other.levels, strict=True):
        np.testing.assert_array_equal(mine.tokens, theirs.tokens)
        np.testing.assert_array_equal(mine.logprobs, theirs.logprobs)
        np.testing.assert_array_equal(mine.backoffs, theirs.backoffs)


def test_an_order_longer_than_the_text_is_what_the_text_can_give() -> None:
    longer, enough = estimated([[1, 2]], 6).model, estimated([[1, 2]], 4).model
    assert longer.config.num_ngrams == (VOCABULARY, 3, 2, 1, 0, 0)
    np.testing.assert_allclose(after(longer, [EOS, 1]), after(enough, [EOS, 1]))


def test_a_text_of_one_token_is_predicted() -> None:
    model = estimated([[1] * 50], 3).model
    assert after(model, [1, 1])[1] > 0.9
    assert after(model, [1, 1]).argmin() != EOS  # it ended once


def test_discounts_of_a_known_table_and_the_fall_back() -> None:
    counts = np.repeat([0, 1, 2, 3, 4, 9], [5, 40, 20, 12, 8, 3])
    y = 40 / 80
    assert modified_discounts(counts) == ((1 - 2 * y * 20 / 40, 2 - 3 * y * 12 / 20, 3 - 4 * y * 8 / 12), True)
    assert modified_discounts(np.array([1, 1, 2, 3])) == (FALLBACK_DISCOUNTS, False)  # no count of 4
    assert modified_discounts(np.repeat([1, 2, 3, 4], [1, 1, 9, 1])) == (FALLBACK_DISCOUNTS, False)  # below zero


def test_no_text_is_refused() -> None:
    with pytest.raises(DataError, match="no text"):
        estimate(np.array([EOS], np.uint16), order=2, vocab_size=3, eos_token_id=EOS)


FACTS = TextFacts(train_bytes=4_000_000, train_tokens=1_000_000, valid_tokens=1000, vocab_size=300, eos_token_id=0)
MACHINE = Machine(device="cpu", threads=2, memory=2**30, bf16=False, can_compile=False)
NGRAM = Recipe().with_overrides({"net.family": "ngram"})


def test_a_plan_has_no_gaps_and_says_what_it_takes() -> None:
    made = plan_ngram(NGRAM, FACTS, MACHINE, seconds=None)
    assert (made.recipe.net.order, made.recipe.tokenizer.vocab_size) == (default_order(4.0), 300)
    assert "1.0 M tokens" in " ".join(made.lines())
    assert plan_ngram(made.recipe, FACTS, MACHINE, seconds=60).recipe == made.recipe


def test_what_does_not_fit_is_refused_with_the_knob_named() -> None:
    small = Machine(device="cpu", threads=2, memory=2**20, bf16=False, can_compile=False)
    for machine, seconds, problem in ((small, None, "GiB of memory"), (MACHINE, 0.1, "are left")):
        with pytest.raises(PlanError, match=problem) as caught:
            plan_ngram(NGRAM, FACTS, machine, seconds=seconds)
        assert "net.order" in str(caught.value.hint)
