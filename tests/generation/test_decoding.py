"""The fused decoder gives the scores of the network itself, step by step."""

from __future__ import annotations

import pytest
import torch

from rung.generation.decoding import FusedDecoder
from rung.generation.matrices import Precision
from rung.nets.decoder import CausalLM


def scores_by_steps(decoder: FusedDecoder, texts: list[list[int]], prompt_lengths: list[int]) -> list[torch.Tensor]:
    """Scores (time, vocabulary) after each place from the end of the prompt on, all texts in one batch."""
    with torch.inference_mode():
        decoder.open(len(texts), max(map(len, texts)))
        first = decoder.prefill([text[:n] for text, n in zip(texts, prompt_lengths, strict=True)], 0)
        found = [[row] for row in first]
        for step in range(min(len(text) - n for text, n in zip(texts, prompt_lengths, strict=True))):
            places = [n + step for n in prompt_lengths]
            scores = decoder.step([text[place] for text, place in zip(texts, places, strict=True)], places)
            for row, score in zip(found, scores, strict=True):
                row.append(score)
    return [torch.stack(row) for row in found]


def random_texts(net: CausalLM, lengths: list[int]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, net.config.vocab_size, (n,), generator=generator).tolist() for n in lengths]


@pytest.mark.parametrize("invariant", [False, True])
def test_equals_the_network(any_net: CausalLM, invariant: bool) -> None:
    prompts = [1, 7, 20]
    texts = random_texts(any_net, [n + 12 for n in prompts])
    found = scores_by_steps(FusedDecoder(any_net, "fp32", invariant=invariant), texts, prompts)
    for text, prompt, scores in zip(texts, prompts, found, strict=True):
        with torch.no_grad():
            expected = any_net(torch.tensor([text]))[0, prompt - 1 :]
        torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.1), ("int8", 0.2)])
@pytest.mark.parametrize("rows", [1, 3])
def test_low_precision_stays_close(any_net: CausalLM, precision: Precision, tolerance: float, rows: int) -> None:
    prompts = [5, 9, 2][:rows]
    texts = random_texts(any_net, [n + 6 for n in prompts])
    found = scores_by_steps(FusedDecoder(any_net, precision, invariant=False), texts, prompts)
    for text, prompt, scores in zip(texts, prompts, found, strict=True):
        with torch.no_grad():
            expected = any_net(torch.tensor([text]))[0, prompt - 1 :]
        assert (scores - expected).abs().max() < tolerance * expected.std()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("threads", [1, 2])
def test_invariant_bits(net: CausalLM, precision: Precision, threads: int) -> None:
    """The same text alone and beside 1, 3 and 20 others of other lengths: equal to the last bit."""
    lengths = [11, 3, 30, 17, *range(1, 18)]
    texts = random_texts(net, [n + 8 for n in lengths])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        decoder = FusedDecoder(net, precision, invariant=True)
        alone = scores_by_steps(decoder, texts[:1], lengths[:1])[0]
        for rows in (2, 4, 21):
            beside = scores_by_steps(decoder, texts[:rows], lengths[:rows])[0]
            assert torch.equal(alone, beside[: len(alone)])
    finally:
        torch.set_num_threads(before)


def test_a_moved_text_goes_on(net: CausalLM) -> None:
    texts = random_texts(net, [9, 14])
    decoder = FusedDecoder(net, "fp32", invariant=False)
    with torch.inference_mode():
        decoder.open(2, 20)
        decoder.prefill([text[:-1] for text in texts], 0)
        expected = decoder.step([text[-1] for text in texts], [8, 13])[1]
        decoder.move(1, 0)
        torch.testing.assert_close(decoder.step(texts[1][-1:], [13])[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("known", [1, 6, 19])
def test_a_text_goes_on_from_a_kept_beginning(any_net: CausalLM, known: int) -> None:
    """The row had another, longer text before; what is read behind the beginning takes its place."""
    text, other = random_texts(any_net, [20, 30])
    decoder = FusedDecoder(any_net, "fp32", invariant=False)
    with torch.inference_mode():
        decoder.open(2, 30)
        decoder.prefill([other, text], 0)
        beginning = decoder.keep(1, 20)[:, :, :known]
        scores = [decoder.extend(beginning, text[known:], 0), decoder.step([5, other[-1]], [20, 29])[:1]]
    with torch.no_grad():
        expected = any_net(torch.tensor([[*text, 5]]))[0, -2:]
    torch.testing.assert_close(torch.cat(scores), expected, rtol=1e-5, atol=1e-5)


def test_a_long_prompt_is_read_in_blocks(net: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = random_texts(net, [50])
    decoder = FusedDecoder(net, "fp32", invariant=False)
    monkeypatch.setattr("rung.generation.decoding._BLOCK", 16)
    with torch.inference_mode():
        decoder.open(2, 50)
        scores = decoder.prefill([text, text[:33]], 0)
    with torch.no_grad():
        expected = net(torch.tensor([text]))[0, [49, 32]]
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
