"""The tokenizer of a network that reads whole texts, wherever its folder says what stands in for padding."""

from __future__ import annotations

from pathlib import Path

from rung.data.text_encoder import CONFIG, TextEncoder
from rung.data.tokenizer_files import read_tokenizer_folder
from rung.errors import TokenizerError
from rung.nets.gpt2_config import GPT2Config
from rung.nets.pretrained import read_config_file


def load_encoder(folder: Path) -> TextEncoder:
    """The tokenizer in `folder`; of OpenAI's own GPT-2, whose files name no token, as its language model reads it.

    Raises TokenizerError when files are missing or damaged.
    """
    try:
        return TextEncoder.load(folder)
    except TokenizerError:
        if read_config_file(folder)["model_type"] != GPT2Config.model_type:
            raise
    found = read_tokenizer_folder(folder)
    settings = {**CONFIG, **found.config, "eos_token": found.eos_token}
    return TextEncoder(found.definition, settings, where=str(folder))
