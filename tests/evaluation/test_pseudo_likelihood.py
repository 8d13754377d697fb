"""Pseudo-log-likelihood against a loop over transformers' BertForMaskedLM, and guesses against counting by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from rung.data.masked_batches import HeldOutMasks, Masking
from rung.data.shards import EncodedDocuments, TokenShards, write_shards
from rung.data.text_windows import TextWindows
from rung.data.wordpiece import train_wordpieces
from rung.errors import EvaluationError
from rung.evaluation import pseudo_likelihood
from rung.evaluation.masked_tokens import masked_token_records, unigram_frequencies
from rung.evaluation.pseudo_likelihood import pseudo_bits_per_byte, pseudo_log_likelihoods
from rung.nets.masked_language_model import MaskedLanguageModel, load_masked_language_model

TEXTS = ["A cat sat on the mat.", "Dogs!", "", "The mat sat, the cat ran, dogs ran on", "the unseen ǯ word"]
LONG = " ".join(["cat mat dogs ran on the"] * 7)
ENCODER = train_wordpieces([*TEXTS[:4], LONG] * 2, vocab_size=120)
POSITIONS = 24


@pytest.fixture(scope="module")
def theirs() -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.BertConfig(
        vocab_size=ENCODER.vocab_size, max_position_embeddings=POSITIONS, initializer_range=0.3, **shape
    )
    return transformers.BertForMaskedLM(config).eval()


@pytest.fixture(scope="module")
def ours(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> MaskedLanguageModel:
    folder = tmp_path_factory.mktemp("bert")
    theirs.save_pretrained(folder)
    return load_masked_language_model(folder)


def brute_force(net: Any, tokens: list[int]) -> list[float]:
    """Hide one token after the other, alone in a batch."""
    ids = [ENCODER.token_id("cls_token"), *tokens, ENCODER.token_id("sep_token")]
    found = []
    for place in range(1, len(ids) - 1):
        hidden = torch.tensor([ids])
        hidden[0, place] = ENCODER.token_id("mask_token")
        with torch.no_grad():
            found.append(net(hidden).logits[0, place].log_softmax(0)[ids[place]].item())
    return found


@pytest.mark.parametrize("tokens_at_once", [1, 50, 1 << 13])
def test_each_token_is_scored_as_by_a_plain_loop(
    tokens_at_once: int, theirs: Any, ours: MaskedLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pseudo_likelihood, "_TOKENS_AT_ONCE", tokens_at_once)
    for text, found in zip(TEXTS, pseudo_log_likelihoods(ours, ENCODER, TEXTS), strict=True):
        assert found.token_ids == ENCODER.encode_ragged([text])[0].tolist()
        assert found.tokens == [ENCODER.token(number) for number in found.token_ids]
        expected = brute_force(theirs, found.token_ids)
        np.testing.assert_allclose(found.logprobs, expected, rtol=1e-4, atol=1e-4)
        assert math.isclose(found.total, sum(expected), abs_tol=1e-3)


def test_a_long_text_is_scored_window_by_window(theirs: Any, ours: MaskedLanguageModel) -> None:
    (found,) = pseudo_log_likelihoods(ours, ENCODER, [LONG])
    size, count = len(found.token_ids), -(-len(found.token_ids) // (POSITIONS - 2))
    assert count > 1
    cuts = [number * size // count for number in range(count + 1)]
    expected = [one for first, last in pairwise(cuts) for one in brute_force(theirs, found.token_ids[first:last])]
    np.testing.assert_allclose(found.logprobs, expected, rtol=1e-4, atol=1e-4)


def stored(folder: Path, texts: list[str]) -> TokenShards:
    ids, lengths = ENCODER.encode_ragged(texts)
    batch = EncodedDocuments(
        tokens=ids,
        lengths=lengths,
        nbytes=np.array([len(text.encode()) for text in texts]),
        sha256=np.arange(len(texts) * 32, dtype=np.uint8).reshape(-1, 32),
        continues=np.zeros(len(texts), dtype=bool),
    )
    eos, size = ENCODER.eos_token_id, ENCODER.vocab_size
    return write_shards(folder, [batch], tokenizer_sha256=ENCODER.sha256, eos_token_id=eos, vocab_size=size)


def test_pseudo_bits_per_byte_are_those_of_the_texts(ours: MaskedLanguageModel, tmp_path: Path) -> None:
    texts = [TEXTS[0], TEXTS[1], TEXTS[3], TEXTS[4], LONG]
    shards = stored(tmp_path / "shards", texts)
    record, scores = pseudo_bits_per_byte(ours, ENCODER, shards, documents=np.array([0, 2, 3, 4]))
    alone = pseudo_log_likelihoods(ours, ENCODER, [texts[number] for number in (0, 2, 3, 4)])
    np.testing.assert_allclose(scores.values, [-one.total / math.log(2) for one in alone], rtol=1e-5)
    assert scores.weights.tolist() == [len(texts[number].encode()) for number in (0, 2, 3, 4)]
    assert record.value == pytest.approx(scores.values.sum() / scores.weights.sum())
    assert record.name == "pseudo_bits_per_byte"
    ids = [number for one in alone for number in one.token_ids]
    unknown = ids.count(ENCODER.token_id("unk_token") or -1)
    assert unknown > 0
    assert f"unknown tokens={unknown} of {len(ids)}" in record.signature


@pytest.mark.parametrize("whole_words", [True, False])
def test_guesses_are_counted_as_by_hand(
    theirs: Any, ours: MaskedLanguageModel, tmp_path: Path, *, whole_words: bool
) -> None:
    texts = [TEXTS[0], TEXTS[3], LONG] * 1
    shards = stored(tmp_path / "shards", texts)
    unigram = unigram_frequencies(shards, ENCODER)
    documents = np.arange(3)
    records, scores = masked_token_records(
        ours, ENCODER, shards, unigram, documents=documents, whole_words=whole_words, share=0.4
    )
    windows = TextWindows.of_shards(shards, encoder=ENCODER, max_length=POSITIONS, documents=documents)
    masking = Masking(ENCODER, seed=0, share=0.4, whole_words=whole_words, only_masks=True)
    held_out = HeldOutMasks(windows, masking)
    sums = np.zeros((3, 5))
    for number in range(len(held_out)):
        batch = held_out.batch(np.array([number]))
        with torch.no_grad():
            logprobs = theirs(batch["input_ids"]).logits[0].log_softmax(1)
        for place, label in enumerate(batch["labels"][0].tolist()):
            if label != -100:
                right = int(logprobs[place].argmax()) == label
                blind = label == int(unigram.argmax())
                bits = -logprobs[place, label].item() / math.log(2)
                owner = windows.owners[held_out.rows[number]]
                sums[owner] += [1, right, bits, blind, -math.log2(unigram[label])]
    by_name = {record.name: record.value for record in records}
    names = ["masked_accuracy", "masked_bits", "unigram_masked_accuracy", "unigram_masked_bits"]
    for column, name in enumerate(names, start=1):
        np.testing.assert_allclose(scores[name].values, sums[:, column], rtol=1e-4)
        assert scores[name].weights.tolist() == sums[:, 0].tolist()
        assert by_name[name] == pytest.approx(sums[:, column].sum() / sums[:, 0].sum(), rel=1e-4)


def test_unigram_frequencies_count_ordinary_tokens_only(tmp_path: Path) -> None:
    shards = stored(tmp_path / "shards", [TEXTS[0], LONG])
    found = unigram_frequencies(shards, ENCODER)
    assert found.sum() == pytest.approx(1)
    assert not found[ENCODER.special_ids()].any()
    ids, _ = ENCODER.encode_ragged([TEXTS[0], LONG])
    counts = np.bincount(ids, minlength=ENCODER.vocab_size)
    assert found[counts == 0].max(initial=0) < found[counts > 0].min()
    ratio = (counts[ids[0]] + 1) / (counts[ids[-1]] + 1)
    assert found[ids[0]] / found[ids[-1]] == pytest.approx(ratio)


def test_scores_that_are_not_finite_are_no_result(ours: MaskedLanguageModel, tmp_path: Path) -> None:
    broken = MaskedLanguageModel(ours.bert)
    torch.nn.init.constant_(broken.predictions.bias, math.nan)
    with pytest.raises(EvaluationError, match="not finite"):
        pseudo_log_likelihoods(broken, ENCODER, ["the cat"])
    shards = stored(tmp_path / "shards", [LONG])
    with pytest.raises(EvaluationError, match="not finite"):
        masked_token_records(
            broken,
            ENCODER,
            shards,
            unigram_frequencies(shards, ENCODER),
            documents=np.arange(1),
            whole_words=True,
            share=0.5,
        )
