"""Bits per byte: equal to the same computation with transformers, from the folder alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rung.data.shards import TokenShards
from rung.data.tokenizer import Tokenizer, train_tokenizer
from rung.errors import EvaluationError
from rung.evaluation.bits_per_byte import bits_per_byte
from rung.evaluation.intervals import compare
from rung.evaluation.scoring import score
from rung.nets.decoder import CausalLM
from rung.nets.pretrained import load_net, save_net

Text = tuple[str, bool]
ToShards = Callable[[Tokenizer, list[Text]], TokenShards]


def streams(texts: list[Text]) -> list[list[str]]:
    """The texts, those that continue one another together."""
    grouped: list[list[str]] = []
    for text, continues in texts:
        grouped[-1].append(text) if continues else grouped.append([text])
    return grouped


def bits_by_transformers(folder: Path, tokenizer: Tokenizer, texts: list[Text], stride: int) -> list[float]:
    """Bits of each document, one window at a time, written down as naively as possible."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    context = model.config.max_position_embeddings
    bits = []
    for stream in streams(texts):
        pieces = [tokenizer.encode(text) for text in stream]
        ids = [tokenizer.eos_token_id, *(token for piece in pieces for token in piece)]
        losses = []
        while len(losses) < len(ids) - 1:
            done = len(losses)
            begin = max(0, done - (context - stride))
            end = min(begin + context, len(ids) - 1)
            begin = max(0, end - context)
            with torch.no_grad():
                logprobs = model(torch.tensor([ids[begin:end]])).logits[0].double().log_softmax(-1)
            losses += [-logprobs[place - begin, ids[place + 1]].item() for place in range(done, end)]
        for piece in pieces:
            bits.append(sum(losses[: len(piece)]) / math.log(2))
            losses = losses[len(piece) :]
    return bits


@pytest.fixture
def hf_folder(net: CausalLM, tmp_path: Path) -> Path:
    """The network as transformers opens it."""
    folder = tmp_path / "hf"
    save_net(net, folder)
    return folder


@pytest.mark.parametrize("stride", [24, 12, 1])
def test_equals_transformers(
    hf_folder: Path, shards: TokenShards, tokenizer: Tokenizer, texts: list[Text], stride: int
) -> None:
    record, scores = bits_per_byte(load_net(hf_folder), shards, stride=stride, batch_size=3)
    expected = bits_by_transformers(hf_folder, tokenizer, texts, stride)
    np.testing.assert_allclose(scores.values, expected, rtol=1e-4)
    num_bytes = sum(len(text.encode()) for text, _ in texts)
    assert record.value == pytest.approx(sum(expected) / num_bytes, abs=1e-4)
    assert record.n == len(texts)
    assert record.interval is not None
    assert record.interval.low < record.value < record.interval.high
    assert f"stride={stride}," in record.signature
    assert tokenizer.sha256[:16] in record.signature


def test_neither_batch_nor_training_mode_matters(net: CausalLM, shards: TokenShards) -> None:
    net.train()
    _, one = bits_per_byte(net, shards, batch_size=1)
    assert net.training  # given back as it was, although dropout was off meanwhile
    net.eval()
    _, many = bits_per_byte(net, shards, batch_size=64)
    np.testing.assert_allclose(one.values, many.values, rtol=1e-5)
    assert not net.training


def test_a_uniform_network_pays_the_vocabulary(
    net: CausalLM, shards: TokenShards, tokenizer: Tokenizer, texts: list[Text]
) -> None:
    flat = CausalLM(net.config)
    with torch.no_grad():
        flat.model.norm.weight.zero_()
    record, scores = bits_per_byte(flat, shards)
    tokens = [len(tokenizer.encode(text)) for text, _ in texts]
    np.testing.assert_allclose(scores.values, np.array(tokens) * math.log2(net.config.vocab_size), rtol=1e-6)
    assert record.value == pytest.approx(scores.values.sum() / shards.num_bytes)


def test_a_sample_of_documents_scores_them_as_in_the_whole(net: CausalLM, shards: TokenShards) -> None:
    _, whole = bits_per_byte(net, shards, stride=1)
    record, part = bits_per_byte(net, shards, stride=1, max_bytes=shards.num_bytes // 2)
    assert 0 < record.n < len(whole.ids)
    by_id = dict(zip(whole.ids, whole.values, strict=True))
    np.testing.assert_allclose(part.values, [by_id[item] for item in part.ids], rtol=1e-5)


def test_other_tokenizers_are_compared_on_the_same_items(
    net: CausalLM, shards: TokenShards, texts: list[Text], to_shards: ToShards
) -> None:
    other = train_tokenizer(iter([]), kind="byte", vocab_size=257)
    record, scores = bits_per_byte(net, shards)
    others, other_scores = bits_per_byte(net, to_shards(other, texts))
    assert record.data_sha256 == others.data_sha256
    assert record.signature != others.signature
    difference = compare(scores, other_scores, name=record.name, unit=record.unit)
    assert difference.value == pytest.approx(scores.mean - other_scores.mean)
    _, fewer = bits_per_byte(net, to_shards(other, texts[:3]))
    with pytest.raises(EvaluationError, match="different items"):
        compare(scores, fewer, name=record.name, unit=record.unit)


def test_score_of_a_text_is_what_bits_per_byte_charges(
    net: CausalLM, tokenizer: Tokenizer, shards: TokenShards, texts: list[Text]
) -> None:
    _, scores = bits_per_byte(net, shards)
    result = score(net, tokenizer, "".join(streams(texts)[0]))
    assert result.token_ids == [token for text in streams(texts)[0] for token in tokenizer.encode(text)]
    assert -sum(result.logprobs) / math.log(2) == pytest.approx(scores.values[:3].sum(), rel=1e-5)


def test_what_cannot_be_measured(net: CausalLM, shards: TokenShards, tokenizer: Tokenizer) -> None:
    with pytest.raises(EvaluationError, match="stride 30"):
        bits_per_byte(net, shards, stride=30)
    with pytest.raises(EvaluationError, match="25 do not fit"):
        bits_per_byte(net, shards, context_length=25)
    with pytest.raises(EvaluationError, match="no text"):
        score(net, tokenizer, "")
    broken = CausalLM(net.config)
    with torch.no_grad():
        broken.model.norm.weight.fill_(torch.nan)
    with pytest.raises(EvaluationError, match="not finite"):
        bits_per_byte(broken, shards)
