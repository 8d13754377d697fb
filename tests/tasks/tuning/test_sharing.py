"""Several adapters on one base in memory: each gives its own scores, and the base its old ones, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import rung
from rung.data.text_encoder import train_byte_pairs
from rung.errors import RunFolderError, UsageError
from rung.nets.decoder import CausalLM
from rung.nets.decoder_config import DecoderConfig
from rung.nets.language_models import draw_language_model, load_language_model, save_language_model
from rung.nets.lora import LoraConfig, lora_layers
from rung.tasks.bases import base_record
from rung.tasks.tuning.folder import CONFIGURATION, TOKENIZER, copy_files, save_tuned
from rung.tasks.tuning.method import TuningMethod, apply_method

_IDS = torch.randint(1, 60, (2, 9), generator=torch.Generator().manual_seed(2))


def make_base(folder: Path, seed: int = 1) -> Path:
    encoder = train_byte_pairs(["the cat sat on the mat", "a dog ran in the park"] * 4, vocab_size=300)
    config = DecoderConfig(
        vocab_size=encoder.vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        model_type="llama",
    )
    folder.mkdir()
    net = draw_language_model(config, seed=seed)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    save_language_model(net, folder)
    encoder.save(folder, model_max_length=64)
    return folder


def make_adapter(base: Path, folder: Path, seed: int, method: TuningMethod | None = None) -> Path:
    """A random adapter on `base`, as tuning writes it."""
    method = method or TuningMethod("lora", LoraConfig(r=2 + seed, use_dora=seed == 2))
    net = load_language_model(base)
    apply_method(net, method, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.2, generator=generator)
    folder.mkdir()
    save_tuned(net, folder, method=method, base=base_record(base), task_type="CAUSAL_LM")
    copy_files(base, folder, (*CONFIGURATION, *TOKENIZER))
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path / "base")


def net_of(model: rung.LanguageModel) -> CausalLM:
    assert isinstance(model.net, CausalLM)
    return model.net


def scores(model: rung.LanguageModel) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = net_of(model)(_IDS)
    return found


def text(model: rung.LanguageModel) -> list[int]:
    return model.generate("the cat", temperature=0, max_tokens=8)[0].token_ids


def open_base(base: Path) -> rung.LanguageModel:
    model = rung.load(base)
    assert isinstance(model, rung.LanguageModel)
    return model


def test_two_adapters_share_a_base(base: Path, tmp_path: Path) -> None:
    folders = {f"number-{seed}": make_adapter(base, tmp_path / f"adapter-{seed}", seed) for seed in (1, 2)}
    model = open_base(base)
    plain, plain_text = scores(model), text(model)
    places = {parameter.data_ptr() for parameter in net_of(model).parameters()}
    size = sum(parameter.numel() for parameter in net_of(model).parameters())
    for name, folder in folders.items():
        model.add_adapter(name, folder)
        assert torch.equal(scores(model), plain)
    assert model.adapters == tuple(folders)
    for name in ("number-2", "number-1", "number-2"):
        model.use_adapter(name)
        alone = rung.load(folders[name])
        assert isinstance(alone, rung.LanguageModel)
        torch.testing.assert_close(scores(model), scores(alone), atol=1e-5, rtol=1e-4)
        assert text(model) == text(alone)
        assert (scores(model) - plain).abs().max() > 1e-2
    model.use_adapter(None)
    assert torch.equal(scores(model), plain)
    assert text(model) == plain_text
    # one base: its weights are the very same memory, and what came is the adapters' thin matrices
    assert places <= {parameter.data_ptr() for parameter in net_of(model).parameters()}
    added = [
        table.values()
        for layer in lora_layers(net_of(model)).values()
        for table in layer.children()
        if isinstance(table, torch.nn.ParameterDict)
    ]
    assert sum(parameter.numel() for parameter in net_of(model).parameters()) == size + sum(
        p.numel() for values in added for p in values
    )


def test_what_cannot_share_is_refused_and_changes_nothing(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "adapter", 1)
    foreign = make_adapter(make_base(tmp_path / "other", seed=9), tmp_path / "foreign", 1)
    coarse = make_adapter(base, tmp_path / "coarse", 1, TuningMethod("lora", LoraConfig(r=2), base_precision="int8"))
    model = open_base(base)
    plain = scores(model)
    model.add_adapter("mine", adapter)
    model.use_adapter("mine")
    mine = scores(model)
    with pytest.raises(RunFolderError, match="belongs to another base"):
        model.add_adapter("foreign", foreign)
    with pytest.raises(RunFolderError, match="a base in int8"):
        model.add_adapter("coarse", coarse)
    with pytest.raises(UsageError, match="named 'mine' already"):
        model.add_adapter("mine", adapter)
    with pytest.raises(UsageError, match="a whole model"):
        model.add_adapter("whole", base)
    with pytest.raises(UsageError, match="cannot name an adapter"):
        model.add_adapter("a.b", adapter)
    with pytest.raises(UsageError, match="no adapter named 'yours'"):
        model.use_adapter("yours")
    settings = adapter / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"use_dora": True}))
    with pytest.raises(RunFolderError, match="lora_magnitude_vector"):
        model.add_adapter("damaged", adapter)
    assert model.adapters == ("mine",)
    assert torch.equal(scores(model), mine)
    with pytest.raises(UsageError, match="an adapter acts"):
        model.evaluate(["text.txt"])
    model.use_adapter(None)
    assert torch.equal(scores(model), plain)


def test_another_tokenizer_or_head_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "adapter", 1)
    definition = json.loads((adapter / "tokenizer.json").read_text())
    definition["added_tokens"][-1]["normalized"] = True
    (adapter / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(RunFolderError, match="a tokenizer of its own"):
        open_base(base).add_adapter("mine", adapter)
