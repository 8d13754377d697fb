"""A chat model as a folder: what its base had, the chat template, and the token that ends a turn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rung.nets.decoder import CausalLM
from rung.nets.language_models import save_language_model
from rung.nets.pretrained import CONFIG, GENERATION_CONFIG, read_config_file
from rung.runfolder import read_json, write_json, write_text
from rung.tasks.chat.preparation import ChatBase
from rung.tasks.tuning.folder import save_tuned
from rung.tasks.tuning.method import TuningMethod

_TOKENIZER, _TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"


def save_chat_model(
    net: CausalLM, base: ChatBase, folder: Path, *, method: TuningMethod, record: Mapping[str, Any]
) -> None:
    """Fill `folder`: the whole network, or with LoRA its adapter (`record`: `base_record` of the base); the tokenizer
    with its chat template; and a generation_config.json that ends texts at the end of a turn too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if method.kind == "lora":
        save_tuned(net, folder, method=method, base=record, task_type="CAUSAL_LM")
        write_json(folder / CONFIG, read_config_file(base.folder))
    else:
        save_language_model(net, folder)
    write_text(folder / _TOKENIZER, base.tokenizer.definition)
    own = read_json(base.folder / _TOKENIZER_CONFIG)
    own.pop("added_tokens_decoder", None)  # tokenizer.json has them, and new ones too
    write_json(folder / _TOKENIZER_CONFIG, {**own, "chat_template": base.template.source})
    write_json(folder / GENERATION_CONFIG, _generation_config(folder, base))


def _generation_config(folder: Path, base: ChatBase) -> dict[str, Any]:
    """What the folder or the base has, with the end of a turn before all other ends."""
    sources = (folder / GENERATION_CONFIG, base.folder / GENERATION_CONFIG)
    found: dict[str, Any] = next((read_json(path) for path in sources if path.is_file()), {})
    configured = found.get("eos_token_id", read_config_file(base.folder).get("eos_token_id"))
    ends = configured if isinstance(configured, list) else [configured]
    others = [end for end in (*ends, base.tokenizer.eos_token_id) if end not in (None, base.end_of_turn)]
    found.pop("_from_model_config", None)
    return {**found, "eos_token_id": [base.end_of_turn, *dict.fromkeys(others)]}
