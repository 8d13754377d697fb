"""BART: folders both ways with equal scores, also as its body alone is published, and what cannot be honoured."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file

from rung.errors import GenerationError, RunFolderError
from rung.nets.bart import BartConfig
from rung.nets.encoder_decoder import EncoderDecoder
from rung.nets.encoder_decoder_folder import load_encoder_decoder, save_encoder_decoder

SHAPE = BartConfig(
    vocab_size=61,
    d_model=24,
    encoder_layers=2,
    decoder_layers=3,
    encoder_attention_heads=4,
    decoder_attention_heads=2,
    encoder_ffn_dim=40,
    decoder_ffn_dim=28,
    max_position_embeddings=20,
    pad_token_id=1,
    eos_token_id=2,
    decoder_start_token_id=2,
)


def randomised(changes: dict[str, Any] | None = None) -> EncoderDecoder:
    """A network whose every parameter is random, so that no zero and no one hides a difference."""
    net = EncoderDecoder(dataclasses.replace(SHAPE, **changes or {}))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator) + ("norm" in name and name.endswith("weight")))
    return net.eval()


def batch(rows: int = 3, source: int = 20, target: int = 17) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    sources = torch.randint(3, 61, (rows, source), generator=generator)
    targets = torch.randint(3, 61, (rows, target), generator=generator)
    targets[:, 0] = 2
    mask = torch.ones(rows, source, dtype=torch.int64)
    mask[1, 5:] = 0
    return sources.masked_fill(mask == 0, 1), targets, mask


def opened(folder: Path) -> EncoderDecoder:
    net = load_encoder_decoder(folder)
    assert isinstance(net, EncoderDecoder)
    return net.eval()


@pytest.mark.parametrize("changes", [{}, {"scale_embedding": True, "activation_function": "relu"}], ids=str)
def test_transformers_opens_our_folder_with_equal_scores_and_gradients(changes: dict[str, Any], tmp_path: Path) -> None:
    ours = randomised(changes)
    save_encoder_decoder(ours, tmp_path)
    theirs, report = transformers.BartForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    sources, targets, mask = batch()
    expected = theirs.eval()(input_ids=sources, attention_mask=mask, decoder_input_ids=targets).logits
    logits = ours(sources, targets, mask)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    labels = targets.roll(-1, 1).flatten()
    F.cross_entropy(logits.flatten(0, 1), labels).backward()
    F.cross_entropy(expected.flatten(0, 1), labels).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    gradients["model.shared.weight"][1] = ours.lm_head.weight.grad[1]  # there, the padding's embedding is frozen
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-3, atol=1e-5)


def test_we_open_the_folder_of_transformers_with_equal_scores(tmp_path: Path) -> None:
    config = transformers.BartConfig(**dataclasses.asdict(SHAPE))
    theirs = transformers.BartForConditionalGeneration(config).eval()
    theirs.final_logits_bias.normal_(generator=torch.Generator().manual_seed(0))
    theirs.save_pretrained(tmp_path)
    sources, targets, mask = batch()
    with torch.no_grad():
        expected = theirs(input_ids=sources, attention_mask=mask, decoder_input_ids=targets).logits
        torch.testing.assert_close(opened(tmp_path)(sources, targets, mask), expected, rtol=1e-4, atol=1e-4)


def test_a_folder_of_the_body_alone_is_read(tmp_path: Path) -> None:
    """BART's base is published as a `BartModel`: names without a prefix, no bias, copies of the embeddings."""
    body = transformers.BartModel(transformers.BartConfig(**dataclasses.asdict(SHAPE))).eval()
    body.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    save_file(weights | {"encoder.embed_tokens.weight": weights["shared.weight"].clone()}, path)
    theirs = transformers.BartForConditionalGeneration.from_pretrained(tmp_path).eval()
    sources, targets, mask = batch()
    with torch.no_grad():
        expected = theirs(input_ids=sources, attention_mask=mask, decoder_input_ids=targets).logits
        torch.testing.assert_close(opened(tmp_path)(sources, targets, mask), expected, rtol=1e-4, atol=1e-4)


def test_keys_of_published_folders_change_nothing(tmp_path: Path) -> None:
    net = randomised()
    save_encoder_decoder(net, tmp_path)
    published = {
        "add_bias_logits": False,
        "early_stopping": True,
        "extra_pos_embeddings": 2,
        "force_bos_token_to_be_generated": True,
        "id2label": {"0": "LABEL_0"},
        "length_penalty": 2.0,
        "no_repeat_ngram_size": 3,
        "normalize_embedding": True,
        "output_past": True,
        "prefix": " ",
        "static_position_embeddings": False,
        "task_specific_params": {"summarization": {"num_beams": 4}},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | published), encoding="utf-8")
    sources, targets, mask = batch()
    assert torch.equal(opened(tmp_path)(sources, targets, mask), net(sources, targets, mask))


def test_storing_changes_nothing(tmp_path: Path) -> None:
    net = randomised()
    net.lm_head.bias = torch.randn(61, generator=torch.Generator().manual_seed(1))
    save_encoder_decoder(net, tmp_path)
    sources, targets, mask = batch()
    assert opened(tmp_path).config == net.config
    assert torch.equal(opened(tmp_path)(sources, targets, mask), net(sources, targets, mask))


def test_padding_changes_nothing_and_positions_are_used() -> None:
    net = randomised()
    sources, targets, _ = batch(rows=2, source=9, target=7)
    with torch.no_grad():
        alone = net(sources, targets)
        padded = net(F.pad(sources, (0, 4), value=1), targets, F.pad(torch.ones_like(sources), (0, 4)))
        torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(net(sources.flip(1), targets), alone)


def test_a_batch_is_learned_by_heart() -> None:
    torch.manual_seed(0)
    net = EncoderDecoder(SHAPE).train()
    sources, targets, mask = batch(source=5, target=4)
    labels = targets.roll(-1, 1)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(40):
        loss = F.cross_entropy(net(sources, targets, mask).flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.parameters())
    assert bool((net.eval()(sources, targets, mask).argmax(-1) == labels).all()), float(loss)


def test_a_text_beyond_its_positions_is_refused() -> None:
    with pytest.raises(GenerationError, match="21 tokens do not fit this network's 20 positions"):
        randomised().encode(torch.full((1, 21), 5))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"auto_map": {"AutoModel": "evil.py"}}, "asks to run Python code"),
        ({"model_type": "mbart"}, "model_type 'mbart' is not supported"),
        ({"normalize_embedding": False}, "normalize_embedding = False is not supported"),
        ({"static_position_embeddings": True}, "static_position_embeddings"),
        ({"normalize_before": True}, "normalize_before"),
        ({"encoder_attention_heads": 5}, "d_model 24 is not a multiple of encoder_attention_heads 5"),
        ({"max_position_embeddings": 21}, "embed_positions.weight has shape"),
        ({"max_position_embeddings": "20"}, "max_position_embeddings must be a whole number"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings = False is not supported"),
        ({"new_feature": 1}, "does not implement: new_feature"),
    ],
)
def test_a_config_that_cannot_be_honoured_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    save_encoder_decoder(randomised(), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    with pytest.raises(RunFolderError, match=said):
        load_encoder_decoder(tmp_path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda w: w.pop("model.decoder.layernorm_embedding.bias"), "lacks? model.decoder.layernorm_embedding.bias"),
        (lambda w: w.update(extra=torch.zeros(2)), "(has|have) unknown extra"),
        (lambda w: w.update({"final_logits_bias": torch.zeros(1, 60)}), "final_logits_bias has shape"),
        (lambda w: w.update({"lm_head.weight": torch.zeros(61, 24)}), "lm_head.weight differs from the shared"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    damage: Callable[[dict[str, Any]], None], said: str, tmp_path: Path
) -> None:
    save_encoder_decoder(randomised(), tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    damage(weights)
    save_file(weights, path)
    with pytest.raises(RunFolderError, match=said):
        load_encoder_decoder(tmp_path)
