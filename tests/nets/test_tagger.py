"""Taggers against transformers' ...ForTokenClassification, and their words against its tokenizers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from rung.data.tag_batches import IGNORED, TagBatches, word_tokens
from rung.data.text_encoder import TextEncoder
from rung.errors import RunFolderError
from rung.nets.tagger import load_tagger, new_tagger, save_tagger, tag_names
from rung.objectives.token_classification import TokenClassification
from rung.runfolder import write_json

SMALL = {"vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
LABELS = {"id2label": {0: "O", 1: "B-PER", 2: "I-PER"}, "label2id": {"O": 0, "B-PER": 1, "I-PER": 2}}


def theirs(family: str) -> transformers.PreTrainedModel:
    torch.manual_seed(1)
    if family == "distilbert":
        config = transformers.DistilBertConfig(
            vocab_size=60, dim=24, n_layers=2, n_heads=3, hidden_dim=48, max_position_embeddings=40, **LABELS
        )
        return transformers.DistilBertForTokenClassification(config).eval()
    name = {"bert": "Bert", "roberta": "Roberta"}[family]
    config = getattr(transformers, f"{name}Config")(**SMALL, intermediate_size=48, max_position_embeddings=40, **LABELS)
    net: transformers.PreTrainedModel = getattr(transformers, f"{name}ForTokenClassification")(config).eval()
    return net


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_scores_of_transformers_both_ways(family: str, tmp_path: Path) -> None:
    peer = theirs(family)
    peer.save_pretrained(tmp_path / "theirs")
    net = load_tagger(tmp_path / "theirs")
    assert tag_names(tmp_path / "theirs") == ("O", "B-PER", "I-PER")
    ids = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(2))
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 6:] = False
    ids[~mask] = net.config.pad_token_id or 0
    net.eval()
    with torch.no_grad():
        ours = net({"input_ids": ids, "mask": mask})
        expected = peer(input_ids=ids, attention_mask=mask.long()).logits
    torch.testing.assert_close(ours[mask], expected[mask], atol=1e-5, rtol=1e-5)
    (tmp_path / "ours").mkdir()
    save_tagger(net, tmp_path / "ours", LABELS)
    again = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "ours").eval()
    assert type(again) is type(peer)
    for name, tensor in peer.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_as_much_is_dropped_as_in_transformers(family: str, tmp_path: Path) -> None:
    peer = theirs(family)
    setattr(peer.config, "seq_classif_dropout" if family == "distilbert" else "classifier_dropout", 0.3)
    setattr(peer.config, "dropout" if family == "distilbert" else "hidden_dropout_prob", 0.15)
    peer.save_pretrained(tmp_path)
    again = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert load_tagger(tmp_path).dropout == again.dropout.p


def test_a_new_head_on_a_body(tmp_path: Path) -> None:
    theirs("bert").save_pretrained(tmp_path)
    torch.manual_seed(3)
    net = new_tagger(tmp_path, 5)
    ids = torch.randint(5, 60, (2, 4))
    assert net({"input_ids": ids}).shape == (2, 4, 5)
    loss = TokenClassification()(net, {"input_ids": ids, "labels": torch.tensor([[0, 1, IGNORED, 2], [IGNORED] * 4])})
    assert int(loss.count) == 3
    loss.total.backward()
    assert net.head.weight.grad is not None
    assert bool(net.body.embeddings.word_embeddings.weight.grad.abs().sum() > 0)  # type: ignore[union-attr]


def test_a_folder_without_tags_is_refused(tmp_path: Path) -> None:
    theirs("bert").save_pretrained(tmp_path)
    config = {**theirs("bert").config.to_dict(), "id2label": {"0": "O", "2": "B-X"}}
    write_json(tmp_path / "config.json", config)
    with pytest.raises(RunFolderError, match="names no tags"):
        load_tagger(tmp_path)


def bert_tokenizer(folder: Path) -> TextEncoder:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "new", "york", "##er", "is", "in", "a", "."]
    from tokenizers import BertWordPieceTokenizer

    made = BertWordPieceTokenizer(vocab={word: number for number, word in enumerate(words)})
    fast = transformers.BertTokenizer(tokenizer_object=made._tokenizer, pad_token="[PAD]", unk_token="[UNK]")  # noqa: S106
    fast.save_pretrained(folder)
    return TextEncoder.load(folder)


def test_words_are_those_of_transformers(tmp_path: Path) -> None:
    encoder = bert_tokenizer(tmp_path)
    fast = transformers.AutoTokenizer.from_pretrained(tmp_path)
    sentences = [["New", "Yorker", "."], ["\u200b", "in", "zzz"], ["a"]]
    found = word_tokens(sentences, encoder, max_length=20)
    for row, words in enumerate(sentences[:1] + sentences[2:]):
        piece = [0, 2][row]
        start = found.pieces.starts[piece]
        ids = found.pieces.ids[start : start + found.pieces.lengths[piece]]
        assert ids.tolist() == fast(words, is_split_into_words=True)["input_ids"]
    assert found.first.sum() == 7
    assert found.cut == 0
    assert found.pieces.ids[found.first].tolist().count(encoder.token_id("unk_token")) == 2  # zero-width, zzz


def test_long_sentences_are_cut_between_words_and_lose_none(tmp_path: Path) -> None:
    encoder = bert_tokenizer(tmp_path)
    sentences = [["new", "yorker"] * 7, ["is"]]
    found = word_tokens(sentences, encoder, max_length=6)
    assert found.first.sum() == 15
    assert found.cut == 1
    assert found.pieces.lengths.max() <= 6
    assert found.sentence.tolist() == sorted(found.sentence.tolist())
    assert found.sentence[-1] == 1
    tags = np.arange(15, dtype=np.int64)
    labels = found.labels(tags)
    batches = TagBatches(found, labels, pad_token_id=encoder.pad_token_id, batch_size=2, seed=1)
    seen = batches.batch(np.arange(len(found.pieces), dtype=np.int64))["labels"]
    assert sorted(seen[seen != IGNORED].tolist()) == tags.tolist()
