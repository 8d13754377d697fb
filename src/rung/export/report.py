"""What an export has to say: which files, and how far other programs agree with Rung about them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# How far scores may be from those of the run, as a share of the largest, before an export counts as broken: what
# rounding to the format leaves, with room. Float32 has none but the order of sums.
TOLERANCE = {"f32": 1e-3, "f16": 1e-2, "bf16": 1e-1, "q8_0": 1e-1}


@dataclass(frozen=True)
class Comparison:
    """What `reader` makes of the exported model, against Rung on the run itself.

    `largest_difference` is of all scores of all tokens of `scored` inputs (strings; for ONNX random rows of tokens,
    too), `largest_score` the largest score in absolute value; `same_choice` the share of places where both find the
    same answer likeliest; `same_tokens` the number of strings, of `tokenised`, that became the same tokens. None: not
    compared, `remark` says why.
    """

    reader: str
    largest_difference: float | None = None
    largest_score: float = 0.0
    same_choice: float | None = None
    scored: int = 0
    same_tokens: int | None = None
    tokenised: int = 0
    remark: str = ""

    @property
    def relative_difference(self) -> float:
        """The largest difference as a share of the largest score."""
        return (self.largest_difference or 0.0) / max(self.largest_score, 1e-12)

    def __str__(self) -> str:
        if self.largest_difference is None and self.same_tokens is None:
            return f"{self.reader}: not compared ({self.remark})"
        parts = []
        if self.largest_difference is not None:
            parts.append(
                f"largest difference {self.largest_difference:.2g} of scores up to {self.largest_score:.3g}, "
                f"same first choice at {100 * (self.same_choice or 0):.1f} % of places ({self.scored} inputs)"
            )
        if self.same_tokens is not None:
            parts.append(f"{self.same_tokens:,} of {self.tokenised:,} strings tokenised equally")
        return f"{self.reader}: {'; '.join(parts)}{f' ({self.remark})' if self.remark else ''}"


@dataclass(frozen=True)
class ExportReport:
    """An export: its folder, its files with their sizes, `notes` on what changed, and the comparisons made."""

    folder: Path
    to: str
    dtype: str
    files: dict[str, int]
    notes: tuple[str, ...] = ()
    comparisons: tuple[Comparison, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether a program other than Rung read it and gave the same scores."""
        return any(c.largest_difference is not None and not c.reader.startswith("Rung") for c in self.comparisons)

    def lines(self) -> list[str]:
        """For people."""
        size = sum(self.files.values()) / 1e6
        told = [f"{self.folder}: {len(self.files)} files, {size:,.1f} MB ({self.to}, {self.dtype})"]
        told += [f"  note: {note}" for note in self.notes]
        told += [f"  {comparison}" for comparison in self.comparisons]
        if not self.verified:
            told.append("  NOT VERIFIED: no other program has read it yet")
        return told

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {**asdict(self), "folder": str(self.folder), "verified": self.verified}
