"""Networks whose parameters have shapes but no values yet, to be given stored tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _DrawNothing(TorchFunctionMode):
    """Skips `torch.nn.init`: a parameter without memory takes no values.

    torch draws normal numbers for the meta device in Python, and for that loads its compiler (torch 2.13, `torch._refs`
    through `torch._dynamo`): more than a second at the start of a program that only predicts.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", None) == torch.nn.init.__name__:
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


@contextmanager
def without_values() -> Iterator[None]:
    """Modules made in this context have parameters on the meta device: shapes alone."""
    with torch.device("meta"), _DrawNothing():
        yield
