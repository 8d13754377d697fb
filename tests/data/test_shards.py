"""Token shards: what is written is read back, damage is named, and only what changed is encoded again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.data.corpus import Corpus, CorpusOptions, prepare_corpus
from rung.data.shards import EncodedDocuments, TokenShards, token_dtype, write_shards
from rung.data.tokenise import tokenise_corpus
from rung.data.tokenizer import Tokenizer, train_tokenizer
from rung.errors import NewerFormatError, RunFolderError

EOS = 9
Piece = tuple[list[int], bool]
"""Tokens of a document, and whether it continues the one before it."""


def encoded(pieces: list[Piece]) -> EncodedDocuments:
    digests = [hashlib.sha256(repr(tokens).encode()).digest() for tokens, _ in pieces]
    return EncodedDocuments(
        tokens=np.array([token for tokens, _ in pieces for token in tokens], dtype=np.uint32),
        lengths=np.array([len(tokens) for tokens, _ in pieces], dtype=np.int64),
        nbytes=np.array([3 * len(tokens) for tokens, _ in pieces], dtype=np.int64),
        sha256=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
        continues=np.array([continues for _, continues in pieces], dtype=bool),
    )


def write(
    folder: Path, batches: list[list[Piece]], *, vocab_size: int = 10, shard_tokens: int = 1 << 20
) -> TokenShards:
    return write_shards(
        folder,
        map(encoded, batches),
        tokenizer_sha256="ab" * 32,
        eos_token_id=EOS,
        vocab_size=vocab_size,
        shard_tokens=shard_tokens,
    )


def stream_of(pieces: list[Piece]) -> list[int]:
    """The stream by its definition: each document is closed unless the next one continues it."""
    stream: list[int] = []
    for number, (tokens, _) in enumerate(pieces):
        stream += tokens
        if number + 1 == len(pieces) or not pieces[number + 1][1]:
            stream.append(EOS)
    return stream


PIECES = st.lists(st.tuples(st.lists(st.integers(0, 8), max_size=9), st.booleans()), min_size=1, max_size=12)


@given(batches=st.lists(PIECES, min_size=1, max_size=4), shard_tokens=st.integers(1, 30))
@settings(max_examples=50)
def test_shards_hold_the_stream_and_every_document(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Piece]], shard_tokens: int
) -> None:
    folder = tmp_path_factory.mktemp("shards") / "train"
    shards = write(folder, batches, shard_tokens=shard_tokens)
    pieces = [piece for batch in batches for piece in batch]
    pieces[0] = (pieces[0][0], False)
    stream = stream_of(pieces)
    assert shards.num_tokens == len(stream)
    for start in range(len(stream) + 1):
        length = min(7, len(stream) - start)
        assert shards.read(start, length).tolist() == stream[start : start + length]
    assert [shards.document_tokens(i).tolist() for i in range(len(pieces))] == [tokens for tokens, _ in pieces]
    assert shards.document_ids == [hashlib.sha256(repr(tokens).encode()).hexdigest() for tokens, _ in pieces]
    assert shards.document_bytes.tolist() == [3 * len(tokens) for tokens, _ in pieces]
    assert shards.num_bytes == 3 * sum(len(tokens) for tokens, _ in pieces)
    joined = [[t for piece, _ in pieces[first:last] for t in piece] for first, last in shards.streams()]
    assert [[*tokens, EOS] for tokens in joined] == split_after_eos(stream)
    assert TokenShards.open(folder, verify=True).sha256 == shards.sha256


def split_after_eos(stream: list[int]) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for token in stream:
        parts[-1].append(token)
        if token == EOS:
            parts.append([])
    return parts[:-1]


def test_the_type_of_tokens_follows_the_vocabulary(tmp_path: Path) -> None:
    assert (token_dtype(65_536).itemsize, token_dtype(65_537).itemsize) == (2, 4)
    small = write(tmp_path / "small", [[([65_535], False)]], vocab_size=65_536)
    large = write(tmp_path / "large", [[([65_536], False)]], vocab_size=65_537)
    assert (small.read(0, 1).dtype, small.read(0, 1)[0]) == (np.uint16, 65_535)
    assert (large.read(0, 1).dtype, large.read(0, 1)[0]) == (np.uint32, 65_536)


def test_no_documents_are_an_empty_stream(tmp_path: Path) -> None:
    shards = write(tmp_path / "none", [])
    assert (shards.num_tokens, shards.num_documents, shards.streams(), shards.bytes_per_token) == (0, 0, [], 0.0)
    assert shards.read(0, 0).tolist() == []


def test_a_failed_writer_leaves_nothing(tmp_path: Path) -> None:
    def batches() -> list[list[Piece]]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_shards(
            tmp_path / "s",
            (encoded(batches()) for _ in range(1)),
            tokenizer_sha256="",
            eos_token_id=EOS,
            vocab_size=10,
        )
    assert list(tmp_path.iterdir()) == []


FILES = [
    "tokens-00000.bin",
    "tokens-00001.bin",
    "starts.bin",
    "document_bytes.bin",
    "document_ids.bin",
    "continues.bin",
]


@pytest.mark.parametrize("name", [*FILES, "shards.json"])
def test_a_truncated_or_missing_file_is_named_on_opening(name: str, tmp_path: Path) -> None:
    write(tmp_path / "s", [[([1, 2, 3], False), ([4, 5], True)]], shard_tokens=4)
    path = tmp_path / "s" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunFolderError) as caught:
        TokenShards.open(tmp_path / "s")
    assert caught.value.where == str(path)
    path.unlink()
    with pytest.raises(RunFolderError, match="missing") as caught:
        TokenShards.open(tmp_path / "s")
    assert caught.value.where == str(path)


@pytest.mark.parametrize("name", [*FILES, "shards.json"])
def test_a_flipped_bit_is_named_by_verifying(name: str, tmp_path: Path) -> None:
    write(tmp_path / "s", [[([1, 2, 3], False), ([4, 5], True)]], shard_tokens=4)
    path = tmp_path / "s" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(RunFolderError) as caught:
        TokenShards.open(tmp_path / "s", verify=True)
    assert caught.value.where == str(path)


def test_a_newer_format_another_kind_and_a_wrong_count_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "s", [[([1], False)]])
    header = json.loads((tmp_path / "s" / "rung.json").read_text())
    for change, error, problem in [
        ({"kind": "model"}, RunFolderError, "no token shards"),
        ({"format_version": 1000}, NewerFormatError, "1000"),
        ({"files": header["files"] | {"continues.bin": {"bytes": 0, "sha256": ""}}}, RunFolderError, "0 were written"),
    ]:
        (tmp_path / "s" / "rung.json").write_text(json.dumps(header | change))
        with pytest.raises(error, match=problem):
            TokenShards.open(tmp_path / "s")
    manifest = json.loads((tmp_path / "s" / "shards.json").read_text())
    changed = json.dumps(manifest | {"num_documents": 7}, indent=2) + "\n"
    (tmp_path / "s" / "shards.json").write_text(changed)
    (tmp_path / "s" / "rung.json").write_text(json.dumps(header))
    with pytest.raises(RunFolderError, match="disagree"):
        TokenShards.open(tmp_path / "s")


# --- a whole corpus ---------------------------------------------------------------------------------------------------


def write_texts(folder: Path, first: int, last: int) -> None:
    """Files of several pieces each, every one different, with a character beyond the basic plane."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(first)
    words = ["".join(map(chr, rng.integers(97, 123, size=length))) for length in rng.integers(2, 9, size=3000)]
    for number in range(first, last):
        paragraphs = [" ".join(rng.choice(words, size=60)) + f" é {number} 𝐀😀." for _ in range(30)]
        (folder / f"{number:03d}.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")


OPTIONS = CorpusOptions(valid_fraction=0.2, piece_bytes=1024)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    write_texts(tmp_path / "texts", 0, 6)
    return tmp_path / "texts"


def corpus_of(texts: Path, cache: Path) -> Corpus:
    return prepare_corpus([texts], cache_dir=cache, options=OPTIONS)


def small_tokenizer(corpus: Corpus, vocab_size: int = 600) -> Tokenizer:
    return train_tokenizer(corpus.texts("train"), vocab_size=vocab_size)


def test_the_shards_of_a_corpus_are_its_documents(texts: Path, tmp_path: Path) -> None:
    corpus = corpus_of(texts, tmp_path / "cache")
    tokenizer = small_tokenizer(corpus)
    for split, shards in tokenise_corpus(corpus, tokenizer, cache_dir=tmp_path / "cache").items():
        documents = list(corpus.documents(split))
        assert shards.num_documents == len(documents) > 3
        assert shards.num_bytes == corpus.num_bytes(split)
        assert shards.tokenizer_sha256 == tokenizer.sha256
        assert shards.document_ids == [document.sha256 for document in documents]
        assert shards.continues.tolist() == [document.continues for document in documents]
        expected = stream_of([(tokenizer.encode(document.text), document.continues) for document in documents])
        eos_as_in_test = [
            EOS if token == tokenizer.eos_token_id else token for token in shards.read(0, shards.num_tokens)
        ]
        assert eos_as_in_test == expected
        texts_joined = ["".join(document.text for document in documents[a:b]) for a, b in shards.streams()]
        decoded = [
            tokenizer.decode(token for i in range(a, b) for token in shards.document_tokens(i).tolist())
            for a, b in shards.streams()
        ]
        assert decoded == texts_joined


def count_encoded(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each batch that is encoded from now on."""
    sizes: list[int] = []
    encode = tokenizer.encode_ragged

    def counting(batch: list[str]) -> tuple[np.ndarray, np.ndarray]:
        sizes.append(sum(len(text.encode()) for text in batch))
        return encode(batch)

    monkeypatch.setattr(tokenizer, "encode_ragged", counting)
    return sizes


def test_a_second_run_encodes_nothing_and_a_damaged_cache_is_made_again(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    corpus = corpus_of(texts, cache)
    tokenizer = small_tokenizer(corpus)
    first = tokenise_corpus(corpus, tokenizer, cache_dir=cache)
    encoded_sizes = count_encoded(tokenizer, monkeypatch)
    again = tokenise_corpus(corpus_of(texts, cache), tokenizer, cache_dir=cache)
    assert [again[split].sha256 for split in again] == [first[split].sha256 for split in first]
    shard = first["train"].folder / "tokens-00000.bin"
    good = shard.read_bytes()
    shard.write_bytes(good[:-2])
    tokenise_corpus(corpus, tokenizer, cache_dir=cache)
    assert shard.read_bytes() == good
    assert encoded_sizes == []  # the tokens of the segments were still there
    for path in cache.glob("tokens/*/*/tokens.bin"):
        path.write_bytes(b"\0" * path.stat().st_size)
    shard.write_bytes(good[:-2])
    tokenise_corpus(corpus, tokenizer, cache_dir=cache)
    assert shard.read_bytes() == good
    assert sum(encoded_sizes) == sum(segment.num_bytes for segment in corpus.segments)


def test_only_new_text_is_encoded_and_another_tokenizer_encodes_all(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    corpus = corpus_of(texts, cache)
    tokenizer = small_tokenizer(corpus)
    tokenise_corpus(corpus, tokenizer, cache_dir=cache)
    encoded_sizes = count_encoded(tokenizer, monkeypatch)
    other = prepare_corpus(
        [texts], cache_dir=cache, options=CorpusOptions(valid_fraction=0.3, piece_bytes=1024, seed=8)
    )
    shards = tokenise_corpus(other, tokenizer, cache_dir=cache)
    assert shards["valid"].document_ids == [document.sha256 for document in other.documents("valid")]
    assert encoded_sizes == []  # another split of the same text
    second = small_tokenizer(corpus, 500)
    second_sizes = count_encoded(second, monkeypatch)
    tokenise_corpus(corpus, second, cache_dir=cache)
    assert sum(second_sizes) == sum(segment.num_bytes for segment in corpus.segments)
