"""Tokenizers of other makes: the ids of transformers, and the text back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Library

from rung.data.special_tokens import encode_with_special, with_special_tokens
from rung.data.stream_decoder import StreamDecoder
from rung.data.tokenizer import Tokenizer
from rung.errors import TokenizerError

TEXT = (
    "It's the nightingale, and not the lark; we'd say 12 naïve façades, 3.14 and 2024.\n\n  def f(x):\n\treturn  x\n"
    "Привет, мир! 今日は世界、こんにちは。 👋🏽 the lark, the lark and the nightingale\r\n"
)
TEXTS = ["", " ", "  two", "the lark", "<s> </s> <|eot_id|>", "<0x0A>", "a\x00b\u2581c", "e\u0301 é 漢字 🏳️‍🌈", TEXT]
UNKNOWN = "<unk>"
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def llama3(folder: Path) -> Any:
    """Byte-level with digits in threes, and a template that puts the first token before every text."""
    library = Library(models.BPE(ignore_merges=True))
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    library.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet))
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    library.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    number = library.token_to_id(special[0])
    library.post_processor = processors.TemplateProcessing(f"{special[0]} $A", special_tokens=[(special[0], number)])
    names = {"bos_token": special[0], "eos_token": special[1]}
    transformers.PreTrainedTokenizerFast(tokenizer_object=library, **names).save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def pieces(folder: Path, *, legacy: bool) -> Any:
    """Pieces with byte fallback, in the older way (Llama 2) with a normaliser, or the newer (Mistral) with a split."""
    library = Library(models.BPE(unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True))
    split = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first", split=False)
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    library.normalizer = normalizers.Replace(" ", "\u2581")
    trainer = trainers.BpeTrainer(
        vocab_size=380, special_tokens=[UNKNOWN, "<s>", "</s>", *fallback], max_token_length=9
    )
    library.train_from_iterator(TEXT.split("\n"), trainer)
    definition = json.loads(library.to_str())
    definition["added_tokens"] = definition["added_tokens"][:3]  # the bytes are ordinary tokens
    library = Library.from_str(json.dumps(definition))
    if legacy:
        library.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    else:
        library.normalizer = None  # type: ignore[assignment]
        library.pre_tokenizer = split
    library.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    library.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": UNKNOWN}
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=library, **names)
    made.save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


MAKES: dict[str, Callable[[Path], Any]] = {
    "llama3": llama3,
    "llama2": lambda folder: pieces(folder, legacy=True),
    "mistral": lambda folder: pieces(folder, legacy=False),
}


@pytest.fixture(params=MAKES.values(), ids=MAKES.keys())
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Tokenizer, Any]:
    theirs = request.param(tmp_path)
    return Tokenizer.load(tmp_path), theirs


def test_ids_are_those_of_transformers(both: tuple[Tokenizer, Any]) -> None:
    ours, theirs = both
    for text in TEXTS:
        plain = theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert ours.encode(text) == plain, text
        assert [array.tolist() for array in ours.encode_batch([text])] == [plain]
        assert ours.encode_prompt(text) == theirs(text, split_special_tokens=True)["input_ids"], text
        assert ours.decode(plain) == theirs.decode(plain, clean_up_tokenization_spaces=False)
        if not text.startswith(" ") and "\u2581" not in text:  # pieces cannot tell those apart from what they add
            assert ours.decode(plain) == text
    assert ours.start_token_id == ours.bos_token_id == theirs.bos_token_id
    assert ours.eos_token_id == theirs.eos_token_id
    assert ours.vocab_size == len(theirs)


def test_special_tokens_that_a_template_spells_are_those_tokens(both: tuple[Tokenizer, Any]) -> None:
    ours, theirs = both
    first, last = theirs.bos_token, theirs.eos_token
    for text in (f"{first}the lark{last}", f"the {last} lark\n{last}\n", f"{first}{first} é", "", "no mark"):
        expected = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode_marked(text) == expected, text
        assert encode_with_special(text, ours) == expected, text


def test_a_text_that_goes_on_keeps_its_spaces(both: tuple[Tokenizer, Any]) -> None:
    ours, _ = both
    stream = StreamDecoder(ours)
    assert "".join(map(stream.push, ours.encode("lark and lark")[-2:])) + stream.finish() in "lark and lark"
    ids = ours.encode("the lark and the lark")
    whole = b"".join(map(ours.token_bytes, ids)).decode()
    assert whole.lstrip() == "the lark and the lark"


def test_any_bytes_survive(both: tuple[Tokenizer, Any]) -> None:
    data = bytes(range(128, 256))
    assert b"".join(map(both[0].token_bytes, both[0].encode_bytes(data))) == data


def test_saving_keeps_what_the_folder_said(both: tuple[Tokenizer, Any], tmp_path: Path) -> None:
    ours, _ = both
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({**config, "chat_template": "{{ messages }}", "auto_map": {"AutoTokenizer": "mine.Mine"}})
    )
    (tmp_path / "again").mkdir()
    Tokenizer.load(tmp_path).save(tmp_path / "again", model_max_length=64)
    stored = json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())
    assert stored == {"model_max_length": 64, **config, "chat_template": "{{ messages }}"}
    again = Tokenizer.load(tmp_path / "again")
    assert again.encode_prompt(TEXT) == ours.encode_prompt(TEXT)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert theirs(TEXT, split_special_tokens=True)["input_ids"] == ours.encode_prompt(TEXT)


def test_new_special_tokens_keep_the_beginning(both: tuple[Tokenizer, Any]) -> None:
    ours, _ = both
    wider = with_special_tokens(ours, ["<|im_start|>"])
    assert wider.vocab_size == ours.vocab_size + 1
    assert wider.encode_prompt("the lark") == ours.encode_prompt("the lark")


def test_what_the_settings_say_of_the_beginning_counts(tmp_path: Path) -> None:
    llama3(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "add_bos_token": False}))
    ours = Tokenizer.load(tmp_path)
    assert ours.bos_token_id is None
    assert ours.start_token_id == ours.eos_token_id
    assert ours.encode_prompt("") == [ours.eos_token_id]


@pytest.fixture
def gpt2(rung_data: Path, tmp_path: Path) -> Path:
    """GPT-2's two files, as its first folders have them: no `tokenizer.json`, and no token named in the settings."""
    source = rung_data / "gpt2-tokenizer"
    shutil.copy(source / "encoder.json", tmp_path / "vocab.json")
    shutil.copy(source / "vocab.bpe", tmp_path / "merges.txt")
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "eos_token_id": 50256}')
    return tmp_path


def test_gpt2_is_read_from_its_two_files(gpt2: Path) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(gpt2)
    theirs.save_pretrained(gpt2 / "one_file")
    for folder in (gpt2, gpt2 / "one_file"):
        ours = Tokenizer.load(folder)
        assert (ours.vocab_size, ours.eos_token, ours.eos_token_id, ours.bos_token_id) == (
            50257,
            "<|endoftext|>",
            50256,
            None,
        )
        for text in [*TEXTS, "<|endoftext|>"]:
            ids = theirs(text, split_special_tokens=True)["input_ids"]
            assert ours.encode(text) == ids
            assert ours.decode(ids) == text
    (gpt2 / "again").mkdir()
    Tokenizer.load(gpt2).save(gpt2 / "again")
    assert Tokenizer.load(gpt2 / "again").encode(TEXT) == theirs(TEXT)["input_ids"]


def test_merges_that_do_not_fit_are_refused(gpt2: Path) -> None:
    (gpt2 / "merges.txt").write_text("#version: 0.2\n漢 字\n", encoding="utf-8")
    with pytest.raises(TokenizerError, match="do not fit each other"):
        Tokenizer.load(gpt2)


def test_a_tokenizer_that_cannot_spell_every_text_is_refused(tmp_path: Path) -> None:
    pieces(tmp_path, legacy=True)
    path = tmp_path / "tokenizer.json"
    definition = json.loads(path.read_text())
    definition["model"]["byte_fallback"] = False
    path.write_text(json.dumps(definition))
    with pytest.raises(TokenizerError, match="nor one with byte fallback"):
        Tokenizer.load(tmp_path)
