"""From a chat model and files of pairs to rows of tokens, and what the model itself says of them before it is tuned."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rung.data.conversation_split import PARTS
from rung.data.preference_rows import EncodedPairs, PairBatches, PairRows, encode_pairs
from rung.data.preferences import Preference, PreferenceSplit, read_preferences, split_preferences
from rung.objectives.preference import scores_of_pairs
from rung.progress import Progress
from rung.runfolder import readable_write_errors
from rung.tasks.chat.preference_recipe import PreferenceRecipe
from rung.tasks.chat.preparation import ChatBase, dated, open_base, require_learnable

REFERENCE = "reference.safetensors"


@dataclass(frozen=True)
class PreparedPairs:
    """The base, the split, and each part as rows of pairs."""

    base: ChatBase
    split: PreferenceSplit
    encoded: dict[str, EncodedPairs]

    @property
    def remarks(self) -> list[str]:
        """Sentences about what was left out."""
        told = [
            f"{part}: {one.left_out:,} pairs left out: an answer does not fit the context, or has no token"
            for part, one in self.encoded.items()
            if one.left_out
        ]
        return [*self.split.remarks, *told]

    @cached_property
    def sha256(self) -> str:
        """Hash over all parts, the template and the tokenizer: the identity of what is learned and measured."""
        parts = [getattr(self.split, part).sha256 for part in PARTS]
        template = hashlib.sha256(self.base.template.source.encode()).hexdigest()
        return hashlib.sha256("\n".join([*parts, template, self.base.tokenizer.sha256]).encode()).hexdigest()

    def rows(self, part: str) -> PairRows:
        """The rows of a part."""
        return self.encoded[part].rows

    def kept(self, part: str) -> list[Preference]:
        """The pairs of a part that became rows, in their order."""
        items: list[Preference] = getattr(self.split, part).items
        return [items[number] for number in self.encoded[part].kept]

    def facts(self) -> dict[str, Any]:
        """What the data come to."""
        found: dict[str, Any] = {f"{part}_pairs": len(one.rows) for part, one in self.encoded.items()}
        return {**found, "longest_answer": self.rows("train").context_length, "remarks": self.remarks}


def prepare_pairs(recipe: PreferenceRecipe, progress: Progress) -> tuple[PreferenceRecipe, PreparedPairs]:
    """Read, split and render; and the recipe with the date it was done with.

    Raises DataError, TokenizerError, RunFolderError or UsageError.
    """
    data = recipe.data
    recipe, base = dated(recipe, open_base(recipe.base, template=data.template))
    require_learnable(base, recipe.tuning)
    valid, test = (read_preferences(files, progress=progress) if files else None for files in (data.valid, data.test))
    split = split_preferences(
        read_preferences(data.files, progress=progress),
        valid=valid,
        test=test,
        seed=recipe.seed,
        valid_share=data.valid_share,
        test_share=data.test_share,
    )
    limit = min(recipe.training.context_length or base.context_length, base.context_length)
    encoded = {
        part: encode_pairs(
            getattr(split, part).items,
            base.template,
            base.tokenizer,
            context_length=limit,
            base_length=base.context_length,
            progress=progress,
        )
        for part in PARTS
    }
    return recipe, PreparedPairs(base, split, encoded)


@torch.no_grad()
def pair_scores(
    net: Any, rows: PairRows, numbers: NDArray[np.int64], *, batch_size: int, progress: Progress, label: str
) -> NDArray[np.float64]:
    """(pairs, 2) ln P of the chosen and rejected answers of the pairs `numbers` under `net`; NaN for all others.

    Pairs of like length are read together.
    """
    was_training = net.training
    net.eval()
    device = next(net.parameters()).device
    found = np.full((len(rows), 2), np.nan)
    lengths = rows.examples.lengths.reshape(-1, 2).sum(1)
    by_length = numbers[np.argsort(lengths[numbers], kind="stable")]
    with progress.task(label, len(numbers), "pairs") as advance:
        for start in range(0, len(numbers), batch_size):
            some = by_length[start : start + batch_size]
            batch = {name: tensor.to(device) for name, tensor in rows.collate(some.tolist()).items()}
            found[some] = scores_of_pairs(net, batch)[0].double().cpu().numpy()
            advance(len(some))
    net.train(was_training)
    return found


def kept_reference(folder: Path, identity: str) -> dict[str, NDArray[np.float64]] | None:
    """The reference's scores of each part that a run keeps, or None when they are not those of `identity`."""
    path = folder / REFERENCE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            if (file.metadata() or {}).get("identity") != identity:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):  # it can be computed again, so a damaged file loses nothing
        return None


def keep_reference(folder: Path, scores: dict[str, NDArray[np.float64]], identity: str) -> None:
    """Write the reference's scores into the run's folder."""
    with readable_write_errors(folder / REFERENCE):
        save_file(scores, folder / REFERENCE, metadata={"identity": identity})


def batches(
    prepared: PreparedPairs, reference: dict[str, NDArray[np.float64]], part: str, seed: int | None
) -> PairBatches:
    """The batches of a part; see `PairBatches`."""
    return PairBatches(prepared.rows(part), reference[part], seed=seed)
