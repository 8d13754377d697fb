"""The rungs of the ladder of language models, from counting words upwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rung.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class LanguageRung:
    """One kind of language model; `name` is also the family in its recipe (`net.family`).

    `is_counted`: it is counted in one pass, so that neither minutes nor a number of parameters shape it.
    """

    name: str
    description: str
    height: int
    is_counted: bool = False


LADDER = (
    LanguageRung("ngram", "counts of up to five tokens in a row, smoothed (modified Kneser-Ney)", 1, is_counted=True),
    LanguageRung("feedforward", "a window of tokens through one hidden layer (Bengio et al. 2003)", 3),
    LanguageRung("rnn", "Elman's recurrent network, one state carried from token to token", 5),
    LanguageRung("gru", "a recurrent network with two gates (Cho et al. 2014)", 5),
    LanguageRung("lstm", "a recurrent network with gates and a memory cell (Hochreiter and Schmidhuber 1997)", 5),
    LanguageRung("decoder", "a Transformer decoder: attention over all tokens before (Qwen3's shape)", 8),
)


def chosen_rungs(names: Sequence[str] | None) -> list[LanguageRung]:
    """The rungs of these names, or all, from the lowest up. UsageError for an unknown name, or fewer than two."""
    known = {rung.name: rung for rung in LADDER}
    wanted = list(known) if names is None else list(dict.fromkeys(names))
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"there is no rung '{name}' for raw text{did_you_mean(name, list(known))}", hint=", ".join(known)
            )
    if len(wanted) < 2:
        raise UsageError(f"one rung cannot be compared: {', '.join(wanted)}", hint="name at least two --rungs")
    return [rung for rung in LADDER if rung.name in wanted]
