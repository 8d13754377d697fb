"""Files of word vectors: gensim reads ours and we read gensim's; whatever is broken is refused by line."""

from __future__ import annotations

import gzip
import lzma
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rung.data.vector_files import FORMATS, FileFormat, read_vectors, write_vectors
from rung.errors import DataError

WORDS = ["the", "café", "日本語", "🙂", "שלום", "e\u00a0f", "-1"]
VECTORS = np.random.default_rng(0).normal(size=(len(WORDS), 5)).astype(np.float32)
HEADED: list[FileFormat] = ["word2vec", "word2vec-binary"]


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path, file_format: FileFormat, suffix: str) -> None:
    path = tmp_path / f"vectors{suffix}"
    write_vectors(path, WORDS, VECTORS, file_format=file_format)
    words, vectors, found_format = read_vectors(path)
    assert words == WORDS
    assert found_format == file_format
    np.testing.assert_array_equal(vectors, VECTORS)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_compressed_files_are_what_other_programs_open(tmp_path: Path) -> None:
    for suffix in ("", ".gz", ".xz"):
        write_vectors(tmp_path / f"v{suffix}", WORDS, VECTORS, file_format="glove")
    plain = (tmp_path / "v").read_bytes()
    assert gzip.decompress((tmp_path / "v.gz").read_bytes()) == plain
    assert lzma.decompress((tmp_path / "v.xz").read_bytes()) == plain


@pytest.mark.parametrize("file_format", HEADED)
def test_gensim_opens_ours(tmp_path: Path, file_format: FileFormat) -> None:
    models = pytest.importorskip("gensim.models")
    path = tmp_path / "vectors"
    write_vectors(path, WORDS, VECTORS, file_format=file_format)
    theirs = models.KeyedVectors.load_word2vec_format(str(path), binary=file_format == "word2vec-binary")
    assert theirs.index_to_key == WORDS
    np.testing.assert_array_equal(theirs.vectors, VECTORS)


@pytest.mark.parametrize("binary", [False, True])
def test_we_open_gensims(tmp_path: Path, binary: bool) -> None:
    models = pytest.importorskip("gensim.models")
    theirs = models.KeyedVectors(5)
    theirs.add_vectors(WORDS, VECTORS)
    path = tmp_path / "vectors"
    theirs.save_word2vec_format(str(path), binary=binary)
    words, vectors, _ = read_vectors(path)
    assert words == WORDS
    np.testing.assert_array_equal(vectors, VECTORS)


def test_glove_without_a_first_line_and_trailing_spaces(tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    path.write_bytes(b"a 1 2 \r\nb -3e-1 .5 \r\n. . 4 5\n")
    words, vectors, _ = read_vectors(path)
    assert words == ["a", "b", ". ."]
    np.testing.assert_allclose(vectors, [[1, 2], [-0.3, 0.5], [4, 5]])


@example(vectors=np.array([[0.04]], dtype=np.float32), file_format="word2vec-binary")  # its first byte is a newline
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(1, 4)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    st.sampled_from(FORMATS),
)
def test_any_finite_values_survive(
    tmp_path_factory: pytest.TempPathFactory, vectors: np.ndarray, file_format: FileFormat
) -> None:
    path = tmp_path_factory.mktemp("any") / "vectors"
    words = [f"w{row}" for row in range(len(vectors))]
    write_vectors(path, words, vectors, file_format=file_format)
    table = read_vectors(path)
    assert table.words == words
    np.testing.assert_array_equal(table.vectors, vectors)


NAN = np.array([1.0, np.nan], dtype="<f4").tobytes()
GOOD = np.array([1.0, 2.0], dtype="<f4").tobytes()


@pytest.mark.parametrize(
    ("content", "problem", "place"),
    [
        (b"a 1 2\nb 1\n", "a line of 2 fields where a word and 2 numbers", "line 2"),
        (b"a 1 2\nb 1 2 3\n", "a line of 4 fields where a word and 2 numbers", "line 2"),
        (b"a 1 2\n\nb 1 2\n", "a line of 0 fields", "line 2"),
        (b"2 2\na 1 2\n", "says 2 words, and the file ends after 1", ""),
        (b"1 2\na 1 2\nb 1 2\n", "says 1 words, and there are more", "line 3"),
        (b"2 3\na 1 2\nb 1 2\n", "a line of 3 fields where a word and 3 numbers", "line 2"),
        (b"3000000 1000\na 1 2\n", "which is 6,000,000,000 bytes at least; the file has", "line 1"),
        (b"9999999999999999999999 300\na 1 2\n", "the file has", "line 1"),
        (b"2 999999999\na 1 2\n", "2 words of 999,999,999 dimensions", "line 1"),
        (b"0 5\n", "0 words of 5 dimensions", "line 1"),
        (b"a 1 nan\n", "the vector of 'a' holds values that are not finite", "line 1"),
        (b"a 1 2\nb 1 inf\n", "the vector of 'b'", "line 2"),
        (b"a 1 2\na 3 4\n", "'a' comes twice, first in line 1", "line 2"),
        (b"2 2\na 1 2\na 3 4\n", "'a' comes twice, first in line 2", "line 3"),
        (b"a 1 2\nb 1 x\n", "could not convert", "line 2"),
        (b"a 1 2\n\xff 1 2\n", "is not UTF-8", "line 2"),
        (b"", "no word vectors", ""),
        (b"word\n", "a line of 1 fields", "line 1"),
        (b"2 2\na " + GOOD + b"\nb " + NAN, "the vector of 'b' holds values that are not finite", "record 2"),
        (b"2 2\na " + GOOD + b"\nb " + GOOD[:5], "the file ends within record 2", "record 2"),
        (b"2 2\na " + GOOD + b"\n", "says 2 words, and the file ends after 1", ""),
        (b"1 2\nnew york " + GOOD, "more bytes follow the 1 records", ""),
        (b"1 2\na " + GOOD + b"b " + GOOD, "more bytes follow the 1 records", ""),
        (b"2 2\na " + GOOD + b"a " + GOOD, "'a' comes twice", "record 2"),
    ],
)
def test_broken_files_are_refused_by_line(tmp_path: Path, content: bytes, problem: str, place: str) -> None:
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(problem)) as caught:
        read_vectors(path)
    assert str(path) in str(caught.value.where)
    assert str(caught.value.where).endswith(place)


def test_a_claim_of_ten_gigabytes_in_a_compressed_file_costs_no_memory(tmp_path: Path) -> None:
    """Of a compressed file the size says nothing, so what it claims is met only by what is read."""
    import tracemalloc

    path = tmp_path / "v.gz"
    path.write_bytes(gzip.compress(b"41943040 64\n" + b"a " + bytes(range(64, 128)) * 4 + b"b"))
    tracemalloc.start()
    with pytest.raises(DataError, match="41,943,040 words, and the file ends after 1"):
        read_vectors(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 23


def test_cut_compression_and_missing_files(tmp_path: Path) -> None:
    whole = tmp_path / "v.gz"
    write_vectors(whole, WORDS, VECTORS, file_format="word2vec")
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        read_vectors(whole)
    with pytest.raises(DataError, match="No such file"):
        read_vectors(tmp_path / "nowhere")
    with pytest.raises(DataError, match="Is a directory"):
        read_vectors(tmp_path)


@pytest.mark.parametrize("word", ["new york", "", "tab\tbed", "line\n", "\ud800"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_words_that_the_formats_cannot_hold_are_refused(tmp_path: Path, word: str, file_format: FileFormat) -> None:
    with pytest.raises(DataError):
        write_vectors(tmp_path / "v", ["a", word], VECTORS[:2], file_format=file_format)
    assert not list(tmp_path.iterdir())
