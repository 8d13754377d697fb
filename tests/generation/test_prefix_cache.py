"""Texts that begin alike: the same tokens with and without a cache, and no more read than is new."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.data.tokenizer import Tokenizer
from rung.errors import UsageError
from rung.generation.engine import Engine
from rung.generation.options import SamplingOptions
from rung.generation.prefix_cache import PrefixCache
from rung.nets.decoder import CausalLM
from rung.nets.recurrent_language_model import RecurrentLM, RecurrentLMConfig

OPTIONS = SamplingOptions(temperature=0.8, max_tokens=8, seed=3)


def cache_of(engine: Engine, max_texts: int = 1) -> PrefixCache:
    prefixes = engine.prefix_cache(max_texts)
    assert prefixes is not None
    return prefixes


def written(engine: Engine, prompt: list[int], prefixes: PrefixCache | None) -> list[int]:
    return [piece.token_id for piece in engine.stream(prompt, OPTIONS, prefixes)]


def test_a_conversation_reads_only_what_is_new(any_net: CausalLM, tokenizer: Tokenizer) -> None:
    """Turns that go on, one whose history is edited, one that is asked anew: tokens as without a cache."""
    engine, plain = Engine(any_net, tokenizer), Engine(any_net, tokenizer)
    prefixes = cache_of(engine)
    history = [7, 8, 9]
    for turn in range(3):
        answer = written(engine, history, prefixes)
        assert answer == written(plain, history, None)
        history += [*answer, 20 + turn, 30]
    # The last token of an answer was never read: it ended the answer.
    assert prefixes.tokens_reused == (3 + 7) + (3 + 8 + 2 + 7)
    assert prefixes.tokens_reused + prefixes.tokens_read == 3 + (3 + 10) + (3 + 20)
    for prompt in (history[:-2], [*history[:5], 99, *history[6:12]], history[:5], [100, 101]):
        for _ in range(2):
            assert written(engine, prompt, prefixes) == written(plain, prompt, None)


@settings(max_examples=30, deadline=None)
@given(
    prompts=st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=20), min_size=2, max_size=6),
    max_texts=st.integers(1, 3),
)
def test_any_order_of_texts_gives_equal_tokens(
    net: CausalLM, tokenizer: Tokenizer, prompts: list[list[int]], max_texts: int
) -> None:
    engine, plain = Engine(net, tokenizer), Engine(net, tokenizer)
    prefixes = cache_of(engine, max_texts)
    for prompt in prompts:
        assert written(engine, prompt, prefixes) == written(plain, prompt, None)
    assert prefixes.tokens_reused + prefixes.tokens_read == sum(map(len, prompts))


def test_several_texts_are_kept_and_the_oldest_goes(net: CausalLM, tokenizer: Tokenizer) -> None:
    engine = Engine(net, tokenizer)
    prefixes = cache_of(engine, max_texts=2)
    one, two, three = [10] * 12, [20] * 12, [30] * 12
    for prompt, reused in ((one, 0), (two, 0), (one, 11), (three, 0), (one, 11), (two, 0)):
        before = prefixes.tokens_reused
        written(engine, prompt, prefixes)
        assert prefixes.tokens_reused - before == reused


def test_an_answer_that_is_broken_off_is_kept_as_far_as_it_came(net: CausalLM, tokenizer: Tokenizer) -> None:
    engine = Engine(net, tokenizer)
    prefixes = cache_of(engine)
    whole = written(Engine(net, tokenizer), [5, 6, 7], None)
    stream = engine.stream([5, 6, 7], OPTIONS, prefixes)
    begun = [next(stream).token_id for _ in range(4)]
    stream.close()
    assert begun == whole[:4]
    assert written(engine, [5, 6, 7, *begun], prefixes) == written(Engine(net, tokenizer), [5, 6, 7, *begun], None)
    assert prefixes.tokens_reused == 3 + 3


def test_rows_of_a_later_call_are_not_kept_for_an_earlier_one(net: CausalLM, tokenizer: Tokenizer) -> None:
    engine = Engine(net, tokenizer)
    prefixes = cache_of(engine)
    stream = engine.stream([5, 6, 7], OPTIONS, prefixes)
    next(stream)
    engine.generate([[40] * 9], OPTIONS)
    stream.close()
    assert written(engine, [5, 6, 7, 8], prefixes) == written(Engine(net, tokenizer), [5, 6, 7, 8], None)
    assert prefixes.tokens_reused == 0


def test_who_has_no_cache(net: CausalLM, tokenizer: Tokenizer) -> None:
    """Equal bits are promised, or the state cannot be cut: all is read anew."""
    assert Engine(net, tokenizer, invariant=True).prefix_cache() is None
    config = RecurrentLMConfig("gru", 257, 8, 8, 1, tokenizer.eos_token_id)
    recurrent = RecurrentLM(config, generator=torch.Generator().manual_seed(0))
    assert Engine(recurrent, tokenizer).prefix_cache() is None


def test_wrong_use_is_refused(net: CausalLM, tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Engine(net, tokenizer).prefix_cache(0)
    with pytest.raises(UsageError, match="another engine"):
        Engine(net, tokenizer).stream("a", OPTIONS, Engine(net, tokenizer).prefix_cache())
