"""Text from n-gram models through the engine: the same scores as measuring gives, whoever else is in the batch."""

from __future__ import annotations

import numpy as np
import pytest

from rung.data.tokenizer import train_tokenizer
from rung.errors import GenerationError
from rung.evaluation.scoring import score
from rung.generation.engine import Engine
from rung.generation.options import SamplingOptions
from rung.nets.ngram import NgramModel
from rung.training.ngram.kneser_ney import estimate

TEXT = "one two three, two one three. " * 10 + "three two one! " * 5
TOKENIZER = train_tokenizer([TEXT], vocab_size=300)


@pytest.fixture(scope="module", params=[1, 2, 4])
def model(request: pytest.FixtureRequest) -> NgramModel:
    stream = np.array([0, *TOKENIZER.encode(TEXT), 0, *TOKENIZER.encode("one"), 0], np.uint16)
    return estimate(stream, order=request.param, vocab_size=TOKENIZER.vocab_size, eos_token_id=0).model


def test_what_is_written_has_the_probabilities_that_scoring_gives(model: NgramModel) -> None:
    (written,) = Engine(model, TOKENIZER).generate("", SamplingOptions(max_tokens=30, temperature=1.0, seed=1))
    tokens = np.array([0, *written.token_ids])
    expected = model.logprobs(tokens[None, :-1], tokens[None, 1:])
    np.testing.assert_allclose(written.logprobs, expected, atol=1e-5)
    text = written.text
    if TOKENIZER.encode(text) == written.token_ids:
        np.testing.assert_allclose(score(model, TOKENIZER, text).logprobs, written.logprobs, atol=1e-5)


def test_texts_do_not_depend_on_who_else_is_written(model: NgramModel) -> None:
    prompts = ["one", "two one", "three, two one three. two", ""] * 2
    options = [SamplingOptions(max_tokens=5 + 3 * number, temperature=1.0, seed=number) for number in range(8)]
    engine = Engine(model, TOKENIZER, max_batch=3)
    together = engine.generate(prompts, options)
    alone = [engine.generate(prompt, one)[0] for prompt, one in zip(prompts, options, strict=True)]
    assert together == alone


def test_another_precision_is_refused(model: NgramModel) -> None:
    with pytest.raises(GenerationError, match="int8"):
        Engine(model, TOKENIZER, precision="int8")
