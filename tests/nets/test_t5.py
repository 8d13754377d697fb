"""T5, versions 1.0 and 1.1, and mT5: folders both ways with equal scores, and what cannot be honoured refused."""

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
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers.models.t5.modeling_t5 import T5Attention

from rung.errors import GenerationError, RunFolderError
from rung.nets.encoder_decoder_folder import load_encoder_decoder, save_encoder_decoder
from rung.nets.t5 import T5, position_buckets
from rung.nets.t5_config import T5Config

SHAPE: dict[str, Any] = {
    "vocab_size": 61,
    "d_model": 16,
    "d_kv": 5,  # heads x d_kv is not d_model
    "d_ff": 28,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 3,
    "decoder_start_token_id": 0,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
FAMILIES = ("1.0", "1.1", "1.1, one matrix", "mT5", "gated-silu")
Make = Callable[[str], Path]


def theirs(name: str) -> transformers.PreTrainedModel:
    """A network of a family with random weights, none of them zero or one."""
    changes = {"1.0": {}, "mT5": {}, "gated-silu": {"feed_forward_proj": "gated-silu"}}.get(name, GATED)
    if name == "mT5":
        net = transformers.MT5ForConditionalGeneration(transformers.MT5Config(**SHAPE))
    else:
        net = transformers.T5ForConditionalGeneration(transformers.T5Config(**SHAPE, **changes))
    if name in ("1.1", "mT5"):  # transformers 5 ties what it draws, and leaves apart what it reads as different
        net.lm_head.weight = torch.nn.Parameter(torch.empty(61, 16))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, p in net.named_parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator) + ("norm" in key))
    return net.eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """The folder that transformers writes of each family."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("t5")
            net = theirs(name)
            net.config.tie_word_embeddings = net.lm_head.weight is net.shared.weight
            net.save_pretrained(made[name])
        return made[name]

    return folder


def batch(source: int = 33, target: int = 30) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sources with padding, target inputs, and the sources' mask; longer than the furthest distance with a bucket."""
    generator = torch.Generator().manual_seed(5)
    sources = torch.randint(3, 61, (3, source), generator=generator)
    targets = torch.randint(3, 61, (3, target), generator=generator)
    targets[:, 0] = 0
    mask = torch.ones(3, source, dtype=torch.int64)
    mask[1, 20:] = 0
    return sources.masked_fill(mask == 0, 0), targets, mask


def opened(folder: Path) -> T5:
    net = load_encoder_decoder(folder)
    assert isinstance(net, T5)
    return net.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_scores_and_gradients_are_those_of_transformers(name: str, folders: Make) -> None:
    other, ours = theirs(name), opened(folders(name))
    assert ours.config.tie_word_embeddings == (name not in ("1.1", "mT5"))
    sources, targets, mask = batch()
    expected = other(input_ids=sources, attention_mask=mask, decoder_input_ids=targets).logits
    logits = ours(sources, targets, mask)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    labels = targets.roll(-1, 1).flatten()
    F.cross_entropy(logits.flatten(0, 1), labels).backward()
    F.cross_entropy(expected.flatten(0, 1), labels).backward()
    gradients = {key: p.grad for key, p in other.named_parameters()}
    for key, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, gradients[key], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_opens_what_we_write(name: str, folders: Make, tmp_path: Path) -> None:
    ours = opened(folders(name))
    save_encoder_decoder(ours, tmp_path)
    kind = transformers.MT5ForConditionalGeneration if name == "mT5" else transformers.T5ForConditionalGeneration
    again, report = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    sources, targets, mask = batch()
    with torch.no_grad():
        logits = again.eval()(input_ids=sources, attention_mask=mask, decoder_input_ids=targets).logits
        torch.testing.assert_close(ours(sources, targets, mask), logits, rtol=1e-4, atol=1e-4)
    assert opened(tmp_path).config == ours.config


@settings(max_examples=60)
@given(
    distance=st.integers(-400, 400),
    both_sides=st.booleans(),
    buckets=st.sampled_from([8, 32]),
    furthest=st.sampled_from([20, 128]),
)
def test_distances_fall_into_the_buckets_of_transformers(
    distance: int, both_sides: bool, buckets: int, furthest: int
) -> None:
    distances = torch.tensor([distance])
    expected = T5Attention._relative_position_bucket(distances, both_sides, buckets, furthest)
    assert torch.equal(position_buckets(distances, both_sides=both_sides, buckets=buckets, furthest=furthest), expected)


@given(pads=st.integers(1, 6))
@settings(max_examples=5)
def test_padding_changes_nothing(pads: int, folders: Make) -> None:
    net = opened(folders("1.1"))
    sources, targets, _ = batch(source=9, target=7)
    padded = F.pad(sources, (0, pads))
    with torch.no_grad():
        whole = net(padded, F.pad(targets, (0, pads)), F.pad(torch.ones_like(sources), (0, pads)))
        torch.testing.assert_close(whole[:, : targets.shape[1]], net(sources, targets), rtol=1e-4, atol=1e-5)


def test_no_target_sees_what_comes_later(folders: Make) -> None:
    net = opened(folders("1.0"))
    sources, targets, mask = batch()
    changed = targets.clone()
    changed[:, 4:] = 50
    with torch.no_grad():
        before, after = net(sources, targets, mask), net(sources, changed, mask)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("name", ["1.0", "1.1"])
def test_a_batch_is_learned_by_heart(name: str, folders: Make) -> None:
    torch.manual_seed(0)
    net = opened(folders(name)).train()
    sources, targets, mask = batch(source=6, target=5)
    labels = targets.roll(-1, 1)
    optimizer = torch.optim.Adam(net.parameters(), 0.03)
    for _ in range(50):
        loss = F.cross_entropy(net(sources, targets, mask).flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.parameters())
    assert bool((net.eval()(sources, targets, mask).argmax(-1) == labels).all()), float(loss)


def test_dropout_acts_in_training_only(folders: Make) -> None:
    net = load_encoder_decoder(folders("1.0"), dropout=0.3)
    sources, targets, mask = batch()
    assert torch.equal(net.eval()(sources, targets, mask), opened(folders("1.0"))(sources, targets, mask))
    assert not torch.equal(net.train()(sources, targets, mask), net(sources, targets, mask))


def test_a_text_beyond_what_the_folder_allows_is_refused_with_the_way_out(folders: Make) -> None:
    ours = opened(folders("1.0"))
    ours.config = dataclasses.replace(ours.config, n_positions=8)
    with pytest.raises(GenerationError, match="9 tokens do not fit this network's 8 positions") as refused:
        ours.encode(torch.full((1, 9), 5))
    assert "n_positions" in str(refused.value.hint)


def rewritten(source: Path, folder: Path, config: dict[str, Any], tensors: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a folder with another configuration or other tensors."""
    stored = json.loads((source / "config.json").read_text(encoding="utf-8")) | config
    (folder / "config.json").write_text(json.dumps(stored), encoding="utf-8")
    weights = load_file(source / "model.safetensors")
    tensors(weights)
    save_file(weights, folder / "model.safetensors")
    return folder


def as_it_is(weights: dict[str, Any]) -> None:
    del weights


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"auto_map": {"AutoModel": "evil.py"}}, "asks to run Python code"),
        ({"model_type": "umt5"}, "'umt5' is not supported"),
        ({"model_type": "llama"}, "a network of type 'llama'"),
        ({"feed_forward_proj": "gated-tanh"}, "feed_forward_proj 'gated-tanh' is not supported"),
        ({"dense_act_fn": "silu"}, "dense_act_fn 'silu' does not go with 'relu'"),
        ({"d_kv": 0}, "d_kv must be a whole number of at least 1"),
        ({"num_heads": 3.0}, "num_heads must be a whole number"),
        ({"relative_attention_num_buckets": 7}, "must be even and at least 4"),
        ({"relative_attention_max_distance": 4}, "relative_attention_max_distance must be more than half"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon must be a number above 0"),
        ({"pad_token_id": 61}, "pad_token_id 61 is not among the 61 tokens"),
        ({"scale_decoder_outputs": "yes"}, "scale_decoder_outputs must be true or false"),
        ({"is_decoder": True}, "is_decoder = True is not supported"),
        ({"new_feature": 1}, "does not implement: new_feature"),
        ({"d_ff": 30}, "asks for"),
        ({"num_layers": 3}, "lacks? encoder.block.2"),
        ({"num_layers": 1}, "(has|have) unknown encoder.block.1"),
    ],
)
def test_a_config_that_cannot_be_honoured_is_refused(
    changes: dict[str, Any], said: str, folders: Make, tmp_path: Path
) -> None:
    with pytest.raises(RunFolderError, match=said):
        load_encoder_decoder(rewritten(folders("1.0"), tmp_path, changes, as_it_is))


def test_a_config_without_sizes_is_refused(folders: Make, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"lacks d_ff"):
        load_encoder_decoder(rewritten(folders("1.0"), tmp_path, {"d_ff": None}, as_it_is))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda w: w.pop("decoder.block.1.layer.2.DenseReluDense.wi.weight"),
            "lacks? decoder.block.1.layer.2",
        ),
        (lambda w: w.update(extra=torch.zeros(2)), "(has|have) unknown extra"),
        (lambda w: w.update({"shared.weight": torch.zeros(60, 16)}), "shared.weight has shape"),
        (lambda w: w.update({"shared.weight": torch.zeros(61, 16, dtype=torch.int64)}), "is I64"),
        (lambda w: w["shared.weight"].fill_(torch.nan), "not finite"),
        (
            lambda w: w.update({"encoder.embed_tokens.weight": torch.zeros(61, 16)}),
            "encoder.embed_tokens.weight differs from the shared embeddings",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    damage: Callable[[dict[str, Any]], None], said: str, folders: Make, tmp_path: Path
) -> None:
    with pytest.raises(RunFolderError, match=said):
        load_encoder_decoder(rewritten(folders("1.0"), tmp_path, {}, damage))


def test_copies_that_old_folders_store_are_read(folders: Make, tmp_path: Path) -> None:
    """The first published T5s hold their embeddings several times, and a table of distances that nobody looks at."""

    def copies(weights: dict[str, Any]) -> None:
        for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
            weights[name] = weights["shared.weight"].clone()
        weights["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.zeros(8, 3)

    old = {"n_positions": 512, "output_past": True, "task_specific_params": {}, "initializer_factor": 1.0}
    ours = opened(rewritten(folders("1.0"), tmp_path, old, copies))
    sources, targets, mask = batch()
    assert torch.equal(ours(sources, targets, mask), opened(folders("1.0"))(sources, targets, mask))


def test_bfloat16_weights_are_read_as_float32(folders: Make, tmp_path: Path) -> None:
    def halve(weights: dict[str, Any]) -> None:
        weights.update({name: tensor.bfloat16() for name, tensor in weights.items()})

    ours = opened(rewritten(folders("1.0"), tmp_path, {}, halve))
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    sources, targets, mask = batch()
    exact = opened(folders("1.0"))(sources, targets, mask)
    torch.testing.assert_close(ours(sources, targets, mask), exact, rtol=0.1, atol=0.1)


def test_the_defaults_of_a_config_are_those_of_transformers() -> None:
    stored = {
        "model_type": "mt5",
        "vocab_size": 61,
        "d_model": 16,
        "d_kv": 4,
        "d_ff": 8,
        "num_layers": 2,
        "num_heads": 3,
    }
    read = T5Config.from_hf(stored, own_output=True)
    assert (read.feed_forward_proj, read.scale_decoder_outputs, read.num_decoder_layers) == ("gated-gelu", False, 2)
    other = T5Config.from_hf(stored | {"model_type": "t5"}, own_output=False)
    assert (other.feed_forward_proj, other.scale_decoder_outputs) == ("relu", True)
