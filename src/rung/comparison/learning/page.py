"""The learning page: what one or several runs recorded while they trained, side by side, as one static page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rung.comparison import report_text as words
from rung.comparison.learning import drawings
from rung.comparison.learning.findings import findings
from rung.comparison.learning.reading import Learning, read_learning
from rung.comparison.report_parts import bullets, esc, figure, heading, page, paragraph
from rung.runfolder import write_text
from rung.version import __version__

_NO_SIGNS = "No vital signs were recorded (training.vital_signs_every = 0, or a version of Rung from before them)."


def write_learning(folders: Sequence[Path], out: Path) -> list[str]:
    """Draw these run folders onto the page `out`; the sentences about what stands out.

    RunFolderError for a folder that has no readable record of training.
    """
    runs = read_learning(folders)
    told = [sentence for run in runs for sentence in findings(run)]
    write_text(out, learning_page(runs, told))
    return told


def learning_page(runs: Sequence[Learning], told: Sequence[str]) -> str:
    """The whole page."""
    command = "rung learning " + " ".join(shlex.quote(str(run.folder)) for run in runs)
    *others, last = [words.short(run.name, 40) for run in runs]
    names = f"{', '.join(others)} and {last}" if others else last
    title = f"How {names} learned"
    header = (
        f'<header><p class="question">{esc(_size(runs))}</p>{heading(title)}'
        f"{bullets(told) if told else paragraph('Nothing in the vital signs stands out.', 'why')}</header>"
    )
    sections = [
        ("loss", "Loss", _loss(runs, command)),
        ("gradients", "Gradients", _gradients(runs, command)),
        ("updates", "Updates", _updates(runs, command)),
        ("activations", "Activations", _activations(runs, command)),
        ("reach", "How far back", _reach(runs, command)),
    ]
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    footer = f"<footer>{paragraph(f'Made by Rung {__version__} on {made} with: {command}')}</footer>"
    return page(title, header, sections, footer, __version__)


def _size(runs: Sequence[Learning]) -> str:
    looks = sum(len(run.signs) for run in runs)
    steps = sum(int(run.steps[-1]["step"]) for run in runs)
    return f"{steps:,} steps of training, looked at {looks:,} times"


def _loss(runs: Sequence[Learning], command: str) -> str:
    return figure(drawings.losses(runs), "", command) + figure(drawings.rates(runs), "", command)


def _gradients(runs: Sequence[Learning], command: str) -> str:
    legend = (
        "Of the whole batch, before clipping. Norms that shrink from the output's layers to the input's mean that the "
        "first layers learn slowly; norms that grow over time, that training is about to fail."
    )
    layers = drawings.of_layers(runs, "gradient_norm", "Gradient norm by layer")
    silent = drawings.of_layers(runs, "without_gradient", "Units without any gradient", percent=True)
    return (
        paragraph(legend)
        + figure(drawings.gradient_norms(runs), "", command)
        + figure(layers, _NO_SIGNS, command)
        + (figure(silent, "", command) if silent else "")
    )


def _updates(runs: Sequence[Learning], command: str) -> str:
    legend = (
        "How far one step moves a layer's weights, as a share of their norm. About 0.001 (dashed) is usual; a layer "
        "far above is overwritten again and again, one far below stands still."
    )
    drawn = drawings.of_layers(runs, "update_ratio", "Update of a step as a share of the weights")
    return paragraph(legend) + figure(drawn, _NO_SIGNS, command)


def _activations(runs: Sequence[Learning], command: str) -> str:
    legend = (
        "Of what each layer puts out for some samples of the batch, without dropout. Deviations that shrink or grow "
        "from layer to layer shrink or grow gradients on the way back too."
    )
    spread = drawings.of_layers(runs, "std", "Standard deviation of outputs")
    full = drawings.of_layers(runs, "saturated", "Saturated outputs (beyond 0.97 of 1)", percent=True)
    return paragraph(legend) + figure(spread, _NO_SIGNS, command) + (figure(full, "", command) if full else "")


def _reach(runs: Sequence[Learning], command: str) -> str:
    legend = (
        "How strongly the network's state after the last token depends on the token d steps before: the norm of that "
        "gradient as a share of the one at d = 0. Where it is below 1 %, what is written there can hardly be learned. "
        "Drawn is the look with the median reach of those while there was much to learn: once a network is sure of "
        "its answer, its state depends on little."
    )
    absent = "Not recorded: these networks read no sequence from one end to the other."
    return (
        paragraph(legend)
        + figure(drawings.reach_curves(runs), absent, command)
        + figure(drawings.reach_over_time(runs), "", command)
    )
