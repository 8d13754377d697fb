"""Decoders of other makes are measured like our own: the log-probabilities of transformers, after the right token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from rung.data.tokenizer import Tokenizer, train_tokenizer
from rung.evaluation.scoring import NetScorer, score
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.nets.gpt2 import GPT2LM, GPT2Config
from rung.nets.language_models import load_language_model
from rung.nets.pretrained import save_net
from rung.nets.rope import RopeScaling

TEXT = "It was the best of times, it was the worst of times, naïve reader. " * 3
SIZES: dict[str, Any] = {
    "vocab_size": 258,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "eos_token_id": 0,
}
ROTARY: dict[str, Any] = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
LLAMA3 = RopeScaling("llama3", 8.0, original_max_position_embeddings=32, low_freq_factor=1.0, high_freq_factor=4.0)
NETS = {
    "gpt2": lambda: GPT2LM(GPT2Config(**SIZES)),
    "mistral-window": lambda: CausalLM(DecoderConfig(**ROTARY, model_type="mistral", sliding_window=20)),
    "llama3": lambda: CausalLM(DecoderConfig(**ROTARY, model_type="llama", rope_scaling=LLAMA3)),
}


def tokenizer(*, with_bos: bool) -> Tokenizer:
    own = train_tokenizer(iter([]), kind="byte", vocab_size=257)
    added = '"added_tokens": ['
    bos = '{"id": 257, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, '
    definition = own.definition.replace(added, f'{added}{bos}"special": true}},')
    names = {"eos_token": own.eos_token, "bos_token": "<s>"}
    return Tokenizer(definition, **names, adds_bos=with_bos, pretokenizer_name=None, where="a test")


@pytest.mark.parametrize("with_bos", [False, True])
@pytest.mark.parametrize("family", NETS)
def test_scores_are_those_of_transformers(family: str, with_bos: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = NETS[family]()
    for p in net.parameters():
        p.data += 0.2 * torch.randn_like(p)
    save_net(net, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    found = score(load_language_model(tmp_path), tokenizer(with_bos=with_bos), TEXT)
    ids = torch.tensor([[257 if with_bos else 0, *found.token_ids]])
    with torch.no_grad():
        expected = theirs(ids[:, :-1]).logits.log_softmax(-1).gather(2, ids[:, 1:, None])[0, :, 0]
    torch.testing.assert_close(torch.tensor(found.logprobs, dtype=torch.float32), expected, rtol=1e-4, atol=1e-4)


def test_long_contexts_are_read_in_shorter_windows() -> None:
    net = CausalLM(DecoderConfig(**{**ROTARY, "max_position_embeddings": 8192}))
    scorer = NetScorer(net)
    assert (scorer.context_length, scorer.stride, scorer.max_length) == (2048, 1024, 8192)
