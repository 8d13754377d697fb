"""Readers: every kind of file, every encoding that can be told, and every kind of damage."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import lzma
from pathlib import Path

import polars
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from rung.data.documents import Passage, Rejection
from rung.data.formats import ReadingNotes, read_files
from rung.data.html import html_to_text
from rung.data.read import find_files
from rung.errors import DataError

PARAGRAPH = "Die Königin trank Tee.\n\nThe old clock struck nine – “late”, she said.\n"


def read(path: Path, text_column: str | None = None) -> tuple[list[str], list[Rejection], ReadingNotes]:
    notes = ReadingNotes()
    items = list(read_files(find_files([path]).files, text_column, notes))
    passages = [item.text.decode("utf-8") for item in items if isinstance(item, Passage)]
    return passages, [item for item in items if isinstance(item, Rejection)], notes


def write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def table(kind: str, rows: list[dict[str, object]]) -> bytes:
    if kind == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if kind == "parquet":
        buffer = io.BytesIO()
        polars.DataFrame(rows).write_parquet(buffer)
        return buffer.getvalue()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


PACK = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.ZstdCompressor().compress}
ROWS: list[dict[str, object]] = [{"id": 1, "text": PARAGRAPH}, {"id": 2, "text": 'a "quoted", line'}]


@pytest.mark.parametrize("compression", PACK)
@pytest.mark.parametrize("kind", ["txt", "md", "html", "jsonl", "csv", "tsv", "parquet"])
def test_every_kind_is_read_plain_and_compressed(tmp_path: Path, kind: str, compression: str) -> None:
    if kind in ("txt", "md"):
        content, expected = PARAGRAPH.encode(), [PARAGRAPH]
    elif kind == "html":
        content, expected = b"<h1>Title</h1><p>one <b>two</b></p>", ["Title\n\none two"]
    else:
        content, expected = table(kind, ROWS), [row["text"] for row in ROWS]
    path = write(tmp_path, f"file.{kind}{compression}", PACK[compression](content))
    passages, rejections, _ = read(path)
    assert passages == expected
    assert not rejections


@pytest.mark.parametrize(
    ("encoding", "reported"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8"),
        ("utf-16", "utf-16-le"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("utf-32", "utf-32-le"),
        ("cp1252", "cp1252"),
    ],
)
def test_encodings_are_told_and_reported(tmp_path: Path, encoding: str, reported: str) -> None:
    text = PARAGRAPH * 40
    passages, rejections, notes = read(write(tmp_path, "a.txt", text.encode(encoding)))
    assert "".join(passages) == text
    assert not rejections
    assert list(notes.encodings) == [reported]


@given(st.text(alphabet=st.characters(exclude_characters="\r\ufeff", exclude_categories=["Cs", "Cc"]), min_size=1))
def test_any_utf8_text_is_read_unchanged(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = write(tmp_path_factory.mktemp("text"), "a.txt", text)
    assert "".join(read(path)[0]) == text


@given(st.binary(max_size=400), st.sampled_from(["txt", "jsonl", "csv", "tsv", "html", "parquet", "txt.gz", "txt.zst"]))
def test_random_bytes_never_crash_a_reader(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = write(tmp_path_factory.mktemp("bytes"), f"a.{suffix}", content)
    with contextlib.suppress(DataError):  # bytes may pass for a table without a text column
        read(path)


def test_damaged_utf8_loses_only_the_damaged_lines(tmp_path: Path) -> None:
    lines = [f"Zeile {number} mit Größe\n".encode() for number in range(1, 9)]
    lines[3] = b"broken \xff\xfe line\n"
    passages, rejections, _ = read(write(tmp_path, "a.txt", b"".join(lines)))
    assert "".join(passages).encode() == b"".join([*lines[:3], *lines[4:]])
    assert [(item.row, item.reason) for item in rejections] == [(4, "not valid UTF-8")]


def test_newlines_of_all_systems_become_one(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a.txt", b"one\r\ntwo\rthree\n"))[0] == ["one\ntwo\nthree\n"]


def test_long_text_is_handed_on_in_blocks_that_follow_each_other(tmp_path: Path) -> None:
    text = (PARAGRAPH * 200_000).encode()
    path = write(tmp_path, "long.txt", text)
    items = list(read_files(find_files([path]).files, None, ReadingNotes()))
    assert all(isinstance(item, Passage) for item in items)
    assert b"".join(item.text for item in items) == text  # type: ignore[union-attr]
    assert [item.follows for item in items] == [False, *[True] * (len(items) - 1)]  # type: ignore[union-attr]
    before = 0
    for item in items:
        assert item.row == 1 + text[:before].count(b"\n")
        before += len(item.text)  # type: ignore[union-attr]


def test_broken_rows_are_rejected_with_their_number_and_the_rest_goes_on(tmp_path: Path) -> None:
    lines = [
        '{"text": "good"}',
        '{"text": "cut of',
        "[1, 2]",
        '{"other": 1}',
        '{"text": 3}',
        '{"text": null}',
        r'{"text": "lone \ud800 surrogate"}',
        '{"text": "also good"}',
    ]
    passages, rejections, _ = read(write(tmp_path, "a.jsonl", "\n".join(lines)))
    assert passages == ["good", "also good"]
    assert [item.row for item in rejections] == [2, 3, 4, 5, 6, 7]
    assert [item.reason for item in rejections] == [
        "broken JSON",
        "JSON line is not an object",
        "no field 'text'",
        "'text' is not a text but int",
        "empty field",
        "lone surrogate or not valid UTF-8",
    ]


def test_csv_rows_that_do_not_fit_are_rejected(tmp_path: Path) -> None:
    rows = 'id,text\n1,good\n2\n3,"two\nlines"\n4,a,b\n5,"x"y\n6,fine\n'
    passages, rejections, _ = read(write(tmp_path, "a.csv", rows))
    assert passages == ["good", "two\nlines", "fine"]
    assert [item.row for item in rejections] == [3, 6, 7]


def test_a_csv_quote_that_never_closes_is_an_error_that_names_its_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="never closed") as caught:
        read(write(tmp_path, "a.csv", 'id,text\n1,good\n2,"never closed\n3,more\n'))
    assert str(caught.value.where).endswith("a.csv:row 3")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_lines_of_all_systems_and_blank_ones_before_the_header(tmp_path: Path, end: str) -> None:
    path = write(tmp_path, "a.csv", end.join(["", "id,text", "1,one", '2,"two', 'three"', ""]))
    assert read(path)[0] == ["one", "two\nthree"]


def test_a_broken_header_line_rejects_the_file(tmp_path: Path) -> None:
    passages, rejections, _ = read(write(tmp_path, "a.csv", '"id"x,text\n1,one\n'))
    assert not passages
    assert [(item.row, item.reason[:30]) for item in rejections] == [(0, "the header line cannot be read")]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_the_text_column_is_found_or_asked_for(tmp_path: Path, kind: str) -> None:
    two = [{"id": 1, "title": "A", "review": "Fine."}]
    path = write(tmp_path, f"two.{kind}", table(kind, two))
    with pytest.raises(DataError, match="'id', 'title', 'review'"):
        read(path)
    assert read(path, "review")[0] == ["Fine."]
    with pytest.raises(DataError, match="no column 'nothing'"):
        read(path, "nothing")
    passages, _, notes = read(write(tmp_path, f"one.{kind}", table(kind, [{"id": 1, "review": "Fine."}])))
    assert passages == ["Fine."]
    assert notes.remarks == [(0, "text is taken from 'review', its only text column")]


def test_a_table_without_header_is_read_by_column_number(rung_data: Path) -> None:
    path = rung_data / "sms-spam" / "SMSSpamCollection.tsv"
    with pytest.raises(DataError, match="which column"):
        read(path)
    passages, rejections, _ = read(path, "2")
    assert len(passages) == 5574
    assert not rejections


def test_html_shows_only_what_is_visible() -> None:
    page = """<html><head><title>no</title><style>p {}</style></head><body><script>no()</script>
    <p>One  two<br>three</p><ul><li>four</li><li>fi<b>ve</b></li></ul><table><tr><td>a</td><td>b</td></tr></table>
    &lt;tag&gt; &amp;c</body></html>"""
    assert html_to_text(page) == "One two\nthree\n\nfour\nfive\n\na b\n\n<tag> &c"


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n" + bytes(range(256)), bytes(1000), b"%PDF-1.7 text", gzip.compress(b"text" * 99)],
    ids=["png", "zeros", "pdf", "gzip"],
)
def test_binary_files_are_rejected(tmp_path: Path, content: bytes) -> None:
    passages, rejections, _ = read(write(tmp_path, "picture.txt", content))
    assert not passages
    assert [item.reason for item in rejections] == ["binary file"]


@pytest.mark.parametrize("compression", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_a_damaged_archive_is_rejected(tmp_path: Path, compression: str, damage: str) -> None:
    packed = PACK[compression](PARAGRAPH.encode() * 1000)
    content = packed[: len(packed) // 2] if damage == "cut" else b"no archive at all"
    _, rejections, _ = read(write(tmp_path, f"a.txt{compression}", content))
    assert [item.reason for item in rejections] == ["cannot be read to its end"]


def test_all_frames_of_a_zstandard_file_are_read(tmp_path: Path) -> None:
    frames = b"".join(PACK[".zst"](f"part {number}\n".encode() * 9999) for number in range(3))
    passages, rejections, _ = read(write(tmp_path, "a.txt.zst", frames))
    assert "".join(passages) == "".join(f"part {number}\n" * 9999 for number in range(3))
    assert not rejections


def test_folders_are_searched_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    (tmp_path / "sub" / ".git").mkdir(parents=True)
    (tmp_path / "run" / "inner").mkdir(parents=True)
    for name in [
        "run/rung.json",
        "run/README.md",
        "run/inner/a.txt",
        "b.txt",
        "sub/a.md",
        ".hidden.txt",
        "sub/.git/x.txt",
        "photo.jpg",
        "README",
        "c.TXT.GZ",
    ]:
        write(tmp_path, name, b"")
    found = find_files([tmp_path, tmp_path / "b.txt"], leave_out=[tmp_path / "sub" / "a.md"])
    assert [file.name for file in found.files] == ["b.txt", "c.TXT.GZ"]
    assert found.skipped == {
        "hidden": 2,
        "unknown kind of file (.jpg)": 1,
        "unknown kind of file (no suffix)": 1,
        "given as validation text": 1,
        "given twice": 1,
        "folder made by Rung": 1,
    }


def test_nothing_to_read_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text files found"):
        find_files([tmp_path])
    with pytest.raises(DataError, match="nothing at this path"):
        find_files([tmp_path / "missing"])
    with pytest.raises(DataError, match="not known"):
        find_files([write(tmp_path, "a.docx", b"")])
