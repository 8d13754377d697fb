"""The engine against `generate` of transformers: the same 50 greedy tokens, for every family of decoders."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from rung.generation.decoding import FusedDecoder
from rung.nets.attention import KeyValueCache
from rung.nets.decoder import CausalLM
from rung.nets.gpt2 import GPT2LM
from rung.nets.pretrained import load_net, save_net

PROMPTS = [[5, 17, 250, 3, 99, 41, 7], [8, 8, 201], [31, 2, 77, 140, 9, 64, 12, 180, 33, 1, 90]]
NEW_TOKENS = 50


def theirs(net: CausalLM | GPT2LM, folder: Path) -> list[list[int]]:
    """Greedy continuations of all prompts in one batch, padded on the left as transformers wants it."""
    save_net(net, folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    longest = max(map(len, PROMPTS))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in PROMPTS])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS])
    output = model.generate(ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
    made: list[list[int]] = output[:, longest:].tolist()
    return made


@torch.inference_mode()
def by_engine(net: CausalLM | GPT2LM) -> list[list[int]]:
    decoder = FusedDecoder(net, "fp32", invariant=False)
    decoder.open(len(PROMPTS), max(map(len, PROMPTS)) + NEW_TOKENS)
    made = decoder.prefill(PROMPTS, 0).argmax(-1)[:, None]
    for step in range(NEW_TOKENS - 1):
        scores = decoder.step(made[:, -1].tolist(), [len(prompt) + step for prompt in PROMPTS])
        made = torch.cat((made, scores.argmax(-1)[:, None]), dim=1)
    tokens: list[list[int]] = made.tolist()
    return tokens


@torch.no_grad()
def by_network(net: CausalLM | GPT2LM) -> list[list[int]]:
    """The network's own cache: prompts padded on the right, then a token a step."""
    longest = max(map(len, PROMPTS))
    ids = torch.tensor([prompt + [0] * (longest - len(prompt)) for prompt in PROMPTS])
    lengths = torch.tensor([len(prompt) for prompt in PROMPTS])
    cache = KeyValueCache(net.config, len(PROMPTS), longest + NEW_TOKENS)
    scores = net(ids, torch.arange(longest) < lengths[:, None], cache)
    made = scores[torch.arange(len(PROMPTS)), lengths - 1].argmax(-1)[:, None]
    for _ in range(NEW_TOKENS - 1):
        made = torch.cat((made, net(made[:, -1:], state=cache)[:, -1].argmax(-1)[:, None]), dim=1)
    tokens: list[list[int]] = made.tolist()
    return tokens


def test_the_same_tokens(any_net: CausalLM | GPT2LM, tmp_path: Path) -> None:
    expected = theirs(any_net, tmp_path)
    assert len({token for row in expected for token in row}) > 5
    loaded = load_net(tmp_path).eval()
    assert by_engine(loaded) == expected
    assert by_network(loaded) == expected
