"""Sentence encoders against sentence-transformers at tiny size: the same vectors, whoever wrote the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sentence_transformers as st
import torch
import transformers
from sentence_transformers.sentence_transformer import modules as models
from tokenizers import BertWordPieceTokenizer, Tokenizer
from tokenizers.processors import BertProcessing

from rung.data.text_encoder import TextEncoder
from rung.errors import RunFolderError
from rung.nets.sentence_encoder import DenseConfig, SentenceConfig
from rung.nets.sentence_folder import load_pooler, load_sentence_net, save_sentence_net

TEXTS = ["a dog runs", "the cat sat on the mat and looked at the dog", "run", "the the the"]
MODES = ["cls", "max", "mean", "weightedmean", "lasttoken"]


def bare_folder(folder: Path) -> Path:
    """A tiny random BERT and its tokenizer, as transformers writes them."""
    pieces = BertWordPieceTokenizer()
    pieces.train_from_iterator(TEXTS * 2, 80, min_frequency=1)
    made = Tokenizer.from_str(pieces.to_str())
    made.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.BertTokenizer(tokenizer_object=made, vocab=made.get_vocab(), **special).save_pretrained(folder)
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=90,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=16,
    )
    net = transformers.BertModel(config)
    for parameter in net.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    net.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare_folder(tmp_path_factory.mktemp("bare"))


def their_model(bare: Path, modes: list[str], *, dense: bool = False, normalize: bool = False) -> Any:
    torch.manual_seed(4)
    steps: list[Any] = [models.Transformer(str(bare), max_seq_length=12)]
    steps.append(models.Pooling(24, pooling_mode=modes[0] if len(modes) == 1 else tuple(modes)))
    if dense:
        steps.append(models.Dense(24 * len(modes), 10, activation_function=torch.nn.Tanh()))
    if normalize:
        steps.append(models.Normalize())
    return st.SentenceTransformer(modules=steps, device="cpu")


def vectors(folder: Path, max_length: int | None = None) -> torch.Tensor:
    encoder = TextEncoder.load(folder)
    net = load_sentence_net(folder, model_max_length=encoder.model_max_length).eval()
    ids, mask = encoder.encode(TEXTS, max_length=max_length or net.config.max_length).padded(
        torch.arange(len(TEXTS)).numpy(), encoder.pad_token_id
    )
    with torch.no_grad():
        return net({"input_ids": torch.from_numpy(ids), "mask": torch.from_numpy(mask)})


@pytest.mark.parametrize(
    ("modes", "dense", "normalize"),
    [*(([mode], False, True) for mode in MODES), (["mean"], True, False), (["cls", "mean"], True, True)],
)
def test_the_same_vectors_whoever_wrote_the_folder(
    modes: list[str], dense: bool, normalize: bool, bare: Path, tmp_path: Path
) -> None:
    theirs = their_model(bare, modes, dense=dense, normalize=normalize)
    expected = torch.from_numpy(theirs.encode(TEXTS))
    theirs.save(str(tmp_path / "theirs"), create_model_card=False)
    torch.testing.assert_close(vectors(tmp_path / "theirs"), expected, rtol=1e-5, atol=1e-5)
    (tmp_path / "ours").mkdir()
    save_sentence_net(
        load_sentence_net(tmp_path / "theirs", model_max_length=12),
        tmp_path / "ours",
        pooler=load_pooler(tmp_path / "theirs"),
    )
    TextEncoder.load(tmp_path / "theirs").save(tmp_path / "ours", model_max_length=12)
    again = st.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    assert again.max_seq_length == 12
    assert torch.equal(again[0].auto_model.pooler.dense.weight, theirs[0].auto_model.pooler.dense.weight)
    torch.testing.assert_close(torch.from_numpy(again.encode(TEXTS)), expected, rtol=1e-5, atol=1e-5)


def test_several_poolings_keep_an_order_of_their_own(bare: Path, tmp_path: Path) -> None:
    theirs = their_model(bare, ["mean", "cls"])
    theirs.save(str(tmp_path / "theirs"), create_model_card=False)
    net = load_sentence_net(tmp_path / "theirs")
    assert net.config.pooling == ("mean", "cls")
    save_sentence_net(net, tmp_path)
    assert load_sentence_net(tmp_path).config.pooling == ("mean", "cls")


def test_a_bare_encoder_gets_the_mean(bare: Path) -> None:
    assert load_sentence_net(bare).config == SentenceConfig(max_length=16)
    theirs = their_model(bare, ["mean"])
    torch.testing.assert_close(vectors(bare, 12), torch.from_numpy(theirs.encode(TEXTS)), rtol=1e-5, atol=1e-5)


def test_a_body_in_a_subfolder_is_found(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "0_Transformer").symlink_to(bare)
    (tmp_path / "1_Pooling").mkdir()
    write(tmp_path / "1_Pooling/config.json", {"word_embedding_dimension": 24, "pooling_mode_cls_token": True})
    steps = [("0_Transformer", "Transformer"), ("1_Pooling", "Pooling")]
    write_modules(tmp_path, [(path, f"sentence_transformers.models.{kind}") for path, kind in steps])
    assert load_sentence_net(tmp_path).config.pooling == ("cls",)


# What is wrong with a folder ------------------------------------------------------------------------------------------


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def write_modules(folder: Path, steps: list[tuple[str, str]]) -> None:
    listed = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(steps)]
    write(folder / "modules.json", listed)


@pytest.fixture
def whole(bare: Path, tmp_path: Path) -> Path:
    """A folder of ours with a dense layer."""
    net = load_sentence_net(bare)
    config = SentenceConfig(max_length=12, after=(DenseConfig(24, 10), "normalize"), prompts={"query": "query: "})
    torch.manual_seed(3)
    made = type(net)(net.body, config)
    save_sentence_net(made, tmp_path)
    return tmp_path


def test_ours_says_all_that_it_is(whole: Path) -> None:
    config = load_sentence_net(whole).config
    assert config.after == (DenseConfig(24, 10), "normalize")
    assert dict(config.prompts) == {"query": "query: "}
    assert config.max_length == 12


S = "sentence_transformers.models."


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([("", "custom_code.Transformer"), ("1_Pooling", S + "Pooling")], "code of another package"),
        ([("../elsewhere", S + "Transformer"), ("1_Pooling", S + "Pooling")], "outside the folder"),
        ([("/etc", S + "Transformer"), ("1_Pooling", S + "Pooling")], "outside the folder"),
        ([("", S + "Transformer"), ("1_Pooling", S + "Pooling"), ("3_LSTM", S + "LSTM")], "LSTM are not supported"),
        ([("1_Pooling", S + "Pooling")], "steps Pooling are not supported"),
        ([], "steps without any are not supported"),
    ],
)
def test_steps_that_are_not_known_are_refused(steps: list[tuple[str, str]], said: str, whole: Path) -> None:
    write_modules(whole, steps)
    with pytest.raises(RunFolderError, match=said):
        load_sentence_net(whole)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("1_Pooling/config.json", {"word_embedding_dimension": 48}, "vectors of 48, the body's have 24"),
        ("1_Pooling/config.json", {"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt_len_tokens is not supported"),
        ("1_Pooling/config.json", {"include_prompt": False}, "include_prompt"),
        ("2_Dense/config.json", {"activation_function": "os.system"}, "'os.system' is not supported"),
        ("2_Dense/config.json", {"activation_function": ["tanh"]}, r"\['tanh'\] is not supported"),
        ("2_Dense/config.json", {"bias": "no"}, "bias must be true or false"),
        ("2_Dense/config.json", {"out_features": 10**19}, "out_features must be at most 1,048,576"),
        ("2_Dense/config.json", {"in_features": 12}, "takes vectors of 12, and 24 come to it"),
        ("2_Dense/config.json", {"out_features": 11}, "has shape"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length"),
        ("config_sentence_transformers.json", {"default_prompt_name": "no"}, "none of the prompts"),
        ("config_sentence_transformers.json", {"prompts": {"a": 1}}, "not texts by name"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "manhattan"}, "'manhattan' is not supported"),
        ("config.json", {"auto_map": {"AutoModel": "evil.Model"}}, "auto_map asks to run"),
    ],
)
def test_settings_that_would_be_computed_otherwise_are_refused(
    name: str, changes: dict[str, Any], said: str, whole: Path
) -> None:
    path = whole / name
    write(path, {**json.loads(path.read_text(encoding="utf-8")), **changes})
    with pytest.raises(RunFolderError, match=said):
        load_sentence_net(whole)


@pytest.mark.parametrize("name", ["1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"])
def test_files_that_are_missing_or_damaged_are_named(name: str, whole: Path) -> None:
    (whole / name).write_bytes(b"{")
    with pytest.raises(RunFolderError, match="cannot read"):
        load_sentence_net(whole)
    (whole / name).unlink()
    with pytest.raises(RunFolderError, match="has no"):
        load_sentence_net(whole)
