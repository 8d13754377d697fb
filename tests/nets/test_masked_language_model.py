"""BERT's masked language model against transformers' BertForMaskedLM: the same names, logits and folders, both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from rung.errors import RunFolderError
from rung.nets.encoder import Encoder
from rung.nets.encoder_config import EncoderConfig
from rung.nets.masked_language_model import (
    MaskedLanguageModel,
    load_masked_language_model,
    save_masked_language_model,
)

SHAPE: dict[str, Any] = {
    "vocab_size": 71,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
}


FAMILIES: dict[str, tuple[type, type, dict[str, Any]]] = {
    "bert": (transformers.BertConfig, transformers.BertForMaskedLM, {}),
    "bert-tanh-gelu": (transformers.BertConfig, transformers.BertForMaskedLM, {"hidden_act": "gelu_new"}),
    "bert-relu": (transformers.BertConfig, transformers.BertForMaskedLM, {"hidden_act": "relu"}),
    "roberta": (transformers.RobertaConfig, transformers.RobertaForMaskedLM, {"type_vocab_size": 1, "pad_token_id": 1}),
    "roberta-relu": (transformers.RobertaConfig, transformers.RobertaForMaskedLM, {"hidden_act": "relu"}),
    "distilbert": (transformers.DistilBertConfig, transformers.DistilBertForMaskedLM, {}),
    "distilbert-relu": (transformers.DistilBertConfig, transformers.DistilBertForMaskedLM, {"hidden_act": "relu"}),
}


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES.keys())
def family(request: pytest.FixtureRequest) -> tuple[type, type, dict[str, Any]]:
    found: tuple[type, type, dict[str, Any]] = request.param
    return found


def ours(**changes: Any) -> MaskedLanguageModel:
    torch.manual_seed(0)
    net = MaskedLanguageModel(Encoder(EncoderConfig(**{**SHAPE, **changes}))).eval()
    torch.nn.init.normal_(net.predictions.bias)
    return net


def theirs(config: type, architecture: type, changes: dict[str, Any]) -> Any:
    """A network of transformers with every parameter random, so that no zero or one hides a difference."""
    torch.manual_seed(1)
    shape = {**SHAPE, **changes}
    if config is transformers.DistilBertConfig:
        spelled = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
        spelled |= {"intermediate_size": "hidden_dim", "hidden_act": "activation"}
        shape = {spelled.get(name, name): value for name, value in shape.items()}
    net = architecture(config(**shape)).eval()
    for parameter in net.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return net


def logits(net: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        if isinstance(net, MaskedLanguageModel):
            return net(ids, mask)[mask]
        found: torch.Tensor = net(ids, attention_mask=mask.long()).logits[mask]
        return found


@pytest.fixture
def padded() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(2, 71, (3, 17), generator=torch.Generator().manual_seed(2))
    return ids, torch.arange(17) < torch.tensor([17, 5, 11])[:, None]


def test_the_same_logits_whoever_wrote_the_folder(
    family: tuple[type, type, dict[str, Any]], padded: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    net = theirs(*family)
    net.save_pretrained(tmp_path / "theirs")
    opened = load_masked_language_model(tmp_path / "theirs").eval()
    torch.testing.assert_close(logits(opened, *padded), logits(net, *padded), rtol=1e-5, atol=1e-5)
    (tmp_path / "ours").mkdir()
    save_masked_language_model(opened, tmp_path / "ours")
    again, report = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert type(again) is family[1]
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    torch.testing.assert_close(logits(again.eval(), *padded), logits(net, *padded), rtol=1e-5, atol=1e-5)


def test_a_body_that_was_pretrained_for_two_tasks_opens_too(
    padded: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    net = transformers.BertForPreTraining(transformers.BertConfig(**SHAPE)).eval()
    net.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = net(padded[0], attention_mask=padded[1].long()).prediction_logits[padded[1]]
    found = logits(load_masked_language_model(tmp_path).eval(), *padded)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_saved_and_loaded_is_the_same(padded: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> None:
    net = ours()
    save_masked_language_model(net, tmp_path)
    assert torch.equal(logits(load_masked_language_model(tmp_path).eval(), *padded), logits(net, *padded))


@pytest.mark.parametrize("changes", [{}, {"model_type": "roberta", "pad_token_id": 1}, {"model_type": "distilbert"}])
def test_padding_changes_nothing(changes: dict[str, Any]) -> None:
    net = ours(**changes)
    ids = torch.randint(0, 71, (1, 9), generator=torch.Generator().manual_seed(3))
    longer = torch.cat([ids, torch.randint(0, 71, (1, 6))], dim=1)
    mask = torch.arange(15)[None] < 9
    with torch.no_grad():
        torch.testing.assert_close(net(longer, mask)[:, :9], net(ids), rtol=1e-5, atol=1e-5)


def test_an_output_matrix_of_its_own_is_refused(tmp_path: Path) -> None:
    save_masked_language_model(ours(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}), encoding="utf-8")
    with pytest.raises(RunFolderError, match="output matrix"):
        load_masked_language_model(tmp_path)


def test_a_classifier_is_no_masked_language_model(tmp_path: Path) -> None:
    transformers.BertForSequenceClassification(transformers.BertConfig(**SHAPE)).save_pretrained(tmp_path)
    with pytest.raises(RunFolderError, match=r"lacks? cls\.predictions"):
        load_masked_language_model(tmp_path)


def test_one_batch_can_be_learned_by_heart() -> None:
    net = ours(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    ids = torch.randint(5, 71, (4, 12), generator=torch.Generator().manual_seed(4))
    hidden = ids.clone()
    hidden[:, ::4] = 4
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(150):
        loss = torch.nn.functional.cross_entropy(net(hidden)[:, ::4].flatten(0, 1), ids[:, ::4].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss < 0.05
