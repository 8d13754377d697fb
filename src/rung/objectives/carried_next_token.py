"""The language-modelling objective for networks that remember: each row goes on from the state it was left in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rung.errors import RunFolderError
from rung.objectives.cross_entropy import IGNORED, fused_cross_entropy
from rung.objectives.loss import Loss


class CarriedNextToken:
    """Cross-entropy of each label under the scores at its place, summed, over text read in lanes.

    A batch holds `input_ids` and `labels`, (batch, time), and `lanes` and `windows`, (batch,), all int64: see
    `rung.data.lanes`. Each lane is read from the state that its window before ended in, which no gradient passes
    (truncated backpropagation through time: Williams and Peng 1990); an end-of-text token starts over. States are kept
    by lane, so no number of ranks or size of micro-batches changes anything.

    The metric `cross_entropy` is the sum in nats.
    """

    def __init__(self, lanes: int, mine: range | None = None, *, while_training: bool = True) -> None:
        """Carry the states of `lanes` lanes, of which this rank reads those in `mine` (default: all of them).

        Only a network in training mode moves the states on, or, without `while_training`, only one in evaluation mode.
        A call in the other mode computes the same window from the same states and leaves no trace.
        """
        self._lanes, self._mine = lanes, mine or range(lanes)
        self._while_training = while_training
        self._window = -1  # the latest that was read: `_before` are the states it began with, `_after` those it left
        self._before: torch.Tensor | None = None
        self._after: torch.Tensor | None = None

    def __call__(self, net: Any, batch: Mapping[str, torch.Tensor]) -> Loss:
        """Return the loss on `batch`, whose rows are of one window, of `net`, whose body reads on from a state."""
        before, after = self._states(net, int(batch["windows"][0]))
        lanes, labels = batch["lanes"], batch["labels"]
        hidden, state = net.model.read(batch["input_ids"], before[lanes])
        if net.training == self._while_training:
            after[lanes] = state
        total, entropy = fused_cross_entropy(hidden.flatten(0, 1), net.lm_head.weight, labels.flatten())
        return Loss(total, (labels != IGNORED).sum(), {"cross_entropy": entropy})

    def _states(self, net: Any, window: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self._after is None:
            self._after = net.model.begin(self._lanes)
        self._after = self._after.to(net.lm_head.weight.device)
        if self._before is None or window != self._window:
            self._before, self._window = self._after.clone(), window
        return self._before, self._after

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """The states after the latest window, (lanes, ...); zeros for the lanes of other ranks."""
        if self._after is None:
            return {}
        states = torch.zeros_like(self._after)
        states[self._mine.start : self._mine.stop] = self._after[self._mine.start : self._mine.stop]
        return {"states": states}

    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `state_tensors` gave, added up over ranks. RunFolderError for another number of lanes."""
        found = tensors.get("states")
        if found is None or len(found) != self._lanes:
            rows = "no" if found is None else str(len(found))
            raise RunFolderError(f"the checkpoint carries {rows} states, this run reads {self._lanes} lanes")
        self._before, self._after = None, found.clone()
