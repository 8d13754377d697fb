"""`rung learning`: how a network learned, drawn from what its run recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rung.cli.options import Json, examples

_EXAMPLES = examples(
    "rung learning runs/my_texts",
    "rung learning runs/rnn runs/lstm --out rnn-and-lstm.html      # side by side",
)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("learning", epilog=_EXAMPLES, short_help="Draw how networks learned: gradients, updates, reach.")(
        learning
    )


def learning(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, also of runs that are training.")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.html", help="The page.  [default: learning.html in RUN]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw how networks learned: loss, learning rate, gradients, updates and activations by layer, gradient reach.

    All of it was recorded while training, at less than 1 % of its time. Several runs are drawn side by side.
    """
    from rung.cli.console import print_json, results
    from rung.comparison.learning.page import write_learning

    target = out or (runs[0] / "learning.html" if len(runs) == 1 else Path("learning.html"))
    told = write_learning(runs, target)
    if as_json:
        print_json({"page": str(target), "findings": told})
        return
    console = results()
    for sentence in told or ["Nothing in the vital signs stands out."]:
        console.print(sentence, markup=False)
    console.print(f"\nOpen [bold]{target}[/] in a browser.")
