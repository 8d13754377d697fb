"""Folders that cannot be written to, for a while: for root too, who may write wherever a mode forbids it."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

_FOLDERS: set[Path] = set()
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGED = {  # what an event of Python's own file functions changes, by its arguments
    "open": (0,),
    "os.chmod": (0,),
    "os.link": (1,),
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.utime": (0,),
}


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Within, whoever writes below `folder` from Python gets EROFS; in the end nothing there may have changed.

    Libraries that are not Python's are seen by the change they would leave: sizes, times, names and contents.
    """
    _install()
    folder = folder.resolve()
    before = _state(folder)
    _FOLDERS.add(folder)
    try:
        yield
    finally:
        _FOLDERS.remove(folder)
    assert _state(folder) == before


def _state(folder: Path) -> dict[str, tuple[int, int, str]]:
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in (folder, *folder.rglob("*"))
    }


@cache
def _install() -> None:
    sys.addaudithook(_refuse)  # there for good: it does nothing while no folder is protected


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not _FOLDERS or event not in _CHANGED:
        return
    if event == "open" and not arguments[2] & _WRITING:
        return
    for number in _CHANGED[event]:
        named = arguments[number]
        if isinstance(named, str | bytes | os.PathLike):
            path = Path(os.path.abspath(os.fsdecode(named)))
            if any(path.is_relative_to(folder) for folder in _FOLDERS):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
