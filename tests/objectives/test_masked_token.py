"""The masked-language-model loss against transformers' BertForMaskedLM."""

from __future__ import annotations

import torch
import transformers

from rung.nets.encoder import Encoder
from rung.nets.encoder_config import EncoderConfig
from rung.nets.masked_language_model import MaskedLanguageModel
from rung.objectives.masked_token import MaskedToken


def test_loss_and_gradients_equal_transformers() -> None:
    torch.manual_seed(0)
    shape = {"vocab_size": 53, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = EncoderConfig(**shape, intermediate_size=24, max_position_embeddings=16)  # type: ignore[arg-type]
    ours = MaskedLanguageModel(Encoder(config)).eval()
    torch.nn.init.normal_(ours.predictions.bias)
    theirs = transformers.BertForMaskedLM(
        transformers.BertConfig(**shape, intermediate_size=24, max_position_embeddings=16)
    ).eval()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    theirs.tie_weights()
    ids = torch.randint(5, 53, (4, 9))
    mask = torch.arange(9) < torch.tensor([9, 4, 7, 2])[:, None]
    labels = torch.where(mask & (torch.rand(4, 9) < 0.5), torch.randint(0, 53, (4, 9)), -100)
    loss = MaskedToken()(ours, {"input_ids": ids, "mask": mask, "labels": labels})
    expected = theirs(ids, attention_mask=mask.long(), labels=labels).loss
    assert loss.count == (labels != -100).sum() > 0
    torch.testing.assert_close(loss.mean(), expected, rtol=1e-5, atol=1e-5)
    loss.mean().backward()  # type: ignore[no-untyped-call]
    expected.backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-4, atol=1e-5, msg=name)
