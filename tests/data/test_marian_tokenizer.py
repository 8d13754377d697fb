"""Marian's tokenizer out of its published files: the ids and texts of transformers, and folders that are refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from sentencepiece_writer import BYTE, CONTROL, NORMAL, SPECIAL, write_model

from rung.data.marian_tokenizer import MarianTokenizer
from rung.data.pair_tokenizer import PairTokenizer, train_pair_tokenizer
from rung.data.sequence_tokenizer import load_sequence_tokenizer
from rung.errors import RungWarning, TokenizerError

MARIAN = Path(__file__).parent / "marian"
NAMES = ("source.spm", "target.spm", "vocab.json", "tokenizer_config.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        shutil.copyfile(MARIAN / name, tmp_path / name)
    return tmp_path


def change(path: Path, **entries: Any) -> None:
    """Give a JSON object other entries; None: without."""
    value = {**json.loads(path.read_text(encoding="utf-8")), **entries}
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not None}), encoding="utf-8")


def ids(tokenizer: MarianTokenizer, text: str) -> list[list[int]]:
    return [encode([text]).ids.tolist() for encode in (tokenizer.encode, tokenizer.encode_targets)]


def test_the_ids_and_texts_that_transformers_gave() -> None:
    """`make.py` beside the files wrote them down."""
    tokenizer = MarianTokenizer.load(MARIAN)
    rows = json.loads((MARIAN / "expected.json").read_text(encoding="utf-8"))
    assert len(rows) > 100
    for row in rows:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "no language of the model", RungWarning)
            found = ids(tokenizer, row["text"])
        assert found == [row["source"], row["target"]], ascii(row["text"])
        assert tokenizer.decode_batch(found) == row["decoded"]


def test_the_ids_and_texts_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    spec = importlib.util.spec_from_file_location("make", MARIAN / "make.py")
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    with pytest.warns(UserWarning, match="sacremoses"):
        theirs = transformers.MarianTokenizer.from_pretrained(MARIAN)
    theirs.save_pretrained(tmp_path)  # with more in its configuration than published folders have
    ours = MarianTokenizer.load(tmp_path)
    for text in make.TEXTS + make.random_texts(2000):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "no language of the model", RungWarning)
            found = ids(ours, text)
        assert found == [theirs(text)["input_ids"], theirs(text_target=text)["input_ids"]], ascii(text)
        assert ours.decode_batch(found) == [theirs.decode(row, skip_special_tokens=True) for row in found]
    assert (ours.pad_token_id, ours.eos_token_id) == (theirs.pad_token_id, theirs.eos_token_id)


def test_each_side_is_cut_by_its_own_model() -> None:
    tokenizer = MarianTokenizer.load(MARIAN)
    source, target = ids(tokenizer, "der Hund")
    assert source != target
    assert tokenizer.decode_batch([target]) == ["der Hund"]
    assert len(tokenizer.encode(["der Hund", "", "dog"])) == 3


def test_a_language_code_is_one_token_and_special_tokens_are_never_made_from_text() -> None:
    tokenizer = MarianTokenizer.load(MARIAN)
    vocabulary = json.loads((MARIAN / "vocab.json").read_text(encoding="utf-8"))
    source = ids(tokenizer, ">>nld<< the dog")[0]
    assert source == [vocabulary[">>nld<<"], *ids(tokenizer, "the dog")[0]]
    special = {vocabulary["</s>"], vocabulary["<pad>"]}
    for text in ("</s>", "a <pad> b", "<unk></s>"):
        for found in ids(tokenizer, text):
            assert special.isdisjoint(found[:-1])


def test_a_language_that_the_network_does_not_write_is_told() -> None:
    tokenizer = MarianTokenizer.load(MARIAN)
    with pytest.warns(RungWarning, match=r"no language of the model: >>ger<< \(it writes >>deu<<, >>nld<<\)"):
        tokenizer.encode([">>deu<< the dog", ">>ger<< the dog"])


def test_bytes_become_text_again_and_controls_are_silent(folder: Path) -> None:
    spelled = [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    pieces = [*SPECIAL, ("\u2581", -1.0, NORMAL), *spelled, ("<2de>", 0.0, CONTROL)]
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(write_model(pieces, {35: True}))
    tokens = ["</s>", "<unk>", *(piece for piece, *_ in pieces[3:]), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    tokenizer = MarianTokenizer.load(folder)
    found = ids(tokenizer, "\u6771 \u00e9\n\U0001f600")[0]
    assert 1 not in found
    assert tokenizer.decode_batch([[tokens.index("<2de>"), *found]]) == ["\u6771 \u00e9\n\U0001f600"]
    assert tokenizer.decode_batch([found[:2]]) == ["\ufffd"]


def test_these_files_win_over_tokenizer_json_as_they_do_in_transformers(tmp_path: Path) -> None:
    train_pair_tokenizer(["a dog"], vocab_size=300).save(tmp_path, model_max_length=64)
    for name in NAMES[:2]:
        shutil.copyfile(MARIAN / name, tmp_path / name)
    assert isinstance(load_sequence_tokenizer(tmp_path), PairTokenizer)
    for name in NAMES[2:]:
        shutil.copyfile(MARIAN / name, tmp_path / name)
    assert isinstance(load_sequence_tokenizer(tmp_path), MarianTokenizer)


def test_special_tokens_may_have_other_names(folder: Path) -> None:
    text = (folder / "vocab.json").read_text(encoding="utf-8")
    (folder / "vocab.json").write_text(text.replace('"<pad>"', '"[PAD]"'), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "[PAD]"}}))
    assert MarianTokenizer.load(folder).pad_token_id == MarianTokenizer.load(MARIAN).pad_token_id
    change(folder / "tokenizer_config.json", pad_token="<pad>")  # noqa: S106
    with pytest.raises(TokenizerError, match="lacks <pad>"):
        MarianTokenizer.load(folder)


@pytest.mark.parametrize("name", NAMES[:3])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(TokenizerError, match=f"the folder has no {name}") as refused:
        load_sequence_tokenizer(folder)
    assert refused.value.hint


@pytest.mark.parametrize("token", ["<unk>", "</s>", "<pad>"])
def test_a_vocabulary_without_a_special_token_is_refused(token: str, folder: Path) -> None:
    change(folder / "vocab.json", **{token: None})
    with pytest.raises(TokenizerError, match=f"vocab.json lacks {token}"):
        MarianTokenizer.load(folder)


@pytest.mark.parametrize("number", ["seven", -1, True, 5, [1], 1.5])
def test_numbers_that_are_none_or_there_twice_are_refused(number: Any, folder: Path) -> None:
    change(folder / "vocab.json", dog=number)
    with pytest.raises(TokenizerError, match="whole number of its own"):
        MarianTokenizer.load(folder)


def test_more_ids_than_the_network_has_are_refused() -> None:
    size = MarianTokenizer.load(MARIAN).vocab_size
    load_sequence_tokenizer(MARIAN, vocab_size=size)
    with pytest.raises(TokenizerError, match=f"has {size:,} token ids, the network only {size - 1:,}"):
        load_sequence_tokenizer(MARIAN, vocab_size=size - 1)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"separate_vocabs": True}, "each side has a vocabulary of its own"),
        ({"sp_model_kwargs": {"enable_sampling": True}}, "not at random"),
        ({"extra_special_tokens": {"gap_token": {"content": "<gap>"}}}, "added tokens.*: <gap>"),
        ({"added_tokens_decoder": {"0": {"content": "</s>"}, "122": {"content": "<mine>"}}}, "added tokens.*: <mine>"),
        ({"additional_special_tokens": ["<eop>"]}, "added tokens.*: <eop>"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(entries: dict[str, Any], said: str, folder: Path) -> None:
    change(folder / "tokenizer_config.json", **entries)
    with pytest.raises(TokenizerError, match=said):
        MarianTokenizer.load(folder)
