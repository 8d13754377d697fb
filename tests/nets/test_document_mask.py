"""Several documents in a row of a batch: each is read as if it stood alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.errors import GenerationError
from rung.nets.decoder import CausalLM, DecoderConfig, KeyValueCache

CONFIG = DecoderConfig(
    vocab_size=53,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=48,
)


def random_net() -> CausalLM:
    generator = torch.Generator().manual_seed(1)
    net = CausalLM(CONFIG)
    for p in net.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=generator) + (p.ndim == 1)
    return net.eval()


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, CONFIG.vocab_size, shape, generator=torch.Generator().manual_seed(2))


def packed(lengths: list[int], padding: int) -> torch.Tensor:
    numbers = [number for number, length in enumerate(lengths, start=1) for _ in range(length)]
    return torch.tensor([numbers + [0] * padding])


@torch.no_grad()
@settings(deadline=None, max_examples=25)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), padding=st.integers(0, 4))
def test_packed_documents_give_the_logits_of_each_alone(lengths: list[int], padding: int) -> None:
    net = random_net()
    input_ids = tokens(1, sum(lengths) + padding)
    together = net(input_ids, packed(lengths, padding))
    alone = [net(document) for document in input_ids[:, : sum(lengths)].split(lengths, dim=1)]
    torch.testing.assert_close(together[:, : sum(lengths)], torch.cat(alone, dim=1), rtol=1e-5, atol=1e-5)


def test_no_token_of_a_document_is_seen_or_trained_through_another() -> None:
    net, mask = random_net(), packed([7, 8, 5], 2)
    input_ids = tokens(1, 22)
    embedded = net.model.embed(input_ids).detach().requires_grad_()
    hidden = net.model(embedded, mask).hidden
    hidden[:, 7:15].square().sum().backward()
    reached = embedded.grad[0].abs().sum(-1) > 0
    assert reached.tolist() == [False] * 7 + [True] * 8 + [False] * 7
    changed = input_ids.clone()
    changed[0, 3] = (changed[0, 3] + 1) % CONFIG.vocab_size
    with torch.no_grad():
        before, after = net(input_ids, mask), net(changed, mask)
    assert torch.equal(before[:, 7:], after[:, 7:])
    assert not torch.equal(before[:, 3:7], after[:, 3:7])


def test_one_document_a_row_is_the_ordinary_mask() -> None:
    net, input_ids = random_net(), tokens(2, 9)
    ones = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0, 0, 0]])
    with torch.no_grad():
        assert torch.equal(net(input_ids, ones * 3), net(input_ids, ones))
        assert torch.equal(net(input_ids, ones.bool()), net(input_ids, ones))


def test_a_cache_refuses_document_numbers() -> None:
    with pytest.raises(GenerationError, match="one document a row"):
        random_net()(tokens(1, 5), packed([2, 3], 0), KeyValueCache(CONFIG, 1, capacity=8))
