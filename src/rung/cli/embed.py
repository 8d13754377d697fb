"""`rung embed`: vectors of texts by a sentence encoder, and how alike the texts are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rung.cli.options import Json, examples, exclusive
from rung.errors import UsageError

if TYPE_CHECKING:
    from rung.tasks.similarity.encoder import Embeddings, SentenceEncoder

_EXAMPLES = examples(
    'rung embed minilm "A man is eating." "Someone has lunch." "The stock fell."',
    "rung embed minilm --input questions.txt --out questions.npy",
    "rung embed runs/my_pairs --input questions.csv --text question --out questions.parquet",
    'rung embed models/e5-small "how tall is the tower" --prompt query --json',
)
_SHOWN = 10
_WIDTH = 60


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("embed", epilog=_EXAMPLES, short_help="Texts as vectors, and how alike they are.")(embed)


def embed(
    base: Annotated[
        str, typer.Argument(metavar="BASE", help="A run, a folder of sentence-transformers, or a name: minilm.")
    ],
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT", show_default=False, help="Texts.")] = None,
    *,
    source: Annotated[
        Path | None, typer.Option("--input", "-i", metavar="FILE", help="A text file, one text a line, or a table.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="COL", show_default=False, help="The table's column of text.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where the vectors go: .npy .jsonl .parquet.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", metavar="NAME", help="A prompt of the model's, put before every text.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn texts into vectors that lie close together where the texts mean the same.

    Without --out, the texts are compared with each other.
    """
    exclusive(TEXT=texts, input=source)
    if not texts and source is None:
        raise UsageError("there is nothing to embed", hint="give texts, or a file: --input texts.txt")
    if text and source is None:
        raise UsageError("--text names a column of a table", hint="name the table with --input")
    from rung.cli.console import print_json, watching
    from rung.cli.threads import settle_threads
    from rung.tasks.similarity.embedding_files import check_output, read_texts, write_embeddings
    from rung.tasks.similarity.encoder import load_sentence_encoder

    if out is not None:
        check_output(out)
    elif source is not None and not as_json:
        raise UsageError("where the vectors go is missing", hint="give --out vectors.npy, or --json")
    settle_threads()
    with watching(as_json=as_json) as watcher:
        wanted = read_texts(source, text or (), progress=watcher) if source is not None else texts or []
        model = load_sentence_encoder(base)
        if model.note:
            watcher.say(model.note)
        found = model.embeddings(wanted, prompt=prompt, progress=watcher)
        if found.truncated:
            watcher.say(_cut(found, len(wanted)))
    if out is not None:
        write_embeddings(out, wanted, found.vectors)
    if as_json:
        print_json(_as_json(base, model, wanted, found, out))
    elif out is not None:
        typer.echo(f"{len(wanted):,} vectors of {model.dimension} numbers in {out}")
    else:
        _compare(model, wanted, found)


def _cut(found: Embeddings, texts: int) -> str:
    return f"{found.truncated:,} of {texts:,} texts were read up to {found.max_length} tokens only"


def _as_json(
    base: str, model: SentenceEncoder, texts: list[str], found: Embeddings, out: Path | None
) -> dict[str, Any]:
    result = {
        "base": base,
        "texts": len(texts),
        "dimension": model.dimension,
        "max_length": found.max_length,
        "truncated": found.truncated,
    }
    return {**result, "output": str(out)} if out is not None else {**result, "vectors": found.vectors.tolist()}


def _compare(model: SentenceEncoder, texts: list[str], found: Embeddings) -> None:
    """The pairs of texts that are most alike; a single text has nothing to be compared with."""
    if len(texts) == 1:
        typer.echo(f"a vector of {model.dimension} numbers; give --out FILE or --json to have it")
        return
    alike = model.similarity(found.vectors, found.vectors)
    pairs = [(float(alike[i, j]), i, j) for i in range(len(texts)) for j in range(i)]
    for value, i, j in sorted(pairs, reverse=True)[:_SHOWN]:
        typer.echo(f"{value:6.3f}  {_short(texts[j])}  |  {_short(texts[i])}")
    if len(pairs) > _SHOWN:
        typer.echo(f"the {_SHOWN} of {len(pairs):,} pairs that are most alike")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 3] + "..."
