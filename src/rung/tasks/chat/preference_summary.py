"""What is measured and told of a model tuned by preferences: to who tuned it, and on its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rung.evaluation.intervals import compare, interval
from rung.evaluation.proportions import wilson
from rung.objectives.preference import DirectPreference
from rung.records import ItemScores, Record
from rung.tasks.chat.preference_recipe import PreferenceRecipe
from rung.tasks.run import Run
from rung.tasks.tuning.card import TunedCard, parts_in_words
from rung.tasks.tuning.summary import Tuned

Floats = NDArray[np.float64]
REWARD_ACCURACY, REWARD_MARGIN = "reward_accuracy", "reward_margin"
LIKELIER, LIKELIER_BY_TOKEN = "likelihood_accuracy", "likelihood_accuracy_by_token"
_WHAT = {
    LIKELIER: "share of pairs whose chosen answer is the likelier one",
    LIKELIER_BY_TOKEN: "share of pairs whose chosen answer is the likelier one by token",
}


def before(name: str) -> str:
    """The name of the base's record."""
    return f"{name}_before"


def gain(name: str) -> str:
    """The name of the difference to the base."""
    return f"difference in {name}"


def preference_records(
    ids: Sequence[str],
    *,
    base: Floats,
    tuned: Floats,
    tokens: NDArray[np.int64],
    objective: DirectPreference,
    drift: ItemScores | None,
    data_sha256: str,
) -> tuple[list[Record], dict[str, ItemScores]]:
    """How often the chosen answer of a pair is preferred, by three measures; and how far the model has moved.

    `base` and `tuned`: (pairs, 2) ln P of the chosen and the rejected answer, `tokens` their lengths. Rewards are those
    of DPO, gains over the base; all are 0 for the base, so chance decides. Plain likelihood asks more: the chosen
    answer must have overtaken the other. Summed over tokens that is mostly a question of which is shorter; by token it
    is not (Meng et al. 2024, arXiv 2405.14734, section 2.2). `drift`: see `PreferenceTuning`.
    """
    ones = np.ones(len(ids))
    margins = objective.margins(torch.from_numpy(tuned - base), torch.from_numpy(tokens)).numpy()
    scores = {REWARD_ACCURACY: margins > 0, REWARD_MARGIN: margins}
    how = {
        REWARD_ACCURACY: "share of pairs whose chosen answer gained more over the base, where it is 0.5 by definition",
        REWARD_MARGIN: f"beta {objective.beta:g} x (gain of the chosen - gain of the rejected answer)",
    }
    for name, over in ((LIKELIER, 1), (LIKELIER_BY_TOKEN, tokens)):
        for one, found in ((before(name), base / over), (name, tuned / over)):
            scores[one], how[one] = found[:, 0] > found[:, 1], _WHAT[name]
    items = {name: ItemScores(list(ids), one.astype(np.float64), ones) for name, one in scores.items()}
    measured = {
        name: Record(
            name=name,
            value=one.mean,
            unit="nats" if name == REWARD_MARGIN else "share",
            n=len(ids),
            interval=interval(one) if name == REWARD_MARGIN else wilson(int(one.values.sum()), len(ids)),
            signature=how[name],
            data_sha256=data_sha256,
        )
        for name, one in items.items()
    }
    records = [measured[REWARD_ACCURACY], measured[REWARD_MARGIN]]
    for name in _WHAT:
        difference = compare(items[name], items[before(name)], name=name, unit="share")
        records += [measured[before(name)], measured[name], difference]
    if drift is not None:
        items["kl"] = drift
        records.append(
            Record(
                name="kl",
                value=drift.mean,
                unit="nats/answer",
                n=len(drift.ids),
                interval=interval(drift),
                signature="divergence from the base, from one sampled answer to each of the first test prompts",
                data_sha256=data_sha256,
            )
        )
    return records, items


@dataclass(frozen=True)
class PreferenceTuned(Tuned[PreferenceRecipe]):
    """How tuning by preferences went."""

    items = unit = "pairs"
    next_commands = ("rung chat {run}",)

    def card(self, run: Run, recipe: PreferenceRecipe) -> str:
        """The model card of a finished run."""
        data, training = run.header["data"], recipe.training
        form = "means over tokens" if recipe.preference.length_normalised else "sums over tokens"
        remarks = ["no prompt of one part is like one of another", *data["remarks"]]
        return TunedCard(
            pipeline_tag="text-generation",
            tags=("rung", "chat", "dpo"),
            about="tuned by direct preference optimisation (arXiv 2305.18290) to prefer the better of two answers;\n"
            "the base is the reference",
            data=parts_in_words(data, self.items, remarks=remarks, key="{}_pairs"),
            steps=f"{training.batch_size} pairs, beta {recipe.beta:g} on {form}, {training.optimizer}",
            limits="It prefers what the pairs prefer, and still invents what it does not know.",
        ).text(run, recipe, self)
