"""The tensors of a GGUF file under Hugging Face's names, read one by one: what `nets.weights` asks of any weights."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from rung.errors import RunFolderError
from rung.nets.gguf_config import ROPE_FACTORS, head_count, layout_of
from rung.nets.gguf_file import BF16, F16, GgufFile
from rung.nets.gguf_layout import separate_heads

_KEPT = {F16: torch.float16, BF16: torch.bfloat16}


class GgufWeights:
    """A `rung.nets.weights.Weights` of a GGUF file. Quantised tensors are turned into float32 as they are read.

    RunFolderError when the file is damaged, of an unknown architecture, or holds a tensor that its architecture has
    not; all that before any tensor is read.
    """

    def __init__(self, path: Path) -> None:
        self._file = GgufFile(path)
        try:
            self._layout = layout_of(self._file)
            self._stored: dict[str, str] = {}
            for name in self._file.tensors.keys() - {ROPE_FACTORS}:
                own = self._layout.hf_name(name)
                if own is None:
                    raise RunFolderError(
                        f"the GGUF file has a tensor that this architecture has no place for: {name!r:.80}",
                        where=str(path),
                        hint="Rung refuses what it cannot honour, so that the network cannot compute something else",
                    )
                self._stored[own] = name
        except BaseException:
            self._file.close()
            raise

    def names(self) -> frozenset[str]:
        """All tensors."""
        return frozenset(self._stored)

    def shape(self, name: str) -> torch.Size:
        """The shape of a tensor, without reading it."""
        stored = self._stored[name]
        shape = self._file.tensors[stored].shape
        return torch.Size(shape[::-1] if self._layout.is_turned(stored) else shape)

    def dtype(self, name: str) -> torch.dtype:
        """float16 or bfloat16 where the tensor is stored so; float32 for all others, quantised ones too."""
        return _KEPT.get(self._file.tensors[self._stored[name]].kind, torch.float32)

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """A tensor in `dtype`, in Hugging Face's order of rows and columns."""
        stored = self._stored[name]
        tensor = torch.from_numpy(self._file.values(stored)).to(dtype)
        if self._layout.is_turned(stored):
            return tensor.T.contiguous()
        part = self._layout.heads_interleaved(stored)
        if part is None:
            return tensor
        heads = head_count(self._file, part)
        if len(tensor) % (2 * heads):
            raise RunFolderError(
                f"tensor {stored} has {len(tensor):,} rows, which {heads:,} heads cannot share",
                where=str(self._file.path),
                hint="the file is damaged or its metadata was edited",
            )
        return separate_heads(tensor, heads).contiguous()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
