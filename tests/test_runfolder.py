"""Nothing half-written is ever visible, nothing damaged is ever used."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rung import runfolder
from rung.errors import NewerFormatError, RunFolderError
from rung.runfolder import (
    FORMAT_VERSION,
    file_sha256,
    new_folder,
    read_header,
    remove_leftovers,
    verify,
    write_folder,
    write_header,
    write_json,
    write_text,
)


def filling(**texts: str) -> Callable[[Path], None]:
    """What fills a folder with `texts`; a double underscore in a name stands for a folder."""

    def fill(folder: Path) -> None:
        for name, text in texts.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")

    return fill


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_folder(tmp_path / "run", filling(weights="1234567890", trainer__state="{}"), {"state": "finished"})
    return tmp_path / "run"


def test_a_folder_lists_its_files_with_hashes(run: Path) -> None:
    header = verify(run)
    assert header["state"] == "finished"
    assert header["format_version"] == FORMAT_VERSION
    assert set(header["files"]) == {"weights", "trainer/state"}
    # SHA-256 of "1234567890", from coreutils' sha256sum
    expected = "c775e7b757ede630cd0aa1113bd102661ab38829ca52a6422ab782862f268646"
    assert header["files"]["weights"] == {"sha256": expected, "bytes": 10}
    assert file_sha256(run / "weights") == expected
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (flip_a_bit, "SHA-256 differs"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "9 bytes where 10 were written"),
        (Path.unlink, "missing"),
    ],
)
def test_damage_is_named(run: Path, damage: Callable[[Path], None], told: str) -> None:
    damage(run / "weights")
    with pytest.raises(RunFolderError, match=told) as caught:
        verify(run)
    assert caught.value.where == str(run / "weights")
    assert caught.value.hint


def test_a_file_that_is_not_listed_may_change(run: Path) -> None:
    write_header(run, {"state": "finished"}, files=["weights"])
    (run / "trainer" / "state").write_text("anything", encoding="utf-8")
    assert set(verify(run)["files"]) == {"weights"}


def test_a_newer_format_is_refused_by_name(run: Path) -> None:
    header = json.loads((run / "rung.json").read_text(encoding="utf-8"))
    write_json(run / "rung.json", header | {"format_version": FORMAT_VERSION + 1})
    with pytest.raises(NewerFormatError, match=f"format {FORMAT_VERSION + 1}") as caught:
        verify(run)
    assert caught.value.hint is not None
    assert "update" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"format_version": "x"}', b"\xff\xfe", b"null"])
def test_a_header_that_cannot_be_read_is_an_error_with_a_place(run: Path, content: bytes) -> None:
    (run / "rung.json").write_bytes(content)
    with pytest.raises(RunFolderError, match="cannot be read") as caught:
        read_header(run)
    assert caught.value.where == str(run / "rung.json")


def test_a_folder_without_header_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"no rung\.json"):
        read_header(tmp_path)


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "new"

    def fail() -> None:
        with new_folder(final) as writing:
            (writing / "half").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(final.parent.iterdir())
    final.mkdir()
    with new_folder(final) as writing:
        (writing / "whole").touch()
    assert [path.name for path in final.parent.rglob("*")] == ["new", "whole"]


def test_what_a_killed_process_left_goes_with_the_next_attempt(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    left = [tmp_path / f".writing-{number}-new" for number in (dead.pid, os.getpid(), other.pid, "x")]
    for folder in left:
        folder.mkdir()
        (folder / "half").touch()
    write_folder(tmp_path / "new", filling(weights="1"), {})
    other.communicate(b"\n")
    assert {path.name for path in tmp_path.iterdir()} == {"new", *(path.name for path in left[2:])}


def test_when_filling_fails_the_old_folder_stands(run: Path) -> None:
    before = verify(run)

    def fail(folder: Path) -> None:
        (folder / "weights").write_text("half", encoding="utf-8")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_folder(run, fail, {})
    assert verify(run) == before
    assert [path.name for path in run.parent.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "no permission"), (errno.EROFS, "no permission")],
)
def test_a_full_disk_or_a_lack_of_permission_is_told(run: Path, number: int, told: str) -> None:
    before = verify(run)

    def fail(folder: Path) -> None:
        raise OSError(number, os.strerror(number), str(folder))

    with pytest.raises(RunFolderError, match=told) as caught:
        write_folder(run, fail, {})
    assert caught.value.where == str(run)
    assert verify(run) == before


def test_a_full_disk_leaves_the_old_file(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runfolder.os, "fsync", full)
    with pytest.raises(RunFolderError, match="disk is full"):
        write_text(run / "weights", "new")
    assert (run / "weights").read_text(encoding="utf-8") == "1234567890"
    assert {path.name for path in run.iterdir()} == {"rung.json", "trainer", "weights"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_what_is_not_json_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", value)
    assert not list(tmp_path.iterdir())


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_text_comes_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("text") / "x"
    write_text(path, text)
    assert path.read_bytes() == text.encode()


WRITE_AND_DIE = """
import os, sys
from pathlib import Path
from rung.runfolder import write_folder

final, moment, seen = Path(sys.argv[1]), int(sys.argv[2]), 0

def fill(folder):
    (folder / "a").write_text("new a")
    (folder / "b").write_text("new b")

def die(event, arguments):
    global seen
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir"):
        seen += 1
        if seen == moment:
            os._exit(9)

sys.addaudithook(die)
write_folder(final, fill, {"which": "new"})
os._exit(0)
"""


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.name != "rung.json"}


@pytest.mark.parametrize("clean_up_first", [True, False])
def test_killed_at_any_moment_the_folder_is_the_old_or_the_new_one(tmp_path: Path, clean_up_first: bool) -> None:
    old, new = {"a": "old a", "c": "old c"}, {"a": "new a", "b": "new b"}
    moment, outcomes = 0, []
    while True:
        moment += 1
        final = tmp_path / f"at-{moment}" / "checkpoint"
        write_folder(final, filling(**old), {"which": "old"})
        command = [sys.executable, "-c", WRITE_AND_DIE, str(final), str(moment)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if clean_up_first:
            remove_leftovers(final.parent)
            found = verify(final)["which"]
            assert contents(final) == {"old": old, "new": new}[found]
            assert [path.name for path in final.parent.iterdir()] == ["checkpoint"]
            outcomes.append(found)
        write_folder(final, filling(**new), {"which": "newer"})
        assert verify(final)["which"] == "newer"
        assert contents(final) == new
        if done.returncode == 0:
            break
        assert done.returncode == 9, done.stderr
    assert moment > 15, "the moments of death were not many: does the audit hook still see them?"
    if clean_up_first:
        assert outcomes == sorted(outcomes, reverse=True), "old until some moment, new from then on"
        assert set(outcomes) == {"old", "new"}
