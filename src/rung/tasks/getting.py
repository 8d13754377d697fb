"""Fetching a base: out of an installed package, or from the Hugging Face hub (extra `hub`)."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rung.errors import RunFolderError, UsageError, did_you_mean
from rung.progress import SILENT, Progress
from rung.runfolder import readable_write_errors, write_folder, write_json
from rung.tasks.bases import (
    HUB_NAME,
    KNOWN_BASES,
    MODELS,
    RECORD,
    KnownBase,
    licence_of,
    weights_sha256,
    write_gguf_folder,
)

_WANTED = [
    "*.safetensors",
    "*.safetensors.index.json",
    "*.json",
    "*.txt",
    "*.model",
    "*.spm",
    "*.jinja",
    "README.md",
    "LICENSE*",
]
# Copies of the same weights in other formats or layouts (Mistral's are called consolidated), and logs.
_UNWANTED = ["onnx/*", "openvino/*", "original/*", "consolidated*", "runs/*"]
_LOCAL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
_FETCHING = ".fetching-"
CONFIG = "config.json"


@dataclass(frozen=True)
class Gotten:
    """A base that is in a folder now. `source`: the package or hub repository, with its version or commit."""

    name: str
    folder: Path
    source: str
    licence: str
    weights_sha256: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {**asdict(self), "folder": str(self.folder)}


@dataclass(frozen=True)
class Available:
    """A base that `rung get` knows: `state` says whether it can be used at once, or how to get it."""

    name: str
    what: str
    source: str
    megabytes: int
    licence: str
    state: str


def available_bases() -> list[Available]:
    """What `rung get` knows by name, and what of that is here."""
    return [
        Available(base.name, base.what, f"package {base.package}", base.megabytes, base.licence, _state(base))
        for base in KNOWN_BASES.values()
    ]


def get_base(name: str, *, out: Path | None = None, revision: str | None = None, progress: Progress = SILENT) -> Gotten:
    """Put a base into `out` (default `models/NAME`): a name of `KNOWN_BASES`, or ORG/NAME of the hub.

    A known base comes from its package where that is installed, else from the hub. From the hub only safetensors, JSON
    and text are taken, at one commit, which is recorded; a download that was interrupted goes on where it stopped, and
    until it is complete nothing stands at `out`.

    Raises UsageError when something stands at `out` already, RunFolderError when the base cannot be had.
    """
    base = KNOWN_BASES.get(name)
    if base is None and not HUB_NAME.fullmatch(name):
        raise UsageError(
            f"there is no base {name!r}{did_you_mean(name, KNOWN_BASES)}",
            hint=f"give ORG/NAME of the Hugging Face hub, or one of: {', '.join(KNOWN_BASES)}",
        )
    folder = out or MODELS / name
    if folder.exists():
        raise UsageError("there is something already", where=str(folder), hint="use it, or give another --out")
    if base is None or (base.installed is None and revision is not None):
        return _from_hub(base.hub if base else name, folder, revision, progress)
    if base.installed is not None:
        if revision is not None:
            raise UsageError("a revision is of the hub, and this base is installed as a package", hint="leave it out")
        return _from_package(base, base.installed, folder)
    try:
        return _from_hub(base.hub, folder, None, progress)
    except RunFolderError as error:
        raise RunFolderError(
            error.problem, where=error.where, hint=f"{base.install_command}   and try again"
        ) from error


def _from_package(base: KnownBase, installed: Path, folder: Path) -> Gotten:
    from importlib.metadata import version

    source = f"package {base.package} {version(base.package)}"
    if installed.is_dir():
        noted = {
            "name": base.name,
            "source": source,
            "licence": base.licence,
            "weights_sha256": weights_sha256(installed),
        }

        def fill(writing: Path) -> None:
            shutil.copytree(installed, writing, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
            write_json(writing / RECORD, noted)

        write_folder(folder, fill, {"kind": "base"})
        return Gotten(base.name, folder, source, base.licence, noted["weights_sha256"])
    write_gguf_folder(installed, folder, copy=True, name=base.name, source=source)
    return Gotten(base.name, folder, source, base.licence, weights_sha256(folder))


def _from_hub(name: str, folder: Path, revision: str | None, progress: Progress) -> Gotten:
    from rung.nets.weights import open_weights  # late: it imports torch

    hub = _hub()
    endpoint = os.environ.get("HF_ENDPOINT")
    staging = folder.with_name(f"{_FETCHING}{folder.name}")
    with readable_write_errors(folder), _told_plainly(name):
        info = hub.HfApi(endpoint=endpoint).model_info(name, revision=revision)
        _require_safetensors(name, [file.rfilename for file in info.siblings or []])
        fetch = partial(
            hub.snapshot_download,
            name,
            revision=info.sha,  # what was looked at is what is fetched, even when the branch moves meanwhile
            local_dir=staging,
            ignore_patterns=_UNWANTED,
            endpoint=endpoint,
            etag_timeout=30,
        )
        fetch(allow_patterns=[CONFIG])
        _require_known(staging)  # before gigabytes come in vain
        with progress.task(f"fetching {name}", None, "files") as advance:
            fetch(allow_patterns=_WANTED)
            advance(1)
    shutil.rmtree(staging / ".cache", ignore_errors=True)  # the client's notes on what it has fetched
    with open_weights(staging) as weights:
        weights.names()
    told = getattr(info.card_data, "license", None) if info.card_data else None
    licence = told if isinstance(told, str) else licence_of(staging)
    gotten = Gotten(name, folder, f"hub {name}@{info.sha}", licence, weights_sha256(staging))
    noted = {key: value for key, value in gotten.to_json().items() if key != "folder"}
    write_json(staging / RECORD, noted)
    staging.rename(folder)
    return gotten


def _require_known(staging: Path) -> None:
    """Raise RunFolderError for a configuration that Rung cannot open or that asks for code; `staging` then goes."""
    from rung.nets.architectures import FAMILIES, unsupported
    from rung.nets.pretrained import read_config_file

    try:
        model_type = str(read_config_file(staging).get("model_type"))
        if not any(model_type in names for names in FAMILIES.values()):
            raise unsupported(model_type, f"{CONFIG} of the hub")
    except RunFolderError:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _require_safetensors(name: str, files: list[str]) -> None:
    if not any(file.endswith(".safetensors") for file in files):
        others = sorted({Path(file).suffix for file in files} & {".bin", ".gguf", ".pt", ".h5", ".msgpack"})
        raise RunFolderError(
            f"{name} has no safetensors{', only ' + ', '.join(others) if others else ''}",
            hint="take another copy of the model; a .gguf file that you fetched yourself can be given as the base",
        )


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise RunFolderError(
            "the package that fetches from the Hugging Face hub is missing", hint="pip install 'rung[hub]'"
        ) from error
    return huggingface_hub


@contextmanager
def _told_plainly(name: str) -> Iterator[None]:
    """Turn what the hub's client raises into a RunFolderError."""
    from huggingface_hub import errors

    # the base class of the HTTP library, whichever the client uses: a connection that cannot be made, or breaks
    network: tuple[type[BaseException], ...] = (OSError, *errors.HfHubHTTPError.__bases__)
    try:
        yield
    except errors.GatedRepoError as error:
        raise RunFolderError(
            f"{name} is given only to those who accept its terms",
            hint="accept them on the model's page, then: hf auth login",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise RunFolderError(f"{name} has no such revision", hint="give a branch, a tag or a commit") from error
    except errors.RepositoryNotFoundError as error:
        raise RunFolderError(f"the hub has no model {name}", hint="look for its exact name on the hub") from error
    except network as error:
        if isinstance(error, OSError) and error.errno in _LOCAL_ERRORS:
            raise  # no fault of the network: `readable_write_errors` tells
        raise RunFolderError(
            f"{name} could not be fetched ({type(error).__name__}: {error})",
            hint="run the same command again: what has arrived is kept",
        ) from error


def _state(base: KnownBase) -> str:
    if (MODELS / base.name).is_dir():
        return f"in {MODELS / base.name}"
    return "installed" if base.installed else base.install_command
