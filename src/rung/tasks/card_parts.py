"""What all model cards share: the head that the Hugging Face hub reads, and tables of what was measured."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.tasks.bases import GGUF_WEIGHTS, HUB_NAME, KNOWN_BASES, resolve_base

if TYPE_CHECKING:
    from rung.records import Record

_ADAPTER = "This folder is an adapter: it needs its base."
_MERGED = "The adapter is merged into its base: this folder is the whole model."
USE_OF_THE_MEAN = """The head reads the mean over tokens, and transformers has no class for that: its
AutoModelForSequenceClassification would put a new, random head on this body. sentence-transformers opens the folder;
what it calls an embedding is the scores of the classes. A pooler that it reports as missing is not used.

```python
import json
from pathlib import Path

from sentence_transformers import SentenceTransformer

labels = json.loads(Path("{run}/config.json").read_text(encoding="utf-8"))["id2label"]
scores = SentenceTransformer("{run}").encode(["some text", "another text"], convert_to_tensor=True)
for probabilities in scores.softmax(dim=1).tolist():
    print(dict(zip(labels.values(), probabilities)))
```"""
"""How others open a classifier on the mean over tokens, in the folder `run`."""
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


def hub_name(parent: Mapping[str, Any]) -> str | None:
    """What the hub calls a base, by its `rung.tasks.bases.base_record`; None where nothing tells."""
    name = parent.get("name")
    if not isinstance(name, str):
        return None
    if name in KNOWN_BASES:
        return KNOWN_BASES[name].hub
    return name if HUB_NAME.fullmatch(name) and not Path(name).exists() else None


def adapter_words(parent: Mapping[str, Any], run: Path, opened: str = "") -> str:
    """What a card says of an adapter in `run`: that it needs its base, which one that is, and who opens it."""
    return "\n".join(filter(None, (_ADAPTER, rounded_base_words(parent, run), opened)))


def rounded_base_words(parent: Mapping[str, Any], run: Path) -> str:
    """What whoever uses the adapter in `run` has to know of a base that is a quantised GGUF file; empty for others."""
    from rung.nets.gguf_file import GgufFile  # late: it imports numpy

    file = resolve_base(parent["origin"]) / GGUF_WEIGHTS
    if not file.is_file():
        return ""
    with GgufFile(file) as opened:
        if not opened.is_quantised:
            return ""
    others = hub_name(parent) or "the model that the file was made of"
    return (
        f"It was trained on the rounded weights of a GGUF file ({parent['name']}), turned back into float32;\n"
        f"those of {others} differ. The model that was measured is what `rung export {run} --to hf` writes."
    )


def without_adapter_words(body: str) -> str:
    """`body` of an adapter's card as that of the merged model."""
    return re.sub(rf"^{re.escape(_ADAPTER)}.*?(?=\n\n|\Z)", _MERGED, body, flags=re.DOTALL | re.MULTILINE)


def _yaml(value: str | Sequence[str]) -> str:
    """A value as YAML writes it; JSON's strings are YAML's too, and plain words need no quotes."""
    if not isinstance(value, str):
        return f"[{', '.join(map(_yaml, value))}]"
    return (
        value
        if value.replace("-", "").replace("/", "").replace(".", "").replace("_", "").isalnum()
        else json.dumps(value)
    )
