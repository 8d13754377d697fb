"""From what a language model wrote to a label, or to the finding that it named none."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)  # reasoning that some servers leave in the answer
_EDGES = re.compile(r"^\W+|\W+$")


def parse_label(answer: str, label_names: Sequence[str]) -> int | None:
    """Return the index of the one label that `answer` names, or None where it names none or several.

    In this order: the answer is a label; it is one but for case, spaces and punctuation around it; it contains exactly
    one label as whole words (a label inside a longer one that is there does not count: "spam" in "not spam").
    """
    answer = _THOUGHTS.sub("", answer).strip()
    if answer in label_names:
        return label_names.index(answer)
    normalised = [_normalise(name) for name in label_names]
    wanted = _normalise(answer)
    if normalised.count(wanted) == 1:
        return normalised.index(wanted)
    found = set()
    rest = wanted
    for name in sorted(set(normalised) - {""}, key=len, reverse=True):
        rest, count = re.subn(rf"(?<!\w){re.escape(name)}(?!\w)", "\0", rest)
        if count:
            found.add(name)
    if len(found) == 1 and normalised.count(name := found.pop()) == 1:
        return normalised.index(name)
    return None


def first_token_probabilities(
    alternatives: Mapping[str, float], label_names: Sequence[str], answer: int
) -> NDArray[np.float64] | None:
    """Return (classes,) probabilities from the log-probabilities of an answer's first token, or None.

    `alternatives` maps first tokens to natural logarithms. A token counts for the one label that begins with it; what
    is left of the mass (tokens that begin no label or several, and those the server did not list) is spread evenly.
    None where these tokens do not single out the label that was answered: then the answer counts, not they.
    """
    normalised = [_normalise(name) for name in label_names]
    mass = np.zeros(len(label_names))
    for token, logprob in alternatives.items():
        start = _normalise(token)
        beginning = [index for index, name in enumerate(normalised) if start and name.startswith(start)]
        if len(beginning) == 1:
            mass[beginning[0]] += math.exp(min(logprob, 0.0))
    total = float(mass.sum())
    probabilities: NDArray[np.float64] = mass / total if total >= 1 else mass + (1 - total) / len(mass)
    singled_out = (probabilities < probabilities[answer]).sum() == len(mass) - 1
    return probabilities if singled_out else None


def _normalise(text: str) -> str:
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return _EDGES.sub("", folded) or folded
