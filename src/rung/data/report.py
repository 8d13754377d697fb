"""What became of the text: counts that add up, for machines and for people."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class CorpusReport:
    """The account of one preparation. Documents are the pieces that long texts are cut into, and rejected rows.

    documents_in == train_documents + valid_documents + sum(rejected.values()). `valid_fraction_used` is higher than
    asked for only when the corpus is very small, and 0 when validation text was given.
    """

    files: int = 0
    files_skipped: dict[str, int] = field(default_factory=dict)
    encodings: dict[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    documents_in: int = 0
    train_documents: int = 0
    valid_documents: int = 0
    train_bytes: int = 0
    valid_bytes: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    rejected_bytes: dict[str, int] = field(default_factory=dict)
    rejected_path: str = ""
    valid_fraction_used: float = 0.0
    segments: int = 0
    reused_segments: int = 0
    seconds: float = 0.0
    sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The report as lines of plain text."""
        kept = self.train_documents + self.valid_documents
        size = self.train_bytes + self.valid_bytes
        lines = [
            f"{self.files:,} file{'s' * (self.files != 1)} read, {kept:,} of {self.documents_in:,} documents kept "
            f"({human_bytes(size)})",
            f"train {self.train_documents:,} documents, {human_bytes(self.train_bytes)}; "
            f"validation {self.valid_documents:,} documents, {human_bytes(self.valid_bytes)}",
        ]
        if self.rejected:
            lines.append("rejected:")
            for reason, count in Counter(self.rejected).most_common():
                lines.append(f"  {count:>9,}  {reason} ({human_bytes(self.rejected_bytes.get(reason, 0))})")
            lines.append(f"  each with its place and reason in {self.rejected_path}")
        lines += [f"left out: {count:,} {reason}" for reason, count in self.files_skipped.items()]
        if set(self.encodings) - {"utf-8"}:
            lines.append("encodings: " + ", ".join(f"{name} {count:,}" for name, count in self.encodings.items()))
        lines += [f"note: {remark}" for remark in self.remarks]
        return lines


def human_bytes(count: float) -> str:
    """Spell a number of bytes: 512 B, 1.1 MB (decimal)."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
