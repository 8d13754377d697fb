"""The corpus: nothing vanishes, nothing alike crosses the split, and only what changed is made again."""

# ruff: noqa: S311 - test data, no secrets
from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rung.data import segmenting
from rung.data.corpus import Corpus, CorpusOptions, prepare_corpus
from rung.errors import DataError, UsageError

WORDS = ["stone", "river", "and", "the", "old", "Königin", "of", "rain", "was", "late", "under", "bridge"]


def prose(words: int, seed: int) -> str:
    rng = random.Random(seed)
    lines = []
    while words > 0:
        count = min(words, rng.randint(30, 80))
        lines.append(" ".join(f"{rng.choice(WORDS)}{rng.randrange(50)}" for _ in range(count)) + ".")
        words -= count
    return "\n\n".join(lines) + "\n"


def change(text: str, words: int, seed: int) -> str:
    rng = random.Random(seed)
    parts = text.split(" ")
    for place in rng.sample(range(len(parts)), words):
        parts[place] = f"changed{rng.randrange(10**6)}"
    return " ".join(parts)


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def prepare(tmp_path: Path, *paths: Path, **options: object) -> Corpus:
    valid = options.pop("valid_paths", ())
    assert isinstance(valid, tuple | list)
    return prepare_corpus(
        list(paths),
        cache_dir=tmp_path / "cache",
        valid_paths=valid,
        options=CorpusOptions(**options),  # type: ignore[arg-type]
    )


def sides(corpus: Corpus) -> dict[str, str]:
    """Text to split."""
    return {document.text: split for split in ("train", "valid") for document in corpus.documents(split)}


def rejected(corpus: Corpus) -> list[dict[str, object]]:
    return [json.loads(line) for line in corpus.rejected_path.read_text(encoding="utf-8").splitlines()]


def check_account(corpus: Corpus) -> None:
    report = corpus.report
    kept = corpus.num_documents("train") + corpus.num_documents("valid")
    assert report.documents_in == kept + sum(report.rejected.values())
    assert Counter(line["reason"] for line in rejected(corpus)) == report.rejected
    assert (report.train_documents, report.valid_documents) == (
        corpus.num_documents("train"),
        corpus.num_documents("valid"),
    )
    assert report.train_bytes + report.valid_bytes == sum(len(text.encode()) for text in sides(corpus))
    json.dumps(report.to_json())
    assert report.lines()


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with good text and every kind of trouble."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    texts = [prose(120, seed) for seed in range(40)]
    rows = [json.dumps({"text": text}) for text in texts]
    rows += [rows[3], '{"text": "br', json.dumps({"text": change(texts[5], 2, 1)}), '{"other": ""}', '{"text": " "}']
    rows += [json.dumps({"text": "NUL \0 inside"}), json.dumps({"text": "\x01\x02\x03 controls \x04"})]
    rows += [json.dumps({"text": "again and again " * 100}), r'{"text": "lone \udc00"}']
    (folder / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (folder / "book.txt").write_text(prose(8000, seed=99), encoding="utf-8")
    (folder / "latin.txt").write_bytes(prose(300, 5).replace("stone", "Straße").encode("cp1252"))
    (folder / "damaged.txt").write_bytes("Größe ".encode() * 50 + b"\n\xff\xfe\xfd broken\n" + prose(50, 7).encode())
    (folder / "picture.txt").write_bytes(bytes(range(256)) * 9)
    (folder / "picture.png").write_bytes(b"\x89PNG")
    return folder


def test_nothing_vanishes(tmp_path: Path, mixed: Path) -> None:
    corpus = prepare(tmp_path, mixed)
    check_account(corpus)
    assert corpus.report.rejected == {
        "binary file": 1,
        "not valid UTF-8": 1,
        "exact duplicate": 1,
        "near-duplicate": 1,
        "broken JSON": 1,
        "no field 'text'": 1,
        "empty": 1,
        "NUL bytes": 1,
        "control characters": 1,
        "extreme repetition": 1,
        "lone surrogate or not valid UTF-8": 1,
    }
    assert corpus.report.files_skipped == {"unknown kind of file (.png)": 1}
    assert corpus.report.encodings == {"utf-8": 3, "cp1252": 1}
    places = {line["reason"]: (line["source"], line["position"]) for line in rejected(corpus)}
    assert places["binary file"] == ("picture.txt", "whole file")
    assert places["not valid UTF-8"] == ("damaged.txt", "line 2")
    assert places["broken JSON"] == ("rows.jsonl", "row 42")


def test_a_long_text_is_cut_and_joins_again(tmp_path: Path) -> None:
    text = prose(20_000, seed=1)
    (tmp_path / "book.txt").write_text(text, encoding="utf-8")
    corpus = prepare(tmp_path, tmp_path / "book.txt")
    documents = [document for split in ("train", "valid") for document in corpus.documents(split)]
    lines = {int(document.source.rsplit(" ", 1)[1]): document.text for document in documents}
    assert "".join(lines[line] for line in sorted(lines)) == text
    assert all(2048 <= len(document.text.encode()) <= 6144 for document in documents)
    assert len({document.id for document in documents}) == len(documents)


def test_continues_marks_exactly_the_pieces_that_follow_directly(tmp_path: Path) -> None:
    sources = [prose(30_000, seed=2), prose(3000, seed=3)]
    for name, text in zip("ab", sources, strict=True):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    corpus = prepare(tmp_path, tmp_path / "a.txt", tmp_path / "b.txt", valid_fraction=0.2)
    for split in ("train", "valid"):
        before = ""
        for document in corpus.documents(split):
            joined = before + document.text
            assert document.continues == (bool(before) and any(joined in source for source in sources))
            before = document.text
    train = corpus.selection("train")
    assert 0 < (~train.continues).sum() < len(train.continues)


def test_a_rejected_piece_breaks_continuation(tmp_path: Path) -> None:
    text = prose(900, 1) + "\0" + prose(900, 2)
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    corpus = prepare(tmp_path, valid_paths=[tmp_path / "a.txt"])
    pieces = list(corpus.documents("valid"))
    assert corpus.report.rejected == {"NUL bytes": 1}
    for before, piece in pairwise(pieces):
        assert piece.continues == (before.text + piece.text in text)
    assert not all(piece.continues for piece in pieces[1:])


@settings(max_examples=8)
@given(st.integers(0, 10**6))
def test_adding_files_moves_no_document_and_no_near_copy_crosses(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    tmp_path = tmp_path_factory.mktemp("grow")
    texts = [prose(100, seed + number) for number in range(100)]
    copies = [change(text, 1, seed + number) for number, text in enumerate(texts) if number % 4 == 0]
    first = write_jsonl(tmp_path / "b.jsonl", texts)
    before = sides(prepare(tmp_path, first, valid_fraction=0.2))
    corpus = prepare(tmp_path, first, write_jsonl(tmp_path / "a.jsonl", copies), valid_fraction=0.2)
    after = sides(corpus)
    check_account(corpus)
    assert all(before[text] == after[text] for text in before.keys() & after.keys())
    assert len(before.keys() - after.keys()) < 25  # an old one goes only for a copy of lower chance
    for number, text in enumerate(texts):
        if number % 4 == 0:
            assert (text in after) != (copies[number // 4] in after)


def test_the_lowest_chance_of_near_copies_stays_so_validation_wins(tmp_path: Path) -> None:
    texts = [prose(150, seed) for seed in range(300)]
    alone = sides(prepare(tmp_path, write_jsonl(tmp_path / "alone.jsonl", texts), valid_fraction=0.2))
    copies = [change(text, 1, seed) for seed, text in enumerate(texts)]
    other = sides(prepare(tmp_path, write_jsonl(tmp_path / "other.jsonl", copies), valid_fraction=0.2))
    both = sides(prepare(tmp_path, tmp_path / "alone.jsonl", tmp_path / "other.jsonl", valid_fraction=0.2))
    assert len(both) == 300
    for text, copy in zip(texts, copies, strict=True):
        kept = text if text in both else copy
        assert both[kept] == ("valid" if "valid" in (alone[text], other[copy]) else "train")


def test_given_validation_text_is_kept_whole_and_its_copies_leave_training(tmp_path: Path) -> None:
    texts = [prose(120, seed) for seed in range(60)]
    repeated = "again and again " * 100
    valid = write_jsonl(tmp_path / "valid.jsonl", [*texts[:5], texts[0], repeated])
    write_jsonl(tmp_path / "train.jsonl", [*texts[3:], change(texts[0], 1, 0), "Short note."])
    corpus = prepare(tmp_path, tmp_path, valid_paths=[valid])
    assert corpus.report.files_skipped == {"given as validation text": 1}
    assert [document.text for document in corpus.documents("valid")] == [*texts[:5], texts[0], repeated]
    ids = [document.id for document in corpus.documents("valid")]
    assert len(set(ids)) == 7
    assert [document.text for document in corpus.documents("train")] == [*texts[5:], "Short note."]
    assert corpus.report.rejected == {"duplicate of validation text": 2, "near-duplicate of validation text": 1}


def test_short_documents_are_compared_word_by_word(tmp_path: Path) -> None:
    texts = ["Call me.", "call  me", "Call him.", "one two three", "three two one", *[f"note {n}" for n in range(50)]]
    corpus = prepare(tmp_path, write_jsonl(tmp_path / "a.jsonl", texts))
    assert corpus.report.rejected == {"near-duplicate": 1}


def test_a_second_run_reads_nothing_and_a_changed_file_redoes_only_its_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenting, "_GROUP_BYTES", (1000, 20_000))
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02d}.txt").write_text(prose(800, number), encoding="utf-8")
    first = prepare(tmp_path, folder)
    assert first.report.segments > 10
    monkeypatch.setattr(segmenting, "build_segment", lambda *_, **__: pytest.fail("a segment was built again"))
    second = prepare(tmp_path, folder)
    assert second.report.reused_segments == second.report.segments
    assert second.sha256 == first.sha256
    assert sides(second) == sides(first)
    monkeypatch.undo()
    monkeypatch.setattr(segmenting, "_GROUP_BYTES", (1000, 20_000))
    (folder / "17.txt").write_text(prose(800, 1000), encoding="utf-8")
    third = prepare(tmp_path, folder)
    assert third.report.reused_segments == third.report.segments - 1
    assert third.sha256 != first.sha256
    (folder / "055.txt").write_text(prose(800, 2000), encoding="utf-8")
    fourth = prepare(tmp_path, folder)
    assert fourth.report.segments - fourth.report.reused_segments <= 3


def test_an_edit_in_a_large_file_redoes_only_segments_near_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmenting, "_SEGMENT_BYTES", (20_000, 60_000))
    texts = [prose(150, seed) for seed in range(500)]
    path = write_jsonl(tmp_path / "big.jsonl", texts)
    first = prepare(tmp_path, path)
    write_jsonl(path, [*texts[:250], "A row came in.", *texts[250:]])
    second = prepare(tmp_path, path)
    assert first.report.segments > 8
    assert second.report.segments - second.report.reused_segments <= 4


def test_names_do_not_matter_to_the_cache_but_are_shown_as_they_are(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [prose(50, seed) for seed in range(30)] + [prose(50, 0)])
    first = prepare(tmp_path, path)
    renamed = path.rename(tmp_path / "z.jsonl")
    second = prepare(tmp_path, renamed)
    assert second.sha256 == first.sha256
    assert second.report.reused_segments == 1
    assert next(second.documents("train")).source.startswith("z.jsonl:row ")
    assert rejected(second)[0]["source"] == "z.jsonl"


@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "header"])
def test_a_damaged_cache_entry_is_made_again(tmp_path: Path, damage: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [prose(100, seed) for seed in range(30)])
    first = prepare(tmp_path, path)
    expected = sides(first)
    entry = first.segments[0].folder
    victim = entry / {"cut": "text.bin", "flip": "text.bin", "remove": "documents.npy", "header": "rung.json"}[damage]
    content = victim.read_bytes()
    if damage == "remove":
        victim.unlink()
    elif damage == "flip":
        victim.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    else:
        victim.write_bytes(content[: len(content) // 2])
    second = prepare(tmp_path, path)
    assert second.report.reused_segments == 0
    assert sides(second) == expected


@pytest.mark.parametrize(
    "record", ["{", "[]", '{"segments": []}', '{"segments": [["key", 0]], "encodings": {}, "remarks": []}']
)
def test_a_record_of_another_form_is_made_again(tmp_path: Path, record: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [prose(100, seed) for seed in range(30)])
    first = prepare(tmp_path, path)
    expected, records = sides(first), list((tmp_path / "cache").rglob("groups/*.json"))
    assert records
    for place in records:
        place.write_text(record)
    second = prepare(tmp_path, path)
    assert (second.report.reused_segments, sides(second)) == (1, expected)


def test_a_damaged_selection_is_made_again(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [prose(100, seed) for seed in range(30)])
    first = prepare(tmp_path, path)
    expected = sides(first)
    first.rejected_path.write_text("x", encoding="utf-8")
    (first.folder / "fates.npy").write_bytes(b"")
    assert sides(prepare(tmp_path, path)) == expected


def test_a_sample_is_spread_evenly_and_repeatable(tmp_path: Path) -> None:
    texts = [f"{number} {prose(60, number)}" for number in range(400)]
    corpus = prepare(tmp_path, write_jsonl(tmp_path / "a.jsonl", texts))
    sample = list(corpus.texts("train", max_bytes=20_000))
    assert sample == list(corpus.texts("train", max_bytes=20_000))
    assert sum(len(text.encode()) for text in sample) == pytest.approx(20_000, rel=0.1)
    numbers = np.array([int(text.split(" ", 1)[0]) for text in sample])
    assert numbers.max() > 350
    assert np.diff(numbers).max() < 3 * np.diff(numbers).mean()
    assert len(list(corpus.texts("train"))) == corpus.num_documents("train")


def test_a_single_line_of_50_mb(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    letters = rng.choice(np.frombuffer(b"abcdefghijklmnop  ", np.uint8), 50_000_000)
    (tmp_path / "line.txt").write_bytes(letters.tobytes())
    corpus = prepare(tmp_path, tmp_path / "line.txt")
    assert corpus.num_bytes("train") + corpus.num_bytes("valid") == 50_000_000
    assert corpus.num_documents("train") > 8000


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no text files found"),
        ({"a.txt": b""}, "no text is left"),
        ({"a.txt": b"x"}, "1 document .* cannot be split"),
        ({"a.txt": bytes(1000)}, "no text is left: 1 binary file"),
        ({"a.txt": b"Same text.", "b.txt": b"Same text.", "c.md": b"same text"}, "2 more were duplicates"),
        ({"a.jsonl": b"{broken\n{too\n"}, "no text is left: 2 broken JSON"),
    ],
    ids=["empty folder", "empty file", "one character", "binary", "only duplicates", "only broken rows"],
)
def test_text_that_cannot_be_used_is_a_clear_error(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        prepare(tmp_path, folder)


def test_files_without_permission_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [prose(50, seed) for seed in range(30)])
    secret = write_jsonl(tmp_path / "secret.jsonl", ["hidden"])
    opened = Path.open

    def refuse(self: Path, *arguments: object, **keywords: object) -> object:
        if self.name == "secret.jsonl":  # chmod does not keep root out
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **keywords)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    corpus = prepare(tmp_path, path, secret)
    assert corpus.report.rejected == {"no permission to read": 1}
    monkeypatch.undo()
    assert prepare(tmp_path, path, secret).report.rejected == {}


def test_a_small_corpus_gets_some_validation_and_says_so(tmp_path: Path) -> None:
    corpus = prepare(tmp_path, write_jsonl(tmp_path / "a.jsonl", [prose(50, seed) for seed in range(4)]))
    assert corpus.num_documents("valid") >= 1
    assert corpus.num_documents("train") >= 1
    assert any("so little text" in remark for remark in corpus.report.remarks)


def test_evaluation_text_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x", encoding="utf-8")
    corpus = prepare(tmp_path, valid_paths=[path])
    assert corpus.num_documents("train") == 0
    assert [document.text for document in corpus.documents("valid")] == ["x"]


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no text"):
        prepare(tmp_path)
    for name, value in [("valid_fraction", 1.0), ("near_duplicate_threshold", 0.1), ("piece_bytes", 7)]:
        with pytest.raises(UsageError, match=name):
            CorpusOptions(**{name: value})  # type: ignore[arg-type]


def test_options_change_the_name_of_the_corpus(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [prose(50, seed) for seed in range(30)])
    names = {prepare(tmp_path, path, seed=seed, valid_fraction=part).sha256 for seed in (0, 1) for part in (0.05, 0.1)}
    assert len(names) == 4


def test_tiny_shakespeare(tmp_path: Path, rung_data: Path) -> None:
    path = rung_data / "tinyshakespeare" / "input.txt"
    text = path.read_text(encoding="utf-8")
    corpus = prepare(tmp_path, path)
    assert sum(corpus.num_bytes(split) for split in ("train", "valid")) == len(text.encode())
    assert not corpus.report.rejected
    report = prepare_corpus([path], cache_dir=tmp_path / "cache").report
    assert report.reused_segments == report.segments == 1


def test_a_cache_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [prose(50, seed) for seed in range(30)])
    (tmp_path / "cache").write_text("a file stands where the cache should be", encoding="utf-8")
    with pytest.raises(DataError, match="cache"):
        prepare(tmp_path, path)
