"""Loops over arrays compiled to machine code by numba, the optional extra `fast`.

This module and those that use it are imported late, by what runs their loops: without numba the import raises a
RungError that says what to install.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from rung.errors import RungError

try:
    import numba
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba.core import cgutils
    from numba.extending import intrinsic
except ImportError as error:
    raise RungError(
        "word vectors are trained by loops that numba compiles, and it is not installed",
        hint="pip install 'rung[fast]'",
    ) from error

Function = TypeVar("Function", bound=Callable[..., Any])

LANE = 16
"""Floats of one cache line (64 bytes), and of the widest vector register."""

# No counting of references ("_nrt"): the loops allocate nothing, and counting took two thirds of the time of drawing
# and copying the outputs of a window (770 ns with it, 270 ns without).
_OPTIONS: dict[str, Any] = {
    "_nrt": False,
    "nogil": True,
    "fastmath": True,
    "boundscheck": False,
    "error_model": "numpy",
}


def compiled(function: Function) -> Function:
    """Compile `function` at its first call with each combination of types, and keep the result on disk.

    It runs without the GIL, so threads of Python run it side by side. Indices are not checked, and sums may be taken
    in another order than written (the same one in every run on a machine). It must not allocate arrays.
    """
    return cast(Function, numba.njit(cache=True, **_OPTIONS)(function))


def inlined(function: Function) -> Function:
    """Compile `function` into each compiled one that calls it.

    A call passes seven numbers for every array: between small functions that takes longer than their work.
    """
    return cast(Function, numba.njit(inline="always", **_OPTIONS)(function))


def lanes_of(size: int) -> tuple[int, ...]:
    """A tuple whose length says how many lanes hold `size` floats.

    A compiled loop knows the length of a tuple when it is compiled, and unrolls over it; that of an array it does not.
    """
    return (0,) * -(-size // LANE)


def aligned_rows(rows: int, size: int) -> NDArray[np.float32]:
    """Zeros (rows, size rounded up to whole lanes), each row at a multiple of 64 bytes."""
    width = len(lanes_of(size)) * LANE
    raw = np.zeros(rows * width + LANE, np.float32)
    first = -(raw.ctypes.data // raw.itemsize) % LANE
    return raw[first : first + rows * width].reshape(rows, width)


def _prefetch_row(_typing: Any, matrix: Any, _row: Any, lanes: Any) -> Any:
    """In compiled code: fetch row `row` of an aligned float32 `matrix` into the first cache, and do not wait for it."""

    unpack_tuple: Callable[..., Any] = cgutils.unpack_tuple

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = unpack_tuple(builder, array.strides, 2)[0]
        address, number = ir.IntType(64), ir.IntType(32)
        pointer = ir.IntType(8).as_pointer()
        start = builder.add(builder.ptrtoint(array.data, address), builder.mul(arguments[1], stride))
        takes = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], takes)
        for line in range(len(signature.args[2])):
            place = builder.inttoptr(builder.add(start, address(line * LANE * 4)), pointer)
            builder.call(prefetch, [place, number(0), number(3), number(1)])  # to read, keep it near, data
        return context.get_dummy_value()

    return numba.types.void(matrix, numba.types.int64, lanes), generate


prefetch_row: Any = intrinsic(_prefetch_row)
