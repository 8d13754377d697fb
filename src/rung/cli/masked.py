"""What `rung predict` and `rung eval` do with a masked language model: fill gaps, and measure how usual a text is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rung.cli.threads import settle_threads
from rung.errors import UsageError

if TYPE_CHECKING:
    from rung.tasks.masked_language_modelling.model import Candidate, Filling

_CANDIDATES = 5


def fill_masks(run: Path, texts: list[str], *, best: int | None, as_json: bool) -> None:
    """Show what may stand at each mask of `texts`, `best` tokens each (default: 5)."""
    if not texts:
        raise UsageError("there is no text to fill", hint=f'rung predict {run} "Paris is the [MASK] of France"')
    settle_threads()
    from rung.cli.console import print_json
    from rung.tasks.masked_language_modelling.model import load

    model = load(run)
    found = [model.fill(text, best or _CANDIDATES) for text in texts]
    if as_json:
        print_json({"run": str(run), "predictions": [one.to_json() for one in found]})
        return
    for one in found:
        for line in _lines(one):
            typer.echo(line)


def _lines(filling: Filling) -> list[str]:
    """The filled text, and below it the candidates, gap by gap."""
    width = max(len(_shown(one)) for mask in filling.masks for one in mask)
    lines = [filling.filled]
    for number, mask in enumerate(filling.masks, start=1):
        if len(filling.masks) > 1:
            lines.append(f"gap {number}:")
        lines += [f"  {_shown(one):<{width}}  {one.probability:6.1%}" for one in mask]
    return lines


def _shown(candidate: Candidate) -> str:
    """Its text on one line, after an ellipsis where it goes on with the word before."""
    text = candidate.text if candidate.text.isprintable() else repr(candidate.text)[1:-1]
    return f"\N{HORIZONTAL ELLIPSIS}{text}" if candidate.joined else text


def evaluate_masked(run: Path, files: list[Path], threads: int | None, *, as_json: bool) -> None:
    """Pseudo-bits per byte of files of text, or of the text held out in training."""
    settle_threads()
    from rung.cli.console import print_json, results, watching
    from rung.tasks.masked_language_modelling.model import evaluate

    with watching(as_json=as_json) as watcher:
        found = evaluate(run, files, threads=threads, progress=watcher)
    if as_json:
        print_json(found.to_json())
        return
    console = results()
    console.print(str(found.record), markup=False)
    console.print(
        "Each token was guessed from both sides: not to be compared with the bits per byte of other language models."
    )
