"""`rung analogy`: a is to b as c is to ..."""

from __future__ import annotations

from typing import Annotated

import typer

from rung.cli.neighbours import Count, Vectors
from rung.cli.options import Json, examples

_EXAMPLES = examples(
    "rung analogy runs/my_texts man king woman                   # man is to king as woman is to ...",
    "rung analogy glove.6B.100d.txt paris france rome -k 3 --json",
)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("analogy", epilog=_EXAMPLES, short_help="A is to B as C is to ...")(analogy)


def analogy(
    run: Vectors,
    a: Annotated[str, typer.Argument(metavar="A", help="A word.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What it goes with.")],
    c: Annotated[str, typer.Argument(metavar="C", help="The word whose counterpart is sought.")],
    *,
    k: Count = 5,
    as_json: Json = False,
) -> None:
    """Answer "A is to B as C is to ...": the words nearest to B - A + C, the three left out (3CosAdd)."""
    from rung.tasks.word_vectors.using import load_vectors

    found = load_vectors(run).analogy(a, b, c, k)
    if as_json:
        from rung.cli.console import print_json

        print_json({"run": str(run), "question": [a, b, c], "answers": [one._asdict() for one in found]})
        return
    typer.echo(f"{a} is to {b} as {c} is to")
    for one in found:
        typer.echo(f"  {one.similarity:.3f}  {one.word}")
