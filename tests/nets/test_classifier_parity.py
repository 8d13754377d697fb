"""Encoders and decoders with a classification head against transformers: same folder, same logits, both ways."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers

from rung.errors import RunFolderError
from rung.nets.classifier import Classifier, ClassifierConfig, build_classifier
from rung.nets.classifier_folder import load_body, load_classifier, save_classifier, stored_name
from rung.nets.decoder_config import DecoderConfig
from rung.nets.encoder_config import EncoderConfig
from rung.nets.gpt2 import GPT2Config, turned

LABELS = {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
BERT = EncoderConfig(
    vocab_size=71,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=56,
    max_position_embeddings=40,
)
QWEN3 = DecoderConfig(
    vocab_size=71,
    hidden_size=32,
    intermediate_size=56,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    pad_token_id=0,
)
GPT2 = GPT2Config(
    vocab_size=71,
    hidden_size=32,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=40,
    bos_token_id=2,
    eos_token_id=2,
    pad_token_id=2,
)
CONFIGS: dict[str, ClassifierConfig] = {
    "bert": BERT,
    "bert-tanh-gelu-one-type": dataclasses.replace(BERT, hidden_act="gelu_new", type_vocab_size=1, layer_norm_eps=1e-5),
    "bert-relu-one-head": dataclasses.replace(BERT, hidden_act="relu", num_attention_heads=1, num_hidden_layers=1),
    "roberta": dataclasses.replace(BERT, model_type="roberta", pad_token_id=1, type_vocab_size=1, layer_norm_eps=1e-5),
    "roberta-dropout": dataclasses.replace(BERT, model_type="roberta", pad_token_id=3, classifier_dropout=0.3),
    "distilbert": dataclasses.replace(BERT, model_type="distilbert", classifier_dropout=0.2),
    "distilbert-relu": dataclasses.replace(BERT, model_type="distilbert", hidden_act="relu", classifier_dropout=0.2),
    "qwen3": QWEN3,
    "llama-untied": dataclasses.replace(QWEN3, model_type="llama", tie_word_embeddings=False, num_key_value_heads=4),
    "qwen2": dataclasses.replace(QWEN3, model_type="qwen2"),
    "gpt2": GPT2,
    "gpt2-untied-narrow": dataclasses.replace(
        GPT2, tie_word_embeddings=False, intermediate_size=24, activation_function="relu", layer_norm_epsilon=1e-3
    ),
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def net(request: pytest.FixtureRequest) -> Classifier:
    return randomised(request.param)


def randomised(config: ClassifierConfig) -> Classifier:
    """A network whose every parameter is random, so that no zero-initialised matrix hides a difference."""
    torch.manual_seed(4)
    made = build_classifier(config, 3).eval()
    for parameter in made.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return made


def texts(net: Classifier) -> dict[str, torch.Tensor]:
    """Texts of 7, 11 and 3 tokens, padded on the right; no token of a text is padding, as of no tokenizer's."""
    pad = net.config.pad_token_id  # type: ignore[union-attr]
    mask = torch.arange(11) < torch.tensor([7, 11, 3])[:, None]
    ids = torch.randint(4, 71, (3, 11), generator=torch.Generator().manual_seed(5))
    return {"input_ids": ids.where(mask, pad), "mask": mask}


def their_logits(theirs: transformers.PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = theirs(batch["input_ids"], attention_mask=batch["mask"].long()).logits
        return logits


def test_transformers_opens_our_folder_and_computes_the_same(net: Classifier, tmp_path: Path) -> None:
    save_classifier(net, tmp_path, LABELS)
    theirs, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert theirs.config.id2label == {0: "a", 1: "b", 2: "c"}
    with torch.no_grad():
        torch.testing.assert_close(net(texts(net)), their_logits(theirs, texts(net)), rtol=1e-5, atol=1e-5)


def test_we_open_their_folder_and_compute_the_same(net: Classifier, tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    save_classifier(net, tmp_path / "ours", LABELS)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    theirs.save_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        ours = load_classifier(tmp_path / "theirs").eval()(texts(net))
    torch.testing.assert_close(ours, their_logits(theirs, texts(net)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("part", ["bare body", "classifier"])
def test_a_body_is_taken_over_whatever_stands_on_it(net: Classifier, part: str, tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    save_classifier(net, tmp_path / "ours", LABELS)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    (theirs.base_model if part == "bare body" else theirs).save_pretrained(tmp_path / "theirs")
    ours = load_body(tmp_path / "theirs", 3, dropout=0.1, pad_token_id=0).eval()
    ours.head.load_state_dict(net.head.state_dict())
    if net.config.model_type in ("roberta", "distilbert"):  # their dense layer belongs to the head, BERT's to the body
        ours.pooling.load_state_dict(net.pooling.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(texts(net)), their_logits(theirs, texts(net)), rtol=1e-5, atol=1e-5)


def test_hidden_states_equal_bert_model(tmp_path: Path) -> None:
    net = randomised(BERT)
    save_classifier(net, tmp_path, LABELS)
    theirs = transformers.BertModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    batch = texts(net)
    with torch.no_grad():
        expected = theirs(batch["input_ids"], attention_mask=batch["mask"].long())
        hidden = net.body(net.embed(batch["input_ids"]), batch["mask"]).hidden
        pooled = net.pooling(hidden, batch["mask"])
    torch.testing.assert_close(hidden[batch["mask"]], expected.last_hidden_state[batch["mask"]], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pooled, expected.pooler_output, rtol=1e-5, atol=1e-5)


def test_gradients_equal_tensor_by_tensor(net: Classifier, tmp_path: Path) -> None:
    save_classifier(net, tmp_path, LABELS)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    batch = texts(net)
    target = torch.randn(3, 3, generator=torch.Generator().manual_seed(7))
    (net(batch) * target).sum().backward()
    (theirs(batch["input_ids"], attention_mask=batch["mask"].long()).logits * target).sum().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in net.named_parameters():
        their_gradient = expected[stored_name(name, net.config)].grad
        assert parameter.grad is not None
        torch.testing.assert_close(
            turned(name, parameter.grad), their_gradient, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(
    ("key", "value"), [("position_embedding_type", "relative_key"), ("is_decoder", True), ("hidden_act", "mish")]
)
def test_what_is_computed_otherwise_is_refused(key: str, value: object) -> None:
    with pytest.raises(RunFolderError, match=key):
        EncoderConfig.from_hf({"model_type": "bert", key: value})
