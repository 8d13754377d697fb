"""What carrying on adds to a recipe."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from rung.data.mixture import FINEST_SHARE, exact_share
from rung.errors import UsageError


@dataclass(frozen=True)
class Continuation:
    """Stored in the run's header as `continues`.

    `replay`: the share of rows that are windows of the old text. `penalty`: how strongly weights are pulled towards
    the parent's, see `rung.training.anchor`.
    """

    replay: float = 0.0
    penalty: float = 0.0

    def __post_init__(self) -> None:
        """Raises UsageError for values out of range."""
        if not (self.replay == 0 or 1 / FINEST_SHARE <= self.replay <= 0.9):
            raise UsageError(
                f"the share of old text must be 0 or lie between {1 / FINEST_SHARE:g} and 0.9, not {self.replay:g}",
                where="--replay",
                hint="0.05 to 0.25 is usual",
            )
        if not 0 <= self.penalty < float("inf"):
            raise UsageError(f"the pull must be 0 or more, not {self.penalty:g}", where="--penalty")

    @property
    def share(self) -> Fraction:
        """`replay`, exactly as rows are chosen by."""
        return exact_share(self.replay)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
