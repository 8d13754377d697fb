"""What `rung predict` and `rung eval` do with a tagger: find entities in texts, and compare with tagged sentences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rung.cli.threads import settle_threads
from rung.errors import UsageError

if TYPE_CHECKING:
    from rung.tasks.tagging.tagger import Tagged


def tag_texts(run: Path, texts: list[str], *, as_json: bool) -> None:
    """Show the entities of `texts`, or each word with its tag where tags mark no spans."""
    if not texts:
        raise UsageError("there is no text to tag", hint=f'rung predict {run} "Ada Lovelace lived in London"')
    settle_threads()
    from rung.cli.console import print_json
    from rung.evaluation.entities import has_spans
    from rung.tasks.tagging.tagger import load

    tagger = load(run)
    found = tagger.tag(texts)
    if as_json:
        print_json({"run": str(run), "predictions": [one.to_json() for one in found]})
        return
    for one in found:
        if len(texts) > 1:
            typer.echo(one.text)
        for line in _entity_lines(one) if has_spans(tagger.tags) else _word_lines(one):
            typer.echo(line)


def _entity_lines(one: Tagged) -> list[str]:
    """The entities of a text, in their order."""
    found = one.entities
    width = max((len(entity["type"]) for entity in found), default=0)
    return [f"  {entity['type']:<{width}}  {entity['text']}" for entity in found] or ["  no entity"]


def _word_lines(one: Tagged) -> list[str]:
    width = max(map(len, one.tags), default=0)
    return [f"  {tag:<{width}}  {word}" for tag, word in zip(one.tags, one.words, strict=True)]


def evaluate_tagger(run: Path, files: list[Path], threads: int | None, *, as_json: bool) -> None:
    """Quality of a tagger on tagged sentences."""
    if not files:
        raise UsageError("there are no tagged sentences to measure on", hint=f"rung eval {run} tagged.conll")
    settle_threads()
    import torch

    from rung.cli.console import print_json, results, watching
    from rung.data.tagged_sentences import read_tagged
    from rung.tasks.tagging.tagger import load

    if threads is not None:
        torch.set_num_threads(threads)
    with watching(as_json=as_json) as watcher:
        records, _ = load(run).evaluate(read_tagged(files, progress=watcher), progress=watcher)
    if as_json:
        print_json({"run": str(run), "metrics": [record.model_dump(mode="json") for record in records]})
        return
    console = results()
    for record in records:
        console.print(str(record), markup=False)
