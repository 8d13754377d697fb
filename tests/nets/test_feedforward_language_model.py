"""The feed-forward language model equals Bengio's equations place by place, and carries its last tokens on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.nets.feedforward_language_model import FeedForwardLMConfig
from rung.nets.language_models import draw_language_model, load_language_model, save_language_model

EOS = 0
CONFIG = FeedForwardLMConfig(40, 6, 20, 4, EOS)
VARIANTS = {
    "tied": CONFIG,
    "tied, direct": dataclasses.replace(CONFIG, direct_connections=True),
    "untied": dataclasses.replace(CONFIG, tie_word_embeddings=False),
    "paper": dataclasses.replace(CONFIG, tie_word_embeddings=False, direct_connections=True),
    "bigrams": dataclasses.replace(CONFIG, max_position_embeddings=1),
}


def by_hand(name: str, tokens: list[int], p: dict[str, torch.Tensor]) -> torch.Tensor:
    """Scores after the last of `tokens`, b + W x + U tanh(d + H x) (Bengio et al. 2003, equation 1)."""
    config = VARIANTS[name]
    document = tokens[max(place for place, token in enumerate([EOS, *tokens]) if token == EOS) :]
    seen = [*[EOS] * config.max_position_embeddings, *document][-config.max_position_embeddings :]
    x = torch.cat([p["model.embed_tokens.weight"][token] for token in seen])
    hidden = torch.tanh(p["model.hidden.bias"] + p["model.hidden.weight"] @ x)
    if config.tie_word_embeddings:
        features = p["model.projection.weight"] @ hidden
        if config.direct_connections:
            features = features + p["model.direct.weight"] @ x
        return p["model.embed_tokens.weight"] @ features
    size = config.hidden_size
    u, b, w = p["lm_head.weight"].split([size, 1, config.output_size - size - 1], 1)
    scores = b[:, 0] + u @ hidden
    return scores + w @ x if config.direct_connections else scores


@pytest.mark.parametrize("name", VARIANTS)
@given(seed=st.integers(0, 1000), ends=st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_equals_the_paper_place_by_place(name: str, seed: int, ends: int) -> None:
    net = draw_language_model(VARIANTS[name], seed=1).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)), alpha=0.1)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 40, (2, 11), generator=generator)
    tokens.view(-1)[torch.randperm(22, generator=generator)[:ends]] = EOS
    found = net.lm_head(net.model.read(tokens, net.model.begin(2)).hidden)
    stored = dict(net.named_parameters())
    for row in range(2):
        for place in range(11):
            torch.testing.assert_close(found[row, place], by_hand(name, tokens[row, : place + 1].tolist(), stored))


@pytest.mark.parametrize("name", VARIANTS)
@given(cuts=st.lists(st.integers(1, 4), min_size=1, max_size=6), ends=st.integers(0, 4))
@settings(max_examples=15, deadline=None)
def test_windows_of_any_size_read_a_text_as_one(name: str, cuts: list[int], ends: int) -> None:
    """Also windows shorter than what the network looks at."""
    net = draw_language_model(VARIANTS[name], seed=2).eval()
    generator = torch.Generator().manual_seed(ends)
    tokens = torch.randint(1, 40, (2, sum(cuts)), generator=generator)
    tokens.view(-1)[torch.randperm(tokens.numel(), generator=generator)[:ends]] = EOS
    state, parts = net.model.begin(2), []
    for piece in tokens.split(cuts, 1):
        hidden, state = net.model.read(piece, state)
        parts.append(hidden)
    torch.testing.assert_close(torch.cat(parts, 1), net.model.read(tokens, net.model.begin(2)).hidden)


def test_without_an_end_of_text_the_two_ways_to_read_agree() -> None:
    net = draw_language_model(CONFIG, seed=3).eval()
    tokens = torch.randint(1, 40, (3, 9))
    torch.testing.assert_close(net(tokens), net.lm_head(net.model.read(tokens, net.model.begin(3)).hidden))
    padded = torch.cat((tokens, torch.zeros(3, 4, dtype=torch.int64)), 1)
    torch.testing.assert_close(net(padded)[:, :9], net(tokens))


def test_gradients_reach_every_parameter() -> None:
    for config in VARIANTS.values():
        net = draw_language_model(config, seed=4)
        net(torch.randint(1, 40, (4, 9))).logsumexp(-1).sum().backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("name", VARIANTS)
def test_saved_and_loaded_it_is_the_same(name: str, tmp_path: Path) -> None:
    net = draw_language_model(VARIANTS[name], seed=5).eval()
    assert net.config.num_parameters == sum(p.numel() for p in net.parameters())
    save_language_model(net, tmp_path)
    again = load_language_model(tmp_path).eval()
    assert again.config == net.config
    tokens = torch.randint(0, 40, (2, 9))
    assert torch.equal(net(tokens), again(tokens))
