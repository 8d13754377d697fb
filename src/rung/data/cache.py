"""Where work is kept between commands, and how it is kept from growing for ever.

Prepared text (`segments`, `groups`, `corpora`, `tokens`, `shards`), what was unpacked from GGUF files (`bases`) and
answers of models on this machine (`answers`) are made again where they are missing, so what was not used for long is
removed. `llm`, answers that were paid for, is
counted here and never removed.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rung.runfolder import discard

KEPT_SECONDS = 60 * 24 * 3600.0
ANSWERS = "llm"
LOCAL_ANSWERS = "answers"
_PREPARED = {
    LOCAL_ANSWERS: "*/*",
    "segments": "*/*",
    "groups": "*",
    "corpora": "*",
    "tokens": "*/*",
    "shards": "*",
    "bases": "*",
}


def cache_folder() -> Path:
    """Where prepared text and paid answers live: `RUNG_CACHE`, or `~/.cache/rung`."""
    return Path(os.environ.get("RUNG_CACHE") or Path.home() / ".cache" / "rung")


@dataclass(frozen=True)
class CacheUse:
    """Bytes of prepared text and of paid answers in a cache folder, and of what was removed just now."""

    prepared_bytes: int
    answer_bytes: int
    removed_bytes: int = 0


def note_use(entry: Path) -> None:
    """Remember that an entry of the cache was used now, by its time of modification.

    A cache that belongs to someone else can be read all the same; its owner's uses count.
    """
    with suppress(PermissionError):
        os.utime(entry)


def cache_use(cache: Path) -> CacheUse:
    """How much the cache holds."""
    return CacheUse(sum(_size(entry) for entry in _entries(cache)), _size(cache / ANSWERS))


def remove_prepared(cache: Path, *, unused_seconds: float = 0.0) -> CacheUse:
    """Remove prepared text that was not used for so long; each entry goes in one step, so that none is left in part.

    With 0 all of it goes, even what another command is using or writing at the moment: that one then fails.
    """
    before = time.time() - unused_seconds
    removed = 0
    for entry in _entries(cache):
        with suppress(FileNotFoundError):  # another command removed it first
            if entry.stat().st_mtime <= before:
                size = _size(entry)
                discard(entry)
                removed += size
    left = cache_use(cache)
    return CacheUse(left.prepared_bytes, left.answer_bytes, removed)


def _entries(cache: Path) -> list[Path]:
    return [entry for kind, pattern in _PREPARED.items() for entry in sorted((cache / kind).glob(pattern))]


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; those that vanish meanwhile do not count."""
    size = 0
    for file in [path, *path.rglob("*")]:
        with suppress(FileNotFoundError):
            size += file.stat().st_size if file.is_file() else 0
    return size
