"""The cache: sizes, what is removed and what never is, and that an emptied cache changes nothing."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from rung.data.cache import ANSWERS, KEPT_SECONDS, cache_folder, cache_use, note_use, remove_prepared
from rung.data.corpus import prepare_corpus

LONG_AGO = time.time() - KEPT_SECONDS - 1000


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"Paragraph {n} tells of the number {n * n}.\n\n" for n in range(3000)))
    return path


def age(cache: Path) -> None:
    """Make everything in the cache look as if it was last used long ago."""
    for path in [*cache.rglob("*")]:
        os.utime(path, (LONG_AGO, LONG_AGO))


def test_the_folder_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("RUNG_CACHE", "")
    assert cache_folder() == Path.home() / ".cache" / "rung"


def test_clearing_removes_prepared_text_and_keeps_answers(tmp_path: Path, text: Path) -> None:
    cache = tmp_path / "cache"
    first = prepare_corpus([text], cache_dir=cache)
    answer = cache / ANSWERS / "ab" / "abcd.json"
    answer.parent.mkdir(parents=True)
    answer.write_text("paid for")
    held = cache_use(cache)
    assert held.prepared_bytes > text.stat().st_size
    assert held.answer_bytes == len("paid for")
    done = remove_prepared(cache)
    assert (done.prepared_bytes, done.removed_bytes) == (0, held.prepared_bytes)
    assert answer.read_text() == "paid for"
    again = prepare_corpus([text], cache_dir=cache)
    assert again.report.reused_segments == 0
    assert again.sha256 == first.sha256


def test_preparing_text_removes_what_was_not_used_for_long_but_not_what_it_uses(tmp_path: Path, text: Path) -> None:
    cache, other = tmp_path / "cache", tmp_path / "other.txt"
    other.write_text(text.read_text().replace("Paragraph", "Section"))
    prepare_corpus([text], cache_dir=cache)
    alone = cache_use(cache).prepared_bytes
    prepare_corpus([other], cache_dir=cache)
    age(cache)
    assert prepare_corpus([text], cache_dir=cache).report.reused_segments > 0
    assert cache_use(cache).prepared_bytes == alone


def test_what_a_crash_left_of_a_removal_goes_with_time_and_disturbs_nothing(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    prepare_corpus([text], cache_dir=cache)

    def killed(_path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_prepared(cache)
    age(cache)
    assert prepare_corpus([text], cache_dir=cache).report.reused_segments == 0
    assert not list(cache.rglob(".writing-*"))


def test_entries_that_belong_to_someone_else_are_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_path: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refused)
    note_use(tmp_path)


def test_an_absent_cache_is_empty(tmp_path: Path) -> None:
    assert remove_prepared(tmp_path / "nothing") == cache_use(tmp_path / "nothing")
