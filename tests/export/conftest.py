"""Tiny random models of every family that is exported, with tokenizers of their own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rung.data.gguf_tokenizer import tokenizer_from_gguf
from rung.data.tokenizer import train_tokenizer
from rung.data.wordpiece import train_wordpieces
from rung.nets.decoder_config import DecoderConfig
from rung.nets.encoder import Encoder
from rung.nets.encoder_config import EncoderConfig
from rung.nets.encoder_folder import save_encoder
from rung.nets.gpt2_config import GPT2Config
from rung.nets.language_models import Config, draw_language_model, save_language_model

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from sentence_pieces import metadata

TEXTS = [
    "the cat sat on the mat, and it was the best of times. " * 9,
    "na\u00efve caf\u00e9 12345 don't we'll \u6771\u4eac " * 9,
]
DECODERS = ("qwen3", "llama", "mistral", "qwen2", "gpt2")
MakeModel = Callable[[str], Path]


def decoder_config(model_type: str) -> Config:
    if model_type == "gpt2":
        return GPT2Config(
            vocab_size=448,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=128,
            eos_token_id=0,
            bos_token_id=0,
        )
    return DecoderConfig(
        vocab_size=448,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8 if model_type == "qwen2" else 16,
        max_position_embeddings=128,
        model_type=model_type,
        tie_word_embeddings=model_type != "llama",
        eos_token_id=0,
        bos_token_id=0,
    )


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """A function that makes the folder of a tiny random decoder, or of an encoder ("bert").

    "llama-pieces" is a Llama with SentencePiece's BPE, all others have tokenizers of Rung's own.
    """

    def make(model_type: str) -> Path:
        folder = tmp_path / f"tiny-{model_type}"
        folder.mkdir()
        torch.manual_seed(5)
        if model_type == "bert":
            encoder = train_wordpieces(TEXTS, vocab_size=160)
            encoder.save(folder, model_max_length=64)
            config = EncoderConfig(
                vocab_size=encoder.vocab_size + 3,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=64,
            )
            body = Encoder(config)
            for parameter in body.parameters():
                parameter.data = parameter.data + 0.1 * torch.randn(parameter.shape)
            save_encoder(body, folder)
            return folder
        net = draw_language_model(decoder_config(model_type.removesuffix("-pieces")), seed=1)
        for parameter in net.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape)
        save_language_model(net, folder)
        if model_type == "llama-pieces":
            definition, config = tokenizer_from_gguf(metadata(), where="here")
            (folder / "tokenizer.json").write_text(json.dumps(definition))
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
        else:
            train_tokenizer(TEXTS, vocab_size=400).save(folder, model_max_length=128)
        return folder

    return make
