"""Texts from the engine: equal to transformers when greedy, to themselves in any company when drawn."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from rung.data.tokenizer import Tokenizer
from rung.errors import GenerationError, UsageError
from rung.generation.engine import Engine
from rung.generation.options import SamplingOptions
from rung.nets.decoder import CausalLM
from rung.nets.pretrained import save_net

PROMPTS = ["Once upon a time", "", "é", "The quick brown fox", "x", "to be or not", "1 2 3 4 5 6 7", "Q: why? A:"]
GREEDY = SamplingOptions(temperature=0, max_tokens=30)
DRAWN = SamplingOptions(temperature=1.1, top_p=0.95, repetition_penalty=1.2, max_tokens=30, seed=7)


@pytest.fixture(scope="module")
def engine(net: CausalLM, tokenizer: Tokenizer) -> Engine:
    return Engine(net, tokenizer)


@pytest.mark.parametrize("penalty", [1.0, 1.4])
def test_greedy_equals_transformers_token_by_token(
    any_net: CausalLM, tokenizer: Tokenizer, tmp_path: Path, penalty: float
) -> None:
    from transformers import AutoModelForCausalLM

    save_net(any_net, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    options = SamplingOptions(temperature=0, max_tokens=30, repetition_penalty=penalty)
    found = Engine(any_net, tokenizer).generate(PROMPTS, options)
    for prompt, generation in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([tokenizer.encode(prompt) or [tokenizer.eos_token_id]])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=30,
            do_sample=False,
            repetition_penalty=penalty,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
            suppress_tokens=list(range(tokenizer.vocab_size, any_net.config.vocab_size)),
        )
        assert generation.token_ids == output[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("options", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("invariant", [False, True])
def test_alone_equals_in_company(
    net: CausalLM, tokenizer: Tokenizer, options: SamplingOptions, invariant: bool
) -> None:
    engine = Engine(net, tokenizer, invariant=invariant)
    alone = [engine.generate(prompt, options)[0] for prompt in PROMPTS]
    for size in (2, 4, 8):
        for start in range(0, 8, size):
            together = engine.generate(PROMPTS[start : start + size], options)
            assert [g.token_ids for g in together] == [g.token_ids for g in alone[start : start + size]]
            assert [g.text for g in together] == [g.text for g in alone[start : start + size]]
            if invariant:
                assert together == alone[start : start + size]


def test_more_prompts_than_places_and_texts_that_end_at_different_times(
    net: CausalLM, tokenizer: Tokenizer, engine: Engine
) -> None:
    options = [SamplingOptions(max_tokens=1 + 5 * (i % 4), seed=i) for i in range(8)]
    expected = [engine.generate(prompt, one)[0] for prompt, one in zip(PROMPTS, options, strict=True)]
    found = Engine(net, tokenizer, max_batch=3).generate(PROMPTS, options)
    assert [g.token_ids for g in found] == [g.token_ids for g in expected]
    assert [len(g.token_ids) for g in found if g.finish_reason == "length"] == [
        one.max_tokens for one, g in zip(options, found, strict=True) if g.finish_reason == "length"
    ]


def test_the_stream_is_the_text(engine: Engine) -> None:
    for prompt in PROMPTS:
        pieces = list(engine.stream(prompt, DRAWN))
        (whole,) = engine.generate(prompt, DRAWN)
        assert "".join(piece.text for piece in pieces) == whole.text
        assert [piece.token_id for piece in pieces] == whole.token_ids
        assert [piece.logprob for piece in pieces] == whole.logprobs
        assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + [whole.finish_reason]


def test_the_caller_of_a_stream_is_not_in_inference_mode(engine: Engine) -> None:
    stream = engine.stream("a", GREEDY)
    next(stream)
    assert not torch.is_inference_mode_enabled()


def test_a_new_call_ends_an_open_stream(engine: Engine) -> None:
    stream = engine.stream("a", GREEDY)
    next(stream)
    assert engine.generate("b", GREEDY)
    with pytest.raises(GenerationError, match="ended by another call"):
        next(stream)


def test_seeds_decide(engine: Engine) -> None:
    texts = [engine.generate("a", SamplingOptions(seed=seed))[0].token_ids for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_logprobs_add_up_to_the_score_of_the_text(net: CausalLM, tokenizer: Tokenizer) -> None:
    options = SamplingOptions(top_k=60, max_tokens=20, seed=3)
    (generation,) = Engine(net, tokenizer).generate("", options)
    tokens = [tokenizer.eos_token_id, *generation.token_ids]
    with torch.no_grad():
        logprobs = net(torch.tensor([tokens[:-1]]))[0].log_softmax(-1)
    expected = logprobs[torch.arange(len(tokens) - 1), tokens[1:]].sum().item()
    assert sum(generation.logprobs) == pytest.approx(expected, abs=1e-3)


def test_a_stop_string_ends_the_text_before_it(engine: Engine) -> None:
    (whole,) = engine.generate("a", DRAWN)
    stop = whole.text[4:6]
    (cut,) = engine.generate("a", SamplingOptions(**{**vars(DRAWN), "stop": ("never there", stop)}))
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert cut.token_ids == whole.token_ids[: len(cut.token_ids)]
    pieces = engine.stream("a", SamplingOptions(**{**vars(DRAWN), "stop": (stop,)}))
    assert "".join(piece.text for piece in pieces) == cut.text


def test_an_end_of_text_token_ends_the_text(net: CausalLM, tokenizer: Tokenizer) -> None:
    (free,) = Engine(net, tokenizer).generate("a", GREEDY)
    ending = free.token_ids[3]
    config = dataclasses.replace(net.config, eos_token_id=(ending,))
    stops = CausalLM(config, tensors=dict(net.named_parameters()))
    (ended,) = Engine(stops, tokenizer).generate("a", GREEDY)
    assert ended.token_ids == free.token_ids[: free.token_ids.index(ending) + 1]
    assert ended.finish_reason == "stop"


def test_the_context_ends_the_text(engine: Engine, net: CausalLM) -> None:
    context = net.config.max_position_embeddings
    options = SamplingOptions(max_tokens=10_000, top_k=50, seed=6)
    (long,) = engine.generate("abcd", options)
    assert (long.finish_reason, long.prompt_tokens + len(long.token_ids)) == ("length", context)
    (one,) = engine.generate("a" * (context - 1), options)
    assert (one.finish_reason, len(one.token_ids)) == ("length", 1)
    for call in (engine.generate, engine.stream):
        with pytest.raises(GenerationError, match="64 tokens; the network's context of 64"):
            call("a" * context, options)


@pytest.mark.parametrize("invariant", [False, True])
def test_a_context_that_is_no_round_number(net: CausalLM, tokenizer: Tokenizer, invariant: bool) -> None:
    config = dataclasses.replace(net.config, max_position_embeddings=21)
    short = CausalLM(config, tensors=dict(net.named_parameters()))
    options = SamplingOptions(max_tokens=99, top_k=50, seed=2)
    texts = Engine(short, tokenizer, invariant=invariant).generate(["a" * 20, "a" * 17, "b"], options)
    for text, prompt in zip(texts, (20, 17, 1), strict=True):
        wanted = Engine(net, tokenizer).generate(["b" if prompt == 1 else "a" * prompt], options)[0]
        assert text.token_ids == wanted.token_ids[: 21 - prompt]


def test_what_does_not_fit_together(net: CausalLM, tokenizer: Tokenizer, engine: Engine) -> None:
    small = CausalLM(dataclasses.replace(net.config, vocab_size=200))
    with pytest.raises(GenerationError, match="257 tokens, the network knows 200"):
        Engine(small, tokenizer)
    with pytest.raises(UsageError, match="max_batch"):
        Engine(net, tokenizer, max_batch=0)
    with pytest.raises(GenerationError, match="2 prompts and 1 options"):
        engine.generate(["a", "b"], [GREEDY])
    assert engine.generate([], GREEDY) == []


@pytest.mark.parametrize("options", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_scores_that_are_not_finite(net: CausalLM, tokenizer: Tokenizer, options: SamplingOptions) -> None:
    broken = CausalLM(net.config)
    with torch.no_grad():
        broken.model.norm.weight.fill_(torch.nan)
    with pytest.raises(GenerationError, match="not finite"):
        Engine(broken, tokenizer).generate("a", options)


def test_a_prompt_of_tokens_is_the_prompt_of_its_text(engine: Engine, tokenizer: Tokenizer) -> None:
    texts = [text for text in PROMPTS if text]
    of_tokens = engine.generate([tokenizer.encode(text) for text in texts], GREEDY)
    assert of_tokens == engine.generate(texts, GREEDY)
    streamed = list(engine.stream(tokenizer.encode(texts[0]), GREEDY))
    assert [piece.token_id for piece in streamed] == of_tokens[0].token_ids


def test_a_stop_token_ends_the_text_and_is_its_last_token(engine: Engine) -> None:
    (whole,) = engine.generate(PROMPTS[0], GREEDY)
    wanted = whole.token_ids[5]
    (ended,) = engine.generate(PROMPTS[0], dataclasses.replace(GREEDY, stop_tokens=(wanted,)))
    assert ended.token_ids == whole.token_ids[: whole.token_ids.index(wanted) + 1]
    assert ended.finish_reason == "stop"
