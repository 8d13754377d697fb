"""New tokens: rows that begin as an average token's, and a network that says the same about all others."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rung.nets.decoder import CausalLM, DecoderConfig
from rung.nets.gpt2 import GPT2LM, GPT2Config
from rung.nets.vocabulary_growth import grow_vocabulary

DECODER = DecoderConfig(100, 16, 24, 1, 2, 1, 8, 32)
GPT2 = GPT2Config(100, 16, 24, 1, 2, 32)
NETS = {
    "tied": DECODER,
    "untied": dataclasses.replace(DECODER, tie_word_embeddings=False),
    "gpt2": GPT2,
    "gpt2-untied": dataclasses.replace(GPT2, tie_word_embeddings=False),
}


def drawn(config: DecoderConfig | GPT2Config) -> CausalLM | GPT2LM:
    generator = torch.Generator().manual_seed(0)
    if isinstance(config, GPT2Config):
        return GPT2LM(config, dropout=0.25, generator=generator)
    return CausalLM(config, dropout=0.25, generator=generator)


@pytest.mark.parametrize("config", NETS.values(), ids=NETS.keys())
@pytest.mark.parametrize(("known", "wanted", "rows"), [(90, 97, 100), (100, 101, 128), (90, 130, 192)])
def test_known_tokens_keep_their_scores_and_new_ones_are_average(
    config: DecoderConfig | GPT2Config, known: int, wanted: int, rows: int
) -> None:
    net = drawn(config)
    grown = grow_vocabulary(net, known=known, wanted=wanted)
    assert grown.config == dataclasses.replace(net.config, vocab_size=rows)
    assert (grown.lm_head.weight is grown.model.embed_tokens.weight) == config.tie_word_embeddings
    ids = torch.randint(known, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before, after = net.eval()(ids), grown.eval()(ids)
    torch.testing.assert_close(after[..., :known], before[..., :known])
    average = before[..., :known].mean(-1, keepdim=True)
    torch.testing.assert_close(after[..., known:wanted], average.expand(2, 9, wanted - known))


def test_a_grown_network_drops_as_much_as_before() -> None:
    grown = grow_vocabulary(drawn(DECODER), known=100, wanted=101)
    assert grown.model.dropout == 0.25


def test_nothing_is_made_where_nothing_is_new() -> None:
    net = drawn(DECODER)
    assert grow_vocabulary(net, known=100, wanted=100) is net
