"""From answers and log-probabilities to labels: against values worked out by hand, and against transformers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung.tasks.prompting.choosing import Setting, best, variation
from rung.tasks.prompting.endpoint import Failed
from rung.tasks.prompting.judging import LabelScores, LocalJudge, answer_variation
from rung.tasks.prompting.parsing import first_token_probabilities, parse_label
from rung.tasks.prompting.templates import CONTENT_FREE, TEMPLATES, Prompt

NAMES = ("ham", "spam")


class BiasedModel:
    """Likes "ham" far too much (4 to 1), whatever it reads; a text with "prize" makes "spam" three times as likely.

    "spam" is two tokens, of which the second is certain up to one half.
    """

    num_parameters = 3

    def label_logprobs(self, prompt: Prompt, texts: Sequence[str]) -> list[LabelScores | Failed]:
        assert prompt.label_names == NAMES
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> LabelScores | Failed:
        if "too long" in text:
            return Failed("9 tokens do not fit")
        spam = 0.3 if "prize" in text else 0.1
        return [[math.log(0.4)], [math.log(spam), math.log(0.5)]]

    def write(
        self, prompt: Prompt, texts: Sequence[str], *, samples: int, temperature: float, max_tokens: int
    ) -> list[list[str] | Failed]:
        del prompt, temperature, max_tokens
        kinds = ("ham", "spam", "eggs")
        return [[kinds[number % (3 if "prize" in text else 1)] for number in range(samples)] for text in texts]


def test_a_biased_model_gives_the_values_worked_out_by_hand() -> None:
    found = LocalJudge(BiasedModel()).judge(Prompt(TEMPLATES[0], NAMES), ["a prize", "lunch", "too long"])
    # sum: ham 0.4 to spam 0.3 x 0.5 = 0.15, and to 0.1 x 0.5 = 0.05
    np.testing.assert_allclose(found.probabilities["sum"][:2, 1], [0.15 / 0.55, 0.05 / 0.45])
    # mean per token: spam has two, so the geometric means sqrt(0.15) and sqrt(0.05)
    roots = np.sqrt([0.15, 0.05])
    np.testing.assert_allclose(found.probabilities["mean"][:2, 1], roots / (roots + 0.4))
    # pmi: divided by the same after "N/A", ham 0.4 and spam 0.05, so 1 to 3 and 1 to 1
    assert "prize" not in CONTENT_FREE
    np.testing.assert_allclose(found.probabilities["pmi"][:2, 1], [0.75, 0.5])
    np.testing.assert_array_equal(found.failed, [False, False, True])
    assert found.failures == {2: "9 tokens do not fit"}
    np.testing.assert_allclose(found.probabilities["pmi"][2], 0.5)


def test_variation_over_samples_is_counted() -> None:
    found = answer_variation(LocalJudge(BiasedModel()), Prompt(TEMPLATES[0], NAMES), ["a prize", "lunch"], samples=6)
    assert found["varying_share"] == 0.5
    assert found["unparsed_share"] == pytest.approx(2 / 12)


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("spam", 1),
        (" Spam.\n", 1),
        ("**SPAM**", 1),
        ("Label: spam", 1),
        ("It is 'ham', I think.", 0),
        ("<think>ham? No, it offers a prize.</think>\n\nspam", 1),
        ("spam\n\nText: another one\nLabel: ham", None),
        ("ham or spam", None),
        ("hamster", None),
        ("", None),
        ("...", None),
        ("neither", None),
        ("ｓｐａｍ", 1),
    ],
)
def test_parsing(answer: str, label: int | None) -> None:
    assert parse_label(answer, NAMES) == label


@pytest.mark.parametrize(
    ("answer", "names", "label"),
    [
        ("It is not spam.", ("not spam", "spam"), 0),
        ("not spam, spam", ("not spam", "spam"), None),
        ("A", ("a", "A"), 1),
        ("The answer: a", ("a", "A"), None),
        ("1", ("0", "1"), 1),
        ("10", ("0", "1"), None),
        ("C++", ("C", "C++"), 1),
        (":-)", (":-)", ":-("), 0),
        ("wi-fi", ("Wi-Fi", "LAN"), 0),
    ],
)
def test_parsing_labels_that_are_alike(answer: str, names: tuple[str, ...], label: int | None) -> None:
    assert parse_label(answer, names) == label


@given(st.lists(st.text(min_size=1), min_size=2, unique=True), st.data())
def test_a_label_copied_exactly_is_always_read(names: list[str], data: st.DataObject) -> None:
    names = list(dict.fromkeys(name.strip() for name in names if name.strip() and "<think>" not in name)) or ["x"]
    index = data.draw(st.integers(0, len(names) - 1))
    assert parse_label(f" {names[index]}\n", names) == index


@given(st.text())
def test_any_answer_is_read_or_not(answer: str) -> None:
    assert parse_label(answer, NAMES) in (0, 1, None)


def test_first_token_probabilities_by_hand() -> None:
    alternatives = {"sp": math.log(0.5), " Ham": math.log(0.2), "S": math.log(0.1), "The": math.log(0.1)}
    # sp and S begin only "spam": 0.6; ham 0.2; the other 0.2 is spread evenly
    found = first_token_probabilities(alternatives, NAMES, 1)
    np.testing.assert_allclose(found, [0.3, 0.7])


def test_first_tokens_that_several_labels_begin_with_tell_nothing() -> None:
    names = ("sports", "spam")
    assert first_token_probabilities({"sp": 0.0}, names, 1) is None
    assert first_token_probabilities({"spo": -0.1, "spa": -3.0}, names, 1) is None, "the answer says otherwise"
    assert first_token_probabilities({}, names, 0) is None


@given(st.dictionaries(st.text(max_size=3), st.floats(-50, 0.5)), st.integers(0, 2))
def test_first_token_probabilities_agree_with_the_answer(alternatives: dict[str, float], answer: int) -> None:
    found = first_token_probabilities(alternatives, ("ham", "spam", "eggs"), answer)
    if found is not None:
        assert found.argmax() == answer
        assert found.sum() == pytest.approx(1)
        assert found.min() >= 0


def crossed(table: np.ndarray) -> list[Setting]:
    """Settings with the accuracies of `table` (templates, draws)."""
    prompt = Prompt(TEMPLATES[0], NAMES, examples=())
    return [
        Setting(_named(prompt, f"t{row}"), column, "parsed", float(table[row, column]), 0.5, 0)
        for row, column in np.ndindex(table.shape)
    ]


def _named(prompt: Prompt, name: str) -> Prompt:
    from dataclasses import replace

    return replace(prompt, template=replace(prompt.template, name=name))


def test_random_effects_are_recovered() -> None:
    """Planted deviations of 3, 2 and 1 points are found, on average over many tables of 3 x 5."""
    generator = np.random.default_rng(0)
    variances = np.zeros(3)
    for _ in range(400):
        effects = generator.normal(0, 0.03, (3, 1)) + generator.normal(0, 0.02, (1, 5))
        (found,) = variation(crossed(0.7 + effects + generator.normal(0, 0.01, (3, 5))))
        variances += np.square([found["template_sd"], found["draw_sd"], found["rest_sd"]]) / 400
    np.testing.assert_allclose(np.sqrt(variances), [0.03, 0.02, 0.01], rtol=0.15)


def test_a_table_worked_out_by_hand() -> None:
    (found,) = variation(crossed(np.array([[0.6, 0.8], [0.7, 0.9]])))
    # purely additive: rest 0; means of rows 0.7, 0.8 and of columns 0.65, 0.85
    assert found["template_sd"] == pytest.approx(0.1 / math.sqrt(2))
    assert found["draw_sd"] == pytest.approx(0.2 / math.sqrt(2))
    assert found["rest_sd"] == pytest.approx(0)
    assert (found["low"], found["high"], found["mean"]) == (0.6, 0.9, pytest.approx(0.75))


def test_of_equal_settings_the_surer_is_taken() -> None:
    prompt = Prompt(TEMPLATES[0], NAMES)
    unsure, sure = (Setting(prompt, 0, "parsed", 0.8, loss, 0) for loss in (0.6, 0.4))
    assert best([unsure, sure]) is sure
