"""Adapters in peft's format, both ways: peft opens ours and we open peft's, with equal scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from rung.errors import RunFolderError
from rung.nets.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, as_is, load_adapter, save_adapter
from rung.nets.classifier_folder import load_classifier, stored_name
from rung.nets.encoder_decoder_folder import load_encoder_decoder
from rung.nets.encoder_names import NAMES
from rung.nets.gpt2 import GPT2Config
from rung.nets.language_models import load_language_model
from rung.nets.lora import LoraConfig, add_lora, lora_layers, merge_lora, set_adapter

# peft asks transformers in ways that it will change, and remarks on targets that are tied: nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

_IDS = torch.randint(3, 60, (2, 7), generator=torch.Generator().manual_seed(1))
_TINY = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_DECODER = {**_TINY, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 32}
_ENCODER = {**_TINY, "intermediate_size": 48, "max_position_embeddings": 40}


@dataclass(frozen=True)
class Family:
    """How one family is made by transformers, opened by us, and asked by both."""

    config: Callable[[], Any]
    model: Any
    load: Callable[[Path], torch.nn.Module]
    task_type: str
    stored: Callable[[str], str] = as_is
    modules_to_save: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()

    def theirs(self) -> Any:
        torch.manual_seed(3)
        return self.model(self.config()).eval()

    def ask_theirs(self, model: Any) -> torch.Tensor:
        extra = {"decoder_input_ids": _IDS} if self.task_type == "SEQ_2_SEQ_LM" else {}
        with torch.no_grad():
            logits: torch.Tensor = model(input_ids=_IDS, **extra).logits
        return logits

    def ask_ours(self, net: Any) -> torch.Tensor:
        net.eval()
        with torch.no_grad():
            if self.task_type == "SEQ_CLS":
                scores: torch.Tensor = net({"input_ids": _IDS})
            elif self.task_type == "SEQ_2_SEQ_LM":
                scores = net(_IDS, _IDS)
            else:
                scores = net(_IDS)
        return scores


def _encoder(kind: str, modules: tuple[str, ...], targets: tuple[str, ...], **config: Any) -> Family:
    classes = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}
    name = classes[kind]
    return Family(
        config=lambda: getattr(transformers, f"{name}Config")(**config, num_labels=3),
        model=getattr(transformers, f"{name}ForSequenceClassification"),
        load=load_classifier,
        task_type="SEQ_CLS",
        stored=NAMES[kind].of_classifier,
        modules_to_save=modules,
        targets=targets,
    )


FAMILIES = {
    "llama": Family(
        lambda: transformers.LlamaConfig(**_DECODER), transformers.LlamaForCausalLM, load_language_model, "CAUSAL_LM"
    ),
    "qwen3": Family(
        lambda: transformers.Qwen3Config(**_DECODER, head_dim=8, tie_word_embeddings=True),
        transformers.Qwen3ForCausalLM,
        load_language_model,
        "CAUSAL_LM",
        targets=("q_proj", "down_proj"),
    ),
    "gpt2": Family(
        lambda: transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32),
        transformers.GPT2LMHeadModel,
        load_language_model,
        "CAUSAL_LM",
        targets=("c_attn", "mlp.c_proj"),
    ),
    "gpt2-classifier": Family(
        lambda: transformers.GPT2Config(
            vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32, pad_token_id=0, num_labels=3
        ),
        transformers.GPT2ForSequenceClassification,
        load_classifier,
        "SEQ_CLS",
        stored=partial(stored_name, config=GPT2Config(64, 32, 128, 2, 4, 32)),
        modules_to_save=("score",),
        targets=("c_attn", "mlp.c_proj"),
    ),
    "t5": Family(
        lambda: transformers.T5Config(
            vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
        ),
        transformers.T5ForConditionalGeneration,
        load_encoder_decoder,
        "SEQ_2_SEQ_LM",
        targets=("q", "wo"),
    ),
    "bart": Family(
        lambda: transformers.BartConfig(
            vocab_size=64, d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=48, decoder_ffn_dim=48,
            encoder_attention_heads=4, decoder_attention_heads=4, max_position_embeddings=32,
        ),
        transformers.BartForConditionalGeneration,
        load_encoder_decoder,
        "SEQ_2_SEQ_LM",
        targets=("q_proj", "fc2"),
    ),
    "bert": _encoder("bert", ("classifier", "bert.pooler"), ("query", "output.dense"), **_ENCODER),
    "roberta": _encoder("roberta", ("classifier",), ("query", "value"), **_ENCODER),
    "distilbert": _encoder(
        "distilbert",
        ("classifier", "pre_classifier"),
        ("q_lin", "lin1"),
        vocab_size=64, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=40,
    ),
}  # fmt: skip


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES.keys())
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture
def base(family: Family, tmp_path: Path) -> Path:
    family.theirs().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def randomise(net: torch.nn.Module) -> None:
    """Values for everything trainable, so that no zero of a new adapter hides a difference."""
    generator = torch.Generator().manual_seed(5)
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def freeze_all_but_heads(net: torch.nn.Module) -> None:
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in ("head", "pooling"))


@pytest.mark.parametrize("dora", [False, True])
def test_peft_opens_ours(family: Family, base: Path, tmp_path: Path, dora: bool) -> None:
    net = family.load(base)
    freeze_all_but_heads(net)
    plain = family.ask_ours(net)
    add_lora(net, LoraConfig(r=3, lora_alpha=7.0, use_dora=dora), generator=torch.Generator().manual_seed(0))
    assert torch.equal(family.ask_ours(net), plain) or dora  # DoRA divides by a norm and multiplies with it again
    torch.testing.assert_close(family.ask_ours(net), plain)
    randomise(net)
    tuned = family.ask_ours(net)
    assert (tuned - plain).abs().max() > 1e-2
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_adapter(net, folder, base=str(base), task_type=family.task_type, stored=family.stored)
    theirs = peft.PeftModel.from_pretrained(family.theirs(), folder).eval()
    torch.testing.assert_close(tuned, family.ask_theirs(theirs), atol=1e-5, rtol=1e-4)
    merge_lora(net)
    assert not lora_layers(net)
    torch.testing.assert_close(family.ask_ours(net), tuned, atol=1e-5, rtol=1e-4)
    again = family.load(base)
    load_adapter(again, folder, stored=family.stored)
    assert torch.equal(family.ask_ours(again), tuned)


@pytest.mark.parametrize("dora", [False, True])
def test_we_open_pefts(family: Family, base: Path, tmp_path: Path, dora: bool) -> None:
    settings = peft.LoraConfig(
        r=5,
        lora_alpha=3,
        use_dora=dora,
        use_rslora=not dora,
        target_modules=list(family.targets) or "all-linear",
        modules_to_save=list(family.modules_to_save) or None,
        task_type=family.task_type,
    )
    theirs = peft.get_peft_model(family.theirs(), settings).eval()
    randomise(theirs)
    theirs.save_pretrained(tmp_path / "peft")
    net = family.load(base)
    plain = family.ask_ours(net)
    load_adapter(net, tmp_path / "peft", stored=family.stored, name="theirs")
    tuned = family.ask_ours(net)
    torch.testing.assert_close(tuned, family.ask_theirs(theirs), atol=1e-5, rtol=1e-4)
    if not family.modules_to_save:
        set_adapter(net, None)
        assert torch.equal(family.ask_ours(net), plain)


@pytest.fixture
def adapter(tmp_path: Path) -> tuple[Path, Path]:
    """A base of the llama family and an adapter that fits it."""
    family = FAMILIES["llama"]
    family.theirs().save_pretrained(tmp_path / "base")
    net = family.load(tmp_path / "base")
    freeze_all_but_heads(net)
    add_lora(net, LoraConfig(r=2, target_modules=("q_proj",)), generator=torch.Generator().manual_seed(0))
    (tmp_path / "adapter").mkdir()
    save_adapter(net, tmp_path / "adapter", base="base", task_type="CAUSAL_LM")
    return tmp_path / "base", tmp_path / "adapter"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"peft_type": "IA3"}, "no LoRA adapter but 'IA3'"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"use_something_new": True}, "use_something_new"),
        ({"r": None}, "rank"),
        ({"r": 1.5}, r"r is 1\.5"),
        ({"r": 10**12}, "says rank 1000000000000, the tensors of"),
    ],
)
def test_settings_that_are_not_known_are_refused(
    adapter: tuple[Path, Path], change: dict[str, Any], problem: str
) -> None:
    base, folder = adapter
    path = folder / ADAPTER_CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunFolderError, match=problem):
        load_adapter(load_language_model(base), folder)


def test_tensors_of_another_network_are_refused(adapter: tuple[Path, Path]) -> None:
    base, folder = adapter
    path = folder / ADAPTER_WEIGHTS
    good = load_file(path)
    first = next(iter(good))

    def refused(tensors: dict[str, torch.Tensor], problem: str) -> None:
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, path)
        with pytest.raises(RunFolderError, match=problem):
            load_adapter(load_language_model(base), folder)

    refused(good | {first.replace("layers.0", "layers.9"): good[first]}, "no place for model.layers.9")
    refused(good | {first: torch.zeros(2, 31)}, r"has shape \[2, 31\], this network asks for \[2, 32\]")
    refused(good | {first: torch.full_like(good[first], torch.inf)}, "not finite")
    refused({key: tensor for key, tensor in good.items() if key != first}, "has no lora_A")
    refused({"base_model.model.model.norm.weight": torch.ones(32)}, "holds no adapter")


def test_pickles_and_missing_files_are_refused(adapter: tuple[Path, Path]) -> None:
    base, folder = adapter
    (folder / ADAPTER_WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(RunFolderError, match=r"has no adapter_model\.safetensors") as caught:
        load_adapter(load_language_model(base), folder)
    assert "pickle" in str(caught.value)
    (folder / ADAPTER_CONFIG).write_text("{")
    with pytest.raises(RunFolderError, match=r"cannot read adapter_config\.json"):
        load_adapter(load_language_model(base), folder)
