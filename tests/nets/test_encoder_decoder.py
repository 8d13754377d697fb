"""Encoder-decoders: the Transformer against transformers' Marian, both kinds against themselves."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from rung.errors import GenerationError, RunFolderError
from rung.nets.dropout import dropout
from rung.nets.encoder_decoder import EncoderDecoder, EncoderDecoderConfig, position_table
from rung.nets.encoder_decoder_folder import load_encoder_decoder, save_encoder_decoder
from rung.nets.recurrent_encoder_decoder import RecurrentEncoderDecoder, RecurrentEncoderDecoderConfig

PAD, END = 1, 2
TRANSFORMER = EncoderDecoderConfig(
    vocab_size=61,
    d_model=24,
    encoder_layers=2,
    decoder_layers=3,
    encoder_attention_heads=4,
    decoder_attention_heads=2,
    encoder_ffn_dim=40,
    decoder_ffn_dim=28,
    max_position_embeddings=32,
    pad_token_id=PAD,
    eos_token_id=END,
    decoder_start_token_id=PAD,
)
LSTM = RecurrentEncoderDecoderConfig(
    vocab_size=61,
    embedding_size=16,
    hidden_size=24,
    num_hidden_layers=2,
    max_position_embeddings=32,
    pad_token_id=PAD,
    eos_token_id=END,
    decoder_start_token_id=PAD,
)
LSTMS = {
    "general": LSTM,
    "general-fed": dataclasses.replace(LSTM, input_feeding=True),
    "additive": dataclasses.replace(LSTM, attention="additive", num_hidden_layers=1),
    "additive-fed": dataclasses.replace(LSTM, attention="additive", input_feeding=True),
}
Net = EncoderDecoder | RecurrentEncoderDecoder


def randomised(net: Net) -> Net:
    """Every parameter random, so that no zero and no one hides a difference."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator) + ("norm.weight" in name))
    return net.eval()


def build(name: str) -> Net:
    return EncoderDecoder(TRANSFORMER) if name == "transformer" else RecurrentEncoderDecoder(LSTMS[name])


@pytest.fixture(params=["transformer", *LSTMS])
def net(request: pytest.FixtureRequest) -> Net:
    return randomised(build(request.param))


def batch(rows: int = 3, source: int = 9, target: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sources with padding, target inputs, and the sources' mask."""
    generator = torch.Generator().manual_seed(5)
    sources = torch.randint(3, 61, (rows, source), generator=generator)
    targets = torch.randint(3, 61, (rows, target), generator=generator)
    targets[:, 0] = PAD
    mask = torch.ones(rows, source, dtype=torch.int64)
    mask[1, 5:] = 0
    return sources.masked_fill(mask == 0, PAD), targets, mask


def opened_there(folder: Path) -> transformers.MarianMTModel:
    theirs, report = transformers.MarianMTModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return theirs.eval()


@pytest.mark.parametrize(
    "changes",
    [{}, {"activation_function": "swish", "scale_embedding": False}, {"activation_function": "gelu"}],
    ids=str,
)
def test_marian_opens_our_folder_with_equal_logits_and_gradients(changes: dict[str, object], tmp_path: Path) -> None:
    ours = randomised(EncoderDecoder(dataclasses.replace(TRANSFORMER, **changes)))
    save_encoder_decoder(ours, tmp_path)
    theirs = opened_there(tmp_path)
    sources, targets, mask = batch()
    expected = theirs(input_ids=sources, attention_mask=mask, decoder_input_ids=targets).logits
    logits = ours(sources, targets, mask)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    labels = targets.roll(-1, 1).flatten()
    F.cross_entropy(logits.flatten(0, 1), labels).backward()
    F.cross_entropy(expected.flatten(0, 1), labels).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    gradients["model.shared.weight"][PAD] = ours.lm_head.weight.grad[PAD]  # Marian freezes the padding's embedding
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-4, atol=1e-5)


def test_we_open_marians_folder_with_equal_logits(tmp_path: Path) -> None:
    theirs = transformers.MarianMTModel(transformers.MarianConfig(**TRANSFORMER.to_hf())).eval()
    theirs.final_logits_bias.normal_(generator=torch.Generator().manual_seed(0))
    theirs.save_pretrained(tmp_path)
    ours = load_encoder_decoder(tmp_path).eval()
    sources, targets, mask = batch()
    with torch.no_grad():
        expected = theirs(input_ids=sources, attention_mask=mask, decoder_input_ids=targets).logits
        torch.testing.assert_close(ours(sources, targets, mask), expected, rtol=1e-4, atol=1e-4)


def test_a_folder_as_helsinki_writes_them_is_read(tmp_path: Path) -> None:
    """Keys of the published OPUS-MT folders, and the copies of the embeddings that older versions stored."""
    net = randomised(EncoderDecoder(TRANSFORMER))
    save_encoder_decoder(net, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    config |= {
        "add_bias_logits": False,
        "classif_dropout": 0.0,
        "num_beams": 6,
        "num_hidden_layers": 6,
        "max_length": 512,
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    sources, targets, mask = batch()
    assert torch.equal(load_encoder_decoder(tmp_path).eval()(sources, targets, mask), net(sources, targets, mask))


def test_positions_are_marians() -> None:
    config = transformers.MarianConfig(**TRANSFORMER.to_hf())
    theirs = transformers.MarianMTModel(config).model.encoder.embed_positions.weight
    torch.testing.assert_close(position_table(32, 24), theirs, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_stored_positions_are_left_behind_where_they_are_the_computed_ones(dtype: torch.dtype, tmp_path: Path) -> None:
    net = randomised(EncoderDecoder(TRANSFORMER))
    save_encoder_decoder(net, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    positions = position_table(TRANSFORMER.max_position_embeddings, TRANSFORMER.d_model).to(dtype)
    tensors |= {f"model.{side}.embed_positions.weight": positions.clone() for side in ("encoder", "decoder")}
    save_file(tensors, tmp_path / "model.safetensors")
    sources, targets, mask = batch()
    assert torch.equal(load_encoder_decoder(tmp_path).eval()(sources, targets, mask), net(sources, targets, mask))
    tensors["model.decoder.embed_positions.weight"] = positions.flip(0)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(RunFolderError, match=r"decoder\.embed_positions\.weight does not hold the sines"):
        load_encoder_decoder(tmp_path)


def test_storing_changes_nothing(net: Net, tmp_path: Path) -> None:
    save_encoder_decoder(net, tmp_path)
    sources, targets, mask = batch()
    again = load_encoder_decoder(tmp_path).eval()
    assert again.config == net.config
    assert torch.equal(again(sources, targets, mask), net(sources, targets, mask))


def test_equal_seeds_draw_equal_networks() -> None:
    first, second = (EncoderDecoder(TRANSFORMER, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not first.lm_head.weight[PAD].any()
    assert first.lm_head.weight.std().item() == pytest.approx(24**-0.5, rel=0.1)
    bound = (6 / (24 + 40)) ** 0.5
    largest = first.state_dict()["model.encoder.layers.0.fc1.weight"].abs().max().item()
    assert 0.95 * bound < largest <= bound


@given(pads=st.integers(1, 6))
def test_padding_changes_nothing(pads: int) -> None:
    sources, targets, _ = batch(rows=2)
    for name in ("transformer", *LSTMS):
        net = randomised(build(name))
        padded = F.pad(sources, (0, pads), value=PAD)
        mask = F.pad(torch.ones_like(sources), (0, pads))
        with torch.no_grad():
            expected = net(sources, targets)
            torch.testing.assert_close(net(padded, F.pad(targets, (0, pads)), mask)[:, : targets.shape[1]], expected)


def test_no_target_sees_what_comes_later(net: Net) -> None:
    sources, targets, mask = batch()
    changed = targets.clone()
    changed[:, 4:] = 50
    with torch.no_grad():
        before, after = net(sources, targets, mask), net(sources, changed, mask)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("name", LSTMS)
def test_a_state_continues_a_target(name: str) -> None:
    net = randomised(build(name))
    sources, targets, mask = batch()
    memory, state, parts = net.encode(sources, mask), None, []
    for piece in targets.split([1, 3, 1, 2], dim=1):
        hidden, state = net.decode(piece, memory, mask, state)
        parts.append(hidden)
    torch.testing.assert_close(torch.cat(parts, dim=1), net.decode(targets, memory, mask).hidden)


def test_attention_of_both_kinds_looks_at_real_tokens_only(net: Net) -> None:
    sources, targets, mask = batch()
    seen = net.attention(sources, targets, mask)
    assert seen.shape[-2:] == (targets.shape[1], sources.shape[1])
    torch.testing.assert_close(seen.sum(-1), torch.ones(seen.shape[:-1]))
    row = seen[:, 1] if seen.dim() == 5 else seen[1]
    assert not row[..., 5:].any()
    assert row[..., :5].min() > 0


def test_attention_weights_are_marians(tmp_path: Path) -> None:
    net = randomised(EncoderDecoder(TRANSFORMER))
    save_encoder_decoder(net, tmp_path)
    theirs = transformers.MarianMTModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    sources, targets, mask = batch()
    given_out = theirs(input_ids=sources, attention_mask=mask, decoder_input_ids=targets, output_attentions=True)
    torch.testing.assert_close(net.attention(sources, targets, mask), torch.stack(given_out.cross_attentions))


def test_the_lstms_attention_is_what_it_mixes_with() -> None:
    """The attentional vector rebuilt by hand from the weights: Luong et al. 2015, equations 5 and 7."""
    net = randomised(RecurrentEncoderDecoder(LSTM))
    sources, targets, mask = batch()
    memory = net.encode(sources, mask)
    _, first = net.begin(memory, mask)
    written, _ = net.decoder(net.encoder.embed(targets), (first.hidden, first.cell))
    scores = (written @ net.attend.key.weight) @ memory.mT
    weights = scores.masked_fill(mask[:, None] == 0, -torch.inf).softmax(-1)
    torch.testing.assert_close(net.attention(sources, targets, mask), weights)
    vectors = torch.tanh(torch.cat((weights @ memory, written), dim=-1) @ net.combine.weight.T)
    torch.testing.assert_close(net.decode(targets, memory, mask).hidden, vectors)


@pytest.mark.parametrize("name", ["transformer", *LSTMS])
def test_a_batch_is_learned_by_heart(name: str) -> None:
    torch.manual_seed(0)
    net = build(name).train()
    sources, targets, mask = batch(rows=6)
    labels = torch.cat((targets[:, 1:], torch.full((6, 1), END)), dim=1)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(120):
        loss = F.cross_entropy(net(sources, targets, mask).flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.parameters())
    assert bool((net.eval()(sources, targets, mask).argmax(-1) == labels).all()), float(loss)


def test_too_long_texts_are_refused(net: Net) -> None:
    long, short = torch.full((1, 33), 5), torch.full((1, 4), 5)
    with pytest.raises(GenerationError, match="33 tokens do not fit this network's 32 positions"):
        net.encode(long)
    with pytest.raises(GenerationError, match="33 tokens"):
        net(short, long)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings = False is not supported"),
        ({"normalize_before": True}, "normalize_before"),
        ({"decoder_vocab_size": 60}, "decoder_vocab_size 60 differs from vocab_size 61"),
        ({"encoder_attention_heads": 5}, "d_model 24 is not a multiple of encoder_attention_heads 5"),
        ({"activation_function": "tanh"}, "activation_function 'tanh' is not supported"),
        ({"pad_token_id": 61}, "pad_token_id 61 is not among the 61 tokens"),
        ({"new_feature": 3}, "does not implement: new_feature"),
        ({"model_type": "pegasus"}, "model_type 'pegasus' is not supported"),
        ({"d_model": None}, "d_model must be a whole number"),
    ],
)
def test_a_config_that_cannot_be_honoured_is_refused(changes: dict[str, object], said: str, tmp_path: Path) -> None:
    save_encoder_decoder(EncoderDecoder(TRANSFORMER), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    with pytest.raises(RunFolderError, match=said) as refused:
        load_encoder_decoder(tmp_path)
    assert refused.value.where == str(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attention": "dot"}, "attention must be 'general' or 'additive'"),
        ({"hidden_size": 25}, "hidden_size must be even"),
        ({"input_feeding": 1}, "input_feeding must be true or false"),
        ({"cells": "gru"}, "does not implement: cells"),
    ],
)
def test_an_lstm_that_cannot_be_built_is_refused(changes: dict[str, object], said: str, tmp_path: Path) -> None:
    save_encoder_decoder(RecurrentEncoderDecoder(LSTM), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    with pytest.raises(RunFolderError, match=said):
        load_encoder_decoder(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    save_encoder_decoder(EncoderDecoder(TRANSFORMER), tmp_path)
    path = tmp_path / "config.json"
    changed = json.loads(path.read_text(encoding="utf-8")) | {"encoder_ffn_dim": 44}
    path.write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(RunFolderError, match="asks for"):
        load_encoder_decoder(tmp_path)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_expectation_and_its_own_share(probability: float) -> None:
    torch.manual_seed(1)
    x = torch.ones(400_001, requires_grad=True)
    dropped = dropout(x, probability, training=True)
    kept = dropped != 0
    assert float(kept.float().mean()) == pytest.approx(1 - probability, abs=0.003)
    assert float(dropped.detach()[kept][0]) == pytest.approx(1 / (1 - probability), rel=1e-4)
    # Elements that share one random number are dropped independently.
    pairs = kept[:-1].view(-1, 4).float()
    assert float(torch.corrcoef(pairs.T).triu(1).abs().max()) < 0.02
    dropped.sum().backward()
    assert torch.equal(x.grad != 0, kept)


def test_dropout_is_drawn_from_torchs_generator() -> None:
    x = torch.ones(7, 9)
    torch.manual_seed(2)
    first, second = dropout(x, 0.5, training=True), dropout(x, 0.5, training=True)
    torch.manual_seed(2)
    assert torch.equal(dropout(x, 0.5, training=True), first)
    assert not torch.equal(first, second)
    assert dropout(x, 0.5, training=False) is x
