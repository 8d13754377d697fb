"""What all model cards share: the head that the Hugging Face hub reads, and tables of what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rung.records import Record

_COLUMNS = "| metric | value | 95 % interval | {items} | how |\n|---|---|---|---|---|\n"


def front_matter(**fields: str | Sequence[str] | None) -> str:
    """The head of a card, in the order given; fields that are None are left out."""
    lines = [f"{name}: {_yaml(value)}" for name, value in fields.items() if value]
    return "\n".join(["---", *lines, "---"])


def record_table(records: Iterable[Record], *, items: str = "n", digits: int = 4) -> str:
    """Measurements as a table; `items` says what they were counted over."""
    return _COLUMNS.format(items=items) + "\n".join(record_row(record, digits=digits) for record in records)


def record_row(record: Record, *, digits: int = 4) -> str:
    """A measurement as a row of a card's table."""
    low_high = record.interval and (record.interval.low, record.interval.high)
    interval = f"{low_high[0]:.{digits}f} to {low_high[1]:.{digits}f}" if low_high else "-"
    value = "not measured" if record.value is None else f"{record.value:.{digits}f} {record.unit}"
    return f"| {record.name} | {value} | {interval} | {record.n:,} | {record.signature.replace('|', ' ')} |"


def _yaml(value: str | Sequence[str]) -> str:
    """A value as YAML writes it; JSON's strings are YAML's too, and plain words need no quotes."""
    if not isinstance(value, str):
        return f"[{', '.join(map(_yaml, value))}]"
    return (
        value
        if value.replace("-", "").replace("/", "").replace(".", "").replace("_", "").isalnum()
        else json.dumps(value)
    )
