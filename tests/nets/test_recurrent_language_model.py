"""Recurrent language models equal torch's own layers and equations written down by hand, and carry their state on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rung.errors import RunFolderError
from rung.nets.language_models import draw_language_model, load_language_model, save_language_model
from rung.nets.recurrent_language_model import DropoutKind, RecurrentLM, RecurrentLMConfig
from rung.runfolder import write_json

EOS = 0
CELLS = ("rnn", "lstm", "gru")
CONFIG = RecurrentLMConfig("lstm", 40, 12, 20, 2, EOS)
VARIANTS = {
    **{cell: dataclasses.replace(CONFIG, cell=cell) for cell in CELLS},
    "untied": dataclasses.replace(CONFIG, tie_word_embeddings=False),
    "one size": dataclasses.replace(CONFIG, embedding_size=20, num_hidden_layers=3),
}


def some_tokens(rows: int, time: int, *, seed: int = 0, ends: int = 0) -> torch.Tensor:
    """Random tokens, `ends` of them end-of-text tokens."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, CONFIG.vocab_size, (rows, time), generator=generator)
    places = torch.randperm(rows * time, generator=generator)[:ends]
    return tokens.view(-1).index_fill(0, places, EOS).view(rows, time)


def scores(net: Any, tokens: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = net.lm_head(net.model.read(tokens, net.model.begin(len(tokens))).hidden)
    return result


@pytest.mark.parametrize("name", VARIANTS)
def test_equals_one_network_of_torch(name: str) -> None:
    config = VARIANTS[name]
    net = draw_language_model(config, seed=1).eval()
    kinds = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
    theirs = kinds[config.cell](config.embedding_size, config.hidden_size, config.num_hidden_layers, batch_first=True)
    stored = dict(net.named_parameters())
    with torch.no_grad():
        for layer in range(config.num_hidden_layers):
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(theirs, f"{kind}_l{layer}").copy_(stored[f"model.layers.{layer}.{kind}_l0"])
    tokens = some_tokens(3, 17)
    hidden = theirs(stored["model.embed_tokens.weight"][tokens])[0]
    if "model.projection.weight" in stored:
        hidden = hidden @ stored["model.projection.weight"].T + stored["model.projection.bias"]
    output = stored["model.embed_tokens.weight"] if config.tie_word_embeddings else stored["lm_head.weight"]
    torch.testing.assert_close(scores(net, tokens), hidden @ output.T)
    torch.testing.assert_close(net(tokens), hidden @ output.T)


def test_the_lstm_is_that_of_the_textbook() -> None:
    """i, f, o = sigmoid, g = tanh of W x + U h + b; c = f c + i g; h = o tanh(c) (Gers et al. 2000)."""
    config = dataclasses.replace(CONFIG, num_hidden_layers=1, embedding_size=20)
    net = draw_language_model(config, seed=2)
    p = {name.rpartition(".")[2]: value for name, value in net.named_parameters()}
    tokens = some_tokens(1, 9)
    h, c = torch.zeros(20), torch.zeros(20)
    for place, token in enumerate(tokens[0]):
        gates = p["weight_ih_l0"] @ p["weight"][token] + p["weight_hh_l0"] @ h + p["bias_ih_l0"] + p["bias_hh_l0"]
        i, f, g, o = gates.split(20)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        torch.testing.assert_close(scores(net, tokens)[0, place], p["weight"] @ h)


@pytest.mark.parametrize("name", VARIANTS)
@given(cut=st.integers(1, 12), ends=st.integers(0, 6), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_a_text_read_in_two_windows_is_read_as_in_one(name: str, cut: int, ends: int, seed: int) -> None:
    net = draw_language_model(VARIANTS[name], seed=3).eval()
    tokens = some_tokens(3, 13, seed=seed, ends=ends)
    first = net.model.read(tokens[:, :cut], net.model.begin(3))
    second = net.model.read(tokens[:, cut:], first.state)
    whole = net.model.read(tokens, net.model.begin(3))
    torch.testing.assert_close(torch.cat((first.hidden, second.hidden), 1), whole.hidden)
    torch.testing.assert_close(second.state, whole.state)
    assert not whole.state.requires_grad


@pytest.mark.parametrize("name", VARIANTS)
def test_a_document_knows_nothing_of_the_one_before(name: str) -> None:
    """What stands behind an end-of-text token is scored as if the text began with it; other rows do not notice."""
    net = draw_language_model(VARIANTS[name], seed=4).eval()
    tokens = some_tokens(3, 14)
    plain = scores(net, tokens)
    tokens[1, 6] = EOS
    found = scores(net, tokens)
    torch.testing.assert_close(found[1, 6:], scores(net, tokens[1:2, 6:])[0])
    torch.testing.assert_close(found[[0, 2]], plain[[0, 2]])
    torch.testing.assert_close(found[1, :6], plain[1, :6])


def test_padding_on_the_right_changes_nothing() -> None:
    net = draw_language_model(CONFIG, seed=5).eval()
    tokens = some_tokens(2, 10)
    padded = torch.cat((tokens, torch.full((2, 5), EOS)), 1)
    torch.testing.assert_close(net(padded)[:, :10], net(tokens))


@pytest.mark.parametrize(("kind", "same"), [("locked", True), ("ordinary", False)])
def test_locked_dropout_drops_the_same_features_all_through_a_window(kind: DropoutKind, same: bool) -> None:
    torch.manual_seed(0)
    net = RecurrentLM(CONFIG, dropout=0.5, dropout_kind=kind, generator=torch.Generator().manual_seed(0))
    heard: list[torch.Tensor] = []
    net.model.layers[0].register_forward_pre_hook(lambda _, given: heard.append(given[0].detach()))
    net.model.read(some_tokens(4, 30), net.model.begin(4))
    dropped = heard[0] == 0
    assert dropped.any()
    assert bool((dropped == dropped[:, :1]).all()) == same
    assert not (dropped == dropped[:1]).all()  # each row its own
    net.eval()
    assert torch.equal(net(some_tokens(4, 30)), net(some_tokens(4, 30)))


def test_the_first_weights_are_as_the_docstring_says() -> None:
    net = draw_language_model(CONFIG, seed=6)
    again = draw_language_model(CONFIG, seed=6)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    layer = net.model.layers[0]
    for gate in layer.weight_hh_l0.split(20):
        torch.testing.assert_close(gate @ gate.T, torch.eye(20))
    assert layer.bias_ih_l0.view(4, 20).sum(1).tolist() == [0, 20, 0, 0]  # input, forget, cell, output
    assert not layer.bias_hh_l0.any()


def test_overfits_one_batch() -> None:
    net = draw_language_model(CONFIG, seed=7)
    tokens = some_tokens(2, 21)
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < 0.05


@pytest.mark.parametrize("name", VARIANTS)
def test_saved_and_loaded_it_is_the_same(name: str, tmp_path: Path) -> None:
    net = draw_language_model(VARIANTS[name], seed=8).eval()
    save_language_model(net, tmp_path)
    again = load_language_model(tmp_path).eval()
    assert again.config == net.config
    assert torch.equal(net(some_tokens(2, 9)), again(some_tokens(2, 9)))


def test_bfloat16_comes_near_and_states_stay_float32() -> None:
    for name in CELLS:
        net = draw_language_model(VARIANTS[name], seed=9).eval()
        tokens = some_tokens(3, 20, ends=4)
        expected = scores(net, tokens)
        net.compute_dtype = torch.bfloat16
        states = net.model.read(tokens, net.model.begin(3))
        assert (states.hidden.dtype, states.state.dtype) == (torch.bfloat16, torch.float32)
        torch.testing.assert_close(net.lm_head(states.hidden).float(), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 0}, "hidden_size"),
        ({"hidden_size": "20"}, "hidden_size"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ({"hiden_size": 20}, "hiden_size.*hidden_size"),
        ({"model_type": "rung-lm-qrnn"}, "rung-lm-qrnn"),
        ({"vocab_size": 41}, "embed_tokens"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    net = draw_language_model(CONFIG, seed=0)
    save_language_model(net, tmp_path)
    write_json(tmp_path / "config.json", CONFIG.to_json() | change)
    with pytest.raises(RunFolderError, match=message):
        load_language_model(tmp_path)


def test_parameters_are_counted_as_torch_counts_them() -> None:
    for config in VARIANTS.values():
        net = draw_language_model(config, seed=0)
        assert config.num_parameters == sum(p.numel() for p in net.parameters())
