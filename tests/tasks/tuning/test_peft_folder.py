"""Folders that peft wrote, opened by what uses models: the same scores as through peft, on the base they name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import rung
from rung.cli.main import app
from rung.data.text_encoder import TextEncoder, train_byte_pairs
from rung.data.wordpiece import train_wordpieces
from rung.errors import RunFolderError, RungWarning
from rung.nets.decoder import CausalLM
from rung.tasks.bases import base_record, resolve_base
from rung.tasks.rewriting.rewriter import open_encoder_decoder

# peft asks transformers in ways that it will change, and remarks on folders that it cannot find on the hub.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore::UserWarning:transformers"),
]

_TEXTS = ["the cat sat on the mat", "a dog ran in the park", "three birds flew over two houses"] * 4
_SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def base_of(kind: str, folder: Path) -> Any:
    """A tiny random network of transformers and its tokenizer in `folder`; returns the network."""
    is_encoder = kind.startswith("Bert")
    encoder = train_wordpieces(_TEXTS, vocab_size=120) if is_encoder else train_byte_pairs(_TEXTS, vocab_size=300)
    torch.manual_seed(7)
    config: Any
    if kind == "llama":
        config = transformers.LlamaConfig(
            vocab_size=encoder.vocab_size, num_key_value_heads=2, max_position_embeddings=64, **_SIZES
        )
        model: Any = transformers.LlamaForCausalLM(config)
    elif not is_encoder:
        end = encoder.eos_token_id
        config = transformers.GPT2Config(
            vocab_size=encoder.vocab_size, n_embd=32, n_layer=2, n_head=4, n_positions=64, eos_token_id=end
        )
        model = getattr(transformers, kind)(config)
    else:
        config = transformers.BertConfig(
            vocab_size=encoder.vocab_size, max_position_embeddings=64, pad_token_id=encoder.pad_token_id, **_SIZES
        )
        model = getattr(transformers, kind)(config)
    model.save_pretrained(folder)
    encoder.save(folder, model_max_length=64)
    return type(model).from_pretrained(folder).eval()  # the adapter names the folder then


def adapted(model: Any, folder: Path, task_type: str, **settings: Any) -> Any:
    """`model` with a random adapter that peft saved in `folder`."""
    wanted = peft.LoraConfig(r=4, lora_alpha=8, task_type=task_type, **{"target_modules": "all-linear", **settings})
    theirs: Any = peft.get_peft_model(model, wanted)
    theirs.eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            parameter.data.normal_(std=0.2, generator=generator)
    theirs.save_pretrained(str(folder))
    return theirs


@pytest.fixture
def llama(tmp_path: Path) -> tuple[Any, Path]:
    """peft's network, and its folder; the base is beside it."""
    theirs = adapted(base_of("llama", tmp_path / "base"), tmp_path / "adapter", "CAUSAL_LM")
    return theirs, tmp_path / "adapter"


def test_a_language_model_gives_pefts_scores(llama: tuple[Any, Path]) -> None:
    theirs, folder = llama
    assert {path.name for path in folder.iterdir()} == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    with pytest.warns(RungWarning, match=r"does not tell its base by hash; .*base"):
        model = rung.load(folder)
    assert isinstance(model, rung.LanguageModel)
    assert isinstance(model.net, CausalLM)
    ids = torch.randint(1, 60, (2, 9), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(model.net(ids), theirs(ids).logits, atol=1e-5, rtol=1e-4)
    (text,) = model.generate("the cat", temperature=0, max_tokens=8)
    start = torch.tensor([model.tokenizer.encode("the cat")])
    greedy = theirs.generate(input_ids=start, max_new_tokens=8, do_sample=False)
    assert text.token_ids == greedy[0, start.shape[1] :].tolist()[: len(text.token_ids)]


@pytest.mark.filterwarnings("always::rung.errors.RungWarning")
def test_commands_open_it_with_one_remark(llama: tuple[Any, Path], tmp_path: Path) -> None:
    theirs, folder = llama
    asked = CliRunner().invoke(app, ["generate", str(folder), "the cat", "--max-tokens", "3", "--temperature", "0"])
    assert asked.exit_code == 0, asked.output
    assert asked.stderr.count("Remark: the adapter does not tell its base by hash") == 1
    (tmp_path / "text.txt").write_text("the cat sat on the mat")
    measured = CliRunner().invoke(app, ["eval", str(folder), str(tmp_path / "text.txt")])
    assert measured.exit_code == 0, measured.output
    chat = CliRunner().invoke(app, ["chat", str(folder), "--message", "hello"])
    assert "chat template" in chat.stderr  # the network opens; this base has no template
    out = tmp_path / "merged"
    made = CliRunner().invoke(app, ["export", str(folder), "--to", "hf", "--out", str(out)])
    assert made.exit_code == 0, made.output
    ids = torch.arange(1, 12)[None]
    merged: Any = transformers.LlamaForCausalLM.from_pretrained(out)
    merged.eval()
    with torch.inference_mode():
        torch.testing.assert_close(merged(ids).logits, theirs(ids).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::rung.errors.RungWarning")
@pytest.mark.parametrize(
    "kind", ["BertForSequenceClassification", "BertForPreTraining", "llama", "GPT2LMHeadModel", "GPT2Model"]
)
def test_a_classifier_gives_pefts_probabilities(kind: str, tmp_path: Path) -> None:
    base_of(kind, tmp_path / "base")
    start: Any = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "base", num_labels=3, ignore_mismatched_sizes=True
    )
    theirs = adapted(start, tmp_path / "adapter", "SEQ_CLS")
    model = rung.load(tmp_path / "adapter")
    assert isinstance(model, rung.Classifier)
    assert model.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    text = "the cat ran in the park"
    encoder = TextEncoder.load(tmp_path / "base")
    ids = torch.from_numpy(encoder.encode([text]).ids)[None].long()
    with torch.inference_mode():
        expected = theirs(input_ids=ids).logits.double().softmax(1)
    found = torch.from_numpy(model.predict([text]).probabilities)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::rung.errors.RungWarning")
def test_a_base_whose_tokenizer_names_no_token(tmp_path: Path) -> None:
    """As that of GPT-2, for which an adapter's folder seldom brings another."""
    base_of("GPT2LMHeadModel", tmp_path / "base")
    (tmp_path / "base" / "tokenizer_config.json").write_text('{"model_max_length": 64}', encoding="utf-8")
    start = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    theirs = adapted(start, tmp_path / "adapter", "SEQ_CLS")
    model = rung.load(tmp_path / "adapter")
    assert isinstance(model, rung.Classifier)
    texts = ["the cat ran in the park", "two birds"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "base")
    rows = [torch.tensor([tokenizer(text)["input_ids"]]) for text in texts]
    with torch.inference_mode():
        expected = torch.cat([theirs(input_ids=row).logits.double().softmax(1) for row in rows])
    found = torch.from_numpy(model.predict(texts).probabilities)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::rung.errors.RungWarning")
def test_a_tagger_gives_pefts_scores(tmp_path: Path) -> None:
    base_of("BertModel", tmp_path / "base")
    start = transformers.BertForTokenClassification.from_pretrained(tmp_path / "base", num_labels=5)
    theirs = adapted(start, tmp_path / "adapter", "TOKEN_CLS", target_modules=["query", "value"])
    model = rung.load(tmp_path / "adapter")
    assert isinstance(model, rung.Tagger)
    ids = torch.arange(5, 16)[None]
    with torch.inference_mode():
        found = model.net({"input_ids": ids})
        torch.testing.assert_close(found, theirs(input_ids=ids).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::rung.errors.RungWarning")
def test_an_encoder_decoder_gives_pefts_scores(tmp_path: Path) -> None:
    torch.manual_seed(7)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
    config: Any = transformers.T5Config(vocab_size=64, **sizes)  # type: ignore[arg-type]
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "base")
    start = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "base")
    theirs = adapted(start, tmp_path / "adapter", "SEQ_2_SEQ_LM")
    net: Any = open_encoder_decoder(resolve_base(tmp_path / "adapter")).eval()
    ids = torch.arange(5, 16)[None]
    with torch.inference_mode():
        expected = theirs(input_ids=ids, decoder_input_ids=ids).logits
        torch.testing.assert_close(net(ids, ids), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::rung.errors.RungWarning")
def test_a_head_that_peft_did_not_keep_is_the_bases(tmp_path: Path) -> None:
    encoder = train_wordpieces(_TEXTS, vocab_size=120)
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64, "num_labels": 3}
    torch.manual_seed(7)
    config: Any = transformers.DistilBertConfig(vocab_size=encoder.vocab_size, **sizes)  # type: ignore[arg-type]
    transformers.DistilBertForSequenceClassification(config).save_pretrained(tmp_path / "base")
    encoder.save(tmp_path / "base", model_max_length=64)
    start = transformers.DistilBertForSequenceClassification.from_pretrained(tmp_path / "base")
    theirs = adapted(start, tmp_path / "adapter", "SEQ_CLS", target_modules=["q_lin", "v_lin"])
    parameters = dict(theirs.named_parameters())
    for name, parameter in parameters.items():  # as if `pre_classifier` had not been trained
        if "pre_classifier.modules_to_save" in name:
            parameter.data = parameters[name.replace("modules_to_save.default", "original_module")].data
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: t for name, t in load_file(file).items() if "pre_classifier" not in name}, file)
    model = rung.load(tmp_path / "adapter")
    assert isinstance(model, rung.Classifier)
    ids = torch.from_numpy(encoder.encode(["the cat ran"]).ids)[None].long()
    with torch.inference_mode():
        expected = theirs(input_ids=ids).logits.double().softmax(1)
    found = torch.from_numpy(model.predict(["the cat ran"]).probabilities)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::rung.errors.RungWarning")
def test_the_adapters_own_tokenizer_wins(llama: tuple[Any, Path], tmp_path: Path) -> None:
    _, folder = llama
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "base" / name, folder / name)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    template = "{% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": template}))
    opened = resolve_base(folder)
    assert json.loads((opened / "tokenizer_config.json").read_text())["chat_template"] == template
    assert resolve_base(folder) == opened
    assert (folder / "adapter_model.safetensors").samefile(opened / "adapter_model.safetensors")


@pytest.mark.filterwarnings("ignore::rung.errors.RungWarning")
def test_a_base_that_was_moved(llama: tuple[Any, Path], tmp_path: Path) -> None:
    _, folder = llama
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "base").rename(tmp_path / "elsewhere" / "base")
    with pytest.raises(RunFolderError, match=r"its base .*base is not here") as caught:
        rung.load(folder)
    assert f"put it (a link will do) at {tmp_path / 'base'}" in str(caught.value)
    both = tmp_path / "elsewhere" / "adapter"
    folder.rename(both)
    assert isinstance(rung.load(both), rung.LanguageModel)


@pytest.mark.filterwarnings("ignore::rung.errors.RungWarning")
def test_a_fetched_base_is_found_by_its_name_on_the_hub(
    llama: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "org").mkdir(parents=True)
    (tmp_path / "base").rename(tmp_path / "models" / "org" / "tiny")
    settings = json.loads((llama[1] / "adapter_config.json").read_text())
    (llama[1] / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "org/tiny"}))
    monkeypatch.chdir(tmp_path)
    model = rung.load("adapter")
    assert isinstance(model, rung.LanguageModel)
    record = base_record(model.folder)
    assert (record["name"], record["origin"]) == ("adapter", str(llama[1]))


def test_an_encoder_without_a_head_is_refused(tmp_path: Path) -> None:
    adapted(base_of("BertModel", tmp_path / "base"), tmp_path / "adapter", "FEATURE_EXTRACTION")
    with pytest.raises(RunFolderError, match="not for FEATURE_EXTRACTION") as caught:
        rung.load(tmp_path / "adapter")
    assert "merge_and_unload" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"base_model_name_or_path": None}, "does not name a base"),
        ({"base_model_name_or_path": ["base"]}, "does not name a base"),
        ({"base_model_name_or_path": "org/never-fetched"}, "org/never-fetched is not here"),
        ({"base_model_name_or_path": "/usr/../etc"}, "is no model"),
        ({"auto_map": {"AutoModel": "evil.Net"}}, "auto_map"),
        ({"peft_type": "IA3"}, "no LoRA adapter"),
    ],
)
def test_what_cannot_be_opened_is_refused(llama: tuple[Any, Path], change: dict[str, Any], problem: str) -> None:
    path = llama[1] / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunFolderError, match=problem) as caught:
        rung.load(llama[1])
    assert caught.value.hint
    assert ("rung get org/never-fetched" in caught.value.hint) == ("org" in problem)


@pytest.mark.filterwarnings("ignore::rung.errors.RungWarning")
def test_code_and_loops_are_refused(llama: tuple[Any, Path], tmp_path: Path) -> None:
    path = llama[1] / "adapter_config.json"
    settings = json.loads(path.read_text())
    config = tmp_path / "base" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoModel": "evil.Net"}}))
    with pytest.raises(RunFolderError, match="auto_map"):
        rung.load(llama[1])
    path.write_text(json.dumps(settings | {"base_model_name_or_path": str(llama[1])}))
    with pytest.raises(RunFolderError, match="an adapter itself"):
        rung.load(llama[1])
