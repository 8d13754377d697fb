"""The masked-language-model loss against transformers' BertForMaskedLM, whose output bias is zero."""

from __future__ import annotations

import torch
import transformers

from rung.nets.encoder import Encoder, MaskedLanguageModel
from rung.nets.encoder_config import EncoderConfig
from rung.objectives.masked_token import MaskedToken


def test_loss_equals_transformers() -> None:
    torch.manual_seed(0)
    shape = {"vocab_size": 53, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = EncoderConfig(**shape, intermediate_size=24, max_position_embeddings=16)  # type: ignore[arg-type]
    ours = MaskedLanguageModel(Encoder(config)).eval()
    theirs = transformers.BertForMaskedLM(
        transformers.BertConfig(**shape, intermediate_size=24, max_position_embeddings=16)
    ).eval()
    theirs.bert.load_state_dict(ours.model.state_dict())
    head = theirs.cls.predictions
    head.transform.dense.load_state_dict(ours.transform[0].state_dict())
    head.transform.LayerNorm.load_state_dict(ours.transform[2].state_dict())
    ids = torch.randint(5, 53, (4, 9))
    mask = torch.arange(9) < torch.tensor([9, 4, 7, 2])[:, None]
    labels = torch.where(mask & (torch.rand(4, 9) < 0.5), torch.randint(0, 53, (4, 9)), -100)
    with torch.no_grad():
        loss = MaskedToken()(ours, {"input_ids": ids, "mask": mask, "labels": labels})
        expected = theirs(ids, attention_mask=mask.long(), labels=labels).loss
    assert loss.count == (labels != -100).sum() > 0
    torch.testing.assert_close(loss.mean(), expected, rtol=1e-5, atol=1e-5)
