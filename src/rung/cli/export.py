"""`rung export`: hand a model on in other programs' formats, with proof that it says the same there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rung.cli.options import Json, Run, examples
from rung.errors import UsageError

_EXAMPLES = examples(
    "rung export runs/my_texts --to hf                         # a clean folder for transformers",
    "rung export runs/my_texts --to gguf --dtype q8_0          # one file for llama.cpp",
    "rung export runs/my_classifier --to onnx                  # one file for onnxruntime",
    "rung export smollm2 --to hf --out smollm2-hf --dtype bf16",
    "rung export runs/my_vectors --to word2vec",
)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(
        "export", epilog=_EXAMPLES, short_help="Hand a model on: for transformers, llama.cpp, onnxruntime, word2vec."
    )(export)


def export(
    run: Run,
    *,
    to: Annotated[
        Literal["hf", "gguf", "onnx", "word2vec"],
        typer.Option(
            "--to",
            help="hf: transformers, sentence-transformers. gguf: llama.cpp. onnx: onnxruntime (encoders and classic "
            "networks). word2vec: gensim (word vectors).",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="A new folder.  [default: RUN-hf, RUN-gguf, ...]")
    ] = None,
    dtype: Annotated[
        Literal["f32", "f16", "bf16", "q8_0"] | None,
        typer.Option(
            "--dtype", show_default=False, help="Of the weights.  [default: hf as they are, gguf f16, onnx f32]"
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option(help="Compare scores and tokens with every other program here that reads the format.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Hand a model on in another format, with a model card. Adapters are merged into their base.

    The export is read back, by Rung and by transformers, sentence-transformers, llama.cpp and onnxruntime where they
    are installed; the largest difference of scores goes into the card. An export that differs is refused; one that no
    other program has read says so.
    """
    from rung.cli.console import print_json, results, watching
    from rung.export.exporting import export_model, export_word_vectors

    folder = out or _beside(run, to)
    if to == "word2vec":
        if dtype is not None:
            raise UsageError("word2vec's files have one type of number", hint="leave --dtype out")
        report = export_word_vectors(run, folder)
    else:
        with watching(as_json=as_json) as watcher:
            report = export_model(run, folder, to=to, dtype=dtype, verify=verify, progress=watcher)
    if as_json:
        print_json(report.to_json())
        return
    console = results()
    for line in report.lines():
        console.print(line, markup=False)


def _beside(run: Path, to: str) -> Path:
    """Where an export goes when nothing is said: RUN-hf, beside RUN; of a file without its ending."""
    named = run if run.name.strip(".") else run.resolve()  # `.` and `..` have no name of their own
    return named.with_name(f"{named.stem if named.is_file() else named.name}-{to}")
