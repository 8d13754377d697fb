"""`rung quickstart`: a small language model in minutes, from a novel in the box."""

from __future__ import annotations

from pathlib import Path

import typer

from rung.cli.options import Json, Minutes, Out, command_started, examples
from rung.cli.threads import settle_threads

NOVEL = Path(__file__).parents[1] / "assets" / "bleak_house.txt.xz"
_MINUTES = 2.5
_WELCOME = """Rung trains a language model on "Bleak House" by Charles Dickens (1.9 MB of text) on this machine.
It takes {minutes} minutes and starts from nothing: no pretrained weights, nothing is downloaded.
"""
_EXAMPLES = examples("rung quickstart", "rung quickstart --minutes 10        # a better model of the same book")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("quickstart", epilog=_EXAMPLES, short_help="Train on a novel in the box, in minutes. Start here.")(
        quickstart
    )


def quickstart(minutes: Minutes = _MINUTES, out: Out = None, as_json: Json = False) -> None:
    """Train a small language model on "Bleak House" by Charles Dickens, which ships with Rung, and let it write.

    The whole way in a few minutes: reading, a tokenizer, a plan for this machine, training, an honest figure beside
    gzip and xz, a sample, and a folder that transformers opens too.
    """
    settle_threads()
    from rung.cli.console import watching
    from rung.cli.reports import end_training
    from rung.tasks import language_modelling

    with watching(as_json=as_json) as watcher:
        watcher.say(_WELCOME.format(minutes=f"{minutes:g}"))
        summary = language_modelling.train(
            [NOVEL], minutes=minutes, out=out, started=command_started(), progress=watcher, display=watcher
        )
    end_training(summary, as_json=as_json)
