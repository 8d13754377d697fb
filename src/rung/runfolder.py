"""The one artefact: a folder whose files are listed with their hashes in `rung.json`.

Whatever Rung trains is such a folder, and so is every checkpoint inside it. Two rules keep it sound:

- *Nothing half-written is ever visible.* Single files are replaced atomically; folders are filled under a temporary
  name, flushed to disk and renamed. A crash at any instant leaves the old state or the new one.
- *Nothing damaged is ever used.* `rung.json` names the SHA-256 of every file beside it, and `verify` checks them.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rung.errors import NewerFormatError, RunFolderError

FORMAT_VERSION = 1
HEADER_NAME = "rung.json"
_TEMPORARY_PREFIX = ".writing-"
_REPLACED_PREFIX = ".replaced-"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8) in one step: readers see the old file or the new one."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step: readers see the old file or the new one."""
    temporary = path.with_name(f"{_TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    with readable_write_errors(path):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON. NaN and infinities are refused: they are not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, kind: type[dict[Any, Any]] | type[list[Any]] = dict) -> Any:
    """The JSON object or list in `path`. RunFolderError when there is no such file, or it holds anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunFolderError(f"the folder has no {path.name}", where=str(path.parent)) from None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, no JSON, or a number of 5,000 digits
        raise RunFolderError(f"cannot read {path.name}: {error}", where=str(path)) from error
    if not isinstance(value, kind):
        raise RunFolderError(f"{path.name} is not a JSON {'list' if kind is list else 'object'}", where=str(path))
    return value


def write_folder(final: Path, fill: Callable[[Path], None], header: dict[str, Any]) -> None:
    """Create the folder `final` in one step.

    `fill` receives an empty temporary folder beside `final` and writes files into it. Then `rung.json` is added:
    `header`, the format version and `files`, the size and SHA-256 of all that was written. A folder that already
    stands at `final` is replaced.

    Raises RunFolderError when the disk is full or not writable; `final` is then as it was before.
    """
    with _temporary_folder(final) as temporary:
        fill(temporary)
        write_header(temporary, header)
        with readable_write_errors(final):
            _sync_all(temporary)
            if final.exists():  # rename cannot replace a folder that is not empty: step aside first
                aside = final.with_name(f"{_REPLACED_PREFIX}{final.name}")
                shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed before it could remove it
                final.rename(aside)
                temporary.rename(final)
                shutil.rmtree(aside)
            else:
                temporary.rename(final)
            _sync_folder(final.parent)


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A folder to fill, for what is no run folder: named `final` when the context ends well, gone when it does not.

    Nothing but an empty folder may stand at `final`. RunFolderError as in `write_folder`.
    """
    with _temporary_folder(final) as temporary:
        yield temporary
        with readable_write_errors(final):
            _sync_all(temporary)
            if final.exists():
                final.rmdir()
            temporary.rename(final)
            _sync_folder(final.parent)


@contextmanager
def _temporary_folder(final: Path) -> Iterator[Path]:
    """An empty folder beside `final`; what is left of it when the context ends is removed."""
    temporary = final.with_name(f"{_TEMPORARY_PREFIX}{os.getpid()}-{final.name}")
    with readable_write_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        for left in final.parent.glob(f"{_TEMPORARY_PREFIX}*-{glob.escape(final.name)}"):
            if not _is_at_work(left.name.removeprefix(_TEMPORARY_PREFIX).partition("-")[0]):
                shutil.rmtree(left, ignore_errors=True)
        try:
            temporary.mkdir()
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _is_at_work(number: str) -> bool:
    """Whether the process that a temporary folder is named after may still fill it: it runs, and is not this one."""
    if not (number.isascii() and number.isdecimal()):
        return True  # not named by us
    if int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def write_header(folder: Path, header: dict[str, Any], files: list[str] | None = None) -> None:
    """Write `rung.json` over the files of `folder` (all, or those named). It is the commit point: written last."""
    listed = files if files is not None else [path.relative_to(folder).as_posix() for path in _files_of(folder)]
    described = {
        name: {"sha256": file_sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in sorted(listed)
    }
    write_json(folder / HEADER_NAME, {"format_version": FORMAT_VERSION, **header, "files": described})


def read_header(folder: Path) -> dict[str, Any]:
    """Return the content of `rung.json`.

    Raises RunFolderError when `folder` is no run folder, NewerFormatError when a newer Rung wrote it.
    """
    path = folder / HEADER_NAME
    if not path.is_file():
        raise RunFolderError(
            "this is not a Rung run folder: it has no rung.json",
            where=str(folder),
            hint="give the folder that `rung train` printed at its end",
        )
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        version = int(header["format_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"rung.json cannot be read ({error})", where=str(path), hint="restore the file or train again"
        ) from error
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"this folder has format {version}; this Rung reads up to format {FORMAT_VERSION}",
            where=str(path),
            hint="update with `pip install --upgrade rung`",
        )
    result: dict[str, Any] = header
    return result


def verify(folder: Path) -> dict[str, Any]:
    """Check every file that `rung.json` lists and return the header.

    Raises RunFolderError naming the first file that is missing, truncated or changed.
    """
    header = read_header(folder)
    for name, expected in header["files"].items():
        path = folder / name
        if not path.is_file():
            raise RunFolderError("a file of this folder is missing", where=str(path), hint=_DAMAGED)
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise RunFolderError(
                f"a file has {size:,} bytes where {expected['bytes']:,} were written", where=str(path), hint=_DAMAGED
            )
        if file_sha256(path) != expected["sha256"]:
            raise RunFolderError(
                "a file is not the one that was written: its SHA-256 differs", where=str(path), hint=_DAMAGED
            )
    return header


def remove_leftovers(folder: Path) -> None:
    """Clear what an earlier process left half-written in `folder` when it was killed.

    A folder that was killed between stepping aside and being replaced steps back.
    """
    for aside in folder.glob(f"{_REPLACED_PREFIX}*"):
        original = folder / aside.name.removeprefix(_REPLACED_PREFIX)
        if original.exists():
            shutil.rmtree(aside)
        else:
            aside.rename(original)
    for path in folder.glob(f"{_TEMPORARY_PREFIX}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def discard(path: Path) -> None:
    """Delete a file or folder so that a crash half-way cannot leave a part of it under its name.

    `remove_leftovers` knows the name it gets and clears what a crash left.
    """
    doomed = path.with_name(f"{_TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    path.rename(doomed)
    if doomed.is_dir():
        shutil.rmtree(doomed)
    else:
        doomed.unlink()


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DAMAGED = "the file was damaged or edited after it was written: use another checkpoint, or train again"


def _files_of(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path.name != HEADER_NAME)


def _sync_all(folder: Path) -> None:
    """Flush a folder and all that is in it to disk."""
    for path in [*folder.rglob("*"), folder]:
        _sync_folder(path)


def _sync_folder(path: Path) -> None:
    """Flush a file or folder to disk, so that a rename never outlives the data it points to."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def readable_write_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission, met while writing `path`, into a RunFolderError that says what to do.

    safetensors and numpy tell of them in the text of an error alone.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = getattr(error, "errno", None) or _os_error_in(str(error))
        if number in _NO_SPACE:
            raise RunFolderError(
                "the disk is full" if number == errno.ENOSPC else "a limit on disk space or file size is met",
                where=str(path),
                hint="free some space and run the command again (training: --resume); what was saved before is intact",
            ) from error
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise RunFolderError(
                "no permission to write here", where=str(path), hint="choose another folder with --out"
            ) from error
        raise


def _os_error_in(message: str) -> int | None:
    """The number in a message such as "I/O error: No space left on device (os error 28)".

    `numpy.ndarray.tofile` only says "512 requested and 96 written": some limit is met.
    """
    found = re.search(r"\(os error (\d+)\)", message)
    if found is None and re.fullmatch(r"\d+ requested and \d+ written", message):
        return errno.EFBIG
    return int(found[1]) if found else None
