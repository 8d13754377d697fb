"""Ctrl-C and SIGTERM as a wish that the loop grants at the end of a step."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STANDARD_ERROR = 2
_HEARD = b"\nstopping: this step is finished and saved first (Ctrl-C again to stop at once, without saving)\n"


class Interrupts:
    """While entered, the first SIGINT or SIGTERM sets `wanted`; a second Ctrl-C interrupts at once.

    Outside the main thread Python delivers no signals, and this does nothing.
    """

    def __init__(self, *, announce: bool) -> None:
        """`announce`: tell on standard error that the wish was heard."""
        self.wanted = False
        self._announce = announce
        self._former: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal itself returned

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.wanted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.wanted = True
        if self._announce:  # not through a display or print, which the signal may just have interrupted
            os.write(_STANDARD_ERROR, _HEARD)
