"""SentencePiece's BPE out of GGUF files: the same tokens as transformers, SentencePiece and llama.cpp give."""

from __future__ import annotations

import json
import random
from pathlib import Path

import gguf
import numpy as np
import pytest
from sentence_pieces import SPACE, WORDS, metadata, vocabulary

from rung.data.gguf_tokenizer import NORMAL, tokenizer_from_gguf
from rung.data.tokenizer import Tokenizer
from rung.data.tokenizer_files import CONFIG_FILE, TOKENIZER_FILE
from rung.errors import TokenizerError
from rung.nets.gguf_file import GgufFile

ALPHABET = [*"thecasonm 's'21,", "  ", "\n", "\t", "\u00e9", "e\u0301", "\u6771", "\U0001f600", SPACE, "</s>", "<0x0A>"]


def write(path: Path, *, add_space: bool = True) -> Path:
    """A GGUF file of this vocabulary, with a network that no one looks at."""
    tokens, types, scores = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_scores(scores)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    if not add_space:
        writer.add_add_space_prefix(False)
    writer.add_tensor("token_embd.weight", np.zeros((len(tokens), 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read(file: Path, folder: Path) -> Tokenizer:
    """The file's tokenizer, by way of a model folder."""
    with GgufFile(file) as opened:
        definition, config = tokenizer_from_gguf(opened.metadata, where=str(file))
    folder.mkdir()
    (folder / TOKENIZER_FILE).write_text(json.dumps(definition))
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    return Tokenizer.load(folder)


def texts(count: int) -> list[str]:
    """Random strings, near the vocabulary's text and far from it."""
    draw = random.Random(2)  # noqa: S311
    near = [" ".join(draw.choices(WORDS, k=draw.randrange(1, 9))) for _ in range(count // 2)]
    return near + ["".join(draw.choices(ALPHABET, k=draw.randrange(12))) for _ in range(count - len(near))]


def test_the_same_tokens_as_transformers(tmp_path: Path) -> None:
    """Apart from one rule: before a text that begins with a space transformers puts no other, unlike the originals."""
    transformers = pytest.importorskip("transformers")
    file = write(tmp_path / "model.gguf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    ours = read(file, tmp_path / "folder")
    exported = transformers.AutoTokenizer.from_pretrained(tmp_path / "folder")
    for text in texts(1000):
        assert exported.encode(text) == [1, *ours.encode_marked(text)]
        if "</s>" not in text and not text.startswith((" ", SPACE)):
            assert [1, *ours.encode(text)] == theirs.encode(text) == ours.encode_prompt(text)


@pytest.mark.parametrize("add_space", [True, False])
def test_the_same_tokens_as_llama_cpp(add_space: bool, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip(
        "llama_cpp", reason="llama-cpp-python is not installed (it is compiled from source)"
    )
    file = write(tmp_path / "model.gguf", add_space=add_space)
    ours = read(file, tmp_path / "folder")
    theirs = llama_cpp.Llama(str(file), vocab_only=True, verbose=False)
    for text in texts(1000):
        assert ours.encode(text) == theirs.tokenize(text.encode(), add_bos=False, special=False), text
        assert ours.encode_prompt(text) == theirs.tokenize(text.encode(), add_bos=True, special=False)


def test_the_same_tokens_as_sentence_piece(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    from transformers.convert_slow_tokenizer import import_protobuf

    proto = import_protobuf().ModelProto()  # type: ignore[no-untyped-call]
    proto.trainer_spec.model_type, proto.trainer_spec.byte_fallback = 2, True
    proto.normalizer_spec.add_dummy_prefix, proto.normalizer_spec.remove_extra_whitespaces = True, False
    proto.normalizer_spec.name = "identity"
    for token, kind, score in zip(*vocabulary(), strict=True):
        proto.pieces.add(piece=token, type=kind, score=score)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    ours = read(write(tmp_path / "model.gguf"), tmp_path / "folder")
    for text in texts(1000):
        assert ours.encode(text) == theirs.encode(text), text
        assert ours.decode(ours.encode(text)) == text.replace(SPACE, " ")


def test_what_a_file_may_leave_out(tmp_path: Path) -> None:
    """Where nothing is said: begin 1, end 2, unknown 0, a space before a text, and `<s>` before all."""
    definition, config = tokenizer_from_gguf(metadata(), where="here")
    assert (config["bos_token"], config["eos_token"], config["unk_token"]) == ("<s>", "</s>", "<unk>")
    written = read(write(tmp_path / "model.gguf"), tmp_path / "folder")
    assert json.loads(written.definition) == definition


def test_no_text_spells_a_control_token() -> None:
    """As in SentencePiece: `</` and `s>` may be joined from letters, `</s>` from nothing."""
    tokens, types, scores = vocabulary()
    more = ["<", "/", ">", "</", "s>"]
    longer = {
        "tokens": [*tokens, *more],
        "token_type": [*types, *[NORMAL] * len(more)],
        "scores": [*scores, *[-900.0] * len(more)],
    }
    changed = metadata() | {f"tokenizer.ggml.{name}": value for name, value in longer.items()}
    definition, config = tokenizer_from_gguf(changed, where="here")
    ours = Tokenizer(json.dumps(definition), eos_token=config["eos_token"], pretokenizer_name=None, where="here")
    assert [ours.spellings[number] for number in ours.encode("</s>")] == [SPACE, "</", "s>"]
    assert ours.encode_marked("</s>") == [2]


@pytest.mark.parametrize("change", ["missing", "too few", "a text", "no number"])
def test_scores_that_are_missing_or_none_are_named(change: str) -> None:
    scores = vocabulary()[2]
    changed = {"too few": scores[1:], "a text": [*scores[1:], "x"], "no number": [float("nan"), *scores[1:]]}
    with pytest.raises(TokenizerError, match="one score for each token"):
        tokenizer_from_gguf(metadata() | {"tokenizer.ggml.scores": changed.get(change)}, where="here")
