"""The model card of an exported model: a head for the hub, the card of its run, and how the export was checked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rung.export.report import ExportReport
from rung.export.source import Source
from rung.nets.label_names import is_mean_classifier
from rung.tasks.bases import base_record
from rung.tasks.card_parts import USE_OF_THE_MEAN, front_matter, hub_name, record_table, without_adapter_words

_LIBRARIES = {"hf": "transformers", "gguf": "llama.cpp", "onnx": "onnxruntime"}
_HEAD = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_LANGUAGE = re.compile(r"^language:\s*(\S+)\s*$", re.MULTILINE)

_USE = re.compile(r"^## Use\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
_ONNX_USE = """## Use

```python
import json
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

settings = json.loads(Path("tokenizer_config.json").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation(settings["model_max_length"])
tokenizer.enable_padding()
texts = tokenizer.encode_batch(["A first text.", "And a second one, which is longer."])
ids = np.array([text.ids for text in texts], np.int64)
mask = np.array([text.attention_mask for text in texts], np.int64)
(output,) = InferenceSession("model.onnx").run(None, {"input_ids": ids, "attention_mask": mask})
```"""


def export_card(source: Source, report: ExportReport) -> str:
    """The text of `README.md`."""
    body = _HEAD.sub("", source.card).strip() or _own_words(source)
    body = _renamed(without_adapter_words(body), source.run, report.folder.name)
    use = ""
    if report.to == "onnx":  # which the programs of the run do not open
        body, use = _USE.sub("", body), _ONNX_USE
    elif is_mean_classifier(source.config) and "SentenceTransformer(" not in body:
        use = USE_OF_THE_MEAN.format(run=report.folder.name)
    parts = [_front_matter(source, report), body, use, _parents(source), _export_section(report)]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _renamed(body: str, run: Path, name: str) -> str:
    """`body`, whose programs open `name` instead of `run`; other words that are spelled like it stay."""
    paths = "|".join(re.escape(path) for path in (str(run.resolve()), str(run), run.name) if path)
    before = r"""\brung [a-z]+ (?:-\S+ )*|(?:\.from_pretrained|\.load|\bPath|\bSentenceTransformer)\(["']"""
    opened = re.compile(rf"""({before})(?:{paths})(?=[\s`"'/]|$)""")
    return opened.sub(lambda found: found[1] + name, body)


def licence_of_source(source: Source) -> str | None:
    """The licence of the base it was made from, or of the model itself where it is other people's; None: unknown."""
    named = _parent(source).get("licence")
    return str(named) if named and named != "unknown" else None


def _front_matter(source: Source, report: ExportReport) -> str:
    head = _HEAD.search(source.card)
    language = _LANGUAGE.search(head[1]) if head else None
    sentence = source.has_steps and report.to == "hf"
    return front_matter(
        license=licence_of_source(source),
        language=language[1] if language else None,
        base_model=hub_name(_parent(source)),
        library_name="sentence-transformers" if sentence else _LIBRARIES[report.to],
        pipeline_tag=source.computes if report.to == "onnx" else source.pipeline,
        tags=["rung", *([report.to] if report.to in ("gguf", "onnx") else [])],
    )


def _parent(source: Source) -> dict[str, Any]:
    """The record of what it was made from: nothing for a network that began at random, other people's model itself."""
    if not source.header or source.header.get("kind") == "base":
        return base_record(source.folder)
    parent = source.header.get("parent")
    return parent if isinstance(parent, dict) else {}


def _parents(source: Source) -> str:
    """What it was made from, by name and hash."""
    parent = _parent(source)
    if not parent:
        return ""
    lines = "\n".join(f"- {key.replace('_', ' ')}: `{value}`" for key, value in parent.items() if value)
    return f"## Parents\n\n{lines}"


def _own_words(source: Source) -> str:
    """A card for a model that came without one."""
    measured = record_table(source.records) if source.records else "Nothing."
    return f"""# {source.run.name}

A {source.model_type} network ({source.architecture}).

## Measured

{measured}

## Limits

Bias, privacy and safety: not measured. Energy: not measured."""


def _export_section(report: ExportReport) -> str:
    found = "\n".join(f"- {comparison}" for comparison in report.comparisons) or "- not compared with anything"
    notes = "\n".join(f"- {note}" for note in report.notes)
    verdict = (
        "Another program read this export and gave the scores of the original; the largest difference is below."
        if report.verified
        else "**Not verified:** no other program has read this export yet."
    )
    return f"""## Export

Format {report.to}, weights in {report.dtype}. {verdict}

{found}
{notes}"""
