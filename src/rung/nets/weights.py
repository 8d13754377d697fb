"""The weights of a model folder: one safetensors file, several with an index, or one GGUF file, read one by one.

Files are memory-mapped. A tensor that is wanted in the dtype it is stored in is a view of the mapping and takes no
memory of its own; any other is converted as it is read, so a model is never held twice.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from safetensors import SafetensorError, safe_open

from rung.errors import RunFolderError
from rung.runfolder import read_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
GGUF_WEIGHTS = "model.gguf"
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.bin.index.json")
_DAMAGED = "the file is truncated or damaged: take an earlier checkpoint or copy it again"


class Weights(Protocol):
    """Named tensors in a file or several, to be used as a context manager; RunFolderError for whatever is damaged."""

    def names(self) -> frozenset[str]:
        """All tensors, by their Hugging Face names."""
        ...

    def shape(self, name: str) -> torch.Size:
        """The shape of a tensor, without reading it."""
        ...

    def dtype(self, name: str) -> torch.dtype:
        """What a tensor is stored in (or unpacked to). RunFolderError names a tensor that is no float16, 32 or bf16."""
        ...

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """A tensor in `dtype`; where it is stored in it, reading it again may give the same memory."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_weights(folder: Path) -> Weights:
    """Open the weights of a model folder; RunFolderError as in `weight_files`, or when a file is damaged."""
    files = weight_files(folder)
    if files[0].suffix == ".gguf":
        from rung.nets.gguf_weights import GgufWeights

        return GgufWeights(files[0])
    return SafetensorsWeights(files, _read_index(folder / INDEX) if files[0].name != WEIGHTS else None)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold a model folder's weights: `model.safetensors`, the shards of its index, or `model.gguf`.

    RunFolderError when there are none, when a shard is missing, when the index points out of the folder, or when the
    weights are pickles, which run code when they are opened.
    """
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if (folder / INDEX).is_file():
        shards = tuple(folder / name for name in sorted(set(_read_index(folder / INDEX).values())))
        if missing := [shard.name for shard in shards if not shard.is_file()]:
            raise RunFolderError(
                f"{len(missing)} of {len(shards)} weight files are missing: {', '.join(missing[:5])}",
                where=str(folder),
                hint="copy or fetch the folder again, with all files that the index names",
            )
        return shards
    if (folder / GGUF_WEIGHTS).is_file():
        return (folder / GGUF_WEIGHTS,)
    raise _no_weights(folder)


class SafetensorsWeights:
    """One safetensors file, or the shards of an index that says in which of them each tensor lies."""

    def __init__(self, files: tuple[Path, ...], index: dict[str, str] | None = None) -> None:
        """Open `files`; RunFolderError when one is damaged, or when they hold less or more than `index` says."""
        self._place: dict[str, tuple[Any, Path]] = {}
        with ExitStack() as opened:
            for path in files:
                try:
                    file = opened.enter_context(safe_open(path, framework="pt"))
                except (SafetensorError, OSError) as error:
                    raise _unreadable(path, error) from error
                found = set(file.keys())
                _compare_with_index(found, index, path)
                self._place.update(dict.fromkeys(found, (file, path)))
            self._opened = opened.pop_all()

    def names(self) -> frozenset[str]:
        """All tensors."""
        return frozenset(self._place)

    def shape(self, name: str) -> torch.Size:
        """The shape of a tensor, without reading it."""
        return torch.Size(self._place[name][0].get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        """What a tensor is stored in. RunFolderError when that is none of float32, bfloat16 and float16."""
        file, path = self._place[name]
        stored = file.get_slice(name).get_dtype()
        if stored not in _DTYPES:
            raise RunFolderError(f"tensor {name} is {stored}", where=str(path), hint=f"read: {', '.join(_DTYPES)}")
        return _DTYPES[stored]

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """A tensor in `dtype`: a view of the mapped file where it is stored in it, else converted."""
        self.dtype(name)
        file, path = self._place[name]
        try:
            tensor: torch.Tensor = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from error
        return tensor.to(dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._place.clear()
        self._opened.close()


def _read_index(path: Path) -> dict[str, str]:
    """Which file each tensor lies in. RunFolderError for anything but plain names of safetensors files."""
    files = read_json(path).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
        raise RunFolderError(f"{INDEX} has no weight_map of tensors to files", where=str(path), hint=_DAMAGED)
    for file in set(files.values()):
        if {PurePosixPath(file).name, PureWindowsPath(file).name} != {file} or not file.endswith(".safetensors"):
            raise RunFolderError(
                f"{INDEX} names {file!r}, which is no safetensors file of the same folder",
                where=str(path),
                hint="do not use this folder unless you know why its index points elsewhere",
            )
    return files


def _compare_with_index(found: set[str], index: dict[str, str] | None, path: Path) -> None:
    if index is None:
        return
    promised = {name for name, file in index.items() if file == path.name}
    for problem, names in (("lacks", promised - found), ("holds beyond it", found - promised)):
        if names:
            raise RunFolderError(
                f"{path.name} does not fit {INDEX}: it {problem} {shown(names)}",
                where=str(path),
                hint="the files are of different versions: copy or fetch the folder again",
            )


def shown(names: set[str] | frozenset[str]) -> str:
    """The first five names, and how many more there are."""
    return ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _no_weights(folder: Path) -> RunFolderError:
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        return RunFolderError(
            f"the folder has no {WEIGHTS}, only {pickles[0]}: a pickle, which can run any code when it is opened",
            where=str(folder),
            hint="take a version with safetensors, or convert with transformers where you trust the origin: "
            "AutoModel.from_pretrained(FOLDER).save_pretrained(NEW, safe_serialization=True)",
        )
    return RunFolderError(
        f"the folder has no {WEIGHTS}", where=str(folder), hint=f"nor {INDEX} with its files, nor {GGUF_WEIGHTS}"
    )


def _unreadable(path: Path, error: Exception) -> RunFolderError:
    return RunFolderError(f"cannot read {path.name}: {error}", where=str(path), hint=_DAMAGED)
