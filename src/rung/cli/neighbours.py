"""`rung neighbours`: the words whose vectors stand nearest to a word's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rung.cli.options import Json, examples

_EXAMPLES = examples(
    "rung neighbours runs/my_texts whale",
    "rung neighbours runs/my_texts whale ship -k 5 --json",
    "rung neighbours glove.6B.100d.txt paris                     # a file of word2vec or GloVe",
)

Vectors = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run of `rung train --net word2vec|glove|...`, or a file of vectors.")
]
Count = Annotated[int, typer.Option("-k", metavar="N", min=1, help="How many.")]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("neighbours", epilog=_EXAMPLES, short_help="The words nearest to a word.")(neighbours)


def neighbours(
    run: Vectors,
    words: Annotated[list[str], typer.Argument(metavar="WORD...", help="Words.")],
    *,
    k: Count = 10,
    as_json: Json = False,
) -> None:
    """Show the words nearest to each WORD by cosine similarity.

    Vectors with n-grams (fasttext-vectors) know words that were never in their text.
    """
    from rung.tasks.word_vectors.using import load_vectors

    vectors = load_vectors(run)
    found = {word: vectors.neighbours(word, k) for word in words}
    if as_json:
        from rung.cli.console import print_json

        plain = {word: [one._asdict() for one in nearest] for word, nearest in found.items()}
        print_json({"run": str(run), "neighbours": plain})
        return
    for word, nearest in found.items():
        if len(found) > 1:
            typer.echo(word)
        for one in nearest:
            typer.echo(f"  {one.similarity:.3f}  {one.word}")
