"""`rung vectors`: word vectors into a file that other programs read, or from such a file into a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rung.cli.neighbours import Vectors
from rung.cli.options import Json, examples, exclusive
from rung.errors import UsageError

_EXAMPLES = examples(
    "rung vectors runs/my_texts --to vectors.txt                 # word2vec's text, which gensim opens",
    "rung vectors runs/my_texts --to vectors.bin                 # word2vec's binary format",
    "rung vectors runs/my_texts --to vectors.txt.gz --format glove",
    "rung vectors GoogleNews-vectors.bin.gz --out runs/google    # a file into a run folder",
)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("vectors", epilog=_EXAMPLES, short_help="Word vectors into and out of files.")(vectors)


def vectors(
    run: Vectors,
    *,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Write this file; .gz and .xz are compressed.")
    ] = None,
    file_format: Annotated[
        Literal["word2vec", "word2vec-binary", "glove"] | None,
        typer.Option("--format", show_default=False, help="Its format.  [default: by .bin, else word2vec's text]"),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Make this run folder.")] = None,
    as_json: Json = False,
) -> None:
    """Write word vectors to a file in word2vec's or GloVe's format (--to), or make a run folder of one (--out)."""
    exclusive(to=to, out=out)
    exclusive(format=file_format, out=out)
    from rung.tasks.word_vectors.using import export_vectors, import_vectors

    if to is not None:
        written, made = export_vectors(run, to, file_format=file_format), to
    elif out is not None:
        written, made = import_vectors(run, out), out
    else:
        raise UsageError("where the vectors go is missing", hint="give --to FILE, or --out DIR for a run folder")
    if as_json:
        from rung.cli.console import print_json

        print_json({"written": str(made), "words": len(written), "vector_size": written.vector_size})
        return
    typer.echo(f"{len(written):,} words of {written.vector_size} dimensions in {made}")
    if to is not None and written.subwords is not None:
        typer.echo("  vectors of n-grams have no place in this format: unknown words need the run folder")
