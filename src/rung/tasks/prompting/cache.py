"""Answers that were paid for once, kept by the content of the question."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rung.runfolder import write_json

FORMAT = 1


def content_key(content: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


class ResponseCache:
    """One JSON file an answer, under the first two digits of its key. Neither requests nor keys of access are stored.

    An entry that cannot be read, or is not what was written, is told through `say` and counts as absent.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say

    def get(self, key: str) -> dict[str, Any] | None:
        """What `put` stored under `key`, or None."""
        path = self._path(key)
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            content: dict[str, Any] = entry["content"]
            if entry["format"] != FORMAT or entry["key"] != key or entry["sha256"] != content_key(content):
                raise ValueError("it is not what was written")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._say(f"a stored answer cannot be used ({error}) and is asked for again: {path}")
            return None
        return content

    def put(self, key: str, content: dict[str, Any]) -> None:
        """Keep `content` under `key`, in one step. Raises RunFolderError when the disk is full or not writable."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"format": FORMAT, "key": key, "sha256": content_key(content), "content": content})

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"
