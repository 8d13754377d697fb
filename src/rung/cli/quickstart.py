"""`rung quickstart`: the whole ladder in minutes on messages in the box; or a language model from a novel."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rung.cli.options import Json, Minutes, Out, command_started, examples
from rung.cli.threads import settle_threads

ASSETS = Path(__file__).parents[1] / "assets"
NOVEL = ASSETS / "bleak_house.txt.xz"
MESSAGES = ASSETS / "sms_spam.csv.xz"
_LADDER_MINUTES, _NOVEL_MINUTES = 4.5, 2.5
_MINUTES_OF_A_BASE = 1.5
_MINUTES_FOR_LORA = 30.0  # on two cores, one reading of the messages by a decoder of 135 M parameters takes ten
_RUNGS = "majority,naive-bayes,linear,feedforward,cnn,lstm,encoder-pretrained,decoder"
_CURVES = "naive-bayes,linear,feedforward"
_LADDER = """Which text messages are spam, and do you need a large network to tell? Rung climbs a ladder on 4,574
labelled messages (SMS Spam Collection, CC BY 4.0): from counting words to a small GPT that first reads 1,000 more.
It takes {minutes:g} minutes; nothing is downloaded. {bases}
"""
_NO_BASES = """These networks start from nothing. Pretrained ones join when they are installed:
{commands}"""
_WITH_BASES = "Pretrained models that are installed join: {names}."
_ABOUT_NOVEL = """Rung trains a language model on "Bleak House" by Charles Dickens (1.9 MB of text) on this machine.
It takes {minutes:g} minutes and starts from nothing: no pretrained weights, nothing is downloaded.
"""
_EXAMPLES = examples(
    "rung quickstart                       # the ladder: which rung is enough?",
    "rung quickstart novel                 # raw text in, a language model out",
    "rung quickstart novel --minutes 10    # a better model of the same book",
)


class Story(StrEnum):
    """What there is to see."""

    LADDER = "ladder"
    NOVEL = "novel"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("quickstart", epilog=_EXAMPLES, short_help="The whole story on data in the box. Start here.")(
        quickstart
    )


def quickstart(
    story: Annotated[Story, typer.Argument(metavar="[ladder|novel]", help="What to see.")] = Story.LADDER,
    minutes: Minutes = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Climb the whole ladder on text messages that ship with Rung, in minutes; ends with a report to open.

    Every rung is trained on the same items, measured on the same items, and judged by the same statistics. With
    `novel`: a small language model of a novel, with an honest figure beside gzip and xz, and a sample.
    """
    if story is Story.NOVEL:
        _novel(minutes or _NOVEL_MINUTES, out, as_json=as_json)
        return
    settle_threads()
    from rung.cli.compare import compare
    from rung.tasks.bases import KNOWN_BASES
    from rung.tasks.classification.pretrained import LORA, installed_bases, names_of
    from rung.tasks.run import free_folder

    bases = installed_bases()
    minutes = minutes or _LADDER_MINUTES + _MINUTES_OF_A_BASE * len(bases)
    of_bases = [name for base in bases for name in names_of(base)]
    if minutes < _MINUTES_FOR_LORA:
        of_bases = [name for name in of_bases if not name.endswith(LORA)]
    if not as_json:
        missing = [f"    {base.install_command}" for name, base in KNOWN_BASES.items() if name not in bases]
        said = _WITH_BASES.format(names=", ".join(bases)) if bases else _NO_BASES.format(commands="\n".join(missing))
        typer.echo(_LADDER.format(minutes=minutes, bases=said), err=True)
    compare(
        [MESSAGES],
        target="label",
        text=["text"],
        minutes=minutes,
        rungs=",".join((_RUNGS, *of_bases)),
        curves=_CURVES,
        out=out or free_folder("quickstart"),
        as_json=as_json,
    )


def _novel(minutes: float, out: Path | None, *, as_json: bool) -> None:
    settle_threads()
    from rung.cli.console import watching
    from rung.cli.reports import end_training, show_training
    from rung.tasks import language_modelling

    with watching(as_json=as_json) as watcher:
        watcher.say(_ABOUT_NOVEL.format(minutes=minutes))
        summary = language_modelling.train(
            [NOVEL], minutes=minutes, out=out, started=command_started(), progress=watcher, display=watcher
        )
    end_training(summary, show_training, as_json=as_json)
