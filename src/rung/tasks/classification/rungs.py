"""The rungs of the text classification ladder, from the lowest up. Each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from rung.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from rung.tasks.task import Rung

FOLDER_PREFIX = "folder:"

_COUNTING, _NETWORKS = "rung.tasks.classification.counting", "rung.tasks.classification.networks"
_HOMES = {
    "majority": (_COUNTING, "MajorityRung"),
    "naive-bayes": (_COUNTING, "NaiveBayesRung"),
    "linear": (_COUNTING, "LinearRung"),
    "feedforward": ("rung.tasks.classification.feedforward", "FeedForwardRung"),
    "cnn": (_NETWORKS, "cnn"),
    "rnn": (_NETWORKS, "rnn"),
    "lstm": (_NETWORKS, "lstm"),
    "gru": (_NETWORKS, "gru"),
    "encoder": (_NETWORKS, "encoder"),
    "encoder-pretrained": (_NETWORKS, "encoder_pretrained"),
    "decoder": (_NETWORKS, "decoder"),
}
NAMES = tuple(_HOMES)


def make_rung(name: str, bases: Sequence[str] = ()) -> Rung:
    """The rung called `name`, `folder:PATH` for a pretrained network, or one of a base, such as `minilm-frozen`.

    `bases` are those that were named, besides those with short names. UsageError for an unknown name.
    """
    if name.startswith(FOLDER_PREFIX):
        from rung.tasks.classification.pretrained import FolderRung

        return FolderRung(name.removeprefix(FOLDER_PREFIX))
    if name not in _HOMES:
        from rung.tasks.classification.pretrained import base_of, make_pretrained

        if (base := base_of(name, bases)) is not None:
            return make_pretrained(name, base)
        raise UsageError(
            f"there is no rung called '{name}'{did_you_mean(name, NAMES)}",
            hint=f"the rungs are: {', '.join(NAMES)}; and those of a base, such as minilm or smollm2",
        )
    module, attribute = _HOMES[name]
    rung: Rung = getattr(import_module(module), attribute)()
    return rung


def make_rungs(names: Sequence[str], bases: Sequence[str] = ()) -> list[Rung]:
    """These rungs from the lowest up, each once."""
    made = [make_rung(name, bases) for name in dict.fromkeys(names)]
    return sorted(made, key=lambda rung: rung.height)
