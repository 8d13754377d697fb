"""The folder of a comparison: new and empty, or one with an interrupted comparison of the same data and wishes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rung.errors import RunFolderError, UsageError
from rung.runfolder import write_json
from rung.tasks.run import make_output_folder

_WISH = "comparison.json"


def open_folder(out: Path, *, resume: bool) -> None:
    """Make the folder, or find the interrupted comparison in it."""
    if out.exists() and not out.is_dir():
        raise UsageError("the output folder is a file", where=str(out), hint="choose another --out")
    begun = (out / _WISH).is_file()
    if resume and not begun:
        raise RunFolderError("there is no comparison to go on with", where=str(out), hint="leave out --resume")
    if not resume and out.exists() and any(out.iterdir()):
        hint = "go on with it by --resume, or choose another --out" if begun else "choose another --out"
        raise UsageError("the output folder is not empty", where=str(out), hint=hint)
    make_output_folder(out)


def begin(out: Path, settings: Mapping[str, Any], sha256: str) -> None:
    """Note what is compared, once the data is known to be good: a mistake before that leaves nothing to go on with.

    A comparison that goes on must be over the same items and wishes: otherwise its fits could not be compared.
    """
    if not (out / _WISH).is_file():
        write_json(out / _WISH, {"settings": dict(settings), "data": sha256})
        return
    stored = _read_wish(out / _WISH)
    if stored["data"] != sha256:
        raise RunFolderError(
            "the data is not the one this comparison was begun with",
            where=str(out),
            hint="compare anew, in another --out",
        )
    changed = [key for key, value in settings.items() if stored["settings"].get(key) != value]
    if set(changed) - {"minutes", "threads"}:
        raise UsageError(
            f"this comparison was begun with another {', '.join(changed)}",
            where=str(out),
            hint="give the same options again with --resume, or compare anew in another --out",
        )


def _read_wish(path: Path) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"what was to be compared cannot be read ({error})", where=str(path), hint="compare anew, in another --out"
        ) from error
    if not {"settings", "data"} <= set(stored):
        raise RunFolderError("this is not what a comparison keeps", where=str(path), hint="choose another --out")
    return stored
