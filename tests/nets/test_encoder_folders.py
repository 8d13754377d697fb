"""Folders of encoders as others write them: bare or with heads, old names, and what is wrong with them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from rung.errors import GenerationError, RunFolderError
from rung.nets.architectures import FAMILIES, unsupported
from rung.nets.classifier_folder import load_body, load_classifier
from rung.nets.encoder_config import EncoderConfig
from rung.nets.encoder_folder import load_encoder, save_encoder
from rung.nets.masked_language_model import load_masked_language_model

SHAPE: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
}
DISTILBERT = {"vocab_size": 61, "dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40, "max_position_embeddings": 20}
BODIES: dict[str, tuple[Any, Any]] = {
    "bert": (transformers.BertModel, transformers.BertConfig(**SHAPE)),
    "roberta": (transformers.RobertaModel, transformers.RobertaConfig(**SHAPE, type_vocab_size=1)),
    "distilbert": (transformers.DistilBertModel, transformers.DistilBertConfig(**DISTILBERT)),
}
CLASSIFIERS = {
    "bert": transformers.BertForSequenceClassification,
    "roberta": transformers.RobertaForSequenceClassification,
    "distilbert": transformers.DistilBertForSequenceClassification,
}


@pytest.fixture(params=BODIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def randomised(net: Any) -> Any:
    generator = torch.Generator().manual_seed(2)
    for parameter in net.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return net.eval()


def body_of(family: str) -> Any:
    architecture, config = BODIES[family]
    return randomised(architecture(config))


def classifier_of(family: str) -> Any:
    config = copy.deepcopy(BODIES[family][1])
    config.id2label, config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    return randomised(CLASSIFIERS[family](config))


def states(net: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = net(ids, attention_mask=mask.long()).last_hidden_state[mask]
        return found


def our_states(folder: Path, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    encoder = load_encoder(folder).eval()
    with torch.no_grad():
        return encoder(encoder.embed(ids), mask).hidden[mask]


@pytest.fixture
def padded() -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.arange(13) < torch.tensor([13, 4, 9])[:, None]
    ids = torch.randint(4, 61, (3, 13), generator=torch.Generator().manual_seed(3))
    return ids.where(mask, 1), mask


def edit(folder: Path, **changes: Any) -> None:
    """Change keys of a folder's `config.json`; None takes them out."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}), encoding="utf-8")


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors of a folder."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("stored", ["bare", "with a classifier on it"])
def test_the_states_are_those_of_transformers(
    family: str, stored: str, padded: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    net = body_of(family) if stored == "bare" else classifier_of(family)
    net.save_pretrained(tmp_path)
    expected = states(net.base_model, *padded)
    torch.testing.assert_close(our_states(tmp_path, *padded), expected, rtol=1e-5, atol=1e-5)


def test_a_body_goes_out_and_comes_back(family: str, padded: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> None:
    body_of(family).save_pretrained(tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    save_encoder(load_encoder(tmp_path / "theirs"), tmp_path / "ours")
    again, report = transformers.AutoModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert type(again) is BODIES[family][0]
    assert {name.split(".")[0] for name in report["missing_keys"]} <= {"pooler"}
    assert not report["unexpected_keys"]
    expected = our_states(tmp_path / "theirs", *padded)
    torch.testing.assert_close(states(again.eval(), *padded), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(our_states(tmp_path / "ours", *padded), expected)


def test_half_precision_weights_are_read_as_float32(family: str, tmp_path: Path) -> None:
    net = body_of(family).to(torch.bfloat16)
    net.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert torch.equal(
        encoder.embeddings.word_embeddings.weight, net.embeddings.word_embeddings.weight.detach().float()
    )


def test_layer_norms_of_old_conversions_are_found(padded: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> None:
    """`bert-base-uncased` on the hub calls them gamma and beta, and stores the pretraining heads too."""
    net = randomised(transformers.BertForPreTraining(BODIES["bert"][1]))
    net.save_pretrained(tmp_path)

    def older(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if ".LayerNorm." in name]:
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[old] = tensors.pop(name)
        tensors["bert.embeddings.position_ids"] = torch.arange(20)[None]

    rewrite(tmp_path, older)
    torch.testing.assert_close(our_states(tmp_path, *padded), states(net.bert, *padded), rtol=1e-5, atol=1e-5)
    masked = load_masked_language_model(tmp_path).eval()
    with torch.no_grad():
        expected = net(padded[0], attention_mask=padded[1].long()).prediction_logits[padded[1]]
        torch.testing.assert_close(masked(*padded)[padded[1]], expected, rtol=1e-5, atol=1e-5)


def test_roberta_reads_as_many_tokens_as_its_offset_leaves(tmp_path: Path) -> None:
    body_of("roberta").save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path).eval()
    assert encoder.config.max_length == 18
    ids = torch.full((1, 18), 7)
    encoder(encoder.embed(ids))
    with pytest.raises(GenerationError, match="19 tokens do not fit this network's 18 positions"):
        encoder(encoder.embed(torch.full((1, 19), 7)))


def test_roberta_keeps_the_padding_its_positions_are_counted_from(tmp_path: Path) -> None:
    body_of("roberta").save_pretrained(tmp_path)
    assert load_body(tmp_path, 2, dropout=0.0, pad_token_id=0).config.pad_token_id == 1


# What is wrong with a folder ------------------------------------------------------------------------------------------


def _drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[next(name for name in sorted(tensors) if name.endswith("word_embeddings.weight"))]


def _add(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in sorted(tensors) if "layer.0" in name)
    tensors[name.replace("layer.0", "layer.7")] = torch.zeros(2)


def _reshape(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in sorted(tensors) if name.endswith("word_embeddings.weight"))
    tensors[name] = tensors[name][:-1].clone()


def _as_integers(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in sorted(tensors) if name.endswith("word_embeddings.weight"))
    tensors[name] = tensors[name].to(torch.int32)


def _not_finite(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in sorted(tensors) if name.endswith("word_embeddings.weight"))
    tensors[name][0, 0] = float("nan")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_drop, "lack.*word_embeddings"),
        (_add, "unknown.*layer.7"),
        (_reshape, r"word_embeddings.weight has shape \[60, 24\]"),
        (_as_integers, "word_embeddings.weight is I32"),
        (_not_finite, "not finite"),
    ],
    ids=["missing", "extra", "shape", "dtype", "nan"],
)
@pytest.mark.parametrize("load", [load_encoder, load_classifier], ids=["body", "classifier"])
def test_weights_that_do_not_fit_are_named(
    family: str,
    damage: Callable[[dict[str, torch.Tensor]], None],
    said: str,
    load: Callable[[Path], Any],
    tmp_path: Path,
) -> None:
    classifier_of(family).save_pretrained(tmp_path)
    rewrite(tmp_path, damage)
    with pytest.raises(RunFolderError, match=said):
        load(tmp_path)


@pytest.mark.parametrize("size", [48, 12])
def test_a_configuration_that_promises_another_size_is_refused(family: str, size: int, tmp_path: Path) -> None:
    body_of(family).save_pretrained(tmp_path)
    edit(tmp_path, **{"dim" if family == "distilbert" else "hidden_size": size})
    with pytest.raises(RunFolderError, match=rf"config.json asks for \[.*{size}"):
        load_encoder(tmp_path)


def test_more_layers_than_are_stored_are_missed(family: str, tmp_path: Path) -> None:
    body_of(family).save_pretrained(tmp_path)
    edit(tmp_path, **{"n_layers" if family == "distilbert" else "num_hidden_layers": 3})
    with pytest.raises(RunFolderError, match=r"lack.*layer\.2"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("load", [load_encoder, load_classifier, load_masked_language_model])
def test_a_folder_that_brings_code_is_refused(family: str, load: Callable[[Path], Any], tmp_path: Path) -> None:
    classifier_of(family).save_pretrained(tmp_path)
    edit(tmp_path, auto_map={"AutoModel": "modeling_evil.EvilModel"})
    with pytest.raises(RunFolderError, match="auto_map asks to run Python code") as caught:
        load(tmp_path)
    assert "never run" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rope_scaling": {"factor": 2}}, "rope_scaling"),
        ({"pad_token_id": None}, ""),
        ({"is_decoder": True}, "is_decoder"),
        ({"hidden_act": "mish", "activation": "mish"}, "mish"),
    ],
)
def test_keys_that_would_be_computed_otherwise_are_refused(family: str, changes: dict[str, Any], said: str) -> None:
    config = BODIES[family][1].to_dict()
    names = set(config)
    wanted = {key: value for key, value in changes.items() if key in names or key not in ("hidden_act", "activation")}
    if said:
        with pytest.raises(RunFolderError, match=said):
            EncoderConfig.from_hf({**config, **wanted})
    elif family == "roberta":
        with pytest.raises(RunFolderError, match="counts positions from pad_token_id"):
            EncoderConfig.from_hf({**config, **wanted})
    else:
        assert EncoderConfig.from_hf({**config, **wanted}).pad_token_id is None


def test_configurations_come_back_as_they_went(family: str) -> None:
    config = EncoderConfig.from_hf(BODIES[family][1].to_dict())
    assert EncoderConfig.from_hf(config.to_hf()) == config
    theirs = type(BODIES[family][1])(**config.to_hf())
    assert EncoderConfig.from_hf(theirs.to_dict()) == config


def test_an_unknown_architecture_is_named_with_those_that_are_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mpnet"}', encoding="utf-8")
    for load in (load_encoder, lambda folder: load_body(folder, 2, dropout=0.0, pad_token_id=0)):
        with pytest.raises(RunFolderError, match="'mpnet' is not supported") as caught:
            load(tmp_path)
        assert all(name in (caught.value.hint or "") for names in FAMILIES.values() for name in names)


def test_a_known_architecture_in_the_wrong_place_is_said_to_be_one() -> None:
    error = unsupported("llama", "config.json", usable=("bert", "roberta"))
    assert "llama' (decoders) cannot be used here" in error.problem
    assert error.hint == "what can be: bert, roberta"
    assert "did you mean" not in str(unsupported("mbart", "config.json"))  # another network, not a misspelt one
